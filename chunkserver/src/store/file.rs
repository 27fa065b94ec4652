//! One replica: what it is, and the changes that are not its bytes.
//!
//! Changes hold `core` ([`super::core`] says in which order the file changes); readers take a snapshot from `view` and
//! never wait for a disk write.

use super::core::{Body, Core, View};
use super::error::{Error, Result};
use super::format::{Found, Slot, Writer};
use super::home::Home;
use dfs_proto::{ChunkHandle, ClusterId, NodeId, Version, WriterId};
use dfs_stdx::disk::Open;
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

/// What a replica may be used for, apart from versions (protocol section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing it applied is missing: whole if synced is at least the active version.
    Intact,
    /// Power went while it was open: only what was fsynced is sure.
    Lost,
    /// Its file or its disk cannot be trusted.
    Broken,
}

/// A replica's durable state, and what this process knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// It takes packets and pulls of this version only.
    pub promised: Version,
    /// Whole as of the start of this version.
    pub synced: Version,
    /// Of the promised version, in chain order.
    pub members: Vec<NodeId>,
    /// Applied bytes.
    pub length: u64,
    /// The newest version whose source had lost power.
    pub loss: Version,
    /// What it may be used for.
    pub kind: Kind,
    /// Out of its version's stream: it was open when its process ended, or a write failed half way.
    pub restarted: bool,
    /// May hold bytes that are not on stable storage or not committed.
    pub open: bool,
}

/// The table of a replica: claims about its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Bytes.
    pub length: u64,
    /// CRC-32 of each block, the last one of the bytes it holds.
    pub crcs: Arc<Vec<u32>>,
    /// Oldest first.
    pub writers: Vec<Writer>,
    /// The newest version whose source had lost power.
    pub loss: Version,
}

impl Table {
    /// First 8 bytes, little-endian, of SHA-256 over length, CRCs and writers.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.length.to_le_bytes());
        self.crcs.iter().for_each(|c| hash.update(c.to_le_bytes()));
        self.writers.iter().for_each(|w| hash.update(w.encode()));
        u64::from_le_bytes(hash.finalize()[..8].try_into().expect("a hash has 32 bytes"))
    }
}

/// How a new replica is born.
#[derive(Clone, Debug)]
pub struct Birth {
    /// The cluster.
    pub cluster: ClusterId,
    /// The version it takes packets of.
    pub promised: Version,
    /// 1 for a chunk's first packet, 0 for one that has to be filled first.
    pub synced: Version,
    /// Of the promised version.
    pub members: Vec<NodeId>,
    /// The header is written with the first packet, after its bytes: a file without one never held a byte that counted.
    pub unborn: bool,
}

/// A replica. Blocking: run it on the pool, but for the calls named `try_`.
#[derive(Debug)]
pub struct Replica {
    handle: ChunkHandle,
    core: Mutex<Core>,
    view: RwLock<View>,
}

impl Replica {
    /// Creates the file, born open, in the page cache: on stable storage with the first fsync.
    pub(super) fn create(home: Arc<Home>, handle: ChunkHandle, birth: Birth) -> Result<Replica> {
        home.usable()?;
        let path = home.path(handle);
        let file = home.disk.open(&path, Open::New)?;
        let slot = Slot {
            open: true,
            promised: birth.promised,
            synced: birth.synced,
            members: birth.members,
            ..Slot::empty(birth.cluster, handle, home.boot)
        };
        let mut core = Core::new(home, path, slot, Found::Blank);
        core.body = Some(Body {
            file,
            crcs: Arc::default(),
            fine: Arc::default(),
        });
        (core.found, core.unlisted, core.working) = (false, true, 0);
        if !birth.unborn
            && let Err(error) = core.write_slot()
        {
            // Nobody has seen it: take it away again, so that a later try finds the place free.
            let _ = core.home.disk.remove(&core.path);
            return Err(error);
        }
        Ok(Replica::new(handle, core))
    }

    /// The replica whose slots were found in a file. Nothing else of it is read yet.
    pub(super) fn found(
        home: Arc<Home>,
        handle: ChunkHandle,
        slots: [Found; 2],
        cluster: ClusterId,
    ) -> Option<Replica> {
        let (newest, slot, other) = newest(slots)?;
        let lost = slot.open && slot.boot != home.boot;
        // In one boot a slot cannot be torn: a damaged one is rot, and the newest may be the one that rotted.
        if slot.handle != handle
            || slot.cluster != cluster
            || (matches!(other, Found::Damaged) && slot.open && !lost)
        {
            return None;
        }
        let path = home.path(handle);
        let mut core = Core::new(home, path, slot, other);
        core.working = newest;
        core.lost = lost;
        core.restarted = core.slot.open;
        Some(Replica::new(handle, core))
    }

    fn new(handle: ChunkHandle, core: Core) -> Replica {
        let view = RwLock::new(core.view());
        let core = Mutex::new(core);
        Replica { handle, core, view }
    }

    /// The chunk.
    #[must_use]
    pub fn handle(&self) -> ChunkHandle {
        self.handle
    }

