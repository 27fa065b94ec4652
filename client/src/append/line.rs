//! One producer's stream of records to the head of a chunk.

use super::place::Place;
use crate::convert::data::{self, Acked, FromServer, Heard, PacketHeader};
use crate::engine::Core;
use crate::servers::Stream;
use bytes::Bytes;
use dfs_proto::checksum::of_pieces;
use dfs_proto::limits::PACKET_BYTES_MAX;
use dfs_proto::span::cuts;
use dfs_proto::{ChunkHandle, Code, Error, Result, Version};
use std::time::Duration;
use tokio::time::timeout;

/// The stream, while it is good.
#[derive(Debug)]
pub(super) struct Line {
    stream: Stream,
    /// What it leads to.
    to: (ChunkHandle, Version),
}

/// What the head says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// All members have it.
    In {
        /// Where it begins in the chunk; `None` if it was repeated after a later one.
        offset: Option<u64>,
        /// The chunk's length that all members have.
        length: u64,
    },
    /// It is not in the chunk, and never will be: the chunk's length is final.
    Full {
        /// That length.
        length: u64,
    },
}

impl Line {
    /// Dials the head and begins; the head's answer comes before that to the first record.
    pub(super) async fn open(core: &Core, place: &Place, producer: u64) -> Result<Line> {
        let head = place.head();
        let by = core.clock.now() + core.master.timings().ack_deadline;
        let opening = tokio::time::timeout_at(by, core.servers.fresh_stream(head));
        let late = |_| place.blame(Error::new(Code::TimedOut, "the head's connection does not open"));
        let mut stream = opening.await.map_err(late)?.map_err(|e| place.blame(e))?;
        let open = data::records_open(&place.grant.token, producer);
        let queued = stream.writer.queue(&open, Bytes::new()).await;
        queued.map_err(|e| place.broken(&e))?;
        Ok(Line {
            stream,
            to: place.is(),
        })
    }

    /// True if it leads to this chunk at this version.
    pub(super) fn leads_to(&self, place: &Place) -> bool {
        self.to == place.is()
    }

    /// Sends a record and waits for the word on it. After an error the line is of no use.
    pub(super) async fn put(
        &mut self,
        place: &Place,
        sequence: u64,
        record: &Bytes,
        patience: Duration,
    ) -> Result<Put> {
        let late = |_| place.blame(Error::new(Code::TimedOut, "no acknowledgement came in time"));
        timeout(patience, self.put_patiently(place, sequence, record))
            .await
            .map_err(late)?
    }

    async fn put_patiently(&mut self, place: &Place, sequence: u64, record: &Bytes) -> Result<Put> {
        let length = record.len() as u64;
        for part in cuts(0, length, PACKET_BYTES_MAX as u64) {
            let offset = part.index * PACKET_BYTES_MAX as u64;
            let start = usize::try_from(part.at).expect("a buffer is addressable");
            let end = start + usize::try_from(part.length).expect("a buffer is addressable");
            let bytes = record.slice(start..end);
            let header = PacketHeader {
                sequence,
                offset,
                checksums: of_pieces(offset, &bytes),
                sync: false,
                more: part.at + part.length < length,
            };
            let queued = self.stream.writer.queue(&data::packet(header), bytes).await;
            queued.map_err(|e| place.broken(&e))?;
        }
        self.stream.writer.flush().await.map_err(|e| place.broken(&e))?;
        loop {
            let message = match self.stream.reader.next::<FromServer>().await {
                Ok(Some((message, _))) => message,
                Ok(None) => return Err(place.broken(&"it closed the stream")),
                Err(error) => return Err(place.broken(&error)),
            };
            match data::heard(message).map_err(|e| place.blame(e))? {
                Heard::Opened(_) => {}
                Heard::Acked(acked) => {
                    if let Some(put) = said(acked, sequence) {
                        return Ok(put);
                    }
                }
                Heard::Closed => return Err(place.broken(&"it ended the stream")),
            }
        }
    }
}

/// What an acknowledgement says of the record with this sequence, if anything.
fn said(acked: Acked, sequence: u64) -> Option<Put> {
    let length = acked.length;
    if acked.sequence >= sequence {
        let offset = (acked.sequence == sequence).then_some(acked.offset);
        return Some(Put::In { offset, length });
    }
    acked.sealed.then_some(Put::Full { length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(sequence: u64, sealed: bool) -> Acked {
        Acked {
            sequence,
            length: 90,
            offset: 40,
            sealed,
        }
    }

    #[test]
    fn an_acknowledgement_of_an_earlier_record_says_nothing_unless_the_chunk_is_sealed() {
        assert_eq!(said(acked(4, false), 5), None);
        assert_eq!(said(acked(4, true), 5), Some(Put::Full { length: 90 }));
    }

    #[test]
    fn a_record_in_a_sealed_chunk_is_in_it() {
        let put = Put::In {
            offset: Some(40),
            length: 90,
        };
        assert_eq!(said(acked(5, true), 5), Some(put));
        let later = Put::In {
            offset: None,
            length: 90,
        };
        assert_eq!(
            said(acked(6, true), 5),
            Some(later),
            "its offset is not kept any more"
        );
    }
}
