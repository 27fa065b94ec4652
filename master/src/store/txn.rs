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
