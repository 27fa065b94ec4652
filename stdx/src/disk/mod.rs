//! The disk seam: synchronous file access with typed errors, real or in memory.
//!
//! Callers run it on [`crate::blocking::Pool`], never on the async runtime.
//! `OsDisk` is the real one; `MemDisk` keeps a live and a durable image, so that a test can cut the power.

use std::path::{Path, PathBuf};
use std::sync::Arc;

mod mem;
mod metered;
mod os;

pub use mem::{Fault, MemDisk, Surviving};
pub use metered::{DiskMeter, MeteredDisk};
pub use os::OsDisk;

/// A failed disk operation: what was tried, where, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct Error {
    /// The operation's name, as in the [`Disk`] or [`File`] trait.
    pub operation: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: std::io::Error,
}

impl Error {
    /// True if the disk has no room (ENOSPC or EDQUOT).
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        )
    }

    /// True if this process or the machine has too many files open (EMFILE, ENFILE): nothing was tried on the disk.
    #[must_use]
    pub fn is_out_of_files(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(23 | 24))
    }

    /// True if there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::NotFound
    }
}

/// Result of a disk operation.
pub type Result<T> = std::result::Result<T, Error>;

/// How a file is opened. All are opened for reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// It must exist.
    Existing,
    /// It must not exist.
    New,
    /// Created if it does not exist; kept as it is if it does.
    Always,
    /// It must exist, and is opened for reading only.
    ReadOnly,
}

/// Bytes of the file system that holds a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub capacity_bytes: u64,
    /// What an unprivileged process may still write.
    pub free_bytes: u64,
}

/// Names one stretch of time in which what was written and not synced cannot have been lost:
/// the kernel's boot id and the unique id of the mount (statx(2), `STATX_MNT_ID_UNIQUE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Boot(pub [u8; 24]);

/// A held exclusive lock on a file; released when dropped (and by the kernel when the process dies).
pub trait Lock: Send + Sync + std::fmt::Debug {}

/// A file system, as far as dfs needs one.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a file. A new file's directory entry is durable only after [`Disk::sync_dir`].
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>>;
    /// Creates a folder and its parents, durably; fine if it exists.
    fn create_dir_all(&self, path: &Path) -> Result<()>;
    /// Renames, replacing the target. Durable after [`Disk::sync_dir`] of both folders.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> Result<()>;
    /// Makes the folder's entries durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// File and folder names in a folder, sorted.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
    /// True if the path exists.
    fn exists(&self, path: &Path) -> Result<bool>;
    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> Result<Space>;
    /// The boot that what is written to this folder belongs to.
    fn boot(&self, path: &Path) -> Result<Boot>;
    /// Takes an exclusive lock on the file, created if need be; an error of kind `WouldBlock` if another holds it.
    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>>;
}

/// An open file. Offsets and lengths in bytes.
pub trait File: Send + Sync + std::fmt::Debug {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;
    /// As [`File::read_at`], but only if no disk must be waited for (preadv2(2), `RWF_NOWAIT`).
    /// `None`: not all of it is in memory, ask `read_at` on the pool.
    fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> Result<Option<usize>>;
    /// Writes all bytes, extending the file if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;
    /// Makes data and what is needed to read it durable (fdatasync(2)).
    fn sync_data(&self) -> Result<()>;
    /// True if the file lies in memory (on a tmpfs): nothing done to it waits for a disk.
    fn is_in_memory(&self) -> bool;
    /// The file's length.
    fn length(&self) -> Result<u64>;
    /// Cuts or extends (with a hole) the file.
    fn set_length(&self, length: u64) -> Result<()>;
    /// Reserves space without changing the length (fallocate(2), `KEEP_SIZE`); a no-op where unsupported.
    fn reserve(&self, offset: u64, length: u64) -> Result<()>;
    /// Asks that writeback of a range just written begin, so that a later sync finds little to do.
    /// Durability is not implied. It may do nothing; parts of the range that are on disk may leave memory.
    fn start_writeback(&self, offset: u64, length: u64) -> Result<()>;
}
