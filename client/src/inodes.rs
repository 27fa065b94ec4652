//! The file system by inode: what a mount or a gateway builds on.

use crate::convert::{self, MakeFile, Query};
use crate::engine::Core;
use crate::file::{Gift, Handle};
use crate::settings::OpenOptions;
use crate::types::{
    Caller, DirPage, Kind, Lock, LockAnswer, Made, Metadata, RenameMode, SetAttributes, Space, Turn,
    XattrMode,
};
use dfs_proto::{Code, Error, InodeId, Result};
use std::sync::Arc;

/// Calls by inode, in one caller's name; clones share the connection.
///
/// All of them end within the deadline of [`Settings`](crate::Settings). Changes happen exactly once, whatever is
/// retried. Errors are the master's: `NotFound`, `PermissionDenied` and so on; `TimedOut` or `Unavailable` if it
/// did not answer in time.
#[derive(Clone, Debug)]
pub struct Inodes {
    pub(crate) core: Arc<Core>,
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

#[expect(clippy::missing_errors_doc, reason = "the same for all: see the type")]
impl Inodes {
    /// The same connection in another user's name.
    #[must_use]
    pub fn acting_as(&self, caller: Caller) -> Inodes {
        Inodes {
            core: self.core.clone(),
            caller,
        }
    }

    async fn change(&self, change: convert::Change) -> Result<convert::Changed> {
        self.core.master.change(&self.caller, change).await
    }

    pub(crate) async fn query(&self, query: Query) -> Result<convert::Answered> {
        self.core.master.query(&self.caller, query).await
    }

    /// The entry `name` of a directory.
    pub async fn lookup(&self, parent: InodeId, name: &[u8]) -> Result<Metadata> {
        convert::attributes(self.query(convert::lookup(parent, name)).await?)
    }

    /// Attributes.
    pub async fn stat(&self, inode: InodeId) -> Result<Metadata> {
        convert::attributes(self.query(convert::get_attributes(inode)).await?)
    }

    /// Attributes, if the caller may do that with the inode (access(2): 4 read, 2 write, 1 execute), else
    /// `PermissionDenied`.
    pub async fn access(&self, inode: InodeId, mask: u32) -> Result<Metadata> {
        convert::attributes(self.query(convert::access(inode, mask)).await?)
    }

    /// Creates anything under a name; `AlreadyExists` if it is taken.
    pub async fn make(&self, parent: InodeId, name: &[u8], make: Make) -> Result<Made> {
        convert::made(self.change(convert::make(parent, name, make)).await?).map(|(made, _)| made)
    }

    /// Creates and opens a regular file in one call; of the options all count.
    /// An existing regular file is opened, if the caller may read or write it as it wants to, unless `create_new` is
    /// set. With an expected length a new file has its first chunk at once.
    pub async fn create(&self, parent: InodeId, name: &[u8], options: OpenOptions) -> Result<(Made, Handle)> {
        options.check()?;
        let make = MakeFile {
            mode: options.mode,
            goal: options.goal,
            exclusive: options.create_new,
            truncate: options.truncate,
            // Only for bytes that are sure to come: a chunk without bytes is of no use.
            grant: options.expected_len > 0 && (options.truncate || options.create_new) && !options.append,
            access: options.access(),
        };
        let (made, grant) = convert::made(self.change(convert::make_file(parent, name, make)).await?)?;
        let gift = Gift { located: None, grant };
        let handle = Handle::new(&self.core, &made.metadata, self.caller.clone(), options, gift);
        Ok((made, handle))
    }

    /// Opens a regular file.
    pub async fn open(&self, inode: InodeId, options: OpenOptions) -> Result<Handle> {
        options.check()?;
        let metadata = self.access(inode, options.access()).await?;
        self.open_known(&metadata, options, Gift::default()).await
    }

    pub(crate) async fn open_known(
        &self,
        metadata: &Metadata,
        options: OpenOptions,
        gift: Gift,
    ) -> Result<Handle> {
        match metadata.kind {
            Kind::File => {}
            Kind::Directory => return Err(Code::IsADirectory.into()),
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::CharacterDevice | Kind::BlockDevice => {
                return Err(Error::new(Code::NotSupported, "only regular files have bytes"));
            }
        }
        let truncate = options.truncate;
        let handle = Handle::new(&self.core, metadata, self.caller.clone(), options, gift);
        if truncate {
            handle.set_len(0).await?;
        }
        Ok(handle)
    }

    /// Another name for a file.
    pub async fn link(&self, inode: InodeId, parent: InodeId, name: &[u8]) -> Result<Made> {
        convert::made(self.change(convert::link(inode, parent, name)).await?).map(|(made, _)| made)
    }

    /// Removes a name that is not a directory. With `keep` the inode stays, though it was its last name, until this
    /// session answers [`Inodes::release`]; other mounts that know it hold it as well.
    /// Returns what changed: the directory, and the inode, with 0 links if that was its last name.
    pub async fn unlink(&self, parent: InodeId, name: &[u8], keep: bool) -> Result<Vec<Metadata>> {
        convert::touched(self.change(convert::unlink(parent, name, keep)).await?)
    }

