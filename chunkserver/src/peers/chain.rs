//! The messages of the stream from one member of a chain to the next.

use super::Pass;
use crate::store::Packet;
use bytes::Bytes;
use dfs_proto::Error;
use dfs_proto::limits::PACKET_BYTES_MAX;
use dfs_proto::pb::{self, from_server, to_server};
use dfs_proto::span::{cuts, pieces};

/// A message down the chain.
pub(crate) type Down = pb::ToServer;
/// A message up the chain.
pub(crate) type Up = pb::FromServer;

/// What the next member says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It takes the stream.
    Opened,
    /// Applied there and below, up to this number.
    Acked(u64),
    /// The stream has ended in order.
    Closed,
}

/// Reads a message from below; an error is the member's own.
pub(crate) fn heard(message: Up) -> Result<Heard, Error> {
    match (message.error, message.body) {
        (Some(error), _) => Err(error.into()),
        (None, Some(from_server::Body::ChainAck(ack))) => Ok(Heard::Acked(ack.number)),
        (None, Some(from_server::Body::ChainOpened(_))) => Ok(Heard::Opened),
        (None, _) => Ok(Heard::Closed),
    }
}

/// Opens the stream; all that comes up it carries its `id`.
pub(crate) fn open(id: u64, pass: Pass, incarnation: u64, (first, fresh): (u64, bool)) -> Down {
    let open = to_server::Body::ChainOpen(pb::ChainOpen {
        capability: Some(pass.0),
        incarnation,
        first,
        fresh,
    });
    Down { id, body: Some(open) }
}

/// A packet with its number, and what is committed, in one frame; a record over a mebibyte in several, cut at
/// mebibytes of the chunk. The bytes are the payloads.
pub(crate) fn packet(number: u64, packet: Packet, sync: bool, committed: u64) -> Vec<(Down, Bytes)> {
    let frame = |offset, data: Bytes, checksums, more| {
        let head = pb::ChainPacket {
            number,
            writer: packet.writer.0,
            sequence: packet.sequence,
            offset,
            checksums,
            sync,
            committed,
            more,
        };
        (down(to_server::Body::ChainPacket(head)), data)
    };
    if packet.data.len() <= PACKET_BYTES_MAX {
        return vec![frame(packet.offset, packet.data.clone(), packet.checksums, false)];
    }
    let (length, mut checksums) = (packet.data.len() as u64, packet.checksums);
    let parts = cuts(packet.offset, length, PACKET_BYTES_MAX as u64).map(|cut| {
        let offset = packet.offset + cut.at;
        let rest = checksums.split_off(pieces(offset, cut.length).count().min(checksums.len()));
        let own = std::mem::replace(&mut checksums, rest);
        let start = usize::try_from(cut.at).expect("a buffer is addressable");
        let end = start + usize::try_from(cut.length).expect("a buffer is addressable");
        frame(
            offset,
            packet.data.slice(start..end),
            own,
            cut.at + cut.length < length,
        )
    });
    parts.collect()
}

/// What is committed, where no packet carries it.
pub(crate) fn committed(number: u64) -> Down {
    down(to_server::Body::ChainCommitted(pb::ChainCommitted {
        committed: number,
    }))
}

/// Ends the stream in order: all that was sent is acknowledged, or nobody wants to know any more (`unanswered`).
pub(crate) fn close(unanswered: bool) -> Down {
    down(to_server::Body::StreamClose(pb::StreamClose { unanswered }))
}

fn down(body: to_server::Body) -> Down {
    Down {
        id: 0,
        body: Some(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::WriterId;
    use dfs_proto::checksum::{of_pieces, verify_pieces};

    #[test]
    fn a_large_record_travels_in_parts_that_verify_and_meet_at_block_edges() {
        let data = Bytes::from((0..3_000_000u32).map(|n| n as u8).collect::<Vec<_>>());
        let record = Packet {
            writer: WriterId(1),
            sequence: 2,
            offset: 70_001,
            checksums: of_pieces(70_001, &data),
            data: data.clone(),
        };
        let frames = packet(9, record, true, 8);
        let mut at = 70_001;
        for (n, (down, payload)) in frames.iter().enumerate() {
            let Some(to_server::Body::ChainPacket(head)) = &down.body else {
                panic!("{down:?}")
            };
            assert_eq!(
                (head.number, head.offset, head.more),
                (9, at, n + 1 < frames.len())
            );
            assert!(verify_pieces(head.offset, payload, &head.checksums));
            assert!(payload.len() <= PACKET_BYTES_MAX);
            at += payload.len() as u64;
        }
        assert_eq!(at, 70_001 + data.len() as u64);
    }
}
