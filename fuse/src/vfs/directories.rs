//! Listings.

use super::{Caller, DirEntry, Entry, Opened, Vfs, lock};
use dfs_client::{Code, DirPage, InodeId, Kind, Metadata, Result};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names asked of the master at once.
const PAGE_ENTRIES: u32 = 2_048;
/// The master's cursors begin after these: `.` and `..`.
const CURSORS_OURS: u64 = 2;

/// Open directories.
#[derive(Debug, Default)]
pub(super) struct Directories {
    open: Mutex<HashMap<u64, u64>>,
    next: AtomicU64,
}

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// Opens a directory.
    pub async fn opendir(&self, _caller: Caller, inode: u64) -> Result<Opened> {
        let handle = self.directories.next.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.directories.open).insert(handle, inode);
        Ok(Opened {
            handle,
            keep_cache: false,
            direct_io: false,
        })
    }

    /// Gives names that come after `offset` (0: all) to `take` until it says that it is full or there are no more.
    /// With `plus` each has its [`Entry`], which counts as a lookup when it was taken.
    pub async fn readdir(
        &self,
        handle: u64,
        offset: u64,
        plus: bool,
        take: &mut (dyn FnMut(&DirEntry<'_>) -> bool + Send),
    ) -> Result<()> {
        let inode = lock(&self.directories.open)
            .get(&handle)
            .copied()
            .ok_or(Code::InvalidArgument)?;
        let page = self.page(inode, offset.saturating_sub(CURSORS_OURS)).await?;
        for (own, name, leads) in [(0, &b"."[..], inode), (1, b"..", page.parent.0.max(1))] {
            if offset > own {
                continue;
            }
            let line = DirEntry {
                inode: leads,
                kind: Kind::Directory,
                name,
                next: own + 1,
                entry: None,
            };
            if take(&line) {
                return Ok(());
            }
        }
        for found in &page.entries {
            let entry = plus.then(|| self.entry(found.metadata.clone()));
            if take(&line(found.cursor, &found.name, &found.metadata, entry.as_ref())) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn page(&self, inode: u64, cursor: u64) -> Result<DirPage> {
        self.root().read_dir(InodeId(inode), cursor, PAGE_ENTRIES).await
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: u64) {
        lock(&self.directories.open).remove(&handle);
    }

    /// Returns when all changes of a directory are durable: they are when they are answered.
    pub async fn fsyncdir(&self, _handle: u64) -> Result<()> {
        Ok(())
    }
}

fn line<'a>(cursor: u64, name: &'a [u8], metadata: &Metadata, entry: Option<&'a Entry>) -> DirEntry<'a> {
    DirEntry {
        inode: metadata.inode.0,
        kind: metadata.kind,
        name,
        next: cursor + CURSORS_OURS,
        entry,
    }
}
