//! All replicas of a server: opening the data directories, finding the replicas, placing new ones.
//!
//! At start only headers are read. A file that is no replica goes to quarantine and is told as broken.

use super::core::Core;
use super::error::{Error, Result};
use super::file::{Birth, Replica};
use super::format::{DATA_AT, Found};
use super::graves::Graves;
use super::home::{DiskId, Home};
use super::identity::Identity;
use super::install;
use dfs_proto::{ChunkHandle, ClusterId, NodeId, Version};
use dfs_stdx::Rng;
use dfs_stdx::disk::{Disk, Lock, Open};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

/// Where and how a server keeps its replicas.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The data directories, one a disk.
    pub dirs: Vec<PathBuf>,
    /// A folder that lives as long as the page cache does, for notes about failed fsyncs (a tmpfs such as /run).
    pub notes: Option<PathBuf>,
    /// Free bytes below which a disk takes no new replica.
    pub reserve_bytes: u64,
    /// An empty directory beside used ones is a new disk; otherwise it is taken for one that is not mounted.
    pub accept_new_disk: bool,
}

/// A disk as the master hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskState {
    /// Its id.
    pub id: DiskId,
    /// Its data directory.
    pub path: PathBuf,
    /// Size.
    pub capacity_bytes: u64,
    /// What may still be written, less the reserve.
    pub free_bytes: u64,
    /// An fsync failed on it.
    pub failed: bool,
}

/// All replicas of a server. Blocking: run it on the pool, but for `get`, `handles` and `identity`.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    reserve_bytes: u64,
    pub(super) homes: Vec<Arc<Home>>,
    _locks: Vec<Box<dyn Lock>>,
    identity: Mutex<Identity>,
    pub(super) replicas: RwLock<BTreeMap<ChunkHandle, Arc<Replica>>>,
    graves: Mutex<Vec<Graves>>,
    broken: Mutex<BTreeSet<ChunkHandle>>,
}

impl Store {
    /// Takes the data directories and finds their replicas.
    ///
    /// # Errors
    /// [`Error::Refused`] if a directory is in use, foreign, a copy, damaged or unexpectedly empty; the disk's.
    pub fn open(disk: Arc<dyn Disk>, options: &Options, rng: &Rng) -> Result<Store> {
        let mut locks = Vec::new();
        for dir in &options.dirs {
            disk.create_dir_all(dir)?;
            let lock = disk.lock(&dir.join("lock")).map_err(|e| match e.source.kind() {
                std::io::ErrorKind::WouldBlock => {
                    Error::Refused(format!("{} is in use by another chunkserver", dir.display()))
                }
                _ => e.into(),
            })?;
            locks.push(lock);
        }
        let identities = super::birth::identities(&*disk, options, rng)?;
        let mut homes = Vec::new();
        for (dir, identity) in options.dirs.iter().zip(&identities) {
            let home = Home::open(disk.clone(), dir, identity.disk, options.notes.as_deref())?;
            homes.push(Arc::new(home));
        }
        let store = Store {
            disk,
            reserve_bytes: options.reserve_bytes,
            graves: Mutex::new(homes.iter().cloned().map(Graves::open).collect::<Result<_>>()?),
            homes,
            _locks: locks,
            identity: Mutex::new(identities[0].clone()),
            replicas: RwLock::default(),
            broken: Mutex::default(),
        };
        store.homes.iter().try_for_each(|home| store.scan(home))?;
        Ok(store)
    }

