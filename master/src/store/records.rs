//! What the values are: protobuf records that only ever gain fields. docs/formats.md lists them.
//!
//! Ids are raw numbers, 0 is "none". A record is small: nothing here grows with the size of a file or directory.

use dfs_proto::{ChunkHandle, ClientId, InodeId, NodeId, Version, limits};

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// Never stored.
    Unspecified = 0,
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Unix socket.
    Socket = 5,
    /// Character device.
    CharacterDevice = 6,
    /// Block device.
    BlockDevice = 7,
}

/// What a cluster is born with.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Parameters {
    /// Largest chunk, bytes.
    #[prost(uint64, tag = "1")]
    pub chunk_bytes: u64,
    /// Replicas of a chunk unless a file says otherwise.
    #[prost(uint32, tag = "2")]
    pub goal: u32,
    /// Every duration is divided by it.
    #[prost(uint32, tag = "3")]
    pub time_divisor: u32,
}

impl From<limits::Parameters> for Parameters {
    fn from(p: limits::Parameters) -> Self {
        Parameters {
            chunk_bytes: p.chunk_bytes,
            goal: p.goal,
            time_divisor: p.time_divisor,
        }
    }
}

impl From<Parameters> for limits::Parameters {
    fn from(p: Parameters) -> Self {
        limits::Parameters {
            chunk_bytes: p.chunk_bytes,
            goal: p.goal,
            time_divisor: p.time_divisor,
        }
    }
}

/// Who we are.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Cluster {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Kept for life.
    #[prost(message, required, tag = "2")]
    pub parameters: Parameters,
    /// When it was born, since 1970.
    #[prost(int64, tag = "3")]
    pub born_ns: i64,
}

/// The next free ids, and how many there are.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Counters {
    /// Never used before.
    #[prost(uint64, tag = "1")]
    pub next_inode: u64,
    /// Never used before.
    #[prost(uint64, tag = "2")]
    pub next_chunk: u64,
    /// Never used before.
    #[prost(uint64, tag = "3")]
    pub next_client: u64,
    /// Never used before.
    #[prost(uint32, tag = "4")]
    pub next_node: u32,
    /// Inodes that are no directory.
    #[prost(uint64, tag = "5")]
    pub files: u64,
    /// With the root.
    #[prost(uint64, tag = "6")]
    pub directories: u64,
    /// Chunk records.
    #[prost(uint64, tag = "7")]
    pub chunks: u64,
    /// Chunk records that nothing refers to.
    #[prost(uint64, tag = "8")]
    pub unreferenced: u64,
    /// The directory that holds what is in the trash, 0: there never was anything. It is not counted above.
    #[prost(uint64, tag = "20")]
    pub trash: u64,
}

/// A key that signs capabilities.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Key {
    /// Grows by one.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The keys that count, newest first.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Keys {
    /// At most two.
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<Key>,
    /// When the newest one came, since 1970.
    #[prost(int64, tag = "2")]
    pub rotated_ns: i64,
}

/// A file, directory, symlink or special file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inode {
    /// What it is.
    #[prost(enumeration = "Kind", tag = "1")]
    pub kind: i32,
    /// Permission bits, suid, sgid, sticky.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Names; of a directory 2 and its subdirectories.
    #[prost(uint32, tag = "5")]
    pub nlink: u32,
    /// Bytes; of a symlink its target's length.
    #[prost(uint64, tag = "6")]
    pub size: u64,
    /// Sum of the lengths of its chunks.
    #[prost(uint64, tag = "7")]
    pub allocated_bytes: u64,
    /// Its extents.
    #[prost(uint64, tag = "8")]
    pub chunks: u64,
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
    /// Replicas of new chunks (of a directory: of files made in it); 0: the cluster's.
    #[prost(uint32, tag = "13")]
    pub goal: u32,
    /// Grows with every change.
    #[prost(uint64, tag = "14")]
    pub change: u64,
    /// Directories: where it hangs; the root's is the root.
    #[prost(uint64, tag = "15")]
    pub parent: u64,
    /// Directories: how many names it has.
    #[prost(uint64, tag = "16")]
    pub entries: u64,
    /// Directories: the cursor of the last name that was added.
    #[prost(uint64, tag = "17")]
    pub last_cursor: u64,
    /// Symlinks.
    #[prost(bytes = "vec", tag = "18")]
    pub target: Vec<u8>,
    /// Sum of the names and values of its extended attributes.
    #[prost(uint64, tag = "19")]
    pub xattr_bytes: u64,
    /// Directories: what is removed below stays in the trash for so long, seconds; not set: as the one above says.
    #[prost(uint64, optional, tag = "30")]
    pub keep_s: Option<u64>,
}

/// A name's inode.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Dentry {
    /// The inode.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// What it is, so that a listing needs no second look.
    #[prost(enumeration = "Kind", tag = "2")]
    pub kind: i32,
    /// Its place in the order of the directory, never 0.
    #[prost(uint64, tag = "3")]
    pub cursor: u64,
}

/// What is in the trash: under its number in hex in the trash's directory.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Trashed {
    /// What it is.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Its kind.
    #[prost(enumeration = "Kind", tag = "2")]
    pub kind: i32,
    /// The directory it was in.
    #[prost(uint64, tag = "3")]
    pub parent: u64,
    /// Its name there.
    #[prost(bytes = "vec", tag = "4")]
    pub name: Vec<u8>,
    /// As it was typed by who removed it.
    #[prost(bytes = "vec", tag = "5")]
    pub path: Vec<u8>,
    /// Who removed it.
    #[prost(uint32, tag = "6")]
    pub uid: u32,
    /// Since 1970.
    #[prost(int64, tag = "7")]
    pub removed_ns: i64,
    /// Since 1970: then it goes.
    #[prost(int64, tag = "8")]
    pub due_ns: i64,
    /// Nobody can have it back.
    #[prost(bool, tag = "9")]
    pub gone: bool,
}

