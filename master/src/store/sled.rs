//! The store of a real master: one sled tree.
//!
//! sled 0.34 is used for what it is good at and trusted no further. Its `flush` is not safe against power cuts
//! (upstream issue 1452), so a checkpoint also syncs its files and folder; its own background flush is off. It panics where
//! it meets some kinds of damage, so a store that failed or panicked is marked as suspect (suspect.rs), and the next
//! start does not open it. Whoever opens it gets a store that says which cluster it is of and which command
//! it has come to, or the reason to build a new one from a dump and the log.
//!
//! The record of that is in the same tree and the same batches: key 0x00; value: version u32, cluster, applied u64, and the
//! tally (tally.rs) that a walk over all entries is compared with before the store is used: of 40 damaged files
//! sled opened several with pages missing and no complaint.

mod suspect;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut};
use dfs_proto::ids::ClusterId;

use super::filter::Filter;
use super::{Batch, Checkpoint, Error, Pair, Result, Store, StoreScan, Tally, Value};
use suspect::{Suspect, tried, watched};

/// The key of the store's own record.
const OWN: &[u8] = &[0x00];
/// Version of the store's own record, and of the keys and values beside it.
const FORMAT_VERSION: u32 = 1;
/// Bytes of the store's own record.
const OWN_BYTES: usize = 44;

/// A sled tree with the index of the last command in it.
#[derive(Debug)]
pub struct SledStore {
    tree: sled::Db,
    cluster: ClusterId,
    applied: Arc<AtomicU64>,
    tally: Mutex<Tally>,
    /// Of all keys but the store's own.
    filter: Filter,
    suspect: Suspect,
}

/// What was found where a store should be.
#[derive(Debug)]
pub enum Opened {
    /// A store of this cluster.
    Good(SledStore),
    /// Nothing.
    Missing,
    /// Something that must not be used, and why.
    Unusable(String),
}

impl SledStore {
    /// Opens the store in the folder `path`. Never fails: what cannot be opened can be built anew.
    #[must_use]
    pub fn open(path: &Path, cluster: ClusterId, cache_bytes: u64) -> Opened {
        if !path.exists() {
            return Opened::Missing;
        }
        let suspect = Suspect::of(path);
        if let Some(why) = suspect.reason() {
            return Opened::Unusable(format!("an earlier start failed on it: {why}"));
        }
        let folder = path.to_owned();
        match tried(&suspect, move || {
            Self::open_and_check(&folder, cluster, cache_bytes)
        }) {
            Ok(Ok(store)) => Opened::Good(store),
            Ok(Err(why)) => Opened::Unusable(why),
            Err(panic) => Opened::Unusable(format!("it panicked at the opening: {panic}")),
        }
    }

    fn open_and_check(
        path: &Path,
        cluster: ClusterId,
        cache_bytes: u64,
    ) -> std::result::Result<Self, String> {
        let tree = open_tree(path, cache_bytes).map_err(|error| error.to_string())?;
        let own = tree
            .get(OWN)
            .map_err(|error| error.to_string())?
            .ok_or("it was never finished")?;
        let own = Own::decode(&own)?;
        if own.cluster != cluster {
            return Err(format!("it belongs to cluster {}", own.cluster));
        }
        let filter = Filter::for_keys(own.tally.entries.saturating_mul(2));
        let found = walked(&tree, &filter).map_err(|error| error.to_string())?;
        if found != own.tally {
            let (found, expected) = (found.entries, own.tally.entries);
            return Err(format!(
                "it holds {found} entries where {expected} should be, or others"
            ));
        }
        if own.applied == 0 && found.entries > 0 {
            return Err("a dump was not loaded to its end".into());
        }
        Ok(Self::with(tree, path, own, filter))
    }

