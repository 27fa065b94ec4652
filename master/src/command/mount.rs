//! Changes that only mounts ask for: removed files let go, locks, holes.

/// See [`Change::Release`](super::Change::Release). Inodes that the session does not hold are passed over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Release {
    /// What is not open any more.
    #[prost(uint64, repeated, tag = "1")]
    pub inodes: Vec<u64>,
}

/// How a range of bytes is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LockKind {
    /// Not any more.
    Unlock = 0,
    /// Together with others.
    Shared = 1,
    /// Alone.
    Exclusive = 2,
}

/// See [`Change::Lock`](super::Change::Lock). A conflict is an answer, not a refusal.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Lock {
    /// Of what.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Of the session: an open file table, or an open file.
    #[prost(uint64, tag = "2")]
    pub owner: u64,
    /// Told to those who ask.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// The first byte.
    #[prost(uint64, tag = "4")]
    pub start: u64,
    /// The last byte; the greatest number: to the end, however far that is.
    #[prost(uint64, tag = "5")]
    pub end: u64,
    /// How.
    #[prost(enumeration = "LockKind", tag = "6")]
    pub kind: i32,
    /// flock(2): such locks and fcntl's do not meet.
    #[prost(bool, tag = "7")]
    pub flock: bool,
}

/// See [`Change::PunchHole`](super::Change::PunchHole).
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PunchHole {
    /// The file.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// From this byte.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// So many.
    #[prost(uint64, tag = "3")]
    pub length: u64,
    /// By the writer's clock; not set: the command's time.
    #[prost(int64, optional, tag = "4")]
    pub mtime_ns: Option<i64>,
    /// The file was opened with the right to write.
    #[prost(bool, tag = "5")]
    pub by_handle: bool,
    /// A chunk whose span reaches beyond the range goes too, if neither its bytes nor the file do: nobody else writes it.
    #[prost(bool, tag = "6")]
    pub tail: bool,
}
