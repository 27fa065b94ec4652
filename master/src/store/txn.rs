//! Writes over a view, read as if they were committed.
//!
//! A `Txn` over a `Txn` is one command within a group: its writes are absorbed if it is accepted, dropped if not.

use std::collections::BTreeMap;
use std::iter::Peekable;

use super::{Batch, Key, Pair, Read, Scan, VALUE_BYTES_MAX, Value};

/// An overlay of writes over `base`.
pub struct Txn<'a> {
    base: &'a dyn Read,
    writes: BTreeMap<Key, Option<Value>>,
}

impl std::fmt::Debug for Txn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Txn")
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Txn<'a> {
    /// No writes yet.
    #[must_use]
    pub fn new(base: &'a dyn Read) -> Self {
        Txn {
            base,
            writes: BTreeMap::new(),
        }
    }

    /// Writes that were made elsewhere.
    pub(super) fn over(base: &'a dyn Read, writes: BTreeMap<Key, Option<Value>>) -> Self {
        Txn { base, writes }
    }

    /// Writes a value.
    ///
    /// # Panics
    /// If the value is longer than [`VALUE_BYTES_MAX`].
    pub fn put(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        assert!(
            value.len() <= VALUE_BYTES_MAX,
            "a value of {} bytes for key {key:02x?}",
            value.len()
        );
        self.writes.insert(key, Some(value));
    }

    /// Removes a key; fine if it has no value.
    pub fn remove(&mut self, key: impl Into<Key>) {
        self.writes.insert(key.into(), None);
    }

    /// Takes over the writes of a transaction that was laid over this one.
    pub fn absorb(&mut self, batch: Batch) {
        self.writes.extend(batch.0);
    }

    /// The writes, to be committed or absorbed.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        Batch(self.writes)
    }

    /// True if nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The writes so far, in key order; `None` removes.
    pub fn writes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.writes
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}

impl Read for Txn<'_> {
    fn get(&self, key: &[u8]) -> Option<Value> {
        match self.writes.get(key) {
            Some(written) => written.clone(),
            None => self.base.get(key),
        }
    }

    fn scan<'a>(&'a self, start: &[u8], end: &[u8]) -> Scan<'a> {
        if start >= end {
            return Box::new(std::iter::empty());
        }
        let over = self.writes.range(start.to_vec()..end.to_vec());
        let over = over.map(|(key, value)| (key.clone(), value.clone()));
        Box::new(Merge {
            base: self.base.scan(start, end).peekable(),
            over: over.peekable(),
        })
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Option<Pair> {
        if start >= end {
            return None;
        }
        let written = self.writes.range(start.to_vec()..end.to_vec()).rev();
        let written = written
            .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
            .next();
        let based = self.last_of_base(start, end);
        written.into_iter().chain(based).max_by(|a, b| a.0.cmp(&b.0))
    }
}

impl Txn<'_> {
    /// The greatest entry of the base that is not overwritten here.
    fn last_of_base(&self, start: &[u8], end: &[u8]) -> Option<Pair> {
        let mut end = end.to_vec();
        loop {
            let entry = self.base.last(start, &end)?;
            if !self.writes.contains_key(&entry.0) {
                return Some(entry);
            }
            end = entry.0;
        }
    }
}

/// Two ordered runs as one; where both have a key, the overlay's counts.
struct Merge<'a, Over: Iterator<Item = (Key, Option<Value>)>> {
    base: Peekable<Scan<'a>>,
    over: Peekable<Over>,
}

impl<Over: Iterator<Item = (Key, Option<Value>)>> Iterator for Merge<'_, Over> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            let Some((written, _)) = self.over.peek() else {
                return self.base.next();
            };
            if let Some(entry) = self.base.next_if(|(key, _)| key < written) {
                return Some(entry);
            }
            let hidden = self.base.next_if(|(key, _)| key == written);
            drop(hidden);
            if let Some((key, Some(value))) = self.over.next() {
                return Some((key, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStore, Store, View};
    use super::*;
    use proptest::prelude::*;

    /// Writes of a key of two small bytes, or its removal.
    fn writes() -> impl Strategy<Value = Vec<(Key, Option<Value>)>> {
        let key = prop::collection::vec(1..4_u8, 1..3);
        prop::collection::vec(
            (key, prop::option::of(prop::collection::vec(any::<u8>(), 0..3))),
            0..12,
        )
    }

    fn write(txn: &mut Txn<'_>, map: &mut BTreeMap<Key, Value>, writes: &[(Key, Option<Value>)]) {
        for (key, value) in writes {
            match value {
                Some(value) => {
                    txn.put(key.clone(), value.clone());
                    map.insert(key.clone(), value.clone());
                }
                None => {
                    txn.remove(key.clone());
                    map.remove(key);
                }
            }
        }
    }

    fn assert_reads_as(read: &dyn Read, map: &BTreeMap<Key, Value>) {
        let bounds = || (0..5_u8).flat_map(|a| [vec![a], vec![a, 2]]);
        for start in bounds() {
            assert_eq!(read.get(&start), map.get(&start).cloned());
            for end in bounds() {
                let inside = |key: &Key| *key >= start && *key < end;
                let expected: Vec<Pair> = map
                    .iter()
                    .filter(|(key, _)| inside(key))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                assert_eq!(read.last(&start, &end), expected.last().cloned());
                assert_eq!(read.scan(&start, &end).collect::<Vec<_>>(), expected);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn transactions_over_transactions_read_as_one_map(below in writes(), group in writes(), command in writes()) {
            let (mut store, mut map) = (MemoryStore::new(), BTreeMap::new());
            let empty = MemoryStore::new();
            let nothing = View::new(&empty);
            let mut first = Txn::new(&nothing);
            write(&mut first, &mut map, &below);
            store.commit(&first.into_batch(), 1).unwrap();
            let view = View::new(&store);
            assert_reads_as(&view, &map);
            let mut outer = Txn::new(&view);
            write(&mut outer, &mut map, &group);
            assert_reads_as(&outer, &map);
            let before = map.clone();
            let mut inner = Txn::new(&outer);
            write(&mut inner, &mut map, &command);
            assert_reads_as(&inner, &map);
            let batch = inner.into_batch();
            assert_reads_as(&outer, &before);
            outer.absorb(batch);
            assert_reads_as(&outer, &map);
        }
    }
}