/// A slot of a file that has a chunk.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Extent {
    /// How far the chunk may grow, bytes.
    #[prost(uint64, tag = "1")]
    pub span: u64,
    /// The chunk.
    #[prost(uint64, tag = "2")]
    pub chunk: u64,
}

/// The active configuration of a chunk.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Configuration {
    /// From 1.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// In chain order: head first.
    #[prost(uint32, repeated, tag = "2")]
    pub members: Vec<u32>,
    /// Committed, bytes.
    #[prost(uint64, tag = "3")]
    pub length: u64,
    /// Fsynced by every member, bytes.
    #[prost(uint64, tag = "4")]
    pub durable_length: u64,
    /// The newest version whose source had lost power, 0 if none.
    #[prost(uint32, tag = "5")]
    pub loss: u32,
}

/// The newest proposed configuration of a chunk, while it is not active.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Proposal {
    /// Above the active one.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// In chain order.
    #[prost(uint32, repeated, tag = "2")]
    pub members: Vec<u32>,
    /// Cut to this length; carried over by every later proposal until one is active.
    #[prost(uint64, optional, tag = "3")]
    pub truncate: Option<u64>,
    /// Members of the active configuration and of all proposed since: who may hold what was acknowledged.
    #[prost(uint32, repeated, tag = "4")]
    pub holders: Vec<u32>,
}

/// A chunk.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Chunk {
    /// The file that refers to it (the last one that did).
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Where it begins in that file, bytes.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Extents that refer to it.
    #[prost(uint32, tag = "3")]
    pub references: u32,
    /// Index of the command that made it.
    #[prost(uint64, tag = "4")]
    pub birth: u64,
    /// Replicas wanted.
    #[prost(uint32, tag = "5")]
    pub goal: u32,
    /// What grants and tokens speak of.
    #[prost(message, required, tag = "6")]
    pub active: Configuration,
    /// Set while it is not active.
    #[prost(message, optional, tag = "7")]
    pub proposed: Option<Proposal>,
    /// Only this client gets grants until a length is committed; 0: anyone.
    #[prost(uint64, tag = "8")]
    pub allocated_for: u64,
    /// No grant, no proposal, no deletion: its replicas know more than the master.
    #[prost(bool, tag = "9")]
    pub frozen: bool,
    /// With no references: since when, since 1970.
    #[prost(int64, tag = "10")]
    pub unreferenced_ns: i64,
    /// Bytes from the length up to here were committed once and went with a power cut of all replicas; 0 if none.
    #[prost(uint64, tag = "11")]
    pub lost_end: u64,
}

impl Chunk {
    /// The newest version, active or proposed.
    #[must_use]
    pub fn newest(&self) -> Version {
        Version(self.proposed.as_ref().map_or(self.active.version, |p| p.version))
    }

    /// Members of the active configuration, head first.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.active.members.iter().map(|n| NodeId(*n))
    }

    /// True while a truncation is not active yet: nobody reads or writes.
    #[must_use]
    pub fn is_truncating(&self) -> bool {
        self.proposed.as_ref().is_some_and(|p| p.truncate.is_some())
    }

    /// The client that alone gets grants, until a length is committed.
    #[must_use]
    pub fn allocator(&self) -> Option<ClientId> {
        (self.allocated_for != 0).then_some(ClientId(self.allocated_for))
    }

    /// The file it belongs to, if any refers to it.
    #[must_use]
    pub fn owner(&self) -> Option<InodeId> {
        (self.references > 0).then_some(InodeId(self.inode))
    }
}

impl Extent {
    /// The chunk.
    #[must_use]
    pub fn handle(&self) -> ChunkHandle {
        ChunkHandle(self.chunk)
    }
}

/// A client session.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Client {
    /// Random, from the client: a repeated open gets this session.
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
    /// Program and host, for people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Locality label.
    #[prost(string, tag = "3")]
    pub host: String,
    /// Since 1970.
    #[prost(int64, tag = "4")]
    pub opened_ns: i64,
    /// Results below it are forgotten.
    #[prost(uint64, tag = "5")]
    pub lowest: u64,
    /// It may hold removed inodes.
    #[prost(bool, tag = "6")]
    pub mount: bool,
}

/// A range of bytes that is locked; it does not touch another one of its owner of the same kind.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Lock {
    /// The last byte.
    #[prost(uint64, tag = "1")]
    pub end: u64,
    /// Alone, or together with others.
    #[prost(bool, tag = "2")]
    pub exclusive: bool,
    /// Told to those who ask.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

/// A chunkserver.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Server {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub identity: Vec<u8>,
    /// host:port of its data transport.
    #[prost(string, tag = "2")]
    pub addr: String,
    /// Failure domain.
    #[prost(string, tag = "3")]
    pub host: String,
    /// Failure domain.
    #[prost(string, tag = "4")]
    pub rack: String,
    /// Every disk it ever had.
    #[prost(message, repeated, tag = "5")]
    pub disks: Vec<Disk>,
    /// It never comes back.
    #[prost(bool, tag = "6")]
    pub removed: bool,
}

/// A data directory of a chunkserver.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Disk {
    /// 16 bytes, from its identity file.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Where it is mounted there.
    #[prost(string, tag = "2")]
    pub path: String,
    /// An fsync failed: nothing on it is whole again.
    #[prost(bool, tag = "3")]
    pub failed: bool,
}
