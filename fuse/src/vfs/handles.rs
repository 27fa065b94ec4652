//! Open files: which file, how it was opened, and what follows from that for reading and writing.

mod ranges;

use super::content::{Content, Opening};
use super::{At, Caller, Opened, Vfs, Write, lock};
use bytes::Bytes;
use dfs_client::{Code, Error, InodeId, Metadata, Result, SetAttributes};
use rustix::fs::OFlags;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// For the master's question of access.
const MAY_READ: u32 = 4;
/// For the master's question of access.
pub(super) const MAY_WRITE: u32 = 2;

/// How a file is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create {
    /// Permission bits after umask.
    pub mode: u32,
    /// open(2)'s flags.
    pub flags: i32,
}

impl Create {
    pub(super) fn flags(self) -> OFlags {
        flags_of(self.flags)
    }

    pub(super) fn is_exclusive(self) -> bool {
        self.flags().contains(OFlags::EXCL)
    }

    pub(super) fn truncates(self) -> bool {
        self.flags().contains(OFlags::TRUNC)
    }

    pub(super) fn writes(self) -> bool {
        access_of(self.flags()) & MAY_WRITE != 0
    }
}

fn flags_of(raw: i32) -> OFlags {
    OFlags::from_bits_retain(raw.cast_unsigned())
}

/// What the file is opened for, as the master's question of access puts it.
fn access_of(flags: OFlags) -> u32 {
    match flags & OFlags::ACCMODE {
        OFlags::WRONLY => MAY_WRITE,
        OFlags::RDWR => MAY_READ | MAY_WRITE,
        _ => MAY_READ,
    }
}

/// Open files of the mount.
#[derive(Default)]
pub(super) struct Files {
    open: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
    /// Files closed lately, whose bytes stay at hand.
    pub(super) closed: Mutex<VecDeque<u64>>,
}

/// One open handle.
struct File {
    content: Arc<Content>,
    opening: Opening,
    flags: OFlags,
    /// It was made with this handle, in this directory.
    made_in: Option<u64>,
    written: AtomicBool,
}

impl Files {
    pub(super) fn any(&self) -> bool {
        !lock(&self.open).is_empty()
    }

    fn get(&self, handle: u64) -> Result<Arc<File>> {
        let found = lock(&self.open).get(&handle).cloned();
        found.ok_or_else(|| Error::new(Code::InvalidArgument, "there is no such open file"))
    }
}

impl File {
    fn syncs(&self) -> bool {
        self.flags.intersects(OFlags::SYNC | OFlags::DSYNC)
    }

    fn appends(&self) -> bool {
        self.flags.contains(OFlags::APPEND)
    }
}

#[expect(
    clippy::missing_errors_doc,
    reason = "the master's and the chunkservers', or TimedOut, for all"
)]
impl Vfs {
    /// Opens a regular file; the flags are open(2)'s.
    pub async fn open(&self, caller: Caller, inode: u64, flags: i32) -> Result<Opened> {
        let flags = flags_of(flags);
        // Counted before anything is waited for, so that nobody removes it for good meanwhile.
        self.cache.at(inode, |node| node.opens += 1);
        let opened = self.try_open(caller, inode, flags).await;
        if opened.is_err() {
            self.closed(inode);
        }
        opened
    }

    async fn try_open(&self, caller: Caller, inode: u64, flags: OFlags) -> Result<Opened> {
        // Its name was taken by another a moment ago: the kernel has to look again.
        if self.cache.peek(inode, |node| node.gone && node.opens == 1) == Some(true) {
            return Err(Error::new(Code::Stale, "the file was removed"));
        }
        let metadata = if self.options.ask_permission {
            let epoch = self.cache.epoch();
            let metadata = self
                .acting(caller)
                .access(InodeId(inode), access_of(flags))
                .await?;
            self.learn(epoch, &metadata)
        } else {
            self.known(caller, inode).await?.0
        };
        if metadata.is_dir() {
            return Err(Code::IsADirectory.into());
        }
        if !metadata.is_file() {
            return Err(Error::new(Code::NotSupported, "only regular files have bytes"));
        }
        let content = self.content(&metadata);
        if flags.contains(OFlags::TRUNC) {
            let empty = SetAttributes {
                size: Some(0),
                kill_privileges: caller.uid != 0,
                ..SetAttributes::default()
            };
            self.set(inode, content.truncate(empty)).await?;
        }
        Ok(self.opened(content, flags, None))
    }

    /// The bytes of a file that is known to be one.
    pub(super) fn content(&self, metadata: &Metadata) -> Arc<Content> {
        self.cache.at(metadata.inode.0, |node| {
            let content = node
                .content
                .get_or_insert_with(|| Content::new(&self.contents, metadata));
            content.clone()
        })
    }

