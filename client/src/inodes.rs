//! The file system by inode: what a mount or a gateway builds on.

use crate::file::Handle;
use crate::settings::OpenOptions;
use crate::types::{Caller, DirPage, Kind, Metadata, RenameMode, SetAttributes, Space, XattrMode};
use dfs_proto::{InodeId, Result};

/// Calls by inode, in one caller's name; clones share the connection.
#[derive(Clone, Debug)]
pub struct Inodes {
    pub(crate) caller: Caller,
}

/// What [`Inodes::make`] creates.
#[derive(Clone, Debug)]
pub struct Make {
    /// What.
    pub kind: Kind,
    /// Permission bits after umask.
    pub mode: u32,
    /// Of a device node.
    pub rdev: u64,
    /// Of a symlink.
    pub target: Vec<u8>,
}

impl Inodes {
    /// The same connection in another user's name.
    #[must_use]
    pub fn acting_as(&self, caller: Caller) -> Inodes {
        Inodes { caller }
    }

    /// The entry `name` of a directory.
    pub async fn lookup(&self, parent: InodeId, name: &[u8]) -> Result<Metadata> {
        todo!("{parent}{name:?}")
    }

    /// Attributes.
    pub async fn stat(&self, inode: InodeId) -> Result<Metadata> {
        todo!("{inode}")
    }

    /// Creates anything under a name; `AlreadyExists` if it is taken.
    pub async fn make(&self, parent: InodeId, name: &[u8], make: Make) -> Result<Metadata> {
        todo!("{parent}{name:?}{make:?}")
    }

    /// Creates and opens a regular file in one call (`create_new`, `truncate`, `mode`, `goal` of the options count).
    pub async fn create(&self, parent: InodeId, name: &[u8], options: OpenOptions) -> Result<(Metadata, Handle)> {
        todo!("{parent}{name:?}{options:?}")
    }

    /// Opens a regular file.
    pub async fn open(&self, inode: InodeId, options: OpenOptions) -> Result<Handle> {
        todo!("{inode}{options:?}")
    }

    /// Another name for a file.
    pub async fn link(&self, inode: InodeId, parent: InodeId, name: &[u8]) -> Result<Metadata> {
        todo!("{inode}{parent}{name:?}")
    }

    /// Removes a name that is not a directory.
    pub async fn unlink(&self, parent: InodeId, name: &[u8]) -> Result<()> {
        todo!("{parent}{name:?}")
    }

    /// Removes an empty directory.
    pub async fn remove_dir(&self, parent: InodeId, name: &[u8]) -> Result<()> {
        todo!("{parent}{name:?}")
    }

    /// Renames `from` (directory, name) to `to`.
    pub async fn rename(&self, from: (InodeId, &[u8]), to: (InodeId, &[u8]), mode: RenameMode) -> Result<()> {
        todo!("{from:?}{to:?}{mode:?}")
    }

    /// Changes attributes.
    pub async fn set_attributes(&self, inode: InodeId, set: SetAttributes) -> Result<Metadata> {
        todo!("{inode}{set:?}")
    }

    /// A page of a directory: entries after `cursor` (0: from the start), at most `entries_max` (4,096).
    pub async fn read_dir(&self, inode: InodeId, cursor: u64, entries_max: u32) -> Result<DirPage> {
        todo!("{inode}{cursor}{entries_max}")
    }

    /// What a symlink says.
    pub async fn read_link(&self, inode: InodeId) -> Result<Vec<u8>> {
        todo!("{inode}")
    }

    /// The value of an extended attribute.
    pub async fn get_xattr(&self, inode: InodeId, name: &[u8]) -> Result<Vec<u8>> {
        todo!("{inode}{name:?}")
    }

    /// Sets an extended attribute.
    pub async fn set_xattr(&self, inode: InodeId, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        todo!("{inode}{name:?}{value:?}{mode:?}")
    }

    /// Names of extended attributes.
    pub async fn list_xattrs(&self, inode: InodeId) -> Result<Vec<Vec<u8>>> {
        todo!("{inode}")
    }

    /// Removes an extended attribute.
    pub async fn remove_xattr(&self, inode: InodeId, name: &[u8]) -> Result<()> {
        todo!("{inode}{name:?}")
    }

    /// Room in the cluster.
    pub async fn statfs(&self) -> Result<Space> {
        todo!()
    }
}