    /// Changes the replica and shows readers what it has become, also after a failure.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        let mut core = self.core();
        if core.removed {
            return Err(Error::NotFound(self.handle));
        }
        core.home.usable()?;
        let outcome = work(&mut core);
        core.rotten |= matches!(outcome, Err(Error::Corrupt { .. }));
        *self.view.write().expect("no panic while the view is held") = core.view();
        outcome
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("no panic while a replica is held")
    }

    pub(super) fn view(&self) -> View {
        self.view.read().expect("no panic while the view is held").clone()
    }

    /// The state; never waits.
    #[must_use]
    pub fn state(&self) -> State {
        let view = self.view();
        let kind = match (view.home.is_failed() || view.removed, view.lost) {
            (true, _) => Kind::Broken,
            (false, true) => Kind::Lost,
            (false, false) => Kind::Intact,
        };
        State {
            promised: view.slot.promised,
            synced: view.slot.synced,
            members: view.slot.members.clone(),
            length: view.slot.length,
            loss: view.slot.loss,
            kind,
            restarted: view.restarted,
            open: view.slot.open,
        }
    }

    /// What the writer table says of a writer; never waits.
    #[must_use]
    pub fn writer(&self, writer: WriterId) -> Option<Writer> {
        self.view()
            .slot
            .writers
            .iter()
            .copied()
            .find(|w| w.writer == writer)
    }

    /// The disk it lies on.
    #[must_use]
    pub fn home(&self) -> Arc<Home> {
        self.view().home
    }

    /// Length, CRCs and writers as they are now.
    ///
    /// # Errors
    /// The disk's.
    pub fn table(&self) -> Result<Table> {
        self.change(|core| {
            core.load()?;
            core.table()
        })
    }

    /// [`Table::digest`] of the table.
    ///
    /// # Errors
    /// The disk's.
    pub fn digest(&self) -> Result<u64> {
        Ok(self.table()?.digest())
    }

    /// What the last fsync made sure of: for a lost replica found out by reading, else its length now.
    ///
    /// # Errors
    /// The disk's.
    pub fn fsynced_length(&self) -> Result<u64> {
        self.change(|core| {
            core.settle_slots()?;
            Ok(core.slot.length)
        })
    }

    /// Puts everything applied so far on stable storage; an unchanged replica costs nothing.
    ///
    /// # Errors
    /// [`Error::Fenced`] if it fails: the disk is not used again.
    pub fn sync(&self) -> Result<()> {
        self.change(Core::sync)
    }

    /// Promises `version`, durably. A lower or equal promise changes nothing.
    ///
    /// # Errors
    /// [`Error::Stale`] if it has promised more; the disk's.
    pub fn promise(&self, version: Version, members: Vec<NodeId>) -> Result<()> {
        self.change(|core| {
            if core.slot.promised > version {
                return Err(Error::Stale(core.slot.promised));
            }
            if core.slot.promised == version && core.slot.members == members {
                return Ok(());
            }
            core.durably(|slot| (slot.promised, slot.members) = (version, members))?;
            // Both slots say it soon: one that rots cannot take the promise back.
            core.slot.durable = true;
            core.write_slot()
        })
    }

    /// Clears the open mark, if nothing was applied since the last fsync. No fsync: a lost clear is safe.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&self) -> Result<()> {
        self.change(|core| {
            if core.restarted || core.dirty || !core.slot.open {
                return Ok(());
            }
            core.slot.open = false;
            core.slot.durable = true;
            core.write_slot()
        })
    }

    /// Drops the file and table from memory; they come back when they are needed. Skipped while it is in use.
    pub fn unload(&self) {
        let Ok(mut core) = self.core.try_lock() else {
            return;
        };
        // A header that only says "not open any more" may be lost: the replica would be taken for an open one.
        let missed = core.written && core.slot.open;
        if !core.dirty && !missed && !core.removed {
            core.body = None;
            *self.view.write().expect("no panic while the view is held") = core.view();
        }
    }

    /// True if its file is open and lies in memory (on a tmpfs): nothing done to it waits for a disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.view
            .read()
            .expect("no panic while the view is held")
            .body
            .as_ref()
            .is_some_and(|body| body.file.is_in_memory())
    }

    /// True if its file is open.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.view
            .read()
            .expect("no panic while the view is held")
            .body
            .is_some()
    }

    /// Removes the file, unless the replica has promised more than `version`; its folder is not synced.
    pub(super) fn unlink(&self, version: Version) -> Result<()> {
        self.change(|core| {
            if core.slot.promised > version {
                return Err(Error::Stale(core.slot.promised));
            }
            core.home.disk.remove(&core.path)?;
            core.removed = true;
            core.body = None;
            Ok(())
        })
    }
}

/// The newest of two slots, where it lies, and the other one.
fn newest(slots: [Found; 2]) -> Option<(usize, Slot, Found)> {
    match slots {
        [Found::Slot(a), Found::Slot(b)] if b.sequence > a.sequence => Some((1, *b, Found::Slot(a))),
        [Found::Slot(a), other] => Some((0, *a, other)),
        [other @ (Found::Blank | Found::Damaged), Found::Slot(b)] => Some((1, *b, other)),
        [Found::Blank | Found::Damaged, Found::Blank | Found::Damaged] => None,
    }
}
