//! All arithmetic with offsets: files into chunks, chunks into blocks.

use crate::limits::BLOCK_BYTES;
use std::ops::Range;

/// The part of a byte range that lies in one block of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The block's number in the chunk.
    pub block: u64,
    /// Where the piece begins in the block, bytes.
    pub in_block: u64,
    /// Where it begins in the byte range, bytes.
    pub at: u64,
    /// Its length, bytes; never 0.
    pub length: u64,
}

impl Piece {
    /// Its place in a buffer that holds the byte range.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        let start = usize::try_from(self.at).expect("a buffer is addressable");
        start..start + usize::try_from(self.length).expect("a buffer is addressable")
    }

    /// True if it covers its block from end to end.
    #[must_use]
    pub fn is_whole_block(&self) -> bool {
        self.length == BLOCK_BYTES
    }
}

/// Cuts `length` bytes at `offset` of a chunk at block edges, in order.
pub fn pieces(offset: u64, length: u64) -> impl Iterator<Item = Piece> + Clone {
    cuts(offset, length, BLOCK_BYTES).map(|c| Piece {
        block: c.index,
        in_block: c.offset,
        at: c.at,
        length: c.length,
    })
}

/// The part of a byte range of a file that lies in one chunk-sized slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The slot's number.
    pub index: u64,
    /// Where the part begins in the slot.
    pub offset: u64,
    /// Where it begins in the byte range.
    pub at: u64,
    /// Its length; never 0.
    pub length: u64,
}

/// Cuts `length` bytes at `offset` at multiples of `unit`, in order.
pub fn cuts(offset: u64, length: u64, unit: u64) -> impl Iterator<Item = Cut> + Clone {
    let end = offset.saturating_add(length);
    let mut position = offset;
    std::iter::from_fn(move || {
        (position < end).then(|| {
            let (index, inside) = (position / unit, position % unit);
            let cut = Cut {
                index,
                offset: inside,
                at: position - offset,
                length: (unit - inside).min(end - position),
            };
            position += cut.length;
            cut
        })
    })
}

/// Blocks that a chunk of `length` bytes has.
#[must_use]
pub fn blocks_of(length: u64) -> u64 {
    length.div_ceil(BLOCK_BYTES)
}

/// Bytes that block `block` holds in a chunk of `length` bytes: 64 KiB, less for the last one, 0 beyond.
#[must_use]
pub fn block_length(block: u64, length: u64) -> u64 {
    length.saturating_sub(block * BLOCK_BYTES).min(BLOCK_BYTES)
}

/// True if the two ranges have a byte in common.
#[must_use]
pub fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_inside_a_block_is_one_piece() {
        let all: Vec<_> = pieces(BLOCK_BYTES + 5, 10).collect();
        assert_eq!(
            all,
            [Piece {
                block: 1,
                in_block: 5,
                at: 0,
                length: 10
            }]
        );
        assert_eq!(pieces(7, 0).count(), 0);
    }

    #[test]
    fn the_last_block_may_be_short() {
        assert_eq!(blocks_of(BLOCK_BYTES + 1), 2);
        assert_eq!(block_length(1, BLOCK_BYTES + 1), 1);
        assert_eq!(block_length(2, BLOCK_BYTES + 1), 0);
    }

    proptest! {
        #[test]
        fn pieces_tile_their_range(offset in 0u64..1 << 27, length in 0u64..1 << 22) {
            let mut next = offset;
            for p in pieces(offset, length) {
                prop_assert_eq!(p.block * BLOCK_BYTES + p.in_block, next);
                prop_assert_eq!(offset + p.at, next);
                prop_assert!(p.length > 0 && p.in_block + p.length <= BLOCK_BYTES);
                next += p.length;
            }
            prop_assert_eq!(next, offset + length);
        }
    }
}
