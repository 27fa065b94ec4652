//! The store of the simulation and of unit tests: a map that ends with the process.

use std::collections::BTreeMap;

use super::{Batch, Checkpoint, Key, Pair, Result, Store, StoreScan, Value};

/// Entries in a `BTreeMap`.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: BTreeMap<Key, Value>,
    applied: u64,
}

impl MemoryStore {
    /// Empty, with nothing applied.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan<'a>(&'a self, start: &[u8], end: &[u8]) -> StoreScan<'a> {
        if start >= end {
            return Box::new(std::iter::empty());
        }
        let range = self.entries.range(start.to_vec()..end.to_vec());
        Box::new(range.map(|(key, value)| Ok((key.clone(), value.clone()))))
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        if start >= end {
            return Ok(None);
        }
        let entry = self.entries.range(start.to_vec()..end.to_vec()).next_back();
        Ok(entry.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn applied(&self) -> u64 {
        self.applied
    }

    fn commit(&mut self, batch: &Batch, applied: u64) -> Result<()> {
        for (key, value) in batch.iter() {
            match value {
                Some(value) => self.entries.insert(key.to_vec(), value.to_vec()),
                None => self.entries.remove(key),
            };
        }
        self.applied = applied;
        Ok(())
    }

    fn checkpointer(&self) -> Box<dyn Checkpoint> {
        Box::new(InMemory)
    }
}

#[derive(Debug)]
struct InMemory;

impl Checkpoint for InMemory {
    fn checkpoint(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}
