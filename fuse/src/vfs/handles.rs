//! Open files.

use super::{Allocate, At, Caller, Opened, Vfs, Whence, Write, lock};
use bytes::Bytes;
use dfs_client::{Code, Handle, InodeId, Metadata, OpenOptions, Result};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How a file is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create {
    /// Permission bits after umask.
    pub mode: u32,
    /// open(2)'s flags.
    pub flags: i32,
}

impl Create {
    pub(super) fn exclusive(self) -> bool {
        flags_of(self.flags).contains(OFlags::EXCL)
    }
}

fn flags_of(raw: i32) -> OFlags {
    OFlags::from_bits_retain(raw.cast_unsigned())
}

/// Open files of the mount.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, File>>,
    next: AtomicU64,
}

#[derive(Clone, Debug)]
struct File {
    inode: u64,
    bytes: Arc<Handle>,
    flags: OFlags,
}

impl Handles {
    pub(super) fn is_open(&self, inode: u64) -> bool {
        lock(&self.open).values().any(|file| file.inode == inode)
    }

    pub(super) async fn flush(&self, inode: u64) -> Result<()> {
        let found = lock(&self.open)
            .values()
            .find(|file| file.inode == inode)
            .cloned();
        match found {
            Some(file) => file.bytes.flush().await,
            None => Ok(()),
        }
    }

    fn get(&self, handle: u64) -> Result<File> {
        Ok(lock(&self.open)
            .get(&handle)
            .cloned()
            .ok_or(Code::InvalidArgument)?)
    }

    pub(super) async fn flush_all(&self) -> Result<()> {
        let all: Vec<File> = lock(&self.open).values().cloned().collect();
        let mut first = Ok(());
        for file in all {
            let flushed = file.bytes.flush().await;
            first = first.and(flushed);
        }
        first
    }

    pub(super) async fn close_all(&self) -> Result<()> {
        let all: Vec<File> = lock(&self.open).drain().map(|(_, file)| file).collect();
        let mut first = Ok(());
        for file in all {
            let closed = file.bytes.close().await;
            first = first.and(closed);
        }
        first
    }
}

#[expect(
    clippy::missing_errors_doc,
    reason = "the master's and the chunkservers', or TimedOut, for all"
)]
impl Vfs {
    /// Opens a regular file; the flags are open(2)'s.
    pub async fn open(&self, caller: Caller, inode: u64, flags: i32) -> Result<Opened> {
        let metadata = self.acting(caller).stat(InodeId(inode)).await?;
        self.open_known(&metadata, flags).await
    }

    pub(super) async fn open_known(&self, metadata: &Metadata, flags: i32) -> Result<Opened> {
        let flags = flags_of(flags);
        let inode = metadata.inode.0;
        let shared = lock(&self.handles.open)
            .values()
            .find(|f| f.inode == inode)
            .map(|f| f.bytes.clone());
        let bytes = match shared {
            Some(bytes) => bytes,
            None => {
                let options = OpenOptions::new().read(true).write(true).sync_on_close(false);
                Arc::new(self.root().open(metadata.inode, options).await?)
            }
        };
        if flags.contains(OFlags::TRUNC) {
            bytes.set_len(0).await?;
        }
        let handle = self.handles.next.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.handles.open).insert(handle, File { inode, bytes, flags });
        Ok(Opened {
            handle,
            keep_cache: false,
            direct_io: flags.contains(OFlags::DIRECT),
        })
    }

    /// Up to `length` bytes, in pieces one behind the other; fewer only at the end of the file.
    pub async fn read(&self, at: At, length: usize) -> Result<Vec<Bytes>> {
        Ok(vec![
            self.handles
                .get(at.handle)?
                .bytes
                .read_at(at.offset, length)
                .await?,
        ])
    }

    /// As [`Vfs::write`], if it need not wait: the bytes are then taken without a copy of the edge's own.
    pub fn try_write(&self, at: At, data: &[u8], kill_privileges: bool) -> Option<Result<usize>> {
        let _ = (at, data, kill_privileges);
        None
    }

    /// Writes all of it; returns how much that was.
    pub async fn write(&self, _caller: Caller, inode: u64, handle: u64, write: Write) -> Result<usize> {
        let file = self.handles.get(handle)?;
        let length = write.data.len();
        debug_assert_eq!(file.inode, inode);
        match file.flags.contains(OFlags::APPEND) {
            true => drop(file.bytes.append(write.data).await?),
            false => file.bytes.write_at(write.offset, write.data).await?,
        }
        if file.flags.intersects(OFlags::SYNC | OFlags::DSYNC) {
            file.bytes.sync_all().await?;
        }
        Ok(length)
    }

    /// A descriptor of the file is closed: what was written is sent, errors are reported, the owner's locks go.
    pub async fn flush(&self, _inode: u64, handle: u64, _owner: u64) -> Result<()> {
        self.handles.get(handle)?.bytes.flush().await
    }

    /// The last descriptor of the handle is closed. `owner`: whose flock locks go.
    pub async fn release(&self, inode: u64, handle: u64, _owner: Option<u64>) -> Result<()> {
        let file = lock(&self.handles.open).remove(&handle);
        match file {
            Some(file) if !self.handles.is_open(inode) => file.bytes.close().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Returns when the bytes are on stable storage everywhere.
    pub async fn fsync(&self, _inode: u64, handle: u64, _data_only: bool) -> Result<()> {
        self.handles.get(handle)?.bytes.sync_all().await
    }

    /// Reserves, punches or zeroes a range.
    pub async fn fallocate(&self, at: At, length: u64, how: Allocate) -> Result<()> {
        let _ = (at, length, how);
        Err(Code::NotSupported.into())
    }

    /// Where data or a hole begins, from an offset on; `None`: not before the end (ENXIO).
    pub async fn lseek(&self, at: At, whence: Whence) -> Result<Option<u64>> {
        let size = self.handles.get(at.handle)?.bytes.len().await?;
        Ok((at.offset < size).then_some(match whence {
            Whence::Data => at.offset,
            Whence::Hole => size,
        }))
    }

    /// Copies a range from one file to another; returns how much was copied.
    pub async fn copy_file_range(&self, from: At, to: At, length: u64) -> Result<u64> {
        let _ = (from, to, length);
        Err(Code::NotSupported.into())
    }
}
