//! Names: finding, making, moving and removing them.

use super::{Caller, Entry, Found, Opened, Vfs};
use dfs_client::{Code, InodeId, Make, Metadata, OpenOptions, RenameMode, Result};
use std::time::Duration;

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// The entry `name` of a directory.
    pub async fn lookup(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<Found> {
        match self.acting(caller).lookup(InodeId(parent), name).await {
            Ok(metadata) => Ok(Found::Entry(self.entry(metadata))),
            Err(error) if error.code == Code::NotFound => Ok(Found::Nothing(Duration::ZERO)),
            Err(error) => Err(error),
        }
    }

    /// The kernel gives back `count` lookups of an inode.
    pub fn forget(&self, _inode: u64, _count: u64) {}

    /// Makes a directory, symlink, special file or empty file; the mode is after umask.
    pub async fn make(&self, caller: Caller, parent: u64, name: &[u8], make: Make) -> Result<Entry> {
        let made = self.acting(caller).make(InodeId(parent), name, make).await?;
        Ok(self.entry(made.metadata))
    }

    /// Makes a regular file and opens it; the mode is after umask, the flags are open(2)'s.
    pub async fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        how: super::Create,
    ) -> Result<(Entry, Opened)> {
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(how.mode)
            .create(true)
            .create_new(how.exclusive())
            .sync_on_close(false);
        let (made, _) = self.acting(caller).create(InodeId(parent), name, options).await?;
        let opened = self.open_known(&made.metadata, how.flags).await?;
        Ok((self.entry(made.metadata), opened))
    }

    /// Removes a name that is not a directory.
    pub async fn unlink(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<()> {
        self.acting(caller)
            .unlink(InodeId(parent), name, false)
            .await
            .map(drop)
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<()> {
        self.acting(caller)
            .remove_dir(InodeId(parent), name)
            .await
            .map(drop)
    }

    /// Renames `from` (directory, name) to `to`.
    pub async fn rename(
        &self,
        caller: Caller,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        mode: RenameMode,
    ) -> Result<()> {
        let (from, to) = ((InodeId(from.0), from.1), (InodeId(to.0), to.1));
        self.acting(caller).rename(from, to, mode, false).await.map(drop)
    }

    /// Another name for a file.
    pub async fn link(&self, caller: Caller, inode: u64, parent: u64, name: &[u8]) -> Result<Entry> {
        let linked = self
            .acting(caller)
            .link(InodeId(inode), InodeId(parent), name)
            .await?;
        Ok(self.entry(linked.metadata))
    }

    /// What a symlink says.
    pub async fn readlink(&self, caller: Caller, inode: u64) -> Result<Vec<u8>> {
        self.acting(caller).read_link(InodeId(inode)).await
    }

    pub(super) fn entry(&self, metadata: Metadata) -> Entry {
        Entry {
            metadata,
            generation: 0,
            entry_ttl: Duration::ZERO,
            attr_ttl: Duration::ZERO,
        }
    }
}
