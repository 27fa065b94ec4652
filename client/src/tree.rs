//! Removing whole trees: below first, a few names at a time.

use crate::inodes::Inodes;
use crate::types::{DirEntry, Metadata};
use dfs_proto::{Code, InodeId, Result};
use futures::future::BoxFuture;
use futures::stream::{StreamExt as _, TryStreamExt as _};

/// Names of one directory that are removed at the same time.
const AT_ONCE: usize = 16;
/// Entries asked for at once.
const PAGE_ENTRIES: u32 = 1_024;
/// New names may appear while a directory is emptied; so often it is looked at again.
const PASSES_MAX: usize = 10;

impl Inodes {
    /// Removes a name and all below it. What is gone already is as good as removed.
    pub(crate) fn remove_tree<'a>(
        &'a self,
        parent: InodeId,
        name: &'a [u8],
        found: &'a Metadata,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if !found.is_dir() {
                return self.unlink(parent, name, false).await.map(drop);
            }
            let mut passes = 0;
            loop {
                self.empty(found.inode).await?;
                match self.remove_dir(parent, name).await {
                    Err(error) if error.code == Code::NotEmpty && passes < PASSES_MAX => passes += 1,
                    other => return other.map(drop),
                }
            }
        })
    }

    async fn empty(&self, directory: InodeId) -> Result<()> {
        let mut cursor = 0;
        loop {
            let page = self.read_dir(directory, cursor, PAGE_ENTRIES).await?;
            cursor = page.entries.last().map_or(cursor, |e| e.cursor);
            let end = page.end || page.entries.is_empty();
            futures::stream::iter(page.entries)
                .map(|entry| self.remove_entry(directory, entry))
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
            if end {
                return Ok(());
            }
        }
    }

    async fn remove_entry(&self, directory: InodeId, entry: DirEntry) -> Result<()> {
        match self.remove_tree(directory, &entry.name, &entry.metadata).await {
            Err(error) if error.code == Code::NotFound => Ok(()),
            other => other,
        }
    }
}