    /// Removes an empty directory. Returns what changed: both directories, the removed one with 0 links.
    pub async fn remove_dir(&self, parent: InodeId, name: &[u8]) -> Result<Vec<Metadata>> {
        convert::touched(self.change(convert::remove_directory(parent, name)).await?)
    }

    /// Renames `from` (directory, name) to `to`; `keep` as in [`Inodes::unlink`], for what is replaced.
    /// Returns what changed: the directories, what was moved, and what was replaced or exchanged.
    pub async fn rename(
        &self,
        from: (InodeId, &[u8]),
        to: (InodeId, &[u8]),
        mode: RenameMode,
        keep: bool,
    ) -> Result<Vec<Metadata>> {
        convert::touched(self.change(convert::rename(from, to, mode, keep)).await?)
    }

    /// This session has these removed inodes open no longer (at most 4,096 at once); others are passed over.
    pub async fn release(&self, inodes: &[InodeId]) -> Result<()> {
        self.change(convert::release(inodes)).await.map(drop)
    }

    /// Takes, changes or gives back a lock (fcntl(2), F_SETLK). With `wait` a conflict is remembered: the session is
    /// told when it may try again.
    pub async fn lock(&self, inode: InodeId, lock: &Lock, wait: bool) -> Result<LockAnswer> {
        convert::locked(self.change(convert::lock(inode, lock, wait)).await?)
    }

    /// Which lock of another owner is in the way of this one (F_GETLK).
    pub async fn test_lock(&self, inode: InodeId, lock: &Lock) -> Result<LockAnswer> {
        convert::tested(self.query(convert::test_lock(inode, lock)).await?)
    }

    /// Asks for the right to append, which one session has at a time and keeps until it is recalled
    /// ([`Event::Recall`](crate::Event::Recall)). Waits a moment.
    ///
    /// A recall may overtake the answer: one that comes while this is asked counts for what the answer gives. One for
    /// a turn that is neither held nor asked for is answered with [`Inodes::append_done`], too. When the change stream
    /// breaks, all turns are void.
    pub async fn append_turn(&self, inode: InodeId) -> Result<Turn> {
        convert::turn(self.query(convert::append_turn(inode)).await?)
    }

    /// Gives that right back, when all that was appended is committed.
    pub async fn append_done(&self, inode: InodeId) -> Result<()> {
        self.query(convert::append_done(inode)).await.map(drop)
    }

    /// Frees the chunks that lie whole in the range, and moves mtime; write zeros into the rest of it first. Grants for
    /// the freed chunks are void. Nothing is asked about permission: the file was opened for writing.
    pub async fn punch_hole(
        &self,
        inode: InodeId,
        offset: u64,
        length: u64,
        mtime_ns: Option<i64>,
    ) -> Result<Metadata> {
        convert::attributes_changed(
            self.change(convert::punch_hole(inode, offset, length, mtime_ns))
                .await?,
        )
    }

    /// Changes attributes.
    pub async fn set_attributes(&self, inode: InodeId, set: SetAttributes) -> Result<Metadata> {
        convert::attributes_changed(self.change(convert::set_attributes(inode, &set, false)).await?)
    }

    /// As [`Inodes::set_attributes`], the size through a file that was opened for writing: nothing is asked for it.
    pub async fn set_attributes_by_handle(&self, inode: InodeId, set: SetAttributes) -> Result<Metadata> {
        convert::attributes_changed(self.change(convert::set_attributes(inode, &set, true)).await?)
    }

    /// A page of a directory: entries after `cursor` (0: from the start), at most `entries_max` (4,096).
    pub async fn read_dir(&self, inode: InodeId, cursor: u64, entries_max: u32) -> Result<DirPage> {
        convert::directory(
            self.query(convert::read_directory(inode, cursor, entries_max))
                .await?,
        )
    }

    /// What a symlink says.
    pub async fn read_link(&self, inode: InodeId) -> Result<Vec<u8>> {
        convert::target(self.query(convert::read_link(inode)).await?)
    }

    /// The value of an extended attribute.
    pub async fn get_xattr(&self, inode: InodeId, name: &[u8]) -> Result<Vec<u8>> {
        convert::value(self.query(convert::get_xattr(inode, name)).await?)
    }

    /// Sets an extended attribute.
    pub async fn set_xattr(
        &self,
        inode: InodeId,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<Metadata> {
        convert::attributes_touched(self.change(convert::set_xattr(inode, name, value, mode)).await?)
    }

    /// Names of extended attributes.
    pub async fn list_xattrs(&self, inode: InodeId) -> Result<Vec<Vec<u8>>> {
        convert::names(self.query(convert::list_xattr(inode)).await?)
    }

    /// Removes an extended attribute.
    pub async fn remove_xattr(&self, inode: InodeId, name: &[u8]) -> Result<Metadata> {
        convert::attributes_touched(self.change(convert::remove_xattr(inode, name)).await?)
    }

    /// Room in the cluster.
    pub async fn statfs(&self) -> Result<Space> {
        convert::space(self.query(convert::stat_fs()).await?)
    }
}
