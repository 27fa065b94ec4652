//! Changes about what is removed and kept for a while, or removed piece by piece.

/// See [`Change::Discard`](super::Change::Discard).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Discard {
    /// Directory.
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// Name in it.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
    /// As it was typed: shown to people, believed by nobody.
    #[prost(bytes = "vec", tag = "3")]
    pub path: Vec<u8>,
    /// A directory, too, with all below it.
    #[prost(bool, tag = "4")]
    pub recursive: bool,
    /// Not to the trash: gone for good.
    #[prost(bool, tag = "5")]
    pub skip: bool,
    /// Kept so long where no directory says otherwise, nanoseconds.
    #[prost(uint64, tag = "6")]
    pub keep_ns: u64,
    /// Sessions that keep the inode if it goes at once and this was its last name.
    #[prost(uint64, repeated, tag = "7")]
    pub holders: Vec<u64>,
    /// As in [`Unlink`](super::Unlink).
    #[prost(uint64, optional, tag = "8")]
    pub dying: Option<u64>,
}

/// See [`Change::Purge`](super::Change::Purge). Steps that do not fit any more are passed over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Purge {
    /// The entry of the trash that they are in.
    #[prost(uint64, tag = "1")]
    pub entry: u64,
    /// In this order: what is in a directory before it.
    #[prost(message, repeated, tag = "2")]
    pub steps: Vec<PurgeStep>,
}

/// A name that goes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PurgeStep {
    /// Directory.
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// Name in it.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
    /// What it means; another inode is not removed.
    #[prost(uint64, tag = "3")]
    pub inode: u64,
    /// Sessions that keep the inode if this was its last name.
    #[prost(uint64, repeated, tag = "4")]
    pub holders: Vec<u64>,
}

/// See [`Change::Restore`](super::Change::Restore).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Restore {
    /// The entry of the trash.
    #[prost(uint64, tag = "1")]
    pub entry: u64,
    /// Into this directory; 0: where it was.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// Under this name; empty: as it was called.
    #[prost(bytes = "vec", tag = "3")]
    pub name: Vec<u8>,
}

/// See [`Change::EmptyTrash`](super::Change::EmptyTrash). Entries that are gone are passed over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EmptyTrash {
    /// Entries of the trash.
    #[prost(uint64, repeated, tag = "1")]
    pub entries: Vec<u64>,
}

/// See [`Change::Retain`](super::Change::Retain).
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Retain {
    /// The directory.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Seconds, 0: there is no trash; not set: as the directory above it.
    #[prost(uint64, optional, tag = "2")]
    pub keep_s: Option<u64>,
}

/// See [`Change::ForgetChunk`](super::Change::ForgetChunk). Refused while anything refers to it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ForgetChunk {
    /// The chunk.
    #[prost(uint64, tag = "1")]
    pub chunk: u64,
}

/// See [`Change::ForgetChunks`](super::Change::ForgetChunks). Those that are referred to, frozen or gone are passed over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForgetChunks {
    /// The chunks.
    #[prost(uint64, repeated, tag = "1")]
    pub chunks: Vec<u64>,
}
