//! One data directory: which disk it is, whether it may be trusted, where its files lie.
//!
//! ```text
//! DATA/identity             who this disk is (see identity.rs)
//! DATA/lock                 held while a chunkserver runs on it
//! DATA/chunks/xx/HANDLE     a replica; xx is the handle's low byte in hex
//! DATA/chunks/xx/HANDLE.install   a staged sync (see install.rs)
//! DATA/tmp/                 what is not finished; emptied at start
//! DATA/graves               promises of deleted replicas
//! DATA/quarantine/          files that could not be read as replicas; never deleted by dfs
//! ```

use super::error::{Error, Result};
use dfs_proto::ChunkHandle;
use dfs_stdx::disk::{Boot, Disk, Open, Space};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A disk's id: random, made with its identity file.
pub type DiskId = [u8; 16];

/// A data directory in use.
#[derive(Debug)]
pub struct Home {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub dir: PathBuf,
    /// The disk's id.
    pub id: DiskId,
    /// The boot that what is written now belongs to.
    pub boot: Boot,
    failed: AtomicBool,
    /// A file on something that lives as long as the page cache does (a tmpfs): an fsync failed here.
    note: Option<PathBuf>,
}

impl Home {
    /// The data directory `dir` of disk `id`; failed already if a note in `notes` says so.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, id: DiskId, notes: Option<&Path>) -> Result<Home> {
        let boot = disk.boot(dir)?;
        let note = notes.map(|notes| notes.join(format!("fenced-{}", hex::encode(id))));
        let failed = match &note {
            Some(note) => noted(&*disk, note)? == Some(boot),
            None => false,
        };
        Ok(Home {
            disk,
            dir: dir.to_owned(),
            id,
            boot,
            failed: AtomicBool::new(failed),
            note,
        })
    }

    /// True once an fsync failed: nothing on this disk is whole any more.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// # Errors
    /// [`Error::Fenced`] once an fsync failed.
    pub fn usable(&self) -> Result<()> {
        if self.is_failed() {
            Err(Error::Fenced)
        } else {
            Ok(())
        }
    }

    /// Room on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn space(&self) -> Result<Space> {
        Ok(self.disk.space(&self.dir)?)
    }

    /// The outcome of an fsync; a failed one fences the disk, for this process and the next ones of this boot.
    pub(super) fn synced(&self, outcome: dfs_stdx::disk::Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        if error.is_out_of_files() {
            // The folder could not even be opened: no fsync was tried, so none has failed.
            return Err(error.into());
        }
        tracing::error!(disk = %self.dir.display(), %error, "an fsync failed: the disk is fenced");
        self.failed.store(true, Ordering::Release);
        if let Some(note) = &self.note
            && let Err(error) = self.write_note(note)
        {
            tracing::error!(note = %note.display(), %error, "the note about the fenced disk cannot be written");
        }
        Err(Error::Fenced)
    }

    fn write_note(&self, note: &Path) -> Result<()> {
        if let Some(folder) = note.parent() {
            self.disk.create_dir_all(folder)?;
        }
        self.disk.open(note, Open::Always)?.write_at(&self.boot.0, 0)?;
        Ok(())
    }

    /// Makes the entries of a folder durable.
    pub(super) fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.synced(self.disk.sync_dir(dir))
    }

    /// The folder a chunk's files lie in.
    #[must_use]
    pub fn folder(&self, handle: ChunkHandle) -> PathBuf {
        self.dir.join("chunks").join(format!("{:02x}", handle.0 & 0xff))
    }

    /// A chunk's file.
    #[must_use]
    pub fn path(&self, handle: ChunkHandle) -> PathBuf {
        self.folder(handle).join(handle.to_string())
    }

    /// A file for something unfinished.
    #[must_use]
    pub fn tmp(&self, name: &str) -> PathBuf {
        self.dir.join("tmp").join(name)
    }

    /// Moves a file that cannot be read as what it should be out of the way.
    pub(super) fn quarantine(&self, path: &Path, why: &str) -> Result<()> {
        let folder = self.dir.join("quarantine");
        self.disk.create_dir_all(&folder)?;
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let free = (0..).map(|n| folder.join(format!("{name}.{n}")));
        for to in free {
            if !self.disk.exists(&to)? {
                self.disk.rename(path, &to)?;
                tracing::error!(from = %path.display(), to = %to.display(), why, "moved to quarantine");
                break;
            }
        }
        self.sync_dir(&folder)?;
        path.parent().map_or(Ok(()), |parent| self.sync_dir(parent))
    }
}

/// The boot in which a note says an fsync failed.
fn noted(disk: &dyn Disk, note: &Path) -> Result<Option<Boot>> {
    if !disk.exists(note)? {
        return Ok(None);
    }
    let mut boot = [0; 24];
    let read = disk.open(note, Open::ReadOnly)?.read_at(&mut boot, 0)?;
    Ok((read == boot.len()).then_some(Boot(boot)))
}
