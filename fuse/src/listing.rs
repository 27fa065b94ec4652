//! Listings: the reply is filled while the file system reads the directory, and may be taken away meanwhile by a
//! signal or the deadline.

use crate::attr::{self, Shown};
use crate::desk::Refuse;
use crate::vfs::DirEntry;
use fuser::{Errno, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A reply that takes lines.
pub(crate) trait Listing: Refuse {
    /// Adds a line; true if it is full and did not take it.
    fn add_line(&mut self, shown: Shown, line: &DirEntry<'_>) -> bool;
    /// Sends what it has.
    fn done(self);
}

impl Listing for ReplyDirectory {
    fn add_line(&mut self, _shown: Shown, line: &DirEntry<'_>) -> bool {
        self.add(
            INodeNo(line.inode),
            line.next,
            attr::kind(line.kind),
            OsStr::from_bytes(line.name),
        )
    }

    fn done(self) {
        self.ok();
    }
}

impl Listing for ReplyDirectoryPlus {
    fn add_line(&mut self, shown: Shown, line: &DirEntry<'_>) -> bool {
        let (attr, ttl, generation) = match line.entry {
            Some(entry) => (
                shown.attr(&entry.metadata),
                entry.entry_ttl.min(entry.attr_ttl),
                Generation(entry.generation),
            ),
            // The kernel looks at no more than number and type of `.` and `..`.
            None => (attr::bare(line.inode, line.kind), Duration::ZERO, Generation(0)),
        };
        self.add(
            INodeNo(line.inode),
            line.next,
            OsStr::from_bytes(line.name),
            &ttl,
            &attr,
            generation,
        )
    }

    fn done(self) {
        self.ok();
    }
}

/// A reply being filled.
#[derive(Debug)]
pub(crate) struct Page<R>(Arc<Mutex<Option<R>>>);

impl<R> Clone for Page<R> {
    fn clone(&self) -> Page<R> {
        Page(self.0.clone())
    }
}

impl<R: Listing> Page<R> {
    /// An empty one.
    #[must_use]
    pub(crate) fn new(reply: R) -> Page<R> {
        Page(Arc::new(Mutex::new(Some(reply))))
    }

    /// Adds a line; true if it did not take it.
    pub(crate) fn add(&self, shown: Shown, line: &DirEntry<'_>) -> bool {
        match self.lock().as_mut() {
            Some(reply) => reply.add_line(shown, line),
            None => true,
        }
    }

    /// Sends it.
    pub(crate) fn done(self) {
        if let Some(reply) = self.lock().take() {
            reply.done();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Listing> Refuse for Page<R> {
    fn refuse(self, errno: Errno) {
        if let Some(reply) = self.lock().take() {
            reply.refuse(errno);
        }
    }
}