    /// Who this server is; `disk` is its first disk.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
            .lock()
            .expect("no panic while the identity is held")
            .clone()
    }

    /// Notes what the master said at registration, durably, on every disk.
    ///
    /// # Errors
    /// [`Error::Refused`] if it belongs to another cluster or is another node already; the disk's.
    pub fn register(&self, cluster: ClusterId, node: NodeId) -> Result<()> {
        let mut identity = self.identity.lock().expect("no panic while the identity is held");
        if identity.cluster == cluster && identity.node == node {
            return Ok(());
        }
        if identity.node != NodeId(0) || identity.cluster != ClusterId::default() {
            return Err(Error::Refused(format!(
                "these disks belong to node {} of cluster {}",
                identity.node, identity.cluster
            )));
        }
        for home in &self.homes {
            let own = Identity {
                cluster,
                node,
                disk: home.id,
                ..identity.clone()
            };
            home.synced(own.write(&*self.disk, &home.dir))?;
        }
        identity.cluster = cluster;
        identity.node = node;
        Ok(())
    }

    /// The replica of a chunk.
    #[must_use]
    pub fn get(&self, handle: ChunkHandle) -> Option<Arc<Replica>> {
        self.replicas
            .read()
            .expect("no panic while the index is held")
            .get(&handle)
            .cloned()
    }

    /// All chunks with a replica, in order.
    #[must_use]
    pub fn handles(&self) -> Vec<ChunkHandle> {
        self.replicas
            .read()
            .expect("no panic while the index is held")
            .keys()
            .copied()
            .collect()
    }

    /// How many replicas there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.replicas
            .read()
            .expect("no panic while the index is held")
            .len()
    }

    /// All replicas, in order of their chunks.
    #[must_use]
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas
            .read()
            .expect("no panic while the index is held")
            .values()
            .cloned()
            .collect()
    }

    /// Chunks whose files were found unreadable and moved to quarantine.
    #[must_use]
    pub fn broken(&self) -> Vec<ChunkHandle> {
        self.broken
            .lock()
            .expect("no panic while it is held")
            .iter()
            .copied()
            .collect()
    }

    /// What is promised for a chunk here, by its replica or by one that was deleted; 0 if nothing is.
    #[must_use]
    pub fn promised(&self, handle: ChunkHandle) -> Version {
        let buried = self.buried(handle);
        self.get(handle)
            .map_or(buried, |r| r.state().promised.max(buried))
    }

    fn buried(&self, handle: ChunkHandle) -> Version {
        let graves = self.graves();
        graves
            .iter()
            .map(|g| g.promised(handle))
            .max()
            .unwrap_or_default()
    }

    /// Creates a replica on the disk with the most room, in the page cache.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Stale`] if one that was deleted had promised as much; [`Error::Full`]; the disk's.
    pub fn create(
        &self,
        handle: ChunkHandle,
        promised: Version,
        synced: Version,
        members: Vec<NodeId>,
    ) -> Result<Arc<Replica>> {
        self.is_not_buried(handle, promised)?;
        let birth = self.birth(promised, synced, members);
        self.born(handle, birth)
    }

    /// Creates a replica for packet number 1 of a version: whole, with nothing on the disk but its name before that
    /// packet is applied.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_unborn(
        &self,
        handle: ChunkHandle,
        version: Version,
        members: Vec<NodeId>,
    ) -> Result<Arc<Replica>> {
        self.is_not_buried(handle, version)?;
        let birth = Birth {
            unborn: true,
            ..self.birth(version, version, members)
        };
        self.born(handle, birth)
    }

    fn is_not_buried(&self, handle: ChunkHandle, promised: Version) -> Result<()> {
        let buried = self.buried(handle);
        if buried >= promised {
            return Err(Error::Stale(buried));
        }
        Ok(())
    }

    fn birth(&self, promised: Version, synced: Version, members: Vec<NodeId>) -> Birth {
        Birth {
            cluster: self
                .identity
                .lock()
                .expect("no panic while the identity is held")
                .cluster,
            promised,
            synced,
            members,
            unborn: false,
        }
    }

    fn born(&self, handle: ChunkHandle, birth: Birth) -> Result<Arc<Replica>> {
        let home = self.roomiest()?;
        let mut replicas = self.replicas.write().expect("no panic while the index is held");
        if replicas.contains_key(&handle) {
            return Err(Error::Exists(handle));
        }
        let replica = Arc::new(Replica::create(home, handle, birth)?);
        replicas.insert(handle, replica.clone());
        self.broken
            .lock()
            .expect("no panic while it is held")
            .remove(&handle);
        Ok(replica)
    }

    /// Creates a replica that counts for nothing: a base to copy into.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_base(&self, handle: ChunkHandle) -> Result<Arc<Replica>> {
        let buried = self.buried(handle);
        self.born(handle, self.birth(buried, Version(0), Vec::new()))
    }

    /// Promises a version, durably, whether there is a replica or not: an absent one is created, empty and not synced.
    ///
    /// # Errors
    /// [`Error::Stale`] if more is promised; the disk's.
    pub fn promise(
        &self,
        handle: ChunkHandle,
        version: Version,
        members: Vec<NodeId>,
    ) -> Result<Arc<Replica>> {
        if let Some(replica) = self.get(handle) {
            replica.promise(version, members)?;
            return Ok(replica);
        }
        let replica = self.create(handle, version, Version(0), members)?;
        replica.sync()?;
        Ok(replica)
    }

    /// Takes back a replica that was created and never held a byte that counted.
    ///
    /// # Errors
    /// The disk's.
    pub fn discard(&self, replica: &Replica) -> Result<()> {
        self.replicas
            .write()
            .expect("no panic while the index is held")
            .remove(&replica.handle());
        replica.change(|core| {
            core.removed = true;
            Ok(core.home.disk.remove(&core.path)?)
        })
    }

    /// Moves a replica that cannot be used any more to quarantine.
    ///
    /// # Errors
    /// The disk's.
    pub fn quarantine(&self, handle: ChunkHandle, why: &str) -> Result<()> {
        let removed = self
            .replicas
            .write()
            .expect("no panic while the index is held")
            .remove(&handle);
        let Some(replica) = removed else { return Ok(()) };
        self.broken
            .lock()
            .expect("no panic while it is held")
            .insert(handle);
        replica.change(|core| {
            core.removed = true;
            core.home.quarantine(&core.path, why)
        })
    }

    /// Forgets promises of deleted replicas that no token can still name.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget_graves(&self, now_unix_ms: u64) -> Result<()> {
        self.graves().iter_mut().try_for_each(|g| g.forget(now_unix_ms))
    }

    /// Closes files of idle replicas while more than `open_max` are open.
    pub fn trim(&self, open_max: usize) {
        let loaded: Vec<_> = self.replicas().into_iter().filter(|r| r.is_loaded()).collect();
        let surplus = loaded.len().saturating_sub(open_max);
        loaded
            .iter()
            .filter(|r| !r.state().open)
            .take(surplus)
            .for_each(|r| r.unload());
    }

    /// The disks, their room and health.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskState> {
        let state = |home: &Arc<Home>| {
            let space = home.space().ok();
            DiskState {
                id: home.id,
                path: home.dir.clone(),
                capacity_bytes: space.map_or(0, |s| s.capacity_bytes),
                free_bytes: space.map_or(0, |s| s.free_bytes.saturating_sub(self.reserve_bytes)),
                failed: home.is_failed(),
            }
        };
        self.homes.iter().map(state).collect()
    }

    pub(super) fn graves(&self) -> MutexGuard<'_, Vec<Graves>> {
        self.graves.lock().expect("no panic while the graves are held")
    }

    fn roomiest(&self) -> Result<Arc<Home>> {
        let mut best: Option<(u64, &Arc<Home>)> = None;
        for home in self.homes.iter().filter(|h| !h.is_failed()) {
            let free = home.space()?.free_bytes;
            if best.is_none_or(|(most, _)| free > most) {
                best = Some((free, home));
            }
        }
        match best {
            None => Err(Error::Fenced),
            Some((free, _)) if free <= self.reserve_bytes => Err(Error::Full),
            Some((_, home)) => Ok(home.clone()),
        }
    }

    fn scan(&self, home: &Arc<Home>) -> Result<()> {
        for name in self.disk.list(&home.dir.join("tmp"))? {
            self.disk.remove(&home.tmp(&name))?;
        }
        for low in 0..=0xffu64 {
            let folder = home.folder(ChunkHandle(low));
            let names = self.disk.list(&folder)?;
            for name in names.iter().filter(|n| !n.ends_with(".install")) {
                self.find(home, &folder.join(name), name)?;
            }
            for name in names.iter().filter(|n| n.ends_with(".install")) {
                self.recover(home, &folder.join(name), name)?;
            }
        }
        Ok(())
    }

    /// Finishes a staged sync. One that has rotted may be half applied: its replica cannot be used, the others can.
    fn recover(&self, home: &Arc<Home>, install: &std::path::Path, name: &str) -> Result<()> {
        let replica = handle_of(name.trim_end_matches(".install")).and_then(|h| self.get(h));
        match install::recover(home, replica.as_deref(), install) {
            Err(Error::Corrupt { chunk, .. }) => {
                self.quarantine(chunk, "its staged sync is damaged")?;
                home.quarantine(install, "it is damaged")
            }
            // Nothing on this disk is used.
            Err(Error::Fenced) => Ok(()),
            done => done,
        }
    }

    /// Takes a file into the index, or out of the way.
    fn find(&self, home: &Arc<Home>, path: &std::path::Path, name: &str) -> Result<()> {
        let Some(handle) = handle_of(name).filter(|h| home.path(*h) == path) else {
            return home.quarantine(path, "its name is no chunk's");
        };
        let file = self.disk.open(path, Open::ReadOnly)?;
        let slots = Core::read_slots(&*file)?;
        if slots == [Found::Blank, Found::Blank] {
            // Born before a power cut and never fsynced: it never held a byte that counted, whatever the kernel
            // wrote back of it. It is absent, not broken: else a chunk of such replicas would wait for an operator.
            return if file.length()? <= DATA_AT {
                Ok(self.disk.remove(path)?)
            } else {
                home.quarantine(path, "it has bytes and no header")
            };
        }
        drop(file);
        let found = Replica::found(home.clone(), handle, slots, self.identity().cluster);
        let mut replicas = self.replicas.write().expect("no panic while the index is held");
        match found {
            Some(replica) if !replicas.contains_key(&handle) => {
                replicas.insert(handle, Arc::new(replica));
                Ok(())
            }
            Some(_) => home.quarantine(path, "another disk holds this chunk too"),
            None => {
                self.broken
                    .lock()
                    .expect("no panic while it is held")
                    .insert(handle);
                home.quarantine(path, "its header is damaged or foreign")
            }
        }
    }
}

fn handle_of(name: &str) -> Option<ChunkHandle> {
    let hex = name.len() == 16
        && name
            .bytes()
            .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    hex.then(|| u64::from_str_radix(name, 16).ok().map(ChunkHandle))
        .flatten()
}
