//! Every change there is, each with what the gate decided for it.

use super::mount::{Lock, PunchHole, Release};
use super::trash::{Discard, EmptyTrash, ForgetChunk, ForgetChunks, Purge, Restore, Retain};
use crate::store::records::{Disk, Parameters};

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident = $tag:literal,)*) => {
        /// What a command changes. The numbers are the log's and never mean anything else.
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum Change {
            $($(#[$doc])* #[prost(message, tag = $tag)] $name($name),)*
        }

        $(impl From<$name> for Change {
            fn from(change: $name) -> Change {
                Change::$name(change)
            }
        })*

        impl Change {
            /// Its name, for logs and golden scripts.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Change::$name(_) => stringify!($name),)*
                }
            }
        }
    };
}

changes! {
    /// The cluster is born: the first command of every log.
    Genesis = "10",
    /// A client session begins.
    OpenClient = "11",
    /// A client session ends.
    EndClient = "12",
    /// A new inode under a name, or an existing file opened.
    Make = "20",
    /// Another name for an inode.
    Link = "21",
    /// A name goes.
    Unlink = "22",
    /// An empty directory goes.
    RemoveDirectory = "23",
    /// A name moves.
    Rename = "24",
    /// Mode, owner, times, size, goal.
    SetAttributes = "25",
    /// An extended attribute is set.
    SetXattr = "26",
    /// An extended attribute goes.
    RemoveXattr = "27",
    /// A slot of a file gets a chunk.
    Allocate = "28",
    /// A chunk's committed length rises.
    CommitLength = "29",
    /// A session holds removed inodes no longer.
    Release = "30",
    /// A range of bytes is locked or unlocked.
    Lock = "31",
    /// Chunks of a file go; their bytes are zeros from now on.
    PunchHole = "32",
    /// Records go on in the next chunk of a file, or in its first one.
    NextChunk = "36",
    /// A chunk's next configuration is proposed.
    Propose = "40",
    /// The proposed configuration becomes the active one.
    Activate = "41",
    /// A chunk whose replicas know more than the master is left alone.
    Freeze = "42",
    /// The record of a chunk whose replicas are deleted goes.
    ForgetChunk = "43",
    /// A chunkserver is new, or has new places.
    RegisterServer = "60",
    /// Nothing on that disk is whole again.
    DiskFailed = "61",
    /// A chunkserver never comes back.
    RemoveServer = "62",
    /// A new key signs capabilities; the one before it still counts.
    RotateKey = "63",
    /// A name goes to the trash, or with all below it to the background's removal.
    Discard = "70",
    /// What is in the trash and due goes, a few names at a time.
    Purge = "71",
    /// Something comes back from the trash.
    Restore = "72",
    /// What is in the trash is due now.
    EmptyTrash = "73",
    /// How long the trash keeps what is removed below a directory.
    Retain = "74",
    /// As [`Change::ForgetChunk`], many at once.
    ForgetChunks = "75",
}

/// See [`Change::Genesis`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Genesis {
    /// 16 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub cluster: Vec<u8>,
    /// What the cluster keeps.
    #[prost(message, optional, tag = "2")]
    pub parameters: Option<Parameters>,
    /// Owner of the root directory.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group of the root directory.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Mode of the root directory.
    #[prost(uint32, tag = "5")]
    pub mode: u32,
}

/// See [`Change::OpenClient`]. Idempotent by nonce.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenClient {
    /// Random, not 0.
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
    /// Program and host, for people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Locality label, may be empty.
    #[prost(string, tag = "3")]
    pub host: String,
    /// It keeps what it was told and has inodes open: it is told of changes, and may hold removed files.
    #[prost(bool, tag = "4")]
    pub mount: bool,
}

/// See [`Change::EndClient`]. An unknown session is not an error.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct EndClient {
    /// The session.
    #[prost(uint64, tag = "1")]
    pub client: u64,
}

