//! The replica's file, byte by byte. All integers little-endian.
//!
//! ```text
//! offset  size    part
//! 0       2048    header slot 0; the rest of its 4 KiB page is zero
//! 4096    2048    header slot 1; the same
//! 8192    4096    table: CRC-32 of each block, 4 bytes a block, 1,024 blocks
//! 12288           the chunk's bytes
//!
//! in a slot:
//! 0       8       magic "dfschnk1"
//! 8       4       format, 1
//! 12      4       flags: 1 open, 2 durable, 4 overwrote
//! 16      16      cluster
//! 32      8       chunk handle
//! 40      8       slot sequence: the slot with the greater one is newer
//! 48      24      boot
//! 72      4       promised
//! 76      4       synced
//! 80      4       loss
//! 84      4       CRC-32 of the last block's bytes if it is not full, else 0
//! 88      8       length, bytes
//! 96      1       members, at most 8
//! 97      1       intents, at most 8
//! 98      1       writers, at most 64
//! 99      1       0
//! 100     8 x 4   members, chain order
//! 132     8 x 16  intents: start and end of byte ranges being overwritten
//! 260     64 x 20 writers: writer (8), sequence (8), offset (4); oldest first
//! 1540    504     0
//! 2044    4       CRC-32 of all before it
//! ```
//! The last block's CRC stands in the slot, so that one slot tells a length, its CRC and its writers at one instant,
//! while the table may already be ahead of it.

use dfs_proto::checksum::crc;
use dfs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, GOAL_MAX, WRITERS_MAX};
use dfs_proto::{ChunkHandle, ClusterId, NodeId, Version, WriterId};
use dfs_stdx::disk::Boot;
use std::ops::Range;

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 2048;
/// Where the two slots begin: each in a page of its own, so that writing one back never touches the other.
pub const SLOT_AT: [u64; 2] = [0, 4096];
/// Where the table begins.
pub const TABLE_AT: u64 = 8192;
/// Where the chunk's bytes begin.
pub const DATA_AT: u64 = 12288;
/// Ranges a slot can name; more are merged into wider ones.
pub const INTENTS_MAX: usize = 8;

const MAGIC: &[u8; 8] = b"dfschnk1";
const FORMAT: u32 = 1;
const MEMBERS_AT: usize = 100;
const INTENTS_AT: usize = 132;
const WRITERS_AT: usize = 260;
const WRITER_BYTES: usize = 20;
const CRC_AT: usize = SLOT_BYTES - 4;

const OPEN: u32 = 1;
const DURABLE: u32 = 2;
const OVERWROTE: u32 = 4;

/// One line of the writer table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Who.
    pub writer: WriterId,
    /// Its last applied sequence.
    pub sequence: u64,
    /// Where that one's bytes begin in the chunk.
    pub offset: u32,
}

/// A replica's header: what a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The chunk.
    pub handle: ChunkHandle,
    /// Greater is newer.
    pub sequence: u64,
    /// May hold bytes that are not on stable storage or not committed.
    pub open: bool,
    /// What the slot covers was on stable storage before the slot was written.
    pub durable: bool,
    /// Bytes were overwritten since the older slot was on stable storage.
    pub overwrote: bool,
    /// When it was written.
    pub boot: Boot,
    /// It takes packets and pulls of this version only.
    pub promised: Version,
    /// Whole as of the start of this version.
    pub synced: Version,
    /// The newest version whose source had lost power.
    pub loss: Version,
    /// CRC of the last block if it is not full, else 0.
    pub tail_crc: u32,
    /// Bytes.
    pub length: u64,
    /// Of the promised version, in chain order.
    pub members: Vec<NodeId>,
    /// Byte ranges below the length that are being overwritten.
    pub intents: Vec<Range<u64>>,
    /// Oldest first.
    pub writers: Vec<Writer>,
}

/// What a slot's bytes turn out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A header.
    Slot(Box<Slot>),
    /// Never written.
    Blank,
    /// Torn or rotten.
    Damaged,
}

impl Slot {
    /// The header of an empty replica.
    #[must_use]
    pub fn empty(cluster: ClusterId, handle: ChunkHandle, boot: Boot) -> Slot {
        Slot {
            cluster,
            handle,
            sequence: 0,
            open: false,
            durable: false,
            overwrote: false,
            boot,
            promised: Version(0),
            synced: Version(0),
            loss: Version(0),
            tail_crc: 0,
            length: 0,
            members: Vec::new(),
            intents: Vec::new(),
            writers: Vec::new(),
        }
    }

