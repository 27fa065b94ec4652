//! The bytes of the log, as docs/formats.md draws them. Little-endian; every number is unsigned.
//!
//! Nothing here touches a file: encoders append to a buffer, decoders look at a slice and believe nothing.

use bytes::{Buf, BufMut};
use dfs_proto::ids::ClusterId;

/// First bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"dfs.log\n";
/// First bytes of a slot of the mark.
pub const MARK_MAGIC: [u8; 8] = *b"dfs.mark";
/// Version of the segment's and the mark's layout. (What a record's payload is, is the record's own version.)
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 29;
/// Most bytes of a record's payload: above any command, low enough that a wild length is seen at once.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of a slot of the mark.
pub const MARK_SLOT_BYTES: usize = 48;
/// Distance of the mark's two slots: no sector holds parts of both.
pub const MARK_SLOT_STRIDE: u64 = 4096;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Index of its first record.
    pub first: u64,
    /// Term of the record before its first.
    pub previous_term: u64,
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.put_slice(&SEGMENT_MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_slice(&self.cluster.0);
        out.put_u64_le(self.first);
        out.put_u64_le(self.previous_term);
        out.put_bytes(0, SEGMENT_HEADER_BYTES - 4 - out.len());
        out.put_u32_le(crc32fast::hash(&out));
        out.try_into().expect("the fields and the padding fill it")
    }

    /// The header of these bytes; the error says what is wrong with them.
    ///
    /// # Errors
    /// If they are not a header of a version known here.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, &'static str> {
        let bytes = bytes
            .get(..SEGMENT_HEADER_BYTES)
            .ok_or("its header is cut short")?;
        let (mut fields, mut crc) = bytes.split_at(SEGMENT_HEADER_BYTES - 4);
        if fields[..8] != SEGMENT_MAGIC {
            return Err("it does not begin as a log segment does");
        }
        if crc.get_u32_le() != crc32fast::hash(fields) {
            return Err("its header fails its checksum");
        }
        fields.advance(8);
        if fields.get_u32_le() != FORMAT_VERSION {
            return Err("its format is of another version than this program's");
        }
        let mut cluster = ClusterId::default();
        fields.copy_to_slice(&mut cluster.0);
        Ok(SegmentHeader {
            cluster,
            first: fields.get_u64_le(),
            previous_term: fields.get_u64_le(),
        })
    }
}

/// A record in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The term it was appended in.
    pub term: u64,
    /// Its place in the log, from 1 without gaps.
    pub index: u64,
    /// Its place in the group it was written with, from 0.
    pub place: u32,
    /// Version of the payload's encoding.
    pub version: u8,
    /// The command.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends the record to `out`.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn encode(&self, cluster: ClusterId, out: &mut Vec<u8>) {
        assert!(
            self.payload.len() <= PAYLOAD_BYTES_MAX,
            "a command of {} bytes",
            self.payload.len()
        );
        let start = out.len();
        out.put_u32_le(u32::try_from(self.payload.len()).expect("at most a mebibyte"));
        out.put_u32_le(0);
        out.put_u64_le(self.term);
        out.put_u64_le(self.index);
        out.put_u32_le(self.place);
        out.put_u8(self.version);
        out.put_slice(self.payload);
        let crc = record_crc(cluster, &out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The record that begins these bytes. `None`: there is none, or not all of it, or it fails its checksum.
    #[must_use]
    pub fn decode(cluster: ClusterId, bytes: &'a [u8]) -> Option<Record<'a>> {
        let mut fields = bytes.get(..RECORD_HEADER_BYTES)?;
        let length = usize::try_from(fields.get_u32_le()).ok()?;
        if length > PAYLOAD_BYTES_MAX {
            return None;
        }
        let whole = bytes.get(..RECORD_HEADER_BYTES + length)?;
        if fields.get_u32_le() != record_crc(cluster, whole) {
            return None;
        }
        Some(Record {
            term: fields.get_u64_le(),
            index: fields.get_u64_le(),
            place: fields.get_u32_le(),
            version: fields.get_u8(),
            payload: &whole[RECORD_HEADER_BYTES..],
        })
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }

    /// Index of the first record of its group. (A place beyond the index is damage that a checksum let through: 0.)
    #[must_use]
    pub fn group(&self) -> u64 {
        self.index.saturating_sub(u64::from(self.place))
    }
}

/// The checksum begins with the cluster's id: records of another cluster, or record-like bytes that a user put
/// into a name or an attribute, are none.
fn record_crc(cluster: ClusterId, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&cluster.0);
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

/// A slot of the mark: every record up to `synced` has been synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkSlot {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Index of the last record that was synced.
    pub synced: u64,
}

