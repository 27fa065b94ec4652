//! One replica: its file, what its header says, and in which order both change.
//!
//! A change of bytes: intent (header) -> data -> table -> header. Everything goes to the page cache; an fsync is one
//! `fdatasync`. Two header slots: the *stable* one was on stable storage with all it covers; the *working* one is
//! rewritten in place until an fsync makes it the stable one. So a power cut finds a torn working slot at worst, and
//! then the stable one says what was fsynced. If both are good, the newer one may have reached the disk without its
//! bytes: it counts when what it covers beyond the older one verifies ([`super::fsynced`]); therefore bytes that
//! only the newer one covers are not overwritten before a third, *durable* slot confirms it ([`Core::confirm`]).
//!
//! Changes hold `core`; readers take a snapshot from `view` and never wait for a disk write.

use super::error::{Error, Result};
use super::format::{DATA_AT, Found, SLOT_AT, SLOT_BYTES, Slot, TABLE_AT, Writer, decode_table};
use super::fsynced;
use super::home::Home;
use dfs_proto::limits::BLOCK_BYTES;
use dfs_proto::span::blocks_of;
use dfs_proto::{ChunkHandle, ClusterId, NodeId, Version};
use dfs_stdx::disk::{File, Open};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
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
}

/// A replica. Blocking: run it on the pool, but for the calls named `try_`.
#[derive(Debug)]
pub struct Replica {
    handle: ChunkHandle,
    core: Mutex<Core>,
    view: RwLock<View>,
}

/// What readers see: consistent, replaced as a whole.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) slot: Arc<Slot>,
    /// The open file and its table, if they are in memory.
    pub(super) body: Option<Body>,
    pub(super) lost: bool,
    pub(super) restarted: bool,
    pub(super) removed: bool,
    pub(super) home: Arc<Home>,
}

/// The file and the CRC of each block.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) file: Arc<dyn File>,
    pub(super) crcs: Arc<Vec<u32>>,
}

