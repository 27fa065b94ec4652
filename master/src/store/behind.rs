//! Commits in memory first, in sled a little later: many commands as one batch, and a key that was written often once.
//!
//! From above to below: **recent** holds what was committed since the last settling began, **settling** what is on its way
//! into sled, and sled everything up to the command that its own record names. A key's value is in the uppermost
//! layer that knows it. Settling takes all of recent, as of one command, and writes it to sled as one batch beside reads and
//! commits; so sled is at every instant the exact state after some command, only an older one. What it lacks is in the log,
//! and is applied again from there at the next start: durability never was the store's (see the module above).
//!
//! **warm** keeps values that were read or settled lately. Whoever commits a key takes it out, under the guard that
//! keeps readers away.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Checkpoint, Key, Pair, Result, Settling, SledStore, Store, StoreScan, Tally, Value};

/// Bytes of keys and values that each of the two generations of warm values may have.
const WARM_BYTES: usize = 8 << 20;

/// sled with the latest commits in memory.
#[derive(Debug)]
pub struct Behind {
    below: Arc<SledStore>,
    recent: Batch,
    settling: Option<Arc<Batch>>,
    warm: Mutex<Warm>,
    applied: u64,
}

impl Behind {
    /// Over a store, with nothing in memory.
    #[must_use]
    pub fn new(below: SledStore) -> Behind {
        Behind {
            applied: below.applied(),
            below: Arc::new(below),
            recent: Batch::default(),
            settling: None,
            warm: Mutex::default(),
        }
    }

    fn warm(&self) -> MutexGuard<'_, Warm> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the layers in memory say of a key; `None` if they do not know it.
    fn layered(&self, key: &[u8]) -> Option<&Option<Value>> {
        let settling = || self.settling.as_ref().and_then(|batch| batch.0.get(key));
        self.recent.0.get(key).or_else(settling)
    }
}

impl Store for Behind {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        if let Some(known) = self.layered(key) {
            return Ok(known.clone());
        }
        if self.below.lacks(key) {
            return Ok(None);
        }
        if let Some(value) = self.warm().get(key) {
            return Ok(Some(value));
        }
        let found = self.below.get(key)?;
        if let Some(value) = &found {
            self.warm().put(key, value.clone());
        }
        Ok(found)
    }

    fn scan<'a>(&'a self, start: &[u8], end: &[u8]) -> StoreScan<'a> {
        if start >= end {
            return Box::new(std::iter::empty());
        }
        let below = match self.below.lacks_between(start, end) {
            true => Box::new(std::iter::empty()),
            false => self.below.scan(start, end),
        };
        let lower = match &self.settling {
            Some(batch) => over(batch, below, start, end),
            None => below,
        };
        over(&self.recent, lower, start, end)
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        if start >= end {
            return Ok(None);
        }
        let range = |batch: &'_ Batch| {
            let mut range = batch.0.range(start.to_vec()..end.to_vec()).rev();
            let there =
                range.find(|(key, value)| value.is_some() && self.layered(key).is_some_and(|v| v.is_some()));
            there.map(|(key, _)| key.clone())
        };
        let upper = range(&self.recent);
        let upper = upper.max(self.settling.as_ref().and_then(|batch| range(batch)));
        let mut end = end.to_vec();
        let below = loop {
            if self.below.lacks_between(start, &end) {
                break None;
            }
            match self.below.last(start, &end)? {
                Some((key, _)) if self.layered(&key).is_some() => end = key,
                found => break found,
            }
        };
        match upper {
            Some(key) if below.as_ref().is_none_or(|(k, _)| *k < key) => {
                let value = self.layered(&key).cloned().flatten();
                Ok(value.map(|value| (key, value)))
            }
            Some(_) | None => Ok(below),
        }
    }

    fn applied(&self) -> u64 {
        self.applied
    }

    /// Nothing may be settling.
    fn tally(&self) -> Option<Tally> {
        let mut tally = self.below.tally()?;
        for (key, value) in self.recent.iter() {
            // A store that cannot be read says so when it is walked.
            if let Some(old) = self.below.get(key).ok().flatten() {
                tally.remove(key, &old);
            }
            if let Some(value) = value {
                tally.add(key, value);
            }
        }
        Some(tally)
    }

    fn commit(&mut self, batch: &Batch, applied: u64) -> Result<()> {
        assert!(
            applied >= self.applied,
            "the applied index went from {} to {applied}",
            self.applied
        );
        let warm = self.warm.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in &batch.0 {
            let known = self.recent.0.get_mut(key);
            let is_known = known.is_some();
            if let (Some(known), Some(value)) = (known, value) {
                *known = Some(value.clone());
                continue;
            }
            let is_settling = self.settling.as_ref().is_some_and(|b| b.0.contains_key(key));
            let is_below = is_settling || !self.below.lacks(key);
            if is_below && !is_known {
                warm.remove(key);
            }
            if value.is_some() || is_below {
                self.recent.0.insert(key.clone(), value.clone());
            } else {
                // It came and went since the last settling.
                self.recent.0.remove(key);
            }
        }
        self.applied = applied;
        Ok(())
    }

    fn checkpointer(&self) -> Box<dyn Checkpoint> {
        self.below.checkpointer()
    }

    fn unsettled(&self) -> usize {
        self.recent.len()
    }

    fn settle(&mut self) -> Option<Settling> {
        assert!(self.settling.is_none(), "one settling at a time");
        if self.applied == self.below.applied() {
            return None;
        }
        let batch = Arc::new(std::mem::take(&mut self.recent));
        self.settling = Some(batch.clone());
        let (below, applied) = (self.below.clone(), self.applied);
        Some(Box::new(move || below.commit_shared(&batch, applied)))
    }

    fn settled(&mut self) {
        let Some(batch) = self.settling.take() else { return };
        let warm = self.warm.get_mut().unwrap_or_else(PoisonError::into_inner);
        let batch = Arc::try_unwrap(batch).unwrap_or_else(|shared| Batch::clone(&shared));
        for (key, value) in batch.0 {
            if let Some(value) = value
                && !self.recent.0.contains_key(&key)
            {
                warm.put(&key, value);
            }
        }
    }
}

