//! What was removed and can come back.

use super::Kind;
use dfs_proto::InodeId;
use std::time::Duration;

/// How a name is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discard {
    /// A directory, too, with all below it.
    pub recursive: bool,
    /// For good, not to the trash.
    pub skip_trash: bool,
}

/// Something in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// Its number there.
    pub entry: u64,
    /// What it is.
    pub inode: InodeId,
    /// Its kind.
    pub kind: Kind,
    /// Of a file, bytes.
    pub size: u64,
    /// As it was typed by who removed it.
    pub path: Vec<u8>,
    /// The directory it was in.
    pub parent: InodeId,
    /// Its name there.
    pub name: Vec<u8>,
    /// Who removed it.
    pub uid: u32,
    /// When, since 1970.
    pub removed_ns: i64,
    /// When it goes for good, since 1970.
    pub due_ns: i64,
}

/// How long the trash keeps what is removed in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// In force; zero: what is removed is gone.
    pub keep: Duration,
    /// What the directory itself says; `None`: the one above it counts.
    pub own: Option<Duration>,
}
