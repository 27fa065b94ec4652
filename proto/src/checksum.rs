//! CRC-32 (IEEE) of blocks and pieces of blocks.
//!
//! A *piece* is the part of a byte range that lies in one 64 KiB block of the chunk. The writer makes one CRC a piece,
//! once; replicas check pieces before they apply them and keep one CRC a block.

use crate::limits::BLOCK_BYTES;
use crate::span::pieces;

static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// CRC-32 of the bytes.
#[must_use]
pub fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-32 of `length` zero bytes.
#[must_use]
pub fn crc_of_zeros(length: u64) -> u32 {
    if length <= BLOCK_BYTES {
        return crc(&ZEROS[..usize::try_from(length).expect("at most a block")]);
    }
    let half = length / 2;
    combine(crc_of_zeros(half), crc_of_zeros(length - half), length - half)
}

/// CRC-32 of a followed by b, from theirs; `b_length` in bytes.
#[must_use]
pub fn combine(a: u32, b: u32, b_length: u64) -> u32 {
    let mut first = crc32fast::Hasher::new_with_initial_len(a, 0);
    first.combine(&crc32fast::Hasher::new_with_initial_len(b, b_length));
    first.finalize()
}

/// One CRC for each piece of `bytes`, which begin at `offset` of the chunk.
#[must_use]
pub fn of_pieces(offset: u64, bytes: &[u8]) -> Vec<u32> {
    pieces(offset, bytes.len() as u64)
        .map(|p| crc(&bytes[p.range()]))
        .collect()
}

/// True if the bytes fit their piece checksums, in value and in number.
#[must_use]
pub fn verify_pieces(offset: u64, bytes: &[u8], checksums: &[u32]) -> bool {
    let mut found = 0;
    let all = pieces(offset, bytes.len() as u64).zip(checksums).all(|(p, c)| {
        found += 1;
        crc(&bytes[p.range()]) == *c
    });
    all && found == checksums.len() && found == pieces(offset, bytes.len() as u64).count()
}

/// One CRC over all the pieces that begin at `offset`, from theirs.
#[must_use]
pub fn whole(offset: u64, length: u64, checksums: &[u32]) -> u32 {
    let all = pieces(offset, length).zip(checksums);
    all.fold(0, |so_far, (piece, sum)| combine(so_far, *sum, piece.length))
}

/// Piece checksums of bytes whose checksums were made for offset 0, for `offset`: made anew where pieces differ, and
/// taken only if both say the same of all the bytes. So between the maker and the reader no byte goes unguarded.
#[must_use]
pub fn moved(offset: u64, bytes: &[u8], checksums: &[u32]) -> Option<Vec<u32>> {
    let length = bytes.len() as u64;
    if pieces(0, length).eq(pieces(offset, length))
        || (checksums.len() == 1 && offset % BLOCK_BYTES + length <= BLOCK_BYTES)
    {
        return Some(checksums.to_vec());
    }
    let made = of_pieces(offset, bytes);
    (whole(offset, length, &made) == whole(0, length, checksums)).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_crc32_is_right() {
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_flipped_bit_a_missing_and_a_surplus_checksum_are_found() {
        let mut bytes = vec![7; 100_000];
        let mut sums = of_pieces(10, &bytes);
        assert!(verify_pieces(10, &bytes, &sums));
        bytes[99_999] ^= 1;
        assert!(!verify_pieces(10, &bytes, &sums));
        bytes[99_999] ^= 1;
        sums.push(0);
        assert!(!verify_pieces(10, &bytes, &sums));
        sums.truncate(1);
        assert!(!verify_pieces(10, &bytes, &sums));
    }

    proptest! {
        #[test]
        fn combining_two_checksums_is_checking_both(a in proptest::collection::vec(any::<u8>(), 0..300),
                                                    b in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(combine(crc(&a), crc(&b), b.len() as u64), crc(&[a, b].concat()));
        }

        #[test]
        fn zeros_need_not_be_read(length in 0u64..400_000) {
            prop_assert_eq!(crc_of_zeros(length), crc(&vec![0; length as usize]));
        }
    }

    #[test]
    fn checksums_move_with_the_bytes_and_damage_on_the_way_is_seen() {
        let bytes: Vec<u8> = (0..200_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let at_zero = of_pieces(0, &bytes);
        for offset in [0, 1, 65_536, 70_000] {
            assert_eq!(moved(offset, &bytes, &at_zero), Some(of_pieces(offset, &bytes)));
        }
        let small = of_pieces(0, &bytes[..100]);
        assert_eq!(moved(65_436, &bytes[..100], &small), Some(small.clone()));
        let mut damaged = bytes.clone();
        damaged[77_777] ^= 4;
        assert_eq!(moved(5, &damaged, &at_zero), None);
    }
}
