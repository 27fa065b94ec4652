//! What goes up to the master and what comes down from it, as values (the wire's form of them is in `rpc/master.rs`).

use crate::chain::OpenChunk;
use crate::metrics::Activity;
use crate::peers::Pass;
use crate::store::Kind;
use dfs_proto::capability::{Keys, Member};
use dfs_proto::limits::Parameters;
use dfs_proto::{ChunkHandle, ClusterId, Error, NodeId, Result, Version};

/// What a chunkserver tells the master.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    /// First, once a session.
    Register(Register),
    /// Every second.
    Heartbeat(Heartbeat),
    /// A page of all replicas; the next one goes when this one has been compared.
    Inventory { replicas: Vec<Line>, last: bool },
    /// An order has been carried out, or not.
    Done(Done),
    /// Something noticed without an order.
    Trouble(Trouble),
}

/// Who this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) node: NodeId,
    pub(crate) cluster: Option<ClusterId>,
    /// Of this chunkserver, made with its first data directory.
    pub(crate) identity: [u8; 16],
    /// Of this process.
    pub(crate) incarnation: u64,
    pub(crate) addr: String,
    pub(crate) host: String,
    pub(crate) rack: String,
    pub(crate) disks: Vec<DiskReport>,
    /// New and empty, and meant to take the place of the server known at this address.
    pub(crate) replace: bool,
}

/// One data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskReport {
    pub(crate) id: [u8; 16],
    pub(crate) path: String,
    pub(crate) capacity_bytes: u64,
    /// What is left above the reserve.
    pub(crate) free_bytes: u64,
    pub(crate) failed: bool,
}

/// A sign of life with the soft facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) sequence: u64,
    pub(crate) disks: Vec<DiskReport>,
    pub(crate) chunks: u64,
    pub(crate) open: Vec<OpenChunk>,
    pub(crate) load: u32,
    pub(crate) activity: Activity,
}

/// A line of the inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) chunk: ChunkHandle,
    pub(crate) promised: Version,
    pub(crate) synced: Version,
    pub(crate) length: u64,
    pub(crate) kind: Kind,
    pub(crate) restarted: bool,
}

/// The answer to an order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Done {
    pub(crate) id: u64,
    pub(crate) chunk: ChunkHandle,
    pub(crate) result: Result<Outcome>,
}

/// What an order came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Adopted(Adopted),
    Ready { length: u64, digest: u64, loss: Version },
    Copied { length: u64, bytes: u64 },
    Deleted,
}

/// What this replica is, now that it has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adopted {
    /// Above the asked version: the order came too late.
    pub(crate) promised: Version,
    pub(crate) synced: Version,
    pub(crate) absent: bool,
    pub(crate) kind: Kind,
    pub(crate) restarted: bool,
    pub(crate) length: u64,
    pub(crate) fsynced_length: u64,
    pub(crate) loss: Version,
    pub(crate) digest: u64,
}

impl Adopted {
    /// The answer where there is no replica, only what is promised for it.
    pub(crate) fn absent(promised: Version) -> Adopted {
        Adopted {
            promised,
            synced: Version(0),
            absent: true,
            kind: Kind::Intact,
            restarted: false,
            length: 0,
            fsynced_length: 0,
            loss: Version(0),
            digest: 0,
        }
    }
}

/// Something a chunkserver noticed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A chain link broke over uncommitted bytes; `suspect` is beyond it.
    LinkBroken {
        chunk: ChunkHandle,
        version: Version,
        suspect: NodeId,
    },
    /// A block fails its checksum.
    BadBlock {
        chunk: ChunkHandle,
        version: Version,
        message: String,
    },
    /// An fsync failed: nothing on the disk is whole again.
    DiskFailed { disk: [u8; 16], message: String },
}

/// What the master tells a chunkserver.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// The session has begun.
    Registered(Registered),
    /// It will not begin.
    Refused(Error),
    /// A heartbeat was heard.
    Heartbeat { sequence: u64 },
    /// A page of the inventory against the newest proposals.
    Compared { chunks: Vec<Comparison>, last: bool },
    /// Do this.
    Order(Order),
    /// New capability keys.
    Keys(Keys),
}

/// The session has begun.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Registered {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) parameters: Parameters,
    pub(crate) keys: Keys,
    /// Chunks below it were made before.
    pub(crate) next_chunk: ChunkHandle,
}

/// What the master knows of one of our replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) chunk: ChunkHandle,
    /// 0: the master does not know the chunk.
    pub(crate) active: Version,
    /// 0: nothing to promise.
    pub(crate) promise: Version,
}

/// What the master asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) chunk: ChunkHandle,
    pub(crate) version: Version,
    pub(crate) task: Task,
}

/// The kinds of orders; all speak of [`Order::chunk`] at [`Order::version`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Task {
    /// Promise the version; what is queued of the old one is applied or dropped first.
    Adopt {
        members: Vec<Member>,
        truncate: Option<u64>,
        /// Nothing older is served any more.
        active: Version,
    },
    /// Become ready for the promised version.
    Sync(SyncTask),
    /// The version is active now.
    Activated,
    /// Copy the chunk in the background, as the base of a joiner.
    Copy { from: Vec<Member>, pass: Pass },
    /// Delete the replica unless it has promised more.
    Delete,
}

/// How to become ready.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SyncTask {
    /// This node: ready as it is.
    pub(crate) source: NodeId,
    /// Members of the source's kind, source first.
    pub(crate) others: Vec<Member>,
    /// To pull with.
    pub(crate) pass: Pass,
    /// The source has lost power: the version begins with a loss.
    pub(crate) source_lost: bool,
    /// Cut to this length.
    pub(crate) truncate: Option<u64>,
}