    /// The slot's bytes.
    ///
    /// # Panics
    /// If a list is over its limit: whoever fills it keeps it.
    #[must_use]
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        assert!(
            self.members.len() <= GOAL_MAX as usize
                && self.intents.len() <= INTENTS_MAX
                && self.writers.len() <= WRITERS_MAX,
            "a header's lists are bounded"
        );
        let mut out = [0; SLOT_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = flag(self.open, OPEN) | flag(self.durable, DURABLE) | flag(self.overwrote, OVERWROTE);
        put(0, MAGIC);
        put(8, &FORMAT.to_le_bytes());
        put(12, &flags.to_le_bytes());
        put(16, &self.cluster.0);
        put(32, &self.handle.0.to_le_bytes());
        put(40, &self.sequence.to_le_bytes());
        put(48, &self.boot.0);
        put(72, &self.promised.0.to_le_bytes());
        put(76, &self.synced.0.to_le_bytes());
        put(80, &self.loss.0.to_le_bytes());
        put(84, &self.tail_crc.to_le_bytes());
        put(88, &self.length.to_le_bytes());
        put(
            96,
            &[
                self.members.len() as u8,
                self.intents.len() as u8,
                self.writers.len() as u8,
            ],
        );
        for (n, member) in self.members.iter().enumerate() {
            put(MEMBERS_AT + n * 4, &member.0.to_le_bytes());
        }
        for (n, intent) in self.intents.iter().enumerate() {
            put(INTENTS_AT + n * 16, &intent.start.to_le_bytes());
            put(INTENTS_AT + n * 16 + 8, &intent.end.to_le_bytes());
        }
        for (n, writer) in self.writers.iter().enumerate() {
            put(WRITERS_AT + n * WRITER_BYTES, &writer.encode());
        }
        let sum = crc(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// What the bytes of a slot are; fewer than [`SLOT_BYTES`] count as if zeros followed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Found {
        if bytes.iter().all(|b| *b == 0) {
            return Found::Blank;
        }
        match <&[u8; SLOT_BYTES]>::try_from(bytes).ok().and_then(decode_slot) {
            Some(slot) => Found::Slot(Box::new(slot)),
            None => Found::Damaged,
        }
    }
}

impl Writer {
    /// Its 20 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; WRITER_BYTES] {
        let mut out = [0; WRITER_BYTES];
        out[..8].copy_from_slice(&self.writer.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..].copy_from_slice(&self.offset.to_le_bytes());
        out
    }
}

/// Notes a writer's newest packet: the last one in the table is the last one used. A repeated older one (for its
/// fsync) does not take the table back.
pub fn note_writer(writers: &mut Vec<Writer>, newest: Writer) {
    let place = writers.iter().position(|w| w.writer == newest.writer);
    let known = place.map(|n| writers.remove(n));
    let newest = known.filter(|k| k.sequence > newest.sequence).unwrap_or(newest);
    if writers.len() == WRITERS_MAX {
        // A producer's last record is never forgotten: a retry of it may come at any time. The head sees to it that
        // there are never so many of them (`PRODUCERS_MAX`).
        let oldest = writers.iter().position(|w| !w.writer.is_lasting());
        writers.remove(oldest.unwrap_or(0));
    }
    writers.push(newest);
}

/// The table's bytes.
#[must_use]
pub fn encode_table(crcs: &[u32]) -> Vec<u8> {
    crcs.iter().flat_map(|c| c.to_le_bytes()).collect()
}

/// A block's CRC as a chunk file's table keeps it: bound to the chunk and the place, so that the table of another chunk,
/// though it fits the bytes beside it, fits nothing here. Its own inverse.
#[must_use]
pub fn bound(chunk: ChunkHandle, block: u64, sum: u32) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&chunk.0.to_le_bytes());
    place[8..].copy_from_slice(&block.to_le_bytes());
    sum ^ crc(&place)
}

/// The CRCs in a table's bytes.
#[must_use]
pub fn decode_table(bytes: &[u8]) -> Vec<u32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|c| u32::from_le_bytes(*c))
        .collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn decode_slot(bytes: &[u8; SLOT_BYTES]) -> Option<Slot> {
    let flags = u32_at(bytes, 12);
    let counts = bytes[96..100].iter().map(|b| usize::from(*b)).collect::<Vec<_>>();
    let well_formed = &bytes[..8] == MAGIC
        && u32_at(bytes, 8) == FORMAT
        && u32_at(bytes, CRC_AT) == crc(&bytes[..CRC_AT])
        && flags & !(OPEN | DURABLE | OVERWROTE) == 0
        && counts[0] <= GOAL_MAX as usize
        && counts[1] <= INTENTS_MAX
        && counts[2] <= WRITERS_MAX;
    if !well_formed {
        return None;
    }
    let slot = Slot {
        cluster: ClusterId(bytes[16..32].try_into().expect("sixteen bytes")),
        handle: ChunkHandle(u64_at(bytes, 32)),
        sequence: u64_at(bytes, 40),
        open: flags & OPEN != 0,
        durable: flags & DURABLE != 0,
        overwrote: flags & OVERWROTE != 0,
        boot: Boot(bytes[48..72].try_into().expect("twenty-four bytes")),
        promised: Version(u32_at(bytes, 72)),
        synced: Version(u32_at(bytes, 76)),
        loss: Version(u32_at(bytes, 80)),
        tail_crc: u32_at(bytes, 84),
        length: u64_at(bytes, 88),
        members: (0..counts[0])
            .map(|n| NodeId(u32_at(bytes, MEMBERS_AT + n * 4)))
            .collect(),
        intents: (0..counts[1])
            .map(|n| u64_at(bytes, INTENTS_AT + n * 16)..u64_at(bytes, INTENTS_AT + n * 16 + 8))
            .collect(),
        writers: (0..counts[2])
            .map(|n| decode_writer(bytes, WRITERS_AT + n * WRITER_BYTES))
            .collect(),
    };
    let sensible = slot.length <= CHUNK_BYTES_MAX
        && slot
            .intents
            .iter()
            .all(|i| i.start < i.end && i.end <= CHUNK_BYTES_MAX)
        && (!slot.length.is_multiple_of(BLOCK_BYTES) || slot.tail_crc == 0);
    sensible.then_some(slot)
}

