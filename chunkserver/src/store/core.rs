//! The order in which one replica's file changes.
//!
//! A change of bytes: intent (header) -> data -> table -> header. Everything goes to the page cache; an fsync is one
//! `fdatasync`. Two header slots: the *stable* one was on stable storage with all it covers; the *working* one is
//! rewritten in place until an fsync makes it the stable one. So a power cut finds a torn working slot at worst, and
//! then the stable one says what was fsynced. If both are good, the newer one may have reached the disk without its
//! bytes: it counts when what it covers beyond the older one verifies ([`super::fsynced`]); therefore bytes that
//! only the newer one covers are not overwritten before a third, *durable* slot confirms it ([`Core::confirm`]).

use super::error::Result;
use super::file::Table;
use super::fine::Fine;
use super::format::{DATA_AT, Found, SLOT_AT, SLOT_BYTES, Slot, TABLE_AT, bound, decode_table, encode_table};
use super::fsynced;
use super::home::Home;
use dfs_proto::limits::BLOCK_BYTES;
use dfs_proto::span::blocks_of;
use dfs_stdx::disk::{File, Open};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

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
    pub(super) fine: Arc<Fine>,
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
    pub(super) working: usize,
    /// The working slot was written since the last fsync.
    pub(super) written: bool,
    /// The page cache may be ahead of the disk.
    pub(super) dirty: bool,
    /// Length of the stable slot.
    stable_length: u64,
    /// Bytes below it are covered by both slots, or by one that is confirmed.
    covered: u64,
    /// The folder does not durably list the file yet.
    pub(super) unlisted: bool,
    /// Found at start: it is not known yet which of the slots is on stable storage.
    pub(super) found: bool,
    pub(super) lost: bool,
    pub(super) restarted: bool,
    pub(super) removed: bool,
    /// A block failed its checksum since the last sync brought everything: the next one trusts no block unread.
    pub(super) rotten: bool,
}

impl Core {
    pub(super) fn new(home: Arc<Home>, path: PathBuf, slot: Slot, other: Found) -> Core {
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
            rotten: false,
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
        // A table that was cut off, or lies in a file that is not this chunk's any more, claims nothing that could be
        // true: every block fails, and a sync brings it.
        bytes[read..].fill(0);
        if !self.is_own(&*file)? {
            bytes.fill(0);
        }
        let mut crcs: Vec<u32> = (0..)
            .zip(decode_table(&bytes))
            .map(|(block, kept)| bound(self.slot.handle, block, kept))
            .collect();
        if let Some(last) = crcs.last_mut()
            && !self.slot.length.is_multiple_of(BLOCK_BYTES)
        {
            *last = self.slot.tail_crc;
        }
        let body = Body {
            file,
            crcs: Arc::new(crcs),
            fine: Arc::default(),
        };
        self.body = Some(body.clone());
        Ok(body)
    }

    /// These blocks' CRCs, from `first` on, as the file's table keeps them.
    pub(super) fn table_bytes(&self, first: u64, crcs: &[u32]) -> Vec<u8> {
        let kept: Vec<u32> = (first..)
            .zip(crcs)
            .map(|(block, sum)| bound(self.slot.handle, block, *sum))
            .collect();
        encode_table(&kept)
    }

    /// True if a header in the file says that it is this chunk's: its table and bytes may fit each other and still be
    /// another chunk's.
    fn is_own(&self, file: &dyn File) -> Result<bool> {
        let own = |found: &Found| match found {
            Found::Slot(slot) => slot.handle == self.slot.handle && slot.cluster == self.slot.cluster,
            Found::Blank | Found::Damaged => false,
        };
        let slots = Self::read_slots(file)?;
        let foreign = |found: &Found| matches!(found, Found::Slot(_)) && !own(found);
        Ok(slots.iter().any(own) && !slots.iter().any(foreign))
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

    pub(super) fn sync_folder(&self) -> Result<()> {
        self.home
            .sync_dir(self.path.parent().expect("a replica lies in a folder"))
    }

    /// Sets the open mark, durably, before the first apply to a clean replica.
    pub(super) fn mark_open(&mut self) -> Result<()> {
        if self.slot.open {
            return Ok(());
        }
        self.durably(|slot| (slot.open, slot.durable) = (true, true))
    }

    /// Changes the header, on stable storage. If that fails the header here stays as it was: nothing may be believed
    /// that a power cut could take back.
    pub(super) fn durably(&mut self, change: impl FnOnce(&mut Slot)) -> Result<()> {
        self.settle_slots()?;
        let before = self.slot.clone();
        change(&mut self.slot);
        let outcome = self.write_slot().and_then(|()| self.sync());
        if outcome.is_err() {
            let sequence = self.slot.sequence;
            self.slot = Slot { sequence, ..before };
        }
        outcome
    }

    /// Before bytes in `start..end` are overwritten: if only the newer slot covers any of them, it is confirmed by a
    /// durable one. Whole blocks count, since a block verifies or fails as a whole.
    pub(super) fn confirm(&mut self, start: u64, end: u64) -> Result<()> {
        self.settle_slots()?;
        if self.is_unconfirmed(&(start..end)) {
            self.make_sure()?;
        }
        Ok(())
    }

    /// True if only the newer slot covers some of these bytes, and nothing durable says that it counts.
    pub(super) fn is_unconfirmed(&self, range: &Range<u64>) -> bool {
        let single = self.covered / BLOCK_BYTES * BLOCK_BYTES;
        self.covered < self.stable_length && range.end > single && range.start < self.stable_length
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
