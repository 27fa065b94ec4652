//! The messages of the stream from one member of a chain to the next.

use super::Pass;
use crate::store::Packet;
use bytes::Bytes;
use dfs_proto::Error;
use dfs_proto::pb::{self, from_server, to_server};

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

/// A packet with its number, and what is committed; its bytes are the payload.
pub(crate) fn packet(number: u64, packet: Packet, sync: bool, committed: u64) -> (Down, Bytes) {
    let head = pb::ChainPacket {
        number,
        writer: packet.writer.0,
        sequence: packet.sequence,
        offset: packet.offset,
        checksums: packet.checksums,
        sync,
        committed,
    };
    (down(to_server::Body::ChainPacket(head)), packet.data)
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