impl MarkSlot {
    /// The slot's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; MARK_SLOT_BYTES] {
        let mut out = Vec::with_capacity(MARK_SLOT_BYTES);
        out.put_slice(&MARK_MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_slice(&self.cluster.0);
        out.put_u64_le(self.synced);
        out.put_bytes(0, MARK_SLOT_BYTES - 4 - out.len());
        out.put_u32_le(crc32fast::hash(&out));
        out.try_into().expect("the fields and the padding fill it")
    }

    /// The slot of these bytes, if they are a whole one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<MarkSlot> {
        let bytes = bytes.get(..MARK_SLOT_BYTES)?;
        let (mut fields, mut crc) = bytes.split_at(MARK_SLOT_BYTES - 4);
        if fields[..8] != MARK_MAGIC || crc.get_u32_le() != crc32fast::hash(fields) {
            return None;
        }
        fields.advance(8);
        if fields.get_u32_le() != FORMAT_VERSION {
            return None;
        }
        let mut cluster = ClusterId::default();
        fields.copy_to_slice(&mut cluster.0);
        Some(MarkSlot {
            cluster,
            synced: fields.get_u64_le(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    #[test]
    fn the_bytes_of_a_segment_header_are_these() {
        let header = SegmentHeader {
            cluster: CLUSTER,
            first: 0x0102,
            previous_term: 3,
        };
        let bytes = header.encode();
        let mut golden = b"dfs.log\n\x01\0\0\0".to_vec();
        golden.extend([7; 16]);
        golden.extend([2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([0; 16]);
        assert_eq!(bytes[..60], golden);
        assert_eq!(bytes[60..], crc32fast::hash(&golden).to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn the_bytes_of_a_record_are_these() {
        let record = Record {
            term: 2,
            index: 0x0403,
            place: 1,
            version: 9,
            payload: b"hi",
        };
        let mut bytes = Vec::new();
        record.encode(CLUSTER, &mut bytes);
        let mut golden = vec![
            2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9,
        ];
        golden.extend(b"hi");
        let crc = crc32fast::hash(&[&[7; 16], golden.as_slice()].concat());
        golden.splice(4..4, crc.to_le_bytes());
        assert_eq!(bytes, golden);
        assert_eq!(Record::decode(CLUSTER, &bytes), Some(record));
        assert_eq!(record.bytes(), bytes.len());
        assert_eq!(record.group(), 0x0402);
    }

    #[test]
    fn the_bytes_of_a_mark_are_these() {
        let slot = MarkSlot {
            cluster: CLUSTER,
            synced: 5,
        };
        let bytes = slot.encode();
        let mut golden = b"dfs.mark\x01\0\0\0".to_vec();
        golden.extend([7; 16]);
        golden.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([0; 8]);
        assert_eq!(bytes[..44], golden);
        assert_eq!(MarkSlot::decode(&bytes), Some(slot));
    }

    #[test]
    fn no_flipped_bit_passes() {
        let header = SegmentHeader {
            cluster: CLUSTER,
            first: 1,
            previous_term: 0,
        }
        .encode();
        let mark = MarkSlot {
            cluster: CLUSTER,
            synced: 5,
        }
        .encode();
        let mut record = Vec::new();
        Record {
            term: 1,
            index: 1,
            place: 0,
            version: 1,
            payload: b"payload",
        }
        .encode(CLUSTER, &mut record);
        let flipped = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..header.len() * 8 {
            assert!(SegmentHeader::decode(&flipped(&header, bit)).is_err());
        }
        for bit in 0..mark.len() * 8 {
            assert_eq!(MarkSlot::decode(&flipped(&mark, bit)), None);
        }
        for bit in 0..record.len() * 8 {
            assert_eq!(Record::decode(CLUSTER, &flipped(&record, bit)), None);
        }
    }

    #[test]
    fn nothing_is_decoded_from_a_part_or_from_zeros_or_from_another_cluster() {
        let mut record = Vec::new();
        Record {
            term: 1,
            index: 1,
            place: 0,
            version: 1,
            payload: b"payload",
        }
        .encode(CLUSTER, &mut record);
        for end in 0..record.len() {
            assert_eq!(Record::decode(CLUSTER, &record[..end]), None);
        }
        assert_eq!(Record::decode(CLUSTER, &[0; 4096]), None);
        assert_eq!(Record::decode(CLUSTER, &[0xff; 4096]), None);
        assert_eq!(Record::decode(ClusterId([8; 16]), &record), None);
    }
}
