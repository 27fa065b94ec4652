//! A disk in memory with a live and a durable image, for tests and simulation.
//!
//! A [`MemDisk`] is bound to one process. [`MemDisk::crash`] ends that process: what it wrote stays, its locks
//! go, and everything it had open fails from then on, so that a task that outlives its node cannot write.
//! [`MemDisk::power_cut`] also goes back to what was synced. [`MemDisk::process`] is the next process's disk.
//!
//! ```
//! use dfs_stdx::disk::{Disk, MemDisk, Open, Surviving};
//! use dfs_stdx::Rng;
//! use std::path::Path;
//!
//! let disk = MemDisk::new();
//! let file = disk.open(Path::new("/log"), Open::New)?;
//! file.write_at(b"hello", 0)?;
//! disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
//! assert!(file.write_at(b"again", 0).is_err(), "that process is gone");
//! assert!(!disk.process().exists(Path::new("/log"))?, "its name was never synced");
//! # Ok::<(), dfs_stdx::disk::Error>(())
//! ```

mod fault;
mod image;
mod names;

use super::{Boot, Disk, Error, File, Lock, Open, Result, Space};
use crate::Rng;
pub use fault::Fault;
use fault::Faults;
use image::PAGE_BYTES;
use names::{Inode, Names};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surviving {
    /// Nothing.
    OnlySynced,
    /// Any of it: pages whole, torn by sectors or not at all, lengths, and changes of names.
    Random,
}

/// A disk in memory, as one process sees it. Clones belong to the same process.
#[derive(Clone, Debug)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
    incarnation: u64,
}

#[derive(Debug)]
struct State {
    names: Names,
    /// Held locks; all of the current incarnation.
    locks: BTreeSet<PathBuf>,
    faults: Faults,
    capacity_bytes: u64,
    incarnation: u64,
    boots: u64,
    changes: u64,
    /// The change at which the process dies.
    dies_at: Option<u64>,
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    inode: Arc<Inode>,
    path: PathBuf,
    writable: bool,
}

#[derive(Debug)]
struct MemLock {
    disk: MemDisk,
    path: PathBuf,
}

/// What an operation is to the disk: only changes can be the last thing a process does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Look,
    Change,
}

impl Default for MemDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemDisk {
    /// An empty disk of a tebibyte and its first process.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            names: Names::default(),
            locks: BTreeSet::new(),
            faults: Faults::default(),
            capacity_bytes: 1 << 40,
            incarnation: 1,
            boots: 1,
            changes: 0,
            dies_at: None,
        };
        MemDisk {
            state: Arc::new(Mutex::new(state)),
            incarnation: 1,
        }
    }

    /// The disk for the process that runs now.
    #[must_use]
    pub fn process(&self) -> MemDisk {
        MemDisk {
            state: self.state.clone(),
            incarnation: self.state().incarnation,
        }
    }

    /// Kills the process: what it wrote stays, synced or not.
    pub fn crash(&self) {
        self.state().end_process();
    }

    /// Cuts the power: the process dies, and what was not synced survives as told.
    pub fn power_cut(&self, rng: &Rng, surviving: Surviving) {
        let mut state = self.state();
        state.end_process();
        state.boots += 1;
        state
            .names
            .power_cut((surviving == Surviving::Random).then_some(rng));
    }

    /// Lets the process die at its `count`-th change from now (0: the next one), which is not carried out;
    /// a write of more than a page is carried out in part. For a power cut, call `power_cut` after it.
    pub fn die_after(&self, count: u64) {
        let mut state = self.state();
        state.dies_at = Some(state.changes + count);
    }

    /// Changes carried out so far, by all processes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Plans a failure.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.plan(fault);
    }

    /// Forgets all planned failures.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// How many planned failures have struck.
    #[must_use]
    pub fn faults_struck(&self) -> u64 {
        self.state().faults.struck
    }

    /// Sets the size of the disk. What is on it stays, even if it is more.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Flips one bit of a file, on the disk and in memory. False if there is no such byte, or it is in a hole.
    pub fn rot(&self, path: &Path, offset: u64, bit: u8) -> bool {
        self.state()
            .names
            .get(path)
            .is_ok_and(|inode| inode.content().rot(offset, bit))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the disk is held")
    }

    /// Begins an operation: the process must live, and no failure be due.
    fn begin(&self, operation: &'static str, path: &Path, kind: Kind) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if self.incarnation == state.incarnation && state.must_die(kind) {
            state.end_process();
        }
        let refused = if self.incarnation != state.incarnation {
            Some(io::Error::other("the process that opened this is gone"))
        } else {
            state.faults.due(operation, path)
        };
        match refused {
            Some(source) => Err(Error {
                operation,
                path: path.to_owned(),
                source,
            }),
            None => {
                state.changes += u64::from(kind == Kind::Change);
                Ok(state)
            }
        }
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    move |errno| Error {
        operation,
        path: path.to_owned(),
        source: errno.into(),
    }
}

impl State {
    fn end_process(&mut self) {
        self.incarnation += 1;
        self.locks.clear();
        self.dies_at = None;
    }

    fn must_die(&self, kind: Kind) -> bool {
        kind == Kind::Change && self.dies_at == Some(self.changes)
    }