/// What changes work on.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) home: Arc<Home>,
    pub(super) path: PathBuf,
    pub(super) slot: Slot,
    /// The other slot as found at start, for [`super::fsynced`].
    pub(super) other: Found,
    pub(super) body: Option<Body>,
    /// Which slot is written next.
    working: usize,
    /// The working slot was written since the last fsync.
    written: bool,
    /// The page cache may be ahead of the disk.
    pub(super) dirty: bool,
    /// Length of the stable slot.
    stable_length: u64,
    /// Bytes below it are covered by both slots, or by one that is confirmed.
    covered: u64,
    /// The folder does not durably list the file yet.
    unlisted: bool,
    /// Found at start: it is not known yet which of the slots is on stable storage.
    found: bool,
    pub(super) lost: bool,
    pub(super) restarted: bool,
    pub(super) removed: bool,
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
        });
        (core.found, core.unlisted, core.working) = (false, true, 0);
        if let Err(error) = core.write_slot() {
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
            // What could not be written the last time is written again.
            if core.slot.promised == version && core.slot.members == members && !core.written {
                return Ok(());
            }
            core.slot.promised = version;
            core.slot.members = members;
            core.write_slot()?;
            core.sync()?;
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
        if !core.dirty && !core.written && !core.removed {
            core.body = None;
            *self.view.write().expect("no panic while the view is held") = core.view();
        }
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

    /// Removes the file, unless the replica has promised more than `version`.
    pub(super) fn remove(&self, version: Version) -> Result<()> {
        self.change(|core| {
            if core.slot.promised > version {
                return Err(Error::Stale(core.slot.promised));
            }
            core.home.disk.remove(&core.path)?;
            core.removed = true;
            core.body = None;
            core.sync_folder()
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

impl Core {
    fn new(home: Arc<Home>, path: PathBuf, slot: Slot, other: Found) -> Core {
        Core {
            home,
            path,
            slot,
            other,
            body: None,
            working: 0,
            written: false,
            dirty: false,
            stable_length: 0,
            covered: 0,
            unlisted: false,
            found: true,
            lost: false,
            restarted: false,
            removed: false,
        }
    }

    pub(super) fn view(&self) -> View {
        View {
            slot: Arc::new(self.slot.clone()),
            body: self.body.clone(),
            lost: self.lost,
            restarted: self.restarted,
            removed: self.removed,
            home: self.home.clone(),
        }
    }

    /// The open file and its CRCs.
    pub(super) fn load(&mut self) -> Result<Body> {
        if let Some(body) = &self.body {
            return Ok(body.clone());
        }
        let file = self.home.disk.open(&self.path, Open::Existing)?;
        let blocks = usize::try_from(blocks_of(self.slot.length)).expect("a chunk is bounded");
        let mut bytes = vec![0; blocks * 4];
        let read = file.read_at(&mut bytes, TABLE_AT)?;
        // A table that was cut off claims nothing that could be true.
        bytes[read..].fill(0);
        let mut crcs = decode_table(&bytes);
        if let Some(last) = crcs.last_mut()
            && self.slot.length % BLOCK_BYTES != 0
        {
            *last = self.slot.tail_crc;
        }
        let body = Body {
            file,
            crcs: Arc::new(crcs),
        };
        self.body = Some(body.clone());
        Ok(body)
    }

    pub(super) fn table(&mut self) -> Result<Table> {
        if self.lost {
            self.settle_slots()?;
        }
        Ok(Table {
            length: self.slot.length,
            crcs: self.load()?.crcs,
            writers: self.slot.writers.clone(),
            loss: self.slot.loss,
        })
    }

    /// Before the first change after a start: both slots go to stable storage, so that the older one may be rewritten.
    /// A lost replica goes back to its last fsync here.
    pub(super) fn settle_slots(&mut self) -> Result<()> {
        if !self.found {
            return Ok(());
        }
        let file = self.load()?.file;
        self.home.synced(file.sync_data())?;
        self.sync_folder()?;
        let mut stable = self.working;
        if self.lost && !fsynced::go_back(self)? {
            stable = 1 - stable;
        }
        self.drop_beyond()?;
        self.found = false;
        self.working = 1 - stable;
        self.stable_length = self.slot.length;
        let older = match &self.other {
            Found::Slot(other) => other.length,
            Found::Blank | Found::Damaged => 0,
        };
        self.covered = if self.slot.durable {
            self.slot.length
        } else {
            older.min(self.slot.length)
        };
        Ok(())
    }

    /// Writes the header, as it is now, to the working slot, in the page cache.
    pub(super) fn write_slot(&mut self) -> Result<()> {
        self.settle_slots()?;
        let file = self.load()?.file;
        self.slot.sequence += 1;
        if !self.lost {
            self.slot.boot = self.home.boot;
        }
        let bytes = self.slot.encode();
        debug_assert!(
            matches!(Slot::decode(&bytes), Found::Slot(_)),
            "what is written can be read"
        );
        self.written = true;
        file.write_at(&bytes, SLOT_AT[self.working])?;
        Ok(())
    }

    /// Everything in the page cache goes to stable storage, and with it the working slot becomes the stable one.
    pub(super) fn sync(&mut self) -> Result<()> {
        if !self.written && !self.dirty && !self.unlisted && !self.found {
            return Ok(());
        }
        self.settle_slots()?;
        let file = self.load()?.file;
        self.home.synced(file.sync_data())?;
        if self.unlisted {
            self.sync_folder()?;
            self.unlisted = false;
        }
        if self.written {
            self.covered = if self.slot.durable {
                self.slot.length
            } else {
                self.stable_length.min(self.slot.length)
            };
            self.stable_length = self.slot.length;
            self.working = 1 - self.working;
            self.written = false;
        }
        self.dirty = false;
        self.slot.overwrote = false;
        Ok(())
    }

    fn sync_folder(&self) -> Result<()> {
        self.home
            .sync_dir(self.path.parent().expect("a replica lies in a folder"))
    }

    /// Sets the open mark, durably, before the first apply to a clean replica.
    pub(super) fn mark_open(&mut self) -> Result<()> {
        if self.slot.open {
            return Ok(());
        }
        self.slot.open = true;
        self.slot.durable = true;
        self.write_slot()?;
        self.sync()
    }

    /// Before bytes in `start..end` are overwritten: if only the newer slot covers any of them, it is confirmed by a
    /// durable one. Whole blocks count, since a block verifies or fails as a whole.
    pub(super) fn confirm(&mut self, start: u64, end: u64) -> Result<()> {
        self.settle_slots()?;
        let single = self.covered / BLOCK_BYTES * BLOCK_BYTES;
        if self.covered >= self.stable_length || end <= single || start >= self.stable_length {
            return Ok(());
        }
        self.make_sure()
    }

    /// Everything so far goes to stable storage, and a durable slot says so: blocks may be changed from here on
    /// without a doubt about what was fsynced.
    pub(super) fn make_sure(&mut self) -> Result<()> {
        self.settle_slots()?;
        self.sync()?;
        if self.slot.durable {
            return Ok(());
        }
        self.slot.durable = true;
        self.write_slot()?;
        self.sync()
    }

    /// The slots as they are in the file.
    pub(super) fn read_slots(file: &dyn File) -> Result<[Found; 2]> {
        let mut found = [Found::Blank, Found::Blank];
        for (slot, at) in found.iter_mut().zip(SLOT_AT) {
            let mut bytes = [0; SLOT_BYTES];
            file.read_at(&mut bytes, at)?;
            *slot = Slot::decode(&bytes);
        }
        Ok(found)
    }

    /// Where a byte of the chunk lies in the file.
    pub(super) fn data_at(offset: u64) -> u64 {
        DATA_AT + offset
    }
}