/// See [`Change::Make`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Make {
    /// Directory.
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// Name in it.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
    /// What is made.
    #[prost(enumeration = "super::Kind", tag = "3")]
    pub kind: i32,
    /// Permission bits with suid, sgid, sticky; after umask.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    /// Device nodes.
    #[prost(uint64, tag = "5")]
    pub rdev: u64,
    /// Symlinks: 1 to 4,095 bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub target: Vec<u8>,
    /// Refuse if the name exists (always so for what is not a regular file).
    #[prost(bool, tag = "7")]
    pub exclusive: bool,
    /// Replicas of its chunks; 0: the directory's, else the cluster's.
    #[prost(uint32, tag = "8")]
    pub goal: u32,
    /// A file that exists is cut to size 0.
    #[prost(bool, tag = "9")]
    pub truncate: bool,
    /// The file is opened for writing: an existing one needs the caller's write permission.
    #[prost(bool, tag = "10")]
    pub write: bool,
    /// Regular files: where the chunk of offset 0 is to live if there is none; empty: none is wanted.
    #[prost(uint32, repeated, tag = "11")]
    pub members: Vec<u32>,
    /// What an existing file is opened for, as the bits of one mode digit.
    #[prost(uint32, tag = "12")]
    pub access: u32,
}

/// See [`Change::Link`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Link {
    /// What gets the name; not a directory.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Directory.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// Name in it.
    #[prost(bytes = "vec", tag = "3")]
    pub name: Vec<u8>,
}

/// See [`Change::Unlink`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Unlink {
    /// Directory.
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// Name in it.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
    /// Sessions that keep the inode if this was its last name.
    #[prost(uint64, repeated, tag = "3")]
    pub holders: Vec<u64>,
    /// The inode they were chosen for, 0: there was none; another one is not removed. Not set: none is kept.
    #[prost(uint64, optional, tag = "4")]
    pub dying: Option<u64>,
}

/// See [`Change::RemoveDirectory`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveDirectory {
    /// Directory.
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// Name in it.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
}

/// See [`Change::Rename`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rename {
    /// From this directory.
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// This name.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
    /// Into this directory.
    #[prost(uint64, tag = "3")]
    pub new_parent: u64,
    /// Under this name.
    #[prost(bytes = "vec", tag = "4")]
    pub new_name: Vec<u8>,
    /// RENAME_NOREPLACE.
    #[prost(bool, tag = "5")]
    pub no_replace: bool,
    /// RENAME_EXCHANGE.
    #[prost(bool, tag = "6")]
    pub exchange: bool,
    /// Sessions that keep the replaced inode if this was its last name.
    #[prost(uint64, repeated, tag = "7")]
    pub holders: Vec<u64>,
    /// As in [`Unlink`].
    #[prost(uint64, optional, tag = "8")]
    pub dying: Option<u64>,
}

/// See [`Change::SetAttributes`]. What is not set stays.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetAttributes {
    /// Of what.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Permission bits with suid, sgid, sticky.
    #[prost(uint32, optional, tag = "2")]
    pub mode: Option<u32>,
    /// Owner.
    #[prost(uint32, optional, tag = "3")]
    pub uid: Option<u32>,
    /// Group.
    #[prost(uint32, optional, tag = "4")]
    pub gid: Option<u32>,
    /// Bytes; regular files.
    #[prost(uint64, optional, tag = "5")]
    pub size: Option<u64>,
    /// Nanoseconds since 1970.
    #[prost(int64, optional, tag = "6")]
    pub atime_ns: Option<i64>,
    /// The command's time (needs less permission than a chosen one).
    #[prost(bool, tag = "7")]
    pub atime_now: bool,
    /// Nanoseconds since 1970.
    #[prost(int64, optional, tag = "8")]
    pub mtime_ns: Option<i64>,
    /// The command's time.
    #[prost(bool, tag = "9")]
    pub mtime_now: bool,
    /// Replicas of chunks made from now on.
    #[prost(uint32, optional, tag = "10")]
    pub goal: Option<u32>,
    /// The size is set through a handle open for writing: no permission is asked any more.
    #[prost(bool, tag = "11")]
    pub by_handle: bool,
    /// suid, sgid and `security.capability` go.
    #[prost(bool, tag = "12")]
    pub kill_privileges: bool,
}

/// See [`Change::SetXattr`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetXattr {
    /// Of what.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// With its namespace: `user.`, `trusted.`, `security.`, `system.`.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
    /// At most 64 KiB.
    #[prost(bytes = "vec", tag = "3")]
    pub value: Vec<u8>,
    /// XATTR_CREATE.
    #[prost(bool, tag = "4")]
    pub create: bool,
    /// XATTR_REPLACE.
    #[prost(bool, tag = "5")]
    pub replace: bool,
}

/// See [`Change::RemoveXattr`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveXattr {
    /// Of what.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// With its namespace.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
}

