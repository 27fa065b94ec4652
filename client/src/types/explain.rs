//! What the master says when it is asked why.

use super::{ChunkState, Node};
use dfs_proto::InodeId;

/// Why a chunk is as it is, and what it waits for.
#[derive(Clone, Debug)]
pub struct ChunkAccount {
    /// The chunk; it cannot be probed.
    pub chunk: ChunkState,
    /// "ok", "open", "`under_goal`", "`over_goal`", "missing", "corrupt", "frozen" or "collecting".
    pub health: String,
    /// Members that would serve it now.
    pub good: u32,
    /// Sentences.
    pub why: Vec<String>,
    /// Sentences.
    pub waits_for: Vec<String>,
    /// The file it belongs to, or belonged to last.
    pub inode: InodeId,
    /// Names of that file.
    pub paths: Vec<Vec<u8>>,
}

/// What rests on a chunkserver.
#[derive(Clone, Debug)]
pub struct NodeAccount {
    /// It.
    pub node: Node,
    /// Chunks it is a member of.
    pub chunks: u64,
    /// Of these, no other good replica is connected: they would be lost with it, and cannot be read while it reboots.
    pub only_here: u64,
    /// Their bytes.
    pub only_here_bytes: u64,
    /// Chunks with exactly one other good replica though more are wanted.
    pub one_other: u64,
    /// Chunks that are being written.
    pub writing: u64,
    /// Sentences.
    pub why: Vec<String>,
    /// Some of the files that would lose bytes with it.
    pub paths: Vec<Vec<u8>>,
}

impl NodeAccount {
    /// While it is away everything can be read and written.
    #[must_use]
    pub fn is_safe_to_reboot(&self) -> bool {
        self.only_here == 0
    }
}
