//! The client: paths in, results out.

use crate::file::File;
use crate::inodes::Inodes;
use crate::settings::{OpenOptions, Settings};
use crate::types::{
    Caller, ChunkState, DirEntry, Kind, Metadata, Node, Probed, RenameMode, SetAttributes, Space, Split, Stats,
    Status, XattrMode,
};
use dfs_proto::net::Dial;
use dfs_proto::Result;
use dfs_stdx::{Clock, Rng};
use futures::stream::BoxStream;
use std::sync::Arc;

/// A connection to a cluster; clones share it. Paths are absolute, any bytes but NUL.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inodes: Inodes,
}

impl Client {
    /// Connects to "host:port[,host:port]" with the default [`Settings`], as root.
    pub async fn connect(masters: &str) -> Result<Client> {
        todo!("{masters}")
    }

    /// Connects over the machine's network with these settings.
    pub async fn connect_settings(settings: Settings) -> Result<Client> {
        todo!("{settings:?}")
    }

    /// Connects through given seams.
    pub async fn connect_with(settings: Settings, dial: Arc<dyn Dial>, clock: Clock, rng: Rng) -> Result<Client> {
        todo!("{settings:?}{dial:?}{clock:?}{rng:?}")
    }

    /// The same connection in another user's name.
    #[must_use]
    pub fn acting_as(&self, caller: Caller) -> Client {
        Client { inodes: self.inodes.acting_as(caller) }
    }

    /// The same file system by inode instead of path.
    #[must_use]
    pub fn inodes(&self) -> &Inodes {
        &self.inodes
    }

    /// Ends the session at once instead of by its lease.
    pub async fn disconnect(self) -> Result<()> {
        todo!()
    }

    /// What failures have cost so far, over all files of this connection.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Creates (or cuts to nothing) a file for writing, mode 0644.
    pub async fn create(&self, path: impl AsRef<[u8]>) -> Result<File> {
        let _ = path.as_ref();
        todo!()
    }

    /// Opens a file for reading.
    pub async fn open(&self, path: impl AsRef<[u8]>) -> Result<File> {
        let _ = path.as_ref();
        todo!()
    }

    /// Opens a file as the options say.
    pub async fn open_with(&self, path: impl AsRef<[u8]>, options: OpenOptions) -> Result<File> {
        let _ = (path.as_ref(), options);
        todo!()
    }

    /// Opens a file so that every write goes to its end; creates it if it does not exist.
    pub async fn append(&self, path: impl AsRef<[u8]>) -> Result<File> {
        let _ = path.as_ref();
        todo!()
    }

    /// Attributes of what the path names, following symlinks.
    pub async fn stat(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let _ = path.as_ref();
        todo!()
    }

    /// Attributes of what the path names; a symlink in the last place is not followed (lstat).
    pub async fn symlink_stat(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let _ = path.as_ref();
        todo!()
    }

    /// True if the path names something (symlinks followed).
    pub async fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        let _ = path.as_ref();
        todo!()
    }

    /// All entries of a directory, in byte order of their names.
    pub async fn list(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        let _ = path.as_ref();
        todo!()
    }

    /// Entries of a directory as they come, page by page, in the directory's own stable order.
    #[must_use]
    pub fn entries(&self, path: impl AsRef<[u8]>) -> BoxStream<'static, Result<DirEntry>> {
        let _ = path.as_ref();
        todo!()
    }

    /// Renames; `from` and `to` are whole paths.
    pub async fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        self.rename_with(from, to, RenameMode::Replace).await
    }

    /// Renames as the mode says.
    pub async fn rename_with(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>, mode: RenameMode) -> Result<()> {
        let _ = (from.as_ref(), to.as_ref(), mode);
        todo!()
    }

    /// Removes a name that is not a directory.
    pub async fn remove(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let _ = path.as_ref();
        todo!()
    }

    /// Removes an empty directory.
    pub async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let _ = path.as_ref();
        todo!()
    }

    /// Removes a name and, if it is a directory, all below it. Symlinks are removed, not followed.
    pub async fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let _ = path.as_ref();
        todo!()
    }

    /// Makes a directory, mode 0755.
    pub async fn mkdir(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        self.mkdir_with(path, 0o755).await
    }

    /// Makes a directory with these permission bits.
    pub async fn mkdir_with(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<Metadata> {
        let _ = (path.as_ref(), mode);
        todo!()
    }

    /// Makes a directory and those above it that are missing; one that exists is fine.
    pub async fn mkdir_all(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let _ = path.as_ref();
        todo!()
    }

    /// Makes a symlink at `path` that says `target`.
    pub async fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let _ = (target.as_ref(), path.as_ref());
        todo!()
    }

    /// What a symlink says.
    pub async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let _ = path.as_ref();
        todo!()
    }

    /// Makes another name for a file.
    pub async fn link(&self, existing: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let _ = (existing.as_ref(), path.as_ref());
        todo!()
    }

    /// Makes a fifo, socket or device node (or an empty regular file).
    pub async fn mknod(&self, path: impl AsRef<[u8]>, kind: Kind, mode: u32, rdev: u64) -> Result<Metadata> {
        let _ = (path.as_ref(), kind, mode, rdev);
        todo!()
    }

    /// Changes attributes; symlinks are followed.
    pub async fn set_attributes(&self, path: impl AsRef<[u8]>, set: SetAttributes) -> Result<Metadata> {
        let _ = (path.as_ref(), set);
        todo!()
    }

    /// Changes attributes of what the path names itself; a symlink in the last place is not followed.
    pub async fn symlink_set_attributes(&self, path: impl AsRef<[u8]>, set: SetAttributes) -> Result<Metadata> {
        let _ = (path.as_ref(), set);
        todo!()
    }

    /// The value of an extended attribute.
    pub async fn get_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let _ = (path.as_ref(), name.as_ref());
        todo!()
    }

    /// Sets an extended attribute.
    pub async fn set_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        mode: XattrMode,
    ) -> Result<()> {
        let _ = (path.as_ref(), name.as_ref(), value.as_ref(), mode);
        todo!()
    }

    /// Names of extended attributes.
    pub async fn list_xattrs(&self, path: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        let _ = path.as_ref();
        todo!()
    }

    /// Removes an extended attribute.
    pub async fn remove_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<()> {
        let _ = (path.as_ref(), name.as_ref());
        todo!()
    }

    /// Room in the cluster.
    pub async fn statfs(&self) -> Result<Space> {
        todo!()
    }

    /// The master and its cluster.
    pub async fn status(&self) -> Result<Status> {
        todo!()
    }

    /// All chunkservers.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        todo!()
    }

    /// The chunks of a file; holes are gaps between them.
    pub async fn chunks(&self, path: impl AsRef<[u8]>) -> Result<Vec<ChunkState>> {
        let _ = path.as_ref();
        todo!()
    }

    /// Asks every member (and every other server known to hold a replica) of the chunks about its replica;
    /// with `verify` it reads and checks all its bytes.
    pub async fn probe(&self, chunks: &[ChunkState], verify: bool) -> Result<Vec<Probed>> {
        let _ = (chunks, verify);
        todo!()
    }

    /// Cuts a file into ranges of about `target_bytes`, each with the hosts that hold it.
    pub async fn splits(&self, path: impl AsRef<[u8]>, target_bytes: u64) -> Result<Vec<Split>> {
        let _ = (path.as_ref(), target_bytes);
        todo!()
    }
}
