//! The nouns of the file system: what the edge asks with, and what it is answered.

use dfs_client::{Kind, Metadata, Time, XattrMode};
use std::sync::Arc;
use std::time::Duration;

/// Who asks. What is missing here (supplementary groups) is looked up when the master has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Thread, 0 if the kernel asks for itself.
    pub pid: u32,
}

/// Finds a caller's supplementary groups. Called only for requests that reach the master.
pub type GroupsOf = Arc<dyn Fn(Caller) -> Vec<u32> + Send + Sync>;

/// How a [`Vfs`](super::Vfs) behaves.
#[derive(Clone)]
pub struct Options {
    /// How long the kernel may keep a name (or that there is none) while the change stream stands.
    pub entry_ttl: Duration,
    /// How long it may keep attributes.
    pub attr_ttl: Duration,
    /// Inodes remembered beyond those the kernel knows.
    pub inodes_max: usize,
    /// Names remembered.
    pub names_max: usize,
    /// Clean file data kept, bytes.
    pub data_cache_bytes: u64,
    /// Bytes written and not yet sent, over all files.
    pub write_buffer_bytes: u64,
    /// The kernel does not check permissions (no `default_permissions`, or root is squashed): the master is asked.
    pub ask_permission: bool,
    /// Supplementary groups of a caller.
    pub groups_of: GroupsOf,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            entry_ttl: Duration::from_secs(3_600),
            attr_ttl: Duration::from_secs(3_600),
            inodes_max: 200_000,
            names_max: 1_000_000,
            data_cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            ask_permission: false,
            groups_of: Arc::new(|_| Vec::new()),
        }
    }
}

/// Attributes as this mount's programs must see them, and how long the kernel may keep them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// With this mount's own unsent writes in size and times.
    pub metadata: Metadata,
    /// Zero: ask each time.
    pub ttl: Duration,
}

/// A name that leads to an inode. Each one answered counts as one lookup, to be given back by `forget`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of the inode.
    pub metadata: Metadata,
    /// Always 0: inodes are never reused.
    pub generation: u64,
    /// How long the kernel may keep the name.
    pub entry_ttl: Duration,
    /// How long it may keep the attributes.
    pub attr_ttl: Duration,
}

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Entry(Entry),
    /// There is nothing of this name, and the kernel may believe so for this long.
    Nothing(Duration),
}

/// An opened file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// To be given with every request on it.
    pub handle: u64,
    /// What the kernel cached of the data is still right.
    pub keep_cache: bool,
    /// Data goes past the kernel's page cache.
    pub direct_io: bool,
}

/// One line of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Which inode.
    pub inode: u64,
    /// What it is.
    pub kind: Kind,
    /// Its name; `.` and `..` too.
    pub name: &'a [u8],
    /// Where the listing goes on after it.
    pub next: u64,
    /// With readdirplus: all of it, counted as a lookup if it is taken. Never of `.` and `..`.
    pub entry: Option<&'a Entry>,
}

/// What `setattr` changes; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<Time>,
    /// Modification time.
    pub mtime: Option<Time>,
    /// suid, sgid and capabilities go (FATTR_KILL_SUIDGID).
    pub kill_privileges: bool,
}

/// What `setxattr` sets.
#[derive(Clone, Copy, Debug)]
pub struct SetXattr<'a> {
    /// With its prefix.
    pub name: &'a [u8],
    /// All of it.
    pub value: &'a [u8],
    /// XATTR_CREATE, XATTR_REPLACE.
    pub mode: XattrMode,
}

/// What `write` writes.
#[derive(Clone, Debug)]
pub struct Write {
    /// Bytes into the file. Not looked at if the file was opened for appending.
    pub offset: u64,
    /// What.
    pub data: bytes::Bytes,
    /// suid, sgid and capabilities go (FUSE_WRITE_KILL_SUIDGID).
    pub kill_privileges: bool,
}

/// Where in an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Which file.
    pub inode: u64,
    /// As it was opened.
    pub handle: u64,
    /// Bytes into it.
    pub offset: u64,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// What `fallocate` does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Reserves room; the file grows if the range ends beyond it, unless its size is kept.
    Reserve {
        /// FALLOC_FL_KEEP_SIZE.
        keep_size: bool,
    },
    /// FALLOC_FL_PUNCH_HOLE.
    Punch,
    /// FALLOC_FL_ZERO_RANGE.
    Zero {
        /// FALLOC_FL_KEEP_SIZE.
        keep_size: bool,
    },
}

/// What a lock does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// F_RDLCK.
    Shared,
    /// F_WRLCK.
    Exclusive,
    /// F_UNLCK.
    Unlock,
}

/// A lock on a range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Who holds it, as the kernel names owners.
    pub owner: u64,
    /// For people.
    pub pid: u32,
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX` is the end of all files.
    pub end: u64,
    /// How.
    pub kind: LockKind,
}

/// The answer to a request for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// It is held (or given up) now.
    Done,
    /// Someone else holds it, and the caller did not want to wait.
    Held,
    /// The holder waits for the caller in turn (EDEADLK).
    Deadlock,
    /// The caller stopped waiting.
    Cancelled,
}

/// Room, for `statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of files that fit in all.
    pub capacity_bytes: u64,
    /// Bytes of files that still fit.
    pub free_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// What the kernel must drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidate {
    /// Attributes of an inode; with `data` its cached pages too.
    Inode {
        /// Which.
        inode: u64,
        /// Pages too.
        data: bool,
    },
    /// A name, whether it led somewhere or nowhere.
    Entry {
        /// The directory.
        parent: u64,
        /// The name in it.
        name: Vec<u8>,
    },
}

/// An invalidation on its way to the kernel. When the kernel was told, [`Vfs::told`](super::Vfs::told) wants its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Rises by one.
    pub number: u64,
    /// What.
    pub what: Invalidate,
}
