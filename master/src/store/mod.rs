//! The ground: ordered bytes under the state, in one tree, changed by one batch for a group of commands.
//!
//! From below: a [`Store`] (sled behind a layer in memory, or memory alone) holds what is committed, with the index of
//! the last command in it.
//! A [`View`] reads it for as long as a guard is held. A [`Txn`] lays writes over a view (or over another `Txn`),
//! so that commands of one group see each other; its [`Batch`] is committed at once.
//!
//! Reads of [`Read`] do not fail in the hand of their caller: the state stays free of storage errors. A read that does fail
//! is kept by the view, and whoever made the view asks [`View::finish`] before it believes, commits or answers anything.
//!
//! Durability is not the store's but the log's: what a store has lost is applied again from there.

mod behind;
pub mod dump;
mod filter;
mod ground;
pub mod keys;
mod memory;
pub mod records;
mod sled;
mod tally;
mod txn;

use std::cell::RefCell;
use std::collections::BTreeMap;

pub use behind::Behind;
pub use ground::Ground;
pub use memory::MemoryStore;
pub use sled::{Opened, SledStore};
pub use tally::Tally;
pub use txn::Txn;

/// A key. The first byte is the table; 0x00 and 0xff are the store's own and never the state's.
pub type Key = Vec<u8>;
/// A value: at most a few KiB (sled leaks values over 128 KiB).
pub type Value = Vec<u8>;
/// An entry.
pub type Pair = (Key, Value);
/// Entries of a range in key order.
pub type Scan<'a> = Box<dyn Iterator<Item = Pair> + 'a>;
/// Entries of a range in key order, straight from a store.
pub type StoreScan<'a> = Box<dyn Iterator<Item = Result<Pair>> + 'a>;

/// Moves commits that a store kept in memory to its ground: run it beside reads and commits, then tell [`Store::settled`].
pub type Settling = Box<dyn FnOnce() -> Result<()> + Send>;

/// Longest value a batch may hold, in bytes: sled 0.34 never frees the space of values over 128 KiB.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// A store that cannot be read, written or made durable. The master stops.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct Error(pub String);

/// Result of a store.
pub type Result<T> = std::result::Result<T, Error>;

/// What the state reads: a view, or a transaction over one.
pub trait Read {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Option<Value>;

    /// Entries with `start <= key < end`, in key order. A range with `start >= end` is empty.
    fn scan<'a>(&'a self, start: &[u8], end: &[u8]) -> Scan<'a>;

    /// The entry with the greatest key in `start <= key < end`.
    fn last(&self, start: &[u8], end: &[u8]) -> Option<Pair>;

    /// True if `key` has a value.
    fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// Entries whose key begins with `prefix`, in key order.
    fn scan_prefix<'a>(&'a self, prefix: &[u8]) -> Scan<'a> {
        self.scan(prefix, &after_prefix(prefix))
    }
}

/// The first key behind all keys that begin with `prefix`.
///
/// # Panics
/// If the prefix is empty or all 0xff: there is no such key. The state's tables are below 0xff.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while end.last() == Some(&0xff) {
        end.pop();
    }
    let last = end
        .last_mut()
        .expect("a prefix begins with a table byte below 0xff");
    *last += 1;
    end
}

/// Changes, each key once: `Some` writes, `None` removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(BTreeMap<Key, Option<Value>>);

impl Batch {
    /// The changes in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// Number of changed keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes a value.
    pub fn put(&mut self, key: Key, value: Value) {
        assert!(
            value.len() <= VALUE_BYTES_MAX,
            "a value of {} bytes for key {key:02x?}",
            value.len()
        );
        self.0.insert(key, Some(value));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: Key) {
        self.0.insert(key, None);
    }
}

