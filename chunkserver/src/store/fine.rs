//! Checksums of the parts of a block, kept in memory: a small read verifies the parts it touches, not the whole block.
//!
//! They are made when a whole block is read for a small read, of bytes that fit the block's checksum together, and count
//! only as long as the table has that checksum: whatever changes the block changes it, too. What does not fit its part's
//! checksum is read again as a whole block; there it is decided whether it is rot.

use super::core::{Body, Core};
use super::read::{Read, index};
use bytes::Bytes;
use dfs_proto::checksum::{combine, crc};
use dfs_proto::limits::BLOCK_BYTES;
use dfs_proto::span::block_length;
use dfs_stdx::disk::{self, File};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

/// Bytes of a part: a page.
const PART_BYTES: u64 = 4096;
const PARTS: usize = (BLOCK_BYTES / PART_BYTES) as usize;
/// Reads up to it are small.
const SMALL_BYTES_MAX: u64 = 16 * 1024;

/// The parts of a chunk's blocks: at most a thousandth of the chunk's bytes.
#[derive(Debug, Default)]
pub(super) struct Fine(Mutex<BTreeMap<u64, Parts>>);

#[derive(Clone, Copy, Debug)]
struct Parts {
    /// The checksum that the block had.
    block: u32,
    parts: [u32; PARTS],
}

/// The block, if all of the range is in it, the block is full, and the range is small.
pub(super) fn block_of(range: &Range<u64>, length: u64) -> Option<u64> {
    let block = range.start / BLOCK_BYTES;
    let small = range.start < range.end && range.end - range.start <= SMALL_BYTES_MAX;
    (small && range.end <= (block + 1) * BLOCK_BYTES && block_length(block, length) == BLOCK_BYTES)
        .then_some(block)
}

impl Fine {
    /// The block's checksum, by those of its parts, which are kept.
    pub(super) fn note(&self, block: u64, bytes: &[u8]) -> u32 {
        let mut parts = [0; PARTS];
        for (sum, part) in parts.iter_mut().zip(bytes.chunks(index(PART_BYTES))) {
            *sum = crc(part);
        }
        let whole = parts
            .iter()
            .skip(1)
            .fold(parts[0], |sum, part| combine(sum, *part, PART_BYTES));
        self.0
            .lock()
            .expect("no panic while held")
            .insert(block, Parts { block: whole, parts });
        whole
    }

    fn of(&self, block: u64, sum: u32) -> Option<[u32; PARTS]> {
        let known = self.0.lock().expect("no panic while held").get(&block).copied();
        known.filter(|p| p.block == sum).map(|p| p.parts)
    }
}

/// A small read in a block whose parts are known; `None` if they are not, or if anything is amiss.
pub(super) fn read(
    body: &Body,
    (block, range, length): (u64, Range<u64>, u64),
    read: &mut impl FnMut(&dyn File, &mut [u8], u64) -> disk::Result<usize>,
) -> disk::Result<Option<Read>> {
    let Some(parts) = body.fine.of(block, body.crcs[index(block)]) else {
        return Ok(None);
    };
    let from = range.start / PART_BYTES * PART_BYTES;
    let to = range.end.next_multiple_of(PART_BYTES);
    let mut buffer = vec![0; index(to - from)];
    if read(&*body.file, &mut buffer, Core::data_at(from))? < buffer.len() {
        return Ok(None);
    }
    let first = index((from - block * BLOCK_BYTES) / PART_BYTES);
    let sums = buffer.chunks(index(PART_BYTES)).zip(&parts[first..]);
    if sums.into_iter().any(|(bytes, sum)| crc(bytes) != *sum) {
        return Ok(None);
    }
    let bytes = Bytes::from(buffer).slice(index(range.start - from)..index(range.end - from));
    let checksum = match bytes.len() as u64 {
        PART_BYTES if range.start == from => parts[first],
        _ => crc(&bytes),
    };
    Ok(Some(Read {
        bytes,
        checksums: vec![checksum],
        length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_the_checksum_of_its_parts_and_they_count_while_it_has_it() {
        let bytes: Vec<u8> = (0..BLOCK_BYTES).map(|n| (n % 239) as u8).collect();
        let fine = Fine::default();
        assert_eq!(fine.note(3, &bytes), crc(&bytes));
        let parts = fine.of(3, crc(&bytes)).unwrap();
        assert_eq!(parts[5], crc(&bytes[5 * 4096..6 * 4096]));
        assert!(fine.of(3, 1).is_none() && fine.of(2, crc(&bytes)).is_none());
    }

    #[test]
    fn small_is_what_lies_in_one_full_block() {
        let length = 3 * BLOCK_BYTES + 10;
        assert_eq!(block_of(&(BLOCK_BYTES + 5..BLOCK_BYTES + 500), length), Some(1));
        assert_eq!(
            block_of(&(2 * BLOCK_BYTES..2 * BLOCK_BYTES + SMALL_BYTES_MAX), length),
            Some(2)
        );
        for range in [
            0..0,
            0..SMALL_BYTES_MAX + 1,
            BLOCK_BYTES - 1..BLOCK_BYTES + 1,
            3 * BLOCK_BYTES..3 * BLOCK_BYTES + 5,
        ] {
            assert_eq!(block_of(&range, length), None);
        }
    }
}
