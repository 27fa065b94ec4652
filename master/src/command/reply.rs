//! What a command answers. Replies to clients are kept in the state, so they name chunks and never carry signatures.

use super::{Kind, LockKind, unversioned, versioned};
use crate::store::records::Inode;
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Result, Version};

/// Why a command changed nothing: data, and the same in every run.
pub type Refusal = Error;

/// What a command came to.
pub type Outcome = Result<Reply>;

/// What a command answers.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Reply {
    /// Nothing to tell.
    #[prost(message, tag = "1")]
    Done(Done),
    /// Make.
    #[prost(message, tag = "2")]
    Made(Made),
    /// Link, set attributes.
    #[prost(message, tag = "3")]
    Changed(Changed),
    /// Allocate.
    #[prost(message, tag = "4")]
    Allocated(Slot),
    /// Commit length.
    #[prost(message, tag = "5")]
    Committed(Committed),
    /// Open client.
    #[prost(message, tag = "6")]
    Client(ClientOpened),
    /// Register server.
    #[prost(message, tag = "7")]
    Server(ServerRegistered),
    /// Propose.
    #[prost(message, tag = "8")]
    Proposed(Proposed),
    /// Activate.
    #[prost(message, tag = "9")]
    Activated(Activated),
    /// Lock.
    #[prost(message, tag = "10")]
    Locked(Locked),
    /// Purge, forget chunks.
    #[prost(message, tag = "30")]
    Purged(Purged),
}

/// See [`Reply::Purged`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Purged {
    /// What went: names, or parts of a large file, or chunks.
    #[prost(uint64, tag = "1")]
    pub gone: u64,
}

/// See [`Reply::Done`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Done {
    /// What changed, after the command; an inode that is gone has no links.
    #[prost(message, repeated, tag = "1")]
    pub touched: Vec<Attributes>,
}

/// See [`Reply::Made`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Made {
    /// Of the inode, after the command.
    #[prost(message, required, tag = "1")]
    pub attributes: Attributes,
    /// False: it was there.
    #[prost(bool, tag = "2")]
    pub created: bool,
    /// The chunk at offset 0, if one was wanted.
    #[prost(message, optional, tag = "3")]
    pub slot: Option<Slot>,
    /// What else changed, after the command.
    #[prost(message, repeated, tag = "4")]
    pub touched: Vec<Attributes>,
}

/// See [`Reply::Changed`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Changed {
    /// Of the inode, after the command.
    #[prost(message, required, tag = "1")]
    pub attributes: Attributes,
    /// The chunk whose proposal carries the truncation, 0 if none: answer the client when `truncating_version` or a newer one is active.
    #[prost(uint64, tag = "2")]
    pub truncating: u64,
    /// The version proposed for it.
    #[prost(uint32, tag = "3")]
    pub truncating_version: u32,
    /// What else changed, after the command.
    #[prost(message, repeated, tag = "4")]
    pub touched: Vec<Attributes>,
}

/// A chunk and the place in its file.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Slot {
    /// The file.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Where it begins in the file, bytes.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// How far it may grow, bytes.
    #[prost(uint64, tag = "3")]
    pub span: u64,
    /// The chunk. Its configuration is looked up when the answer is written: it may be newer than the command.
    #[prost(uint64, tag = "4")]
    pub chunk: u64,
}

/// See [`Reply::Committed`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Committed {
    /// The file's, bytes.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Of the file, after the command.
    #[prost(message, optional, tag = "2")]
    pub attributes: Option<Attributes>,
}

/// A lock that is held.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LockRange {
    /// Whose session.
    #[prost(uint64, tag = "1")]
    pub client: u64,
    /// Of that session.
    #[prost(uint64, tag = "2")]
    pub owner: u64,
    /// As it was told.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// The first byte.
    #[prost(uint64, tag = "4")]
    pub start: u64,
    /// The last byte.
    #[prost(uint64, tag = "5")]
    pub end: u64,
    /// How.
    #[prost(enumeration = "LockKind", tag = "6")]
    pub kind: i32,
}

/// See [`Reply::Locked`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Locked {
    /// Not taken: this one is in the way.
    #[prost(message, optional, tag = "1")]
    pub conflict: Option<LockRange>,
    /// Others may be able to lock now what they could not before.
    #[prost(bool, tag = "2")]
    pub freed: bool,
}

/// See [`Reply::Client`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ClientOpened {
    /// The session's number.
    #[prost(uint64, tag = "1")]
    pub client: u64,
}

/// See [`Reply::Server`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ServerRegistered {
    /// Its number, from now on.
    #[prost(uint32, tag = "1")]
    pub node: u32,
}

/// See [`Reply::Proposed`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Proposed {
    /// False: the base was not the newest version and nothing was proposed.
    #[prost(bool, tag = "1")]
    pub accepted: bool,
    /// The newest version now.
    #[prost(uint32, tag = "2")]
    pub newest: u32,
    /// The active version now.
    #[prost(uint32, tag = "3")]
    pub active: u32,
}

