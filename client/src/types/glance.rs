//! What a cluster is busy with, for someone who looks again and again.

use super::{Node, Status};

/// The cluster now. Its chunks are as of the last round through them, which may be a while ago if there are many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The master and the state of the cluster.
    pub status: Status,
    /// What waits.
    pub queues: Queues,
    /// Chunkservers, by number.
    pub nodes: Vec<Node>,
}

/// What waits or is under way at the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Queues {
    /// Commands that wait for the log.
    pub proposals: u64,
    /// Chunks whose next configuration is being brought about.
    pub changes: u64,
    /// Chunks that get a new member.
    pub joining: u64,
    /// Chunks that wait for one.
    pub copies: u64,
    /// Orders to chunkservers without an answer yet.
    pub orders: u64,
    /// Client sessions.
    pub sessions: u64,
    /// Of them mounts.
    pub mounts: u64,
    /// Chunks that somebody may write.
    pub writing: u64,
    /// Chunks with one good copy left of more that are wanted.
    pub one_copy: u64,
}

/// What a chunkserver has done since its process started, as of its last heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Reads answered.
    pub reads: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Packets taken, from clients and along the chain.
    pub packets: u64,
    /// Bytes of them.
    pub packet_bytes: u64,
    /// Bytes pulled from other servers.
    pub copied_bytes: u64,
    /// Calls of fdatasync.
    pub syncs: u64,
    /// Chunks with orders under way, now.
    pub orders: u64,
}
