//! How many entries there are and what they sum up to, whatever their order: kept with each commit, compared by each walk.
//!
//! A damaged sled file does not always make sled complain: a page that it cannot read at the opening may be missing
//! without a word. So the store counts for itself.

use super::Pair;

/// Entries counted and summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub entries: u64,
    /// The sum, modulo 2^64, of a hash of each.
    pub sum: u64,
}

impl Tally {
    /// Takes an entry in.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.sum = self.sum.wrapping_add(hash(key, value));
    }

    /// Takes an entry out that was taken in.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, value));
    }
}

impl<'a> FromIterator<&'a Pair> for Tally {
    fn from_iter<T: IntoIterator<Item = &'a Pair>>(entries: T) -> Self {
        let mut tally = Tally::default();
        entries.into_iter().for_each(|(key, value)| tally.add(key, value));
        tally
    }
}

/// A CRC of the entry, spread over 64 bits (the finalizer of SplitMix64) so that sums do not cancel out.
fn hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    let mut mixed = u64::from(hasher.finalize()) | (key.len() as u64) << 32 | (value.len() as u64) << 48;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_this_one_for_ever() {
        let mut tally = Tally::default();
        tally.add(b"key", b"value");
        assert_eq!(
            tally,
            Tally {
                entries: 1,
                sum: 16_489_338_817_456_510_077
            }
        );
    }

    #[test]
    fn order_does_not_count_and_what_is_taken_out_is_gone() {
        let mut one = Tally::default();
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        let mut two = Tally::default();
        two.add(b"b", b"2");
        two.add(b"c", b"3");
        two.add(b"a", b"1");
        assert_ne!(one, two);
        two.remove(b"c", b"3");
        assert_eq!(one, two);
    }

    #[test]
    fn a_byte_moved_from_key_to_value_is_another_entry() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        one.add(b"ab", b"c");
        two.add(b"a", b"bc");
        assert_ne!(one, two);
    }
}
