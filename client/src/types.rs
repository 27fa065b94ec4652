//! The nouns that callers see: what the cluster says about files, chunks, servers.

mod explain;
mod glance;
mod trash;
mod watch;

use dfs_proto::capability::Member;
use dfs_proto::{ChunkHandle, ClientId, InodeId, NodeId, Version};
pub use explain::{ChunkAccount, NodeAccount};
pub use glance::{Activity, Glance, Queues};
use std::time::Duration;
pub use trash::{Discard, Retention, Trashed};
pub use watch::{Change, Changes, Event, Sequence};

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
    /// A character device node.
    CharacterDevice,
    /// A block device node.
    BlockDevice,
}

/// What `stat` tells of an inode. Times are nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The inode; never reused.
    pub inode: InodeId,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with suid, sgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u32,
    /// Bytes; of a symlink its target's length.
    pub size: u64,
    /// Bytes of extents that have chunks, one replica.
    pub allocated_bytes: u64,
    /// Last access (not kept by default).
    pub atime_ns: i64,
    /// Last change of the bytes.
    pub mtime_ns: i64,
    /// Last change of the inode.
    pub ctime_ns: i64,
    /// Device number of a device node.
    pub rdev: u64,
    /// Replicas its chunks should have.
    pub goal: u32,
    /// Largest chunk, bytes.
    pub chunk_bytes: u64,
    /// Grows with every change of the inode.
    pub change: u64,
    /// Extents that have a chunk.
    pub chunks: u64,
    /// Names and values of extended attributes, bytes; 0: there are none.
    pub xattr_bytes: u64,
}

impl Metadata {
    /// True for a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// True for a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// True for a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.kind == Kind::Symlink
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Any bytes but `/` and NUL; never `.` or `..`.
    pub name: Vec<u8>,
    /// Where the next page begins when this entry was the last one wanted. Stable while the directory changes.
    pub cursor: u64,
    /// The inode it names.
    pub metadata: Metadata,
}

/// Part of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirPage {
    /// In the directory's stable order.
    pub entries: Vec<DirEntry>,
    /// Nothing comes after them.
    pub end: bool,
    /// The directory that holds this one (its `..`).
    pub parent: InodeId,
}

/// Who asks: checked against modes and owners by the master.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// How a rename treats a name that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces it atomically, as rename(2) does.
    #[default]
    Replace,
    /// Fails with `AlreadyExists`.
    NoReplace,
    /// Swaps the two.
    Exchange,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// The master's clock.
    Now,
    /// Nanoseconds since 1970-01-01 UTC.
    At(i64),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
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
    /// Replicas.
    pub goal: Option<u32>,
    /// suid, sgid and security.capability go, as after a write by a user; alone it needs no permission.
    pub kill_privileges: bool,
}

/// What a change that gives a name answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Of what has the name now.
    pub metadata: Metadata,
    /// False: the name was there.
    pub created: bool,
    /// What else changed: the directory.
    pub touched: Vec<Metadata>,
}

/// What is wanted of a file's bytes `start..=end` (`u64::MAX`: to the end, however far that is).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Of this session: an open file table (fcntl) or an open file (flock).
    pub owner: u64,
    /// Told to those who ask.
    pub pid: u32,
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
    /// How.
    pub kind: LockKind,
    /// flock(2): such locks and fcntl's do not meet.
    pub flock: bool,
}

/// How bytes are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Not any more.
    Unlock,
    /// Together with others.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    /// Whose session; this one's own, too.
    pub client: ClientId,
    /// Of that session.
    pub owner: u64,
    /// As it was told there.
    pub pid: u32,
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
    /// Alone, or together with others.
    pub exclusive: bool,
}

/// What came of a lock, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAnswer {
    /// Nothing is in the way: taken, if that was asked.
    Free,
    /// This is in the way.
    Conflict(LockRange),
    /// This is in the way, and waits for the asker (EDEADLK).
    Deadlock,
}

/// Whose turn it is to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// This session's, until it is recalled; false: not yet, ask again.
    pub yours: bool,
    /// With the size to append at.
    pub metadata: Metadata,
}

/// How an extended attribute may be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Whether it exists or not.
    #[default]
    Set,
    /// It must not exist.
    Create,
    /// It must exist.
    Replace,
}

/// Room in the cluster, raw bytes of all servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All.
    pub capacity_bytes: u64,
    /// Taken.
    pub used_bytes: u64,
    /// Left.
    pub free_bytes: u64,
    /// Regular files and other non-directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
}