/// See [`Reply::Activated`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Activated {
    /// Bytes below the old committed length that are gone (never fsynced), 0 as a rule.
    #[prost(uint64, tag = "1")]
    pub shrunk_bytes: u64,
    /// Bytes below the durable length that are gone: data loss, an alarm.
    #[prost(uint64, tag = "2")]
    pub lost_bytes: u64,
}

/// What `stat` tells.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attributes {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// What it is.
    #[prost(enumeration = "Kind", tag = "2")]
    pub kind: i32,
    /// Permission bits, suid, sgid, sticky.
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "5")]
    pub gid: u32,
    /// Names; of a directory: 2 and its subdirectories.
    #[prost(uint32, tag = "6")]
    pub nlink: u32,
    /// Bytes; of a symlink: its target's length.
    #[prost(uint64, tag = "7")]
    pub size: u64,
    /// Committed bytes of its chunks, one replica.
    #[prost(uint64, tag = "8")]
    pub allocated_bytes: u64,
    /// Since 1970.
    #[prost(int64, tag = "9")]
    pub atime_ns: i64,
    /// Since 1970.
    #[prost(int64, tag = "10")]
    pub mtime_ns: i64,
    /// Since 1970.
    #[prost(int64, tag = "11")]
    pub ctime_ns: i64,
    /// Device nodes.
    #[prost(uint64, tag = "12")]
    pub rdev: u64,
    /// Replicas wanted of its chunks, in force.
    #[prost(uint32, tag = "13")]
    pub goal: u32,
    /// The cluster's, bytes.
    #[prost(uint64, tag = "14")]
    pub chunk_bytes: u64,
    /// Grows with every change.
    #[prost(uint64, tag = "15")]
    pub change: u64,
    /// Extents that have a chunk.
    #[prost(uint64, tag = "16")]
    pub chunks: u64,
    /// Names and values of its extended attributes, bytes.
    #[prost(uint64, tag = "17")]
    pub xattr_bytes: u64,
}

impl Attributes {
    /// Of `inode`, numbered `number`, in a cluster with these parameters.
    #[must_use]
    pub fn of(number: u64, inode: &Inode, parameters: &dfs_proto::limits::Parameters) -> Attributes {
        Attributes {
            inode: number,
            kind: inode.kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            nlink: inode.nlink,
            size: inode.size,
            allocated_bytes: inode.allocated_bytes,
            atime_ns: inode.atime_ns,
            mtime_ns: inode.mtime_ns,
            ctime_ns: inode.ctime_ns,
            rdev: inode.rdev,
            goal: if inode.goal == 0 {
                parameters.goal
            } else {
                inode.goal
            },
            chunk_bytes: parameters.chunk_bytes,
            change: inode.change,
            chunks: inode.chunks,
            xattr_bytes: inode.xattr_bytes,
        }
    }
}

/// A result as it is kept for a client that asks again.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(oneof = "Reply", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 30")]
    reply: Option<Reply>,
    #[prost(message, optional, tag = "20")]
    refusal: Option<StoredRefusal>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredRefusal {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(uint64, tag = "3")]
    chunk: u64,
    #[prost(uint32, tag = "4")]
    version: u32,
    #[prost(uint32, tag = "5")]
    node: u32,
}

/// A result, as the state keeps it.
#[must_use]
pub fn outcome_to_bytes(outcome: &Outcome) -> Vec<u8> {
    let stored = match outcome {
        Ok(reply) => Stored {
            reply: Some(reply.clone()),
            refusal: None,
        },
        Err(e) => {
            let (chunk, version) = e.chunk.map_or((0, 0), |(c, v)| (c.0, v.0));
            Stored {
                reply: None,
                refusal: Some(StoredRefusal {
                    code: e.code as u32,
                    message: e.message.clone(),
                    chunk,
                    version,
                    node: e.node.unwrap_or_default().0,
                }),
            }
        }
    };
    versioned(&stored)
}

/// Reads what [`outcome_to_bytes`] wrote.
///
/// # Errors
/// The outer one: `Internal` if this program cannot read it.
pub fn outcome_from_bytes(bytes: &[u8]) -> Result<Outcome> {
    let stored: Stored = unversioned(bytes)?;
    match (stored.reply, stored.refusal) {
        (Some(reply), None) => Ok(Ok(reply)),
        (None, Some(r)) => Ok(Err(Error {
            code: Code::from_wire(r.code),
            message: r.message,
            chunk: (r.chunk != 0).then_some((ChunkHandle(r.chunk), Version(r.version))),
            node: (r.node != 0).then_some(NodeId(r.node)),
            leader: None,
        })),
        (Some(_), Some(_)) | (None, None) => Err(super::unreadable("a result without a meaning")),
    }
}