/// Values by key, those that were not asked for lately forgotten first, a generation at a time.
#[derive(Debug, Default)]
struct Warm {
    young: BTreeMap<Key, Value>,
    old: BTreeMap<Key, Value>,
    young_bytes: usize,
}

impl Warm {
    fn get(&mut self, key: &[u8]) -> Option<Value> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(&key, value.clone());
        Some(value)
    }

    fn put(&mut self, key: &[u8], value: Value) {
        self.young_bytes += key.len() + value.len();
        if self.young_bytes > WARM_BYTES {
            self.young_bytes = key.len() + value.len();
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.to_vec(), value);
    }

    fn remove(&mut self, key: &[u8]) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

/// The batch laid over a scan of what is below it.
fn over<'a>(batch: &'a Batch, below: StoreScan<'a>, start: &[u8], end: &[u8]) -> StoreScan<'a> {
    let mut range = batch.0.range(start.to_vec()..end.to_vec()).peekable();
    if range.peek().is_none() {
        return below;
    }
    Box::new(Over {
        below: below.peekable(),
        range,
    })
}

struct Over<'a, R: Iterator<Item = (&'a Key, &'a Option<Value>)>> {
    below: Peekable<StoreScan<'a>>,
    range: Peekable<R>,
}

impl<'a, R: Iterator<Item = (&'a Key, &'a Option<Value>)>> Iterator for Over<'a, R> {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Result<Pair>> {
        loop {
            let Some((written, _)) = self.range.peek() else {
                return self.below.next();
            };
            let is_before = |entry: &Result<Pair>| entry.as_ref().map_or(true, |(key, _)| key < *written);
            if let Some(entry) = self.below.next_if(is_before) {
                return Some(entry);
            }
            let hidden = self
                .below
                .next_if(|entry| entry.as_ref().is_ok_and(|(key, _)| key == *written));
            drop(hidden);
            if let Some((key, Some(value))) = self.range.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests;
