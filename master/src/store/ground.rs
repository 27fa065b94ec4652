//! The store, its guard, and a dump beside its use.
//!
//! A sled reader can see half a batch, so readers hold a read guard for their whole walk and a commit the write guard.
//! A dump takes longer than anyone may wait: it **pins** the entries as they are, then takes them piece by piece.
//! A commit in between first lays aside what the entries that the dump has not reached yet were.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};

use super::{Batch, Checkpoint, Error, Key, Pair, Read, Result, Store, Tally, Txn, Value, View};

/// Before the first table of the state.
const FIRST: &[u8] = &[0x01];
/// Behind the last table of the state.
const END: &[u8] = &[0xff];

/// A store shared by readers, one committer and at most one dump.
#[derive(Debug)]
pub struct Ground {
    store: RwLock<Box<dyn Store>>,
    /// Held while the store settles. Locked before the store's guard.
    settling: Mutex<()>,
    /// Locked after the store's guard.
    pin: Mutex<Option<Pin>>,
}

/// Entries as of the pin that have been changed since, and how far the dump has come.
#[derive(Debug)]
struct Pin {
    /// Keys below it have been taken.
    from: Key,
    /// What was taken, and what all must come to.
    taken: Tally,
    expected: Option<Tally>,
    before: BTreeMap<Key, Option<Value>>,
}

impl Ground {
    /// Shares the store.
    #[must_use]
    pub fn new(store: Box<dyn Store>) -> Self {
        Ground {
            store: RwLock::new(store),
            settling: Mutex::new(()),
            pin: Mutex::new(None),
        }
    }

    /// What `walk` makes of the store, none of which changes while it walks.
    ///
    /// # Errors
    /// If the store could not be read: what `walk` returned is dropped.
    pub fn read<T>(&self, walk: impl FnOnce(&View<'_>) -> T) -> Result<T> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let view = View::new(&**store);
        let result = walk(&view);
        view.finish().map(|()| result)
    }

    /// Index of the last command in the store.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.store
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .applied()
    }