/// What the master says about itself and its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// 32 hex digits.
    pub cluster: String,
    /// Of the software.
    pub version: String,
    /// Since the master started.
    pub uptime: Duration,
    /// "host:port" of the master.
    pub addr: String,
    /// "leader".
    pub role: String,
    /// Of the log.
    pub term: u64,
    /// Newest command applied.
    pub applied_index: u64,
    /// Non-directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Chunks by their worst trouble.
    pub chunks: ChunkCounts,
    /// Servers that answer.
    pub alive: u32,
    /// Servers that are late.
    pub suspect: u32,
    /// Servers that are gone.
    pub dead: u32,
    /// Raw bytes.
    pub capacity_bytes: u64,
    /// Raw bytes.
    pub used_bytes: u64,
    /// Raw bytes.
    pub free_bytes: u64,
    /// Bytes of a full chunk.
    pub chunk_bytes: u64,
    /// Replicas unless a file says otherwise.
    pub goal: u32,
}

/// Chunks, each counted once by its worst trouble; `stale`, `misplaced` and `orphan` count replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkCounts {
    /// All chunks.
    pub chunks: u64,
    /// As they should be.
    pub ok: u64,
    /// Fewer replicas than the goal.
    pub under_goal: u64,
    /// More replicas than the goal.
    pub over_goal: u64,
    /// No replica can be read.
    pub missing: u64,
    /// A replica is known to be bad.
    pub corrupt: u64,
    /// Replicas that no longer count.
    pub stale: u64,
    /// Replicas in a failure domain that has another.
    pub misplaced: u64,
    /// Replicas of chunks nobody knows.
    pub orphan: u64,
    /// Chunks without references that wait for their grace time.
    pub collecting: u64,
}

/// A chunkserver as the master sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub node: NodeId,
    /// "host:port" of its data transport.
    pub addr: String,
    /// Failure domain and locality.
    pub host: String,
    /// Failure domain.
    pub rack: String,
    /// "alive", "suspect", "dead" or "draining".
    pub state: String,
    /// Since its last heartbeat.
    pub heartbeat_age_ms: u64,
    /// Replicas it holds.
    pub chunks: u64,
    /// Raw bytes.
    pub capacity_bytes: u64,
    /// Raw bytes.
    pub used_bytes: u64,
    /// Raw bytes.
    pub free_bytes: u64,
    /// Its data directories.
    pub disks: Vec<NodeDisk>,
    /// What it has done.
    pub activity: Activity,
}

/// One data directory of a chunkserver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDisk {
    /// Where.
    pub path: String,
    /// "ok" or "failed".
    pub state: String,
    /// Raw bytes.
    pub capacity_bytes: u64,
    /// Raw bytes.
    pub free_bytes: u64,
}

/// One chunk of a file with what the master knows of its replicas.
#[derive(Clone, Debug, Default)]
pub struct ChunkState {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// How far it may reach, bytes.
    pub span_bytes: u64,
    /// The chunk.
    pub chunk: ChunkHandle,
    /// Its active version.
    pub version: Version,
    /// Replicas it should have.
    pub goal: u32,
    /// Committed bytes.
    pub length: u64,
    /// Someone may write to it now.
    pub writing: bool,
    /// Its members are being changed.
    pub changing: bool,
    /// In chain order: head first.
    pub members: Vec<Member>,
    /// As last reported by live servers.
    pub replicas: Vec<KnownReplica>,
    /// Bytes behind its length that were acknowledged, never fsynced, and went with a power cut of all replicas.
    pub lost_bytes: u64,
    /// For probes; meaningless to callers.
    pub(crate) token: crate::convert::Token,
}

/// A replica as its server last reported it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownReplica {
    /// Where.
    pub place: Member,
    /// Its server has a session.
    pub connected: bool,
    /// The version it takes part in.
    pub promised: Version,
    /// The version it is whole as of.
    pub synced: Version,
    /// It no longer counts.
    pub stale: bool,
    /// Its file cannot be read.
    pub broken: bool,
}

/// A replica as it describes itself when probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaState {
    /// There is a file.
    pub present: bool,
    /// The version it takes part in.
    pub promised: Version,
    /// The version it is whole as of.
    pub synced: Version,
    /// Bytes.
    pub length: u64,
    /// Over length, checksums and writers: equal on identical replicas.
    pub digest: u64,
    /// It would answer a read at `promised`.
    pub serving: bool,
    /// Blocks whose bytes fail their checksum (only found if asked to verify).
    pub bad_blocks: Vec<u32>,
}

/// What one server answered to a probe of one chunk.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The chunk.
    pub chunk: ChunkHandle,
    /// The server.
    pub member: Member,
    /// Its replica, or why it did not answer.
    pub replica: dfs_proto::Result<ReplicaState>,
}

/// A range of a file with the hosts that hold it: the unit of work of a MapReduce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Where it begins, bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Labels of hosts that hold most of it, best first; empty for a hole.
    pub hosts: Vec<String>,
}

/// What failures cost, since a file was opened or a client connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Times another member had to take over: reconfigurations of chunks being written, reads taken elsewhere after an error.
    pub failovers: u64,
    /// The longest time in which no byte moved though some were waiting to.
    pub longest_stall: Duration,
}
