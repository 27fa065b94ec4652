//! Removing whole trees, and having them back.

use crate::client::Client;
use crate::convert;
use crate::inodes::Inodes;
use crate::types::{Discard, Metadata, Retention, Trashed};
use dfs_proto::{InodeId, Result};
use std::time::Duration;

/// Entries in one question, or one command.
const PAGE_ENTRIES: u32 = 1_024;

#[expect(clippy::missing_errors_doc, reason = "the same for all: see the type")]
impl Inodes {
    /// Removes a name, with all below it if that is asked for: one rename, into the trash (`path` is shown there) or to
    /// the master's background, which removes it for good. Returns what changed: what was removed, and the directory.
    pub async fn discard(&self, place: (InodeId, &[u8]), path: &[u8], how: Discard) -> Result<Vec<Metadata>> {
        convert::touched(
            self.core
                .master
                .change(&self.caller, convert::discard(place, path, how))
                .await?,
        )
    }
}

#[expect(clippy::missing_errors_doc, reason = "the same for all: see the type")]
impl Client {
    /// Removes a name, as the options say: by default to the trash, and no directory. Symlinks are not followed.
    pub async fn discard(&self, path: impl AsRef<[u8]>, how: Discard) -> Result<()> {
        let path = path.as_ref();
        let (parent, name) = self.place(path).await?;
        self.inodes.discard((parent, &name), path, how).await.map(drop)
    }

    /// Removes a name for good and, if it is a directory, all below it: gone at once, its room comes back by and by.
    /// Symlinks are removed, not followed.
    pub async fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let how = Discard {
            recursive: true,
            skip_trash: true,
        };
        self.discard(path, how).await
    }

    /// What the caller may have back, oldest first; all that anyone removed for the superuser.
    pub async fn trash(&self) -> Result<Vec<Trashed>> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let asked = convert::list_trash(after, PAGE_ENTRIES);
            let (page, next) = convert::trash_page(self.inodes.query(asked).await?)?;
            all.extend(page);
            if next == 0 {
                return Ok(all);
            }
            after = next;
        }
    }

    /// Takes something out of the trash: to where it was, or to `path`, which must not exist.
    pub async fn restore(&self, entry: u64, path: Option<&[u8]>) -> Result<Metadata> {
        let to = match path {
            Some(path) => Some(self.place(path).await?),
            None => None,
        };
        let to = to.as_ref().map(|(parent, name)| (*parent, name.as_slice()));
        let change = convert::restore(entry, to);
        convert::attributes_changed(
            self.inodes
                .core
                .master
                .change(&self.inodes.caller, change)
                .await?,
        )
    }

    /// Does away with these entries of the trash for good; those that are gone are passed over.
    pub async fn empty_trash(&self, entries: &[u64]) -> Result<()> {
        for some in entries.chunks(PAGE_ENTRIES as usize) {
            let change = convert::empty_trash(some);
            self.inodes
                .core
                .master
                .change(&self.inodes.caller, change)
                .await?;
        }
        Ok(())
    }

    /// How long the trash keeps what is removed in a directory.
    pub async fn retention(&self, directory: impl AsRef<[u8]>) -> Result<Retention> {
        let inode = self.inode(directory.as_ref(), true).await?;
        convert::retention(self.inodes.query(convert::get_retention(inode)).await?)
    }

    /// Says how long the trash keeps what is removed below a directory, in whole seconds; zero: there is no trash;
    /// `None`: as the directory above it. Only its owner may.
    pub async fn set_retention(&self, directory: impl AsRef<[u8]>, keep: Option<Duration>) -> Result<()> {
        let inode = self.inode(directory.as_ref(), true).await?;
        let change = convert::retain(inode, keep);
        self.inodes
            .core
            .master
            .change(&self.inodes.caller, change)
            .await
            .map(drop)
    }
}