    /// Commits a batch.
    ///
    /// # Errors
    /// If the store fails: nothing may be committed to it any more.
    pub fn commit(&self, batch: &Batch, applied: u64) -> Result<()> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pin) = &mut *self.pin.lock().unwrap_or_else(PoisonError::into_inner) {
            for (key, _) in batch.iter() {
                if key >= pin.from.as_slice() && !pin.before.contains_key(key) {
                    pin.before.insert(key.to_vec(), store.get(key)?);
                }
            }
        }
        store.commit(batch, applied)
    }

    /// Keys of commits that are not settled yet.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.store
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .unsettled()
    }

    /// Settles everything committed so far; reads and commits go on meanwhile.
    ///
    /// # Errors
    /// If the store fails: nothing may be committed to it any more.
    pub fn settle(&self) -> Result<()> {
        let _one = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = self
            .store
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .settle();
        let Some(settling) = begun else { return Ok(()) };
        settling()?;
        self.store
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .settled();
        Ok(())
    }

    /// See [`Store::checkpointer`]; settle first what it should cover.
    #[must_use]
    pub fn checkpointer(&self) -> Box<dyn Checkpoint> {
        self.store
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .checkpointer()
    }

    /// Pins the entries for [`Ground::take`], in place of an earlier pin. Returns the index of the last command in them.
    pub fn pin(&self) -> u64 {
        let _settled = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let (from, expected) = (FIRST.to_vec(), store.tally());
        let pin = Pin {
            from,
            taken: Tally::default(),
            expected,
            before: BTreeMap::new(),
        };
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
        store.applied()
    }

    /// The next pinned entries in key order, about `bytes` of them; `None` behind the last, and the pin is gone.
    ///
    /// # Errors
    /// If the store cannot be read, or entries are missing at the end.
    pub fn take(&self, bytes: usize) -> Result<Option<Vec<Pair>>> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let mut guard = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pin) = &mut *guard else { return Ok(None) };
        let view = View::new(&**store);
        let (mut taken, mut size) = (Vec::new(), 0);
        let then = Txn::over(&view, std::mem::take(&mut pin.before));
        for (key, value) in then.scan(&pin.from, END) {
            pin.taken.add(&key, &value);
            size += key.len() + value.len();
            taken.push((key, value));
            if size >= bytes {
                break;
            }
        }
        pin.before = then.into_batch().0;
        view.finish()?;
        match taken.last() {
            Some((key, _)) => {
                // The least key behind this one.
                pin.from = [key.as_slice(), &[0]].concat();
                pin.before = pin.before.split_off(&pin.from);
            }
            None => {
                let (found, expected) = (pin.taken, pin.expected);
                *guard = None;
                check(found, expected)?;
            }
        }
        Ok((!taken.is_empty()).then_some(taken))
    }

    /// Gives the pin up.
    pub fn unpin(&self) {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn check(found: Tally, expected: Option<Tally>) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(Error(format!(
            "it holds {} entries where {} should be, or others",
            found.entries, expected.entries
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;
    use dfs_stdx::Rng;

    fn entries(ground: &Ground) -> Vec<Pair> {
        ground.read(|view| view.scan(FIRST, END).collect()).unwrap()
    }

    fn random_batch(rng: &Rng) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..rng.below(6) {
            let key = vec![1 + rng.below(4) as u8, rng.below(40) as u8];
            if rng.below(3) == 0 {
                batch.remove(key)
            } else {
                batch.put(key, rng.u64().to_le_bytes().to_vec())
            }
        }
        batch
    }

    #[test]
    fn a_dump_beside_commits_holds_the_entries_of_its_pin() {
        for seed in 0..40 {
            let rng = Rng::seeded(seed);
            let ground = Ground::new(Box::new(MemoryStore::new()));
            for applied in 1..30 {
                ground.commit(&random_batch(&rng), applied).unwrap();
            }
            let expected = entries(&ground);
            assert_eq!(ground.pin(), 29);
            let mut taken = Vec::new();
            let mut applied = 29;
            while let Some(more) = ground.take(40).unwrap() {
                taken.extend(more);
                applied += 1;
                ground.commit(&random_batch(&rng), applied).unwrap();
            }
            assert_eq!(taken, expected, "seed {seed}");
            assert!(ground.pin.lock().unwrap().is_none());
            assert_eq!(ground.applied(), applied);
        }
    }

    /// Keeps nothing and settles never.
    #[derive(Debug)]
    struct Stuck;

    impl Store for Stuck {
        fn get(&self, _: &[u8]) -> Result<Option<Value>> {
            Ok(None)
        }
        fn scan<'a>(&'a self, _: &[u8], _: &[u8]) -> super::super::StoreScan<'a> {
            Box::new(std::iter::empty())
        }
        fn last(&self, _: &[u8], _: &[u8]) -> Result<Option<Pair>> {
            Ok(None)
        }
        fn applied(&self) -> u64 {
            0
        }
        fn commit(&mut self, _: &Batch, _: u64) -> Result<()> {
            Ok(())
        }
        fn checkpointer(&self) -> Box<dyn Checkpoint> {
            MemoryStore::new().checkpointer()
        }
        fn settle(&mut self) -> Option<super::super::Settling> {
            Some(Box::new(|| Err(Error("the disk is gone".into()))))
        }
        fn settled(&mut self) {
            panic!("what failed is not settled");
        }
    }

    #[test]
    fn a_settling_that_fails_is_an_error_and_stays_unsettled() {
        assert!(Ground::new(Box::new(Stuck)).settle().is_err());
        Ground::new(Box::new(MemoryStore::new())).settle().unwrap();
    }

    #[test]
    fn nothing_is_laid_aside_without_a_pin() {
        let ground = Ground::new(Box::new(MemoryStore::new()));
        let mut batch = Batch::default();
        batch.put(vec![1], vec![1]);
        ground.pin();
        ground.unpin();
        ground.commit(&batch, 1).unwrap();
        assert_eq!(ground.take(100).unwrap(), None);
    }
}