/// See [`Change::NextChunk`]. If there is a chunk behind the full one by now, or any where none was full, the last one is
/// answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NextChunk {
    /// The file.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// This one takes no more records; 0: none was asked.
    #[prost(uint64, tag = "2")]
    pub full: u64,
    /// At which version that was heard.
    #[prost(uint32, tag = "3")]
    pub version: u32,
    /// Its final length: all members have it on stable storage.
    #[prost(uint64, tag = "4")]
    pub length: u64,
    /// Where a new chunk is to live, head first.
    #[prost(uint32, repeated, tag = "5")]
    pub members: Vec<u32>,
    /// The file was opened with the right to write.
    #[prost(bool, tag = "6")]
    pub by_handle: bool,
}

/// See [`Change::Allocate`]. If the slot has a chunk by now, that one is answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Allocate {
    /// The file.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Any byte of the slot.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Where the chunk is to live, head first.
    #[prost(uint32, repeated, tag = "3")]
    pub members: Vec<u32>,
    /// Give up this chunk, which never had a committed length and was allocated for this client; 0: none.
    #[prost(uint64, tag = "4")]
    pub instead_of: u64,
    /// The file was opened with the right to write.
    #[prost(bool, tag = "5")]
    pub by_handle: bool,
}

/// See [`Change::CommitLength`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitLength {
    /// The file.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// The chunk; 0 with `close` alone.
    #[prost(uint64, tag = "2")]
    pub chunk: u64,
    /// The version the writer wrote at.
    #[prost(uint32, tag = "3")]
    pub version: u32,
    /// Of the chunk, bytes.
    #[prost(uint64, tag = "4")]
    pub length: u64,
    /// Every member has fsynced it.
    #[prost(bool, tag = "5")]
    pub durable: bool,
    /// Of the last write, by the writer's clock; not set: times stay.
    #[prost(int64, optional, tag = "6")]
    pub mtime_ns: Option<i64>,
    /// The file was opened with the right to write.
    #[prost(bool, tag = "7")]
    pub by_handle: bool,
    /// The writer goes, and has written nothing: a chunk that was made for it alone is taken back.
    #[prost(bool, tag = "8")]
    pub unused: bool,
}

/// See [`Change::Propose`]. Another base than the newest version is answered with the newest.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Propose {
    /// The chunk.
    #[prost(uint64, tag = "1")]
    pub chunk: u64,
    /// The newest version, active or proposed, that the proposer knows.
    #[prost(uint32, tag = "2")]
    pub base: u32,
    /// In chain order; at least one of the active configuration.
    #[prost(uint32, repeated, tag = "3")]
    pub members: Vec<u32>,
}

/// See [`Change::Activate`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Activate {
    /// The chunk.
    #[prost(uint64, tag = "1")]
    pub chunk: u64,
    /// The proposed version.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// Of the source, bytes: every member has it.
    #[prost(uint64, tag = "3")]
    pub length: u64,
    /// The newest version whose source had lost power, as the source answered.
    #[prost(uint32, tag = "4")]
    pub loss: u32,
}

/// See [`Change::Freeze`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Freeze {
    /// The chunk.
    #[prost(uint64, tag = "1")]
    pub chunk: u64,
}

/// See [`Change::RegisterServer`]. A known identity keeps its number; the rest is replaced.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterServer {
    /// 16 random bytes, made with its first data directory.
    #[prost(bytes = "vec", tag = "1")]
    pub identity: Vec<u8>,
    /// Where clients reach its data transport, host:port.
    #[prost(string, tag = "2")]
    pub addr: String,
    /// Failure domain.
    #[prost(string, tag = "3")]
    pub host: String,
    /// Failure domain.
    #[prost(string, tag = "4")]
    pub rack: String,
    /// Its disks; a disk that once failed stays failed.
    #[prost(message, repeated, tag = "5")]
    pub disks: Vec<Disk>,
    /// A new identity takes the place of the server known at this address, which never comes back.
    #[prost(bool, tag = "6")]
    pub replace: bool,
}

/// See [`Change::DiskFailed`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DiskFailed {
    /// The server.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub disk: Vec<u8>,
}

/// See [`Change::RemoveServer`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RemoveServer {
    /// The server.
    #[prost(uint32, tag = "1")]
    pub node: u32,
}

/// See [`Change::RotateKey`].
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct RotateKey {
    /// One above the newest key's.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// 32 random bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for RotateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotateKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
