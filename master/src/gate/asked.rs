//! What clients ask the gate for, and what it answers.

use crate::command::{self, Change, Slot};
use dfs_proto::capability::Capability;
use dfs_proto::{ChunkHandle, InodeId, NodeId, Version};
use std::collections::BTreeSet;

/// A change a client asks for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// One the state decides alone.
    Change(Change),
    /// A name goes; the session may keep what it named.
    Unlink(command::Unlink, bool),
    /// A name moves; the session may keep what is replaced.
    Rename(command::Rename, bool),
    /// A name goes to the trash, or for good with all below it.
    Discard(command::Discard),
    /// A change after which there may be something to remove.
    Trash(Change),
    /// A lock, maybe waited for.
    Lock(command::Lock, bool),
    /// Chunks of a file go.
    PunchHole(command::PunchHole),
    /// An inode, maybe with a grant for the chunk at offset 0.
    Make(command::Make, bool),
    /// Write permission for the chunk at an offset.
    Grant(Grant),
    /// Permission to append records to the last chunk of a file, or to the one behind the full one.
    NextChunk(NextChunk),
    /// A chunk's length, maybe with its grant given back.
    Commit(command::CommitLength, bool),
    /// The next version of a chunk.
    Reconfigure(Reconfigure),
}

/// See [`Ask::Grant`].
#[derive(Clone, Debug)]
pub struct Grant {
    /// The file.
    pub inode: InodeId,
    /// Any byte of the chunk's slot.
    pub offset: u64,
    /// Give up this chunk for a new one; 0: none.
    pub instead_of: ChunkHandle,
    /// Where not to place.
    pub avoid: BTreeSet<NodeId>,
    /// The file was opened with the right to write.
    pub by_handle: bool,
}

/// See [`Ask::NextChunk`].
#[derive(Clone, Debug)]
pub struct NextChunk {
    /// The file.
    pub inode: InodeId,
    /// This one takes no more records; 0: none was asked.
    pub full: ChunkHandle,
    /// At which version that was heard.
    pub version: Version,
    /// Its final length.
    pub length: u64,
    /// Where not to place.
    pub avoid: BTreeSet<NodeId>,
    /// The file was opened with the right to write.
    pub by_handle: bool,
}

/// See [`Ask::Reconfigure`].
#[derive(Clone, Debug)]
pub struct Reconfigure {
    /// The file.
    pub inode: InodeId,
    /// The chunk.
    pub chunk: ChunkHandle,
    /// The version the client knows.
    pub base: Version,
    /// Whom it could not reach.
    pub suspects: BTreeSet<NodeId>,
    /// For the log.
    pub reason: String,
    /// No byte of it was ever acknowledged to the client: a new chunk in its place will do.
    pub empty: bool,
    /// The file was opened with the right to write.
    pub by_handle: bool,
}

/// What came of a change.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Make.
    Made(command::Made, Option<Granted>),
    /// Link, set attributes; and what else changed.
    Attributes(command::Attributes, Vec<command::Attributes>),
    /// What changed.
    Done(Vec<command::Attributes>),
    /// Grant, next chunk, reconfigure.
    Granted(Granted),
    /// Commit length.
    Committed(command::Committed),
    /// Lock: what is in the way, and whether it waits for the asker.
    Locked(Option<command::LockRange>, bool),
}

/// The permission to write a chunk, not yet signed.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What may be done.
    pub capability: Capability,
    /// Where the chunk begins in its file.
    pub slot: Slot,
    /// See [`Chunk::lost_end`](crate::store::records::Chunk::lost_end).
    pub lost_end: u64,
}