/// Committed entries with the index of the last command applied to them.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The value of `key`.
    ///
    /// # Errors
    /// If the ground cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Value>>;

    /// Entries with `start <= key < end` in key order.
    fn scan<'a>(&'a self, start: &[u8], end: &[u8]) -> StoreScan<'a>;

    /// The entry with the greatest key in `start <= key < end`.
    ///
    /// # Errors
    /// If the ground cannot be read.
    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Pair>>;

    /// Index of the last command in the store; 0 if there is none.
    fn applied(&self) -> u64;

    /// What a walk over all entries must come to; `None` if the store cannot lose any without a word.
    fn tally(&self) -> Option<Tally> {
        None
    }

    /// Makes the changes visible and moves the applied index, both or neither (also over a crash of the process).
    /// They need not be durable.
    ///
    /// # Errors
    /// If the ground cannot be written: nothing may be committed to this store any more.
    fn commit(&mut self, batch: &Batch, applied: u64) -> Result<()>;

    /// What [`Checkpoint::checkpoint`] is asked of, without a hold on the store. It covers what is settled.
    fn checkpointer(&self) -> Box<dyn Checkpoint>;

    /// Keys of commits that are not settled yet.
    fn unsettled(&self) -> usize {
        0
    }

    /// Begins to settle what is committed; `None` if there is nothing to settle.
    fn settle(&mut self) -> Option<Settling> {
        None
    }

    /// The settling that was begun is done.
    fn settled(&mut self) {}
}

/// Makes a store durable beside its use. Blocks for as long as the disk does.
pub trait Checkpoint: Send + std::fmt::Debug {
    /// Everything committed up to the returned index is durable from now on.
    /// `None`: nothing of this store outlives the process; only dumps count.
    ///
    /// # Errors
    /// If the ground cannot be made durable. Never asked again then: a second fsync proves nothing.
    fn checkpoint(&self) -> Result<Option<u64>>;
}

/// A store as the state reads it. Holds the first error it met; see [`View::finish`].
#[derive(Debug)]
pub struct View<'a> {
    store: &'a dyn Store,
    failed: RefCell<Option<Error>>,
}

impl<'a> View<'a> {
    /// Reads of `store`.
    #[must_use]
    pub fn new(store: &'a dyn Store) -> Self {
        View {
            store,
            failed: RefCell::new(None),
        }
    }

    /// Index of the last command seen here.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.store.applied()
    }

    /// Whether all that was read was true.
    ///
    /// # Errors
    /// If a read failed: nothing that was concluded from this view may be used.
    pub fn finish(&self) -> Result<()> {
        self.failed.borrow().clone().map_or(Ok(()), Err)
    }

    fn note<T: Default>(&self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| {
            // Said here too: an assertion of the state may fire on the missing value before anyone asks `finish`.
            tracing::error!(%error, "a read of the store failed");
            self.failed.borrow_mut().get_or_insert(error);
            T::default()
        })
    }
}

impl Read for View<'_> {
    fn get(&self, key: &[u8]) -> Option<Value> {
        self.note(self.store.get(key))
    }

    fn scan<'a>(&'a self, start: &[u8], end: &[u8]) -> Scan<'a> {
        if start >= end {
            return Box::new(std::iter::empty());
        }
        Box::new(
            self.store
                .scan(start, end)
                .map_while(|entry| self.note(entry.map(Some))),
        )
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Option<Pair> {
        if start >= end {
            return None;
        }
        self.note(self.store.last(start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_lacks_it() {
        assert_eq!(after_prefix(&[3]), [4]);
        assert_eq!(after_prefix(&[3, 0xff, 0xff]), [4]);
        assert_eq!(after_prefix(&[3, 7]), [3, 8]);
    }

    #[derive(Debug)]
    struct Broken;

    impl Store for Broken {
        fn get(&self, _: &[u8]) -> Result<Option<Value>> {
            Err(Error("gone".into()))
        }
        fn scan<'a>(&'a self, _: &[u8], _: &[u8]) -> StoreScan<'a> {
            Box::new(
                [
                    Ok((vec![1], vec![1])),
                    Err(Error("gone".into())),
                    Ok((vec![2], vec![2])),
                ]
                .into_iter(),
            )
        }
        fn last(&self, _: &[u8], _: &[u8]) -> Result<Option<Pair>> {
            Err(Error("gone".into()))
        }
        fn applied(&self) -> u64 {
            0
        }
        fn commit(&mut self, _: &Batch, _: u64) -> Result<()> {
            Err(Error("gone".into()))
        }
        fn checkpointer(&self) -> Box<dyn Checkpoint> {
            MemoryStore::new().checkpointer()
        }
    }

    #[test]
    fn a_view_remembers_that_a_read_failed() {
        for read in [
            (|v: &View<'_>| drop(v.get(b"k"))) as fn(&View<'_>),
            |v| drop(v.last(&[1], &[9])),
            |v| assert_eq!(v.scan(&[1], &[9]).count(), 1),
        ] {
            let view = View::new(&Broken);
            assert!(view.finish().is_ok());
            read(&view);
            assert!(view.finish().is_err());
        }
    }
}
