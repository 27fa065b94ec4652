//! Deleting replicas, many with the syncs of one: first what they had promised is remembered, then the files go, then the
//! folders are synced.

use super::error::{Error, Result};
use super::file::Replica;
use super::index::Store;
use dfs_proto::{ChunkHandle, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What one deletion came to.
type Removed = (ChunkHandle, Result<()>);

impl Store {
    /// Deletes a replica, unless it has promised more than `version`; its promise is remembered until then.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Stale`]; the disk's.
    pub fn remove(&self, handle: ChunkHandle, version: Version, remember_until_unix_ms: u64) -> Result<()> {
        let removed = self.remove_all(&[(handle, version)], remember_until_unix_ms);
        removed.into_iter().try_for_each(|(_, result)| result)
    }

    /// As [`Store::remove`], for many chunks, each with its outcome.
    pub fn remove_all(&self, wanted: &[(ChunkHandle, Version)], remember_until_unix_ms: u64) -> Vec<Removed> {
        let mut outcomes = Vec::with_capacity(wanted.len());
        let mut by_home: BTreeMap<usize, Vec<(Arc<Replica>, Version)>> = BTreeMap::new();
        for (handle, version) in wanted {
            match self.removable(*handle, *version) {
                Ok((home, replica)) => by_home.entry(home).or_default().push((replica, *version)),
                Err(error) => outcomes.push((*handle, Err(error))),
            }
        }
        for (home, replicas) in by_home {
            outcomes.extend(self.remove_from(home, &replicas, remember_until_unix_ms));
        }
        let gone = outcomes.iter().filter(|(_, result)| result.is_ok());
        let mut index = self.replicas.write().expect("no panic while the index is held");
        for (handle, _) in gone {
            index.remove(handle);
        }
        outcomes
    }

    /// The replica and its disk's place.
    fn removable(&self, handle: ChunkHandle, version: Version) -> Result<(usize, Arc<Replica>)> {
        let replica = self.get(handle).ok_or(Error::NotFound(handle))?;
        let promised = replica.state().promised;
        if promised > version {
            return Err(Error::Stale(promised));
        }
        let home = self
            .homes
            .iter()
            .position(|h| h.id == replica.home().id)
            .expect("its disk is ours");
        Ok((home, replica))
    }

    fn remove_from(&self, home: usize, replicas: &[(Arc<Replica>, Version)], until_ms: u64) -> Vec<Removed> {
        let promises: Vec<_> = replicas
            .iter()
            .map(|(replica, _)| (replica.handle(), replica.state().promised))
            .collect();
        if let Err(error) = self.graves()[home].bury(&promises, until_ms) {
            let why = error.to_string();
            let failed = |(handle, _): &(ChunkHandle, Version)| {
                (
                    *handle,
                    Err(Error::Refused(format!("what it promised cannot be noted: {why}"))),
                )
            };
            return promises.iter().map(failed).collect();
        }
        let home = &self.homes[home];
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        let mut outcomes = Vec::with_capacity(replicas.len());
        for (replica, version) in replicas {
            let outcome = replica.unlink(*version);
            if outcome.is_ok() {
                folders.insert(home.folder(replica.handle()));
            }
            outcomes.push((replica.handle(), outcome));
        }
        if folders.iter().any(|folder| home.sync_dir(folder).is_err()) {
            for (_, outcome) in outcomes.iter_mut().filter(|(_, outcome)| outcome.is_ok()) {
                *outcome = Err(match home.is_failed() {
                    true => Error::Fenced,
                    false => Error::Refused("its folder cannot be synced".into()),
                });
            }
        }
        outcomes
    }
}