    /// A handle on bytes; the inode's count of handles has it already.
    pub(super) fn opened(&self, content: Arc<Content>, flags: OFlags, made_in: Option<u64>) -> Opened {
        let inode = content.inode().0;
        let keep_cache = self.cache.attributes(inode).is_some();
        // Through its page cache the kernel tears a write at every page, and another mount could append in between.
        let direct_io = flags.intersects(OFlags::DIRECT | OFlags::APPEND);
        self.cache.at(inode, |node| node.content = Some(content.clone()));
        let opening = content.open(access_of(flags) & MAY_WRITE != 0);
        let file = File {
            content,
            opening,
            flags,
            made_in,
            written: AtomicBool::new(false),
        };
        let handle = self.files.next.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.files.open).insert(handle, Arc::new(file));
        Opened {
            handle,
            keep_cache,
            direct_io,
        }
    }

    /// Up to `length` bytes, in pieces one behind the other; fewer only at the end of the file.
    pub async fn read(&self, at: At, length: usize) -> Result<Vec<Bytes>> {
        let file = self.files.get(at.handle)?;
        file.content.read(&file.opening, at.offset, length).await
    }

    /// As [`Vfs::write`], if it need not wait: the bytes are then taken without a copy of the edge's own.
    pub fn try_write(&self, at: At, data: &[u8], kill_privileges: bool) -> Option<Result<usize>> {
        let file = self.files.get(at.handle).ok()?;
        if file.appends() || file.syncs() || (kill_privileges && self.may_have_privileges(at.inode)) {
            return None;
        }
        file.written.store(true, Ordering::Relaxed);
        let written = file.content.try_write(&file.opening, at.offset, data)?;
        Some(written.map(|()| data.len()))
    }

    /// Writes all of it; returns how much that was.
    pub async fn write(&self, _caller: Caller, inode: u64, handle: u64, write: Write) -> Result<usize> {
        let file = self.files.get(handle)?;
        if write.kill_privileges {
            self.kill_privileges(inode).await?;
        }
        file.written.store(true, Ordering::Relaxed);
        match file.appends() {
            true => drop(file.content.append(&file.opening, &write.data).await?),
            false => {
                file.content
                    .write(&file.opening, write.offset, &write.data)
                    .await?
            }
        }
        if file.syncs() {
            file.content.sync(&file.opening).await?;
        }
        Ok(write.data.len())
    }

    /// A descriptor of the file is closed: what was written is sent, errors are reported, the owner's locks go.
    pub async fn flush(&self, inode: u64, handle: u64, owner: u64) -> Result<()> {
        let file = self.files.get(handle)?;
        let flushed = self.outcome(inode, file.content.flush(&file.opening).await);
        if let Some(owner) = self.forget_owner(inode, owner) {
            self.unlock_all(inode, owner).await;
        }
        flushed
    }

    /// The last descriptor of the handle is closed: locks that were its own go.
    pub async fn release(&self, inode: u64, handle: u64) -> Result<()> {
        // Before anything is waited for: the kernel may use their owners' names again.
        let owners = self.forget_handle(inode, handle);
        let Some(file) = lock(&self.files.open).remove(&handle) else {
            return Ok(());
        };
        if let Some(directory) = file.made_in {
            let empty = !file.written.load(Ordering::Relaxed);
            self.cache.peek(directory, |node| node.makes_empty_files = empty);
        }
        // Pages that were mapped are written after the last close.
        let settled = match file.content.is_idle() {
            true => Ok(()),
            false => self.outcome(inode, file.content.settle().await),
        };
        drop(file);
        for owner in owners {
            self.unlock_all(inode, owner).await;
        }
        self.closed(inode);
        settled
    }

    /// A handle less. The last one of a removed file gives that back.
    fn closed(&self, inode: u64) {
        let (last, held) = self.cache.at(inode, |node| {
            node.opens = node.opens.saturating_sub(1);
            let last = node.opens == 0;
            let held = last && std::mem::take(&mut node.held);
            if last && (held || node.gone) {
                node.content = None;
                node.gone = true;
            } else if last {
                node.learn_from_content();
            }
            (last && node.content.is_some(), held)
        });
        if held {
            self.orphans.add([InodeId(inode)]);
        }
        if last {
            lock(&self.files.closed).push_back(inode);
        }
    }

    /// Returns when the bytes are on stable storage everywhere.
    pub async fn fsync(&self, inode: u64, handle: u64, _data_only: bool) -> Result<()> {
        let file = self.files.get(handle)?;
        self.outcome(inode, file.content.sync(&file.opening).await)
    }
}