    /// Makes an empty store; there must be nothing at `path`.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn create(path: &Path, cluster: ClusterId, cache_bytes: u64) -> Result<SledStore> {
        assert!(
            !path.exists(),
            "a store is made where there is none: {}",
            path.display()
        );
        let tree = open_tree(path, cache_bytes).map_err(failed)?;
        let own = Own {
            cluster,
            applied: 0,
            tally: Tally::default(),
        };
        tree.insert(OWN, own.encode()).map_err(failed)?;
        let store = Self::with(tree, path, own, Filter::for_keys(0));
        store.checkpointer().checkpoint()?;
        if let Some(parent) = path.parent() {
            sync(parent)?;
        }
        Ok(store)
    }

    fn with(tree: sled::Db, path: &Path, own: Own, filter: Filter) -> SledStore {
        let Own {
            cluster,
            applied,
            tally,
        } = own;
        SledStore {
            tree,
            cluster,
            applied: Arc::new(AtomicU64::new(applied)),
            tally: Mutex::new(tally),
            filter,
            suspect: Suspect::of(path),
        }
    }

    /// Moves what is at `path` (if anything) aside, in place of what was moved before, so that a new store can be made there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn set_aside(path: &Path) -> Result<PathBuf> {
        let aside = path.with_extension("broken");
        let io = |error: io::Error| Error(format!("{} cannot be moved aside: {error}", path.display()));
        if path.exists() {
            if aside.exists() {
                fs::remove_dir_all(&aside).map_err(io)?;
            }
            fs::rename(path, &aside).map_err(io)?;
        }
        if let Some(parent) = path.parent() {
            sync(parent)?;
        }
        Suspect::of(path).clear();
        Ok(aside)
    }

    /// As [`Store::commit`], beside reads (which may see half of it). Commits follow each other.
    pub(super) fn commit_shared(&self, batch: &Batch, applied: u64) -> Result<()> {
        assert!(
            applied >= self.applied(),
            "the applied index went from {} to {applied}",
            self.applied()
        );
        let mut changes = sled::Batch::default();
        let mut tally = self.tally_now();
        for (key, value) in batch.iter() {
            assert_ne!(key, OWN, "the state wrote the store's own record");
            let old = self.get(key)?;
            if let Some(old) = &old {
                tally.remove(key, old);
            }
            match value {
                Some(value) => {
                    tally.add(key, value);
                    self.filter.insert(key);
                    changes.insert(key, value);
                }
                None if old.is_some() => changes.remove(key),
                None => {}
            }
        }
        changes.insert(
            OWN,
            Own {
                cluster: self.cluster,
                applied,
                tally,
            }
            .encode(),
        );
        self.read(|tree| tree.apply_batch(changes))?;
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = tally;
        self.applied.store(applied, Ordering::Release);
        Ok(())
    }

    fn tally_now(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True only if `key` has no value, which is found out without asking sled.
    pub(super) fn lacks(&self, key: &[u8]) -> bool {
        !self.filter.may_hold(key)
    }

    /// True only if no key from `start` on and before `end` has a value, which is found out without asking sled.
    pub(super) fn lacks_between(&self, start: &[u8], end: &[u8]) -> bool {
        !self.filter.may_hold_between(start, end)
    }

    fn read<T>(&self, read: impl FnOnce(&sled::Tree) -> sled::Result<T>) -> Result<T> {
        watched(&self.suspect, || read(&self.tree)).map_err(|error| self.noted(error))
    }

    fn noted(&self, error: sled::Error) -> Error {
        let full = matches!(&error, sled::Error::Io(io) if io.kind() == io::ErrorKind::StorageFull);
        if !full {
            self.suspect.note(&error.to_string());
        }
        failed(error)
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        if self.lacks(key) {
            return Ok(None);
        }
        Ok(self.read(|tree| tree.get(key))?.map(|value| value.to_vec()))
    }

    fn scan<'a>(&'a self, start: &[u8], end: &[u8]) -> StoreScan<'a> {
        if start >= end {
            return Box::new(std::iter::empty());
        }
        let mut range = self.tree.range(start..end);
        Box::new(std::iter::from_fn(move || {
            self.read(|_| range.next().transpose())
                .map(|entry| entry.map(pair))
                .transpose()
        }))
    }

    fn last(&self, start: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        if start >= end {
            return Ok(None);
        }
        Ok(self
            .read(|tree| tree.range(start..end).next_back().transpose())?
            .map(pair))
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    fn tally(&self) -> Option<Tally> {
        Some(self.tally_now())
    }

    fn commit(&mut self, batch: &Batch, applied: u64) -> Result<()> {
        self.commit_shared(batch, applied)
    }

    fn checkpointer(&self) -> Box<dyn Checkpoint> {
        let (tree, applied) = (self.tree.clone(), self.applied.clone());
        Box::new(SledCheckpoint {
            tree,
            applied,
            suspect: self.suspect.clone(),
        })
    }
}

#[derive(Debug)]
struct SledCheckpoint {
    tree: sled::Db,
    applied: Arc<AtomicU64>,
    suspect: Suspect,
}

impl Checkpoint for SledCheckpoint {
    fn checkpoint(&self) -> Result<Option<u64>> {
        let applied = self.applied.load(Ordering::Acquire);
        watched(&self.suspect, || self.tree.flush()).map_err(failed)?;
        sync_files(self.suspect.store())?;
        Ok(Some(applied))
    }
}

fn open_tree(path: &Path, cache_bytes: u64) -> sled::Result<sled::Db> {
    sled::Config::new()
        .path(path)
        .cache_capacity(cache_bytes)
        .flush_every_ms(None)
        .open()
}

/// The store's own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    cluster: ClusterId,
    applied: u64,
    tally: Tally,
}

impl Own {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(OWN_BYTES);
        out.put_u32_le(FORMAT_VERSION);
        out.put_slice(&self.cluster.0);
        out.put_u64_le(self.applied);
        out.put_u64_le(self.tally.entries);
        out.put_u64_le(self.tally.sum);
        out
    }

    fn decode(mut own: &[u8]) -> std::result::Result<Own, String> {
        if own.len() != OWN_BYTES || own.get_u32_le() != FORMAT_VERSION {
            return Err("its format is not this program's".into());
        }
        let mut cluster = ClusterId::default();
        own.copy_to_slice(&mut cluster.0);
        let applied = own.get_u64_le();
        Ok(Own {
            cluster,
            applied,
            tally: Tally {
                entries: own.get_u64_le(),
                sum: own.get_u64_le(),
            },
        })
    }
}

/// Everything but the store's own record, counted, and its keys taken into the filter.
fn walked(tree: &sled::Tree, filter: &Filter) -> sled::Result<Tally> {
    let mut tally = Tally::default();
    for entry in tree {
        let (key, value) = entry?;
        if key != OWN {
            tally.add(&key, &value);
            filter.insert(&key);
        }
    }
    Ok(tally)
}

fn pair((key, value): (sled::IVec, sled::IVec)) -> Pair {
    (key.to_vec(), value.to_vec())
}

fn failed(error: sled::Error) -> Error {
    Error(error.to_string())
}

/// Makes all files of the folder and its names durable.
fn sync_files(folder: &Path) -> Result<()> {
    let io = |error: io::Error| Error(format!("{} cannot be listed: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(io)? {
        sync(&entry.map_err(io)?.path())?;
    }
    sync(folder)
}

/// Makes a file or folder durable. One that is gone by now (sled replaces its snapshots as it goes) needs it no more.
fn sync(path: &Path) -> Result<()> {
    let synced = match fs::File::open(path) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    synced.map_err(|error| Error(format!("{} cannot be synced: {error}", path.display())))
}
