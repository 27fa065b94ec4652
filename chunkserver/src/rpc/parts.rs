//! Records over a mebibyte come in parts, one frame each. They are put together before anything is done with them: so
//! a record is ordered, applied and acknowledged as one packet.

use crate::store::Packet;
use bytes::BytesMut;
use dfs_proto::{Code, Error, Result};

/// The parts so far.
#[derive(Debug)]
pub(super) struct Gathering {
    bytes_max: u64,
    first: Option<(Packet, BytesMut)>,
}

impl Gathering {
    /// Nothing yet; a whole has at most so many bytes.
    pub(super) fn new(bytes_max: u64) -> Gathering {
        Gathering {
            bytes_max,
            first: None,
        }
    }

    /// Adds a verified part; with the last one, the whole. Parts meet at block edges.
    ///
    /// # Errors
    /// `InvalidArgument` if it does not go on where the last one ended, `TooLarge`.
    pub(super) fn add(&mut self, part: Packet, more: bool) -> Result<Option<Packet>> {
        let whole = match self.first.take() {
            None if !more => return self.checked(part).map(Some),
            None => {
                let bytes = BytesMut::from(&part.data[..]);
                (part, bytes)
            }
            Some((mut first, mut bytes)) => {
                let end = first.offset + bytes.len() as u64;
                let follows =
                    part.offset == end && part.writer == first.writer && part.sequence == first.sequence;
                if !follows || !end.is_multiple_of(dfs_proto::limits::BLOCK_BYTES) {
                    return Err(Error::new(Code::InvalidArgument, "a part of another packet"));
                }
                bytes.extend_from_slice(&part.data);
                first.checksums.extend(part.checksums);
                (first, bytes)
            }
        };
        if whole.1.len() as u64 > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        if more {
            self.first = Some(whole);
            return Ok(None);
        }
        let (first, bytes) = whole;
        let data = bytes.freeze();
        Ok(Some(Packet { data, ..first }))
    }

    fn checked(&self, whole: Packet) -> Result<Packet> {
        if whole.data.len() as u64 > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        Ok(whole)
    }
}

fn too_large(bytes_max: u64) -> Error {
    Error::new(Code::TooLarge, format!("a record of more than {bytes_max} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use dfs_proto::WriterId;
    use dfs_proto::checksum::of_pieces;

    fn part(offset: u64, length: usize) -> Packet {
        let data = Bytes::from(vec![7; length]);
        Packet {
            writer: WriterId(1),
            sequence: 3,
            offset,
            checksums: of_pieces(offset, &data),
            data,
        }
    }

    #[test]
    fn parts_become_one_packet() {
        let mut gathering = Gathering::new(1 << 20);
        assert_eq!(gathering.add(part(0, 65_536), true).unwrap(), None);
        let whole = gathering.add(part(65_536, 100), false).unwrap();
        assert_eq!(whole, Some(part(0, 65_636)));
        assert_eq!(gathering.add(part(9, 5), false).unwrap(), Some(part(9, 5)));
    }

    #[test]
    fn a_part_that_does_not_follow_and_a_whole_that_is_too_large_are_refused() {
        let mut gathering = Gathering::new(70_000);
        gathering.add(part(0, 65_536), true).unwrap();
        assert_eq!(
            gathering.add(part(65_537, 5), false).unwrap_err().code,
            Code::InvalidArgument
        );
        gathering.add(part(0, 65_536), true).unwrap();
        assert_eq!(
            gathering.add(part(65_536, 5_000), false).unwrap_err().code,
            Code::TooLarge
        );
        assert_eq!(
            gathering.add(part(0, 70_001), false).unwrap_err().code,
            Code::TooLarge
        );
    }
}
