//! What the master asks of a chunkserver about one chunk, and what it hears back.

use dfs_proto::{Error, NodeId, Version};

/// An order; the chunk and an id go with it. Addresses and tokens are added where it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Promise this version.
    Adopt {
        /// The proposed version.
        version: Version,
        /// Its members in chain order.
        members: Vec<NodeId>,
        /// The length everything is cut to.
        truncate: Option<u64>,
        /// The active version: nothing older is served any more.
        active: Version,
    },
    /// Become ready for the promised version.
    Sync(Sync),
    /// The version is active; nothing is answered.
    Activated {
        /// The version.
        version: Version,
    },
    /// Copy the chunk in the background, as the base of a joiner.
    Copy {
        /// The active version to copy from.
        version: Version,
        /// Who has it, best first.
        from: Vec<NodeId>,
    },
    /// Delete the replica unless it has promised more than this.
    Delete {
        /// The newest version that the deletion was judged by.
        version: Version,
    },
}

/// The order to become ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The proposed version.
    pub version: Version,
    /// All its members.
    pub members: Vec<NodeId>,
    /// Whose bytes count.
    pub source: NodeId,
    /// Members of the same kind as the source, the source first.
    pub others: Vec<NodeId>,
    /// The source had lost power.
    pub lost: bool,
    /// The length everything is cut to.
    pub truncate: Option<u64>,
}

/// What a replica's file is, apart from versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It has lost nothing since it was written.
    Intact,
    /// Power went while it was open.
    Lost,
    /// Header or file unreadable.
    Broken,
}

/// A promise made, and what the replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// What it has promised now.
    pub promised: Version,
    /// Its bytes are whole as of the start of this version.
    pub synced: Version,
    /// There was no file.
    pub absent: bool,
    /// What its file is.
    pub kind: Kind,
    /// It was open when its process started.
    pub restarted: bool,
    /// Bytes it holds.
    pub length: u64,
    /// Bytes as of its last fsync.
    pub fsynced_length: u64,
    /// Digest of its table.
    pub digest: u64,
}

/// The replica is ready: same bytes as the source, durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Bytes.
    pub length: u64,
    /// Digest of its table.
    pub digest: u64,
    /// The newest version whose source had lost power.
    pub loss: Version,
}

/// What came back for an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// For `Adopt`.
    Adopted(Adopted),
    /// For `Sync`.
    Ready(Ready),
    /// For `Copy`.
    Copied,
    /// For `Delete`.
    Deleted,
    /// It could not be done.
    Failed(Error),
}
