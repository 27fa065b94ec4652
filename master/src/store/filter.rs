//! Which keys are certainly not in the store: most questions about new names and new ids end here, without a look at it.
//!
//! A Bloom filter (Bloom, CACM 1970) in stages: when one is full, another of the size of all before follows. The bits of a
//! key lie in one block of 64 bytes, so that a look costs one miss of the processor's cache. Keys are never taken out; a
//! filter that would grow beyond its limit gives up, and every key may be there until the next start builds a new one.

use super::{after_prefix, keys};
use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

const BITS_PER_KEY: u64 = 12;
/// Bits set for a key.
const PROBES: u32 = 6;
const BLOCK_WORDS: u64 = 8;
/// Keys of the smallest stage.
const STAGE_KEYS_MIN: u64 = 64 * 1024;
/// Most keys of all stages: their bits take 128 MiB.
const KEYS_MAX: u64 = 128 * 1024 * 1024 * 8 / BITS_PER_KEY;

/// Bytes of what the keys of one owner have in common: a table and the first id.
const OWNER_BYTES: usize = 9;

/// A set of keys that may hold others too.
#[derive(Debug)]
pub(super) struct Filter {
    /// `None`: given up.
    stages: RwLock<Option<Vec<Stage>>>,
}

#[derive(Debug)]
struct Stage {
    words: Vec<AtomicU64>,
    keys: AtomicU64,
    keys_max: u64,
}

impl Filter {
    /// Empty, made for about this many keys.
    pub(super) fn for_keys(keys: u64) -> Filter {
        let stages = (keys <= KEYS_MAX).then(|| vec![Stage::of(keys)]);
        Filter {
            stages: RwLock::new(stages),
        }
    }

    /// Takes a key in, and that its owner has one.
    pub(super) fn insert(&self, key: &[u8]) {
        self.insert_one(key);
        if key.len() > OWNER_BYTES && is_by_owner(key[0]) {
            self.insert_one(&key[..OWNER_BYTES]);
        }
    }

    fn insert_one(&self, key: &[u8]) {
        let hash = hash(key);
        let is_full = {
            let stages = self.stages.read().unwrap_or_else(PoisonError::into_inner);
            let Some(stages) = &*stages else { return };
            if stages.iter().any(|stage| stage.holds(hash)) {
                return;
            }
            stages.last().is_some_and(|last| last.insert(hash))
        };
        if is_full {
            self.grow();
        }
    }

    fn grow(&self) {
        let mut stages = self.stages.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = &mut *stages else { return };
        let keys: u64 = known.iter().map(|stage| stage.keys_max).sum();
        if keys > KEYS_MAX / 2 {
            *stages = None;
        } else {
            known.push(Stage::of(keys));
        }
    }

    /// False only if the key was never taken in.
    pub(super) fn may_hold(&self, key: &[u8]) -> bool {
        let stages = self.stages.read().unwrap_or_else(PoisonError::into_inner);
        let Some(stages) = &*stages else { return true };
        let hash = hash(key);
        stages.iter().any(|stage| stage.holds(hash))
    }

    /// False only if no key was taken in that lies from `start` on and before `end`.
    pub(super) fn may_hold_between(&self, start: &[u8], end: &[u8]) -> bool {
        let Some(owner) = start.get(..OWNER_BYTES).filter(|owner| is_by_owner(owner[0])) else {
            return true;
        };
        let is_one = end.starts_with(owner) || end <= after_prefix(owner).as_slice();
        !is_one || self.may_hold(owner)
    }
}

/// True for tables in which most owners have nothing: a question about an inode's locks or bytes need not look for them.
fn is_by_owner(table: u8) -> bool {
    matches!(table, keys::EXTENT | keys::XATTR | keys::HOLDER | keys::LOCK)
}

impl Stage {
    fn of(keys: u64) -> Stage {
        let keys_max = keys.max(STAGE_KEYS_MIN);
        let blocks = (keys_max * BITS_PER_KEY).div_ceil(BLOCK_WORDS * 64);
        Stage {
            words: (0..blocks * BLOCK_WORDS).map(|_| AtomicU64::new(0)).collect(),
            keys: AtomicU64::new(0),
            keys_max,
        }
    }

    /// The words and bits of a key.
    fn places(&self, hash: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let blocks = self.words.len() as u64 / BLOCK_WORDS;
        // The high bits choose the block, the low ones the bits in it.
        let block = ((u128::from(hash) * u128::from(blocks)) >> 64) as u64 * BLOCK_WORDS;
        let step = (hash.rotate_left(32) | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..PROBES).map(move |n| {
            let bit = hash.wrapping_add(step.wrapping_mul(u64::from(n) + 1)) >> 55;
            (&self.words[(block + bit / 64) as usize], 1 << (bit % 64))
        })
    }

    fn holds(&self, hash: u64) -> bool {
        self.places(hash)
            .all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// True if it is full now.
    fn insert(&self, hash: u64) -> bool {
        for (word, bit) in self.places(hash) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        self.keys.fetch_add(1, Ordering::Relaxed) + 1 == self.keys_max
    }
}

/// The same in every run: std's hasher without a random key.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::InodeId;

    #[test]
    fn what_was_taken_in_may_be_there_and_little_else() {
        let filter = Filter::for_keys(0);
        let key = |n: u64| n.to_be_bytes();
        let many = 3 * STAGE_KEYS_MIN;
        (0..many).for_each(|n| filter.insert(&key(n)));
        assert!((0..many).all(|n| filter.may_hold(&key(n))));
        let others = (many..2 * many).filter(|n| filter.may_hold(&key(*n))).count() as u64;
        assert!(others < many / 20, "{others} of {many} others");
    }

    #[test]
    fn who_owns_nothing_is_known() {
        let filter = Filter::for_keys(0);
        let of = |inode: u64| keys::under(keys::EXTENT, inode);
        filter.insert(&keys::extent(InodeId(7), 0));
        for (inode, holds) in [(6, false), (7, true), (8, false), (u64::MAX, false)] {
            let (start, end) = (of(inode), after_prefix(&of(inode)));
            assert_eq!(filter.may_hold_between(&start, &end), holds, "{inode}");
            let (first, second) = (keys::extent(InodeId(inode), 1), keys::extent(InodeId(inode), 9));
            assert_eq!(filter.may_hold_between(&first, &second), holds, "{inode}");
        }
        assert!(
            filter.may_hold_between(&of(1), &after_prefix(&of(7))),
            "more than one owner"
        );
        assert!(
            filter.may_hold_between(&[keys::EXTENT], &[keys::XATTR]),
            "a table"
        );
        assert!(filter.may_hold_between(&keys::under(keys::DENTRY, 1), &keys::under(keys::DENTRY, 2)));
    }

    #[test]
    fn a_filter_that_would_be_too_large_holds_everything() {
        let filter = Filter::for_keys(KEYS_MAX + 1);
        filter.insert(b"a");
        assert!(filter.may_hold(b"b"));
    }
}