    fn free_bytes(&self) -> u64 {
        let used: u64 = self
            .names
            .inodes()
            .map(|inode| inode.content().allocated_bytes())
            .sum();
        self.capacity_bytes.saturating_sub(used)
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let kind = match how {
            Open::Existing | Open::ReadOnly => Kind::Look,
            Open::New | Open::Always => Kind::Change,
        };
        let mut state = self.begin("open", path, kind)?;
        let found = match (state.names.get(path).cloned(), how) {
            (Ok(_), Open::New) => Err(Errno::EXIST),
            (Err(Errno::NOENT), Open::New | Open::Always) => state.names.create(path),
            (found, _) => found,
        };
        let inode = found.map_err(failed("open", path))?;
        let writable = how != Open::ReadOnly;
        Ok(Arc::new(MemFile {
            disk: self.clone(),
            inode,
            path: path.to_owned(),
            writable,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut state = self.begin("create_dir_all", path, Kind::Change)?;
        state
            .names
            .create_folders(path)
            .map_err(failed("create_dir_all", path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.begin("rename", from, Kind::Change)?;
        state.names.rename(from, to).map_err(failed("rename", from))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.begin("remove", path, Kind::Change)?;
        state.names.remove(path).map_err(failed("remove", path))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut state = self.begin("sync_dir", path, Kind::Change)?;
        state.names.sync(path).map_err(failed("sync_dir", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let state = self.begin("list", path, Kind::Look)?;
        state.names.list(path).map_err(failed("list", path))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let state = self.begin("exists", path, Kind::Look)?;
        Ok(state.names.is_folder(path) || state.names.get(path).is_ok())
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let state = self.begin("space", path, Kind::Look)?;
        Ok(Space {
            capacity_bytes: state.capacity_bytes,
            free_bytes: state.free_bytes(),
        })
    }

    fn boot(&self, path: &Path) -> Result<Boot> {
        let state = self.begin("boot", path, Kind::Look)?;
        let mut boot = [0; 24];
        boot[..8].copy_from_slice(&state.boots.to_le_bytes());
        boot[16] = 1;
        Ok(Boot(boot))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>> {
        let mut state = self.begin("lock", path, Kind::Change)?;
        if state.names.get(path).is_err() {
            state.names.create(path).map_err(failed("lock", path))?;
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(failed("lock", path)(Errno::WOULDBLOCK));
        }
        Ok(Box::new(MemLock {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }
}

impl Lock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.incarnation == self.disk.incarnation {
            state.locks.remove(&self.path);
        }
    }
}

impl MemFile {
    fn look(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        self.disk.begin(operation, &self.path, Kind::Look)
    }

    fn change(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.disk.begin(operation, &self.path, Kind::Change)?;
        if self.writable {
            Ok(state)
        } else {
            Err(failed(operation, &self.path)(Errno::BADF))
        }
    }

    fn must_fit(&self, state: &State, operation: &'static str, offset: u64, length: usize) -> Result<()> {
        let growth = self.inode.content().growth_bytes(offset, length);
        if growth > 0 && growth > state.free_bytes() {
            return Err(failed(operation, &self.path)(Errno::NOSPC));
        }
        Ok(())
    }

    /// If this is the write during which the process dies: the kernel has copied the first half of its pages.
    fn write_in_part(&self, bytes: &[u8], offset: u64) {
        let state = self.disk.state();
        if state.incarnation == self.disk.incarnation && state.must_die(Kind::Change) {
            let written = bytes.len() / PAGE_BYTES / 2 * PAGE_BYTES;
            self.inode.content().write(&bytes[..written], offset);
        }
    }
}

impl File for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let _state = self.look("read_at")?;
        Ok(self.inode.content().read(buffer, offset))
    }

    fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> Result<Option<usize>> {
        let _state = self.look("try_read_at")?;
        Ok(Some(self.inode.content().read(buffer, offset)))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write_in_part(bytes, offset);
        let state = self.change("write_at")?;
        self.must_fit(&state, "write_at", offset, bytes.len())?;
        self.inode.content().write(bytes, offset);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        match self.disk.begin("sync_data", &self.path, Kind::Change) {
            Ok(_state) => {
                self.inode.content().sync();
                Ok(())
            }
            Err(error) => {
                // A planned failure has an error number, the end of the process has none.
                if error.source.raw_os_error().is_some() {
                    self.inode.content().fail_sync();
                }
                Err(error)
            }
        }
    }

    fn is_in_memory(&self) -> bool {
        true
    }

    fn length(&self) -> Result<u64> {
        let _state = self.look("length")?;
        Ok(self.inode.content().length())
    }

    fn set_length(&self, length: u64) -> Result<()> {
        let _state = self.change("set_length")?;
        self.inode.content().set_length(length);
        Ok(())
    }

    fn reserve(&self, offset: u64, length: u64) -> Result<()> {
        let state = self.look("reserve")?;
        self.must_fit(
            &state,
            "reserve",
            offset,
            usize::try_from(length).unwrap_or(usize::MAX),
        )
    }

    fn start_writeback(&self, _offset: u64, _length: u64) -> Result<()> {
        self.look("start_writeback").map(drop)
    }
}

#[cfg(test)]
mod tests;