fn decode_writer(bytes: &[u8], at: usize) -> Writer {
    Writer {
        writer: WriterId(u64_at(bytes, at)),
        sequence: u64_at(bytes, at + 8),
        offset: u32_at(bytes, at + 16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::limits::PRODUCERS_MAX;
    use proptest::prelude::*;

    fn slot() -> Slot {
        Slot {
            sequence: 7,
            open: true,
            overwrote: true,
            promised: Version(3),
            synced: Version(2),
            loss: Version(1),
            tail_crc: 0xdead_beef,
            length: 65_537,
            members: vec![NodeId(4), NodeId(9)],
            intents: std::iter::once(5..9).collect(),
            writers: vec![Writer {
                writer: WriterId(11),
                sequence: 12,
                offset: 13,
            }],
            ..Slot::empty(ClusterId([1; 16]), ChunkHandle(0xabcd), Boot([2; 24]))
        }
    }

    #[test]
    fn a_slot_has_the_documented_bytes() {
        let bytes = slot().encode();
        let hex = |range: Range<usize>| {
            bytes[range]
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        };
        assert_eq!(hex(0..16), "64667363686e6b310100000005000000");
        assert_eq!(
            hex(16..48),
            format!("{}cdab0000000000000700000000000000", "01".repeat(16))
        );
        assert_eq!(hex(48..72), "02".repeat(24));
        assert_eq!(
            hex(72..100),
            "030000000200000001000000efbeadde010001000000000002010100"
        );
        assert_eq!(hex(100..108), "0400000009000000");
        assert_eq!(hex(132..148), "05000000000000000900000000000000");
        assert_eq!(hex(260..280), "0b000000000000000c000000000000000d000000");
        assert!(bytes[280..CRC_AT].iter().all(|b| *b == 0));
        assert_eq!(hex(CRC_AT..SLOT_BYTES), "78659fb4");
    }

    #[test]
    fn a_slot_says_what_was_written() {
        assert_eq!(Slot::decode(&slot().encode()), Found::Slot(Box::new(slot())));
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_found() {
        let good = slot().encode();
        for bit in 0..SLOT_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Slot::decode(&bytes), Found::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_a_blank_slot() {
        assert_eq!(Slot::decode(&[0; SLOT_BYTES]), Found::Blank);
        assert_eq!(Slot::decode(&[]), Found::Blank);
    }

    #[test]
    fn the_least_recently_used_writer_is_forgotten() {
        let writer = |n| Writer {
            writer: WriterId(n),
            sequence: 1,
            offset: 0,
        };
        let mut writers = Vec::new();
        (0..WRITERS_MAX as u64).for_each(|n| note_writer(&mut writers, writer(n)));
        note_writer(&mut writers, writer(0));
        note_writer(&mut writers, writer(1_000));
        assert_eq!(writers.len(), WRITERS_MAX);
        assert!(!writers.contains(&writer(1)) && writers.contains(&writer(0)));
    }

    #[test]
    fn producers_and_the_seal_are_never_forgotten() {
        let writer = |writer| Writer {
            writer,
            sequence: 1,
            offset: 0,
        };
        let mut writers = Vec::new();
        (1..=PRODUCERS_MAX as u64)
            .filter_map(WriterId::of_producer)
            .chain([WriterId::SEAL])
            .for_each(|w| note_writer(&mut writers, writer(w)));
        (0..1_000).for_each(|n| note_writer(&mut writers, writer(WriterId::of_stream(n))));
        let lasting = writers.iter().filter(|w| w.writer.is_lasting()).count();
        assert_eq!((lasting, writers.len()), (PRODUCERS_MAX + 1, WRITERS_MAX));
    }

    #[test]
    fn a_repeated_older_packet_does_not_take_the_table_back() {
        let writer = |sequence| Writer {
            writer: WriterId(1),
            sequence,
            offset: 0,
        };
        let mut writers = Vec::new();
        [5, 7, 5]
            .iter()
            .for_each(|n| note_writer(&mut writers, writer(*n)));
        assert_eq!(writers, [writer(7)], "else a retry of 6 would happen again");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..SLOT_BYTES + 8)) {
            let _ = Slot::decode(&bytes);
        }

        #[test]
        fn a_slot_with_a_right_checksum_and_wrong_fields_does_not_panic(
            at in 8usize..CRC_AT - 8, value in any::<u64>()) {
            let mut bytes = slot().encode();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let sum = crc(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
            let _ = Slot::decode(&bytes);
        }
    }
}
