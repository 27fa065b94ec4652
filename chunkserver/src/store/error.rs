//! What can go wrong with replicas on disks.

use dfs_proto::{ChunkHandle, Code, Version};
use dfs_stdx::disk;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error(transparent)]
    Disk(disk::Error),
    /// The disk has no room, or would go below its reserve.
    #[error("disk full")]
    Full,
    /// An fsync failed once: nothing on this disk is trusted any more.
    #[error("disk fenced: an fsync failed on it")]
    Fenced,
    /// Stored bytes fail their checksum.
    #[error("block {block} of chunk {chunk} fails its checksum")]
    Corrupt {
        /// Whose.
        chunk: ChunkHandle,
        /// Its number in the chunk.
        block: u32,
    },
    /// It has promised more than was asked.
    #[error("promised {0} already")]
    Stale(Version),
    /// It was open when the process or the machine went, or a write failed half way: out of its version's stream.
    #[error("out of the stream until it is ready for a higher version")]
    OutOfStream,
    /// There is no such replica.
    #[error("no replica of chunk {0}")]
    NotFound(ChunkHandle),
    /// There is one already.
    #[error("a replica of chunk {0} exists")]
    Exists(ChunkHandle),
    /// What is on disk does not make sense, or the request does not.
    #[error("{0}")]
    Refused(String),
}

/// Result of the store.
pub type Result<T> = std::result::Result<T, Error>;

impl From<disk::Error> for Error {
    fn from(e: disk::Error) -> Error {
        if e.is_full() { Error::Full } else { Error::Disk(e) }
    }
}

impl From<Error> for dfs_proto::Error {
    fn from(e: Error) -> dfs_proto::Error {
        let code = match &e {
            Error::Disk(_) | Error::Corrupt { .. } => Code::Corrupt,
            Error::Full => Code::NoSpace,
            Error::Fenced | Error::OutOfStream => Code::Unavailable,
            Error::Stale(_) => Code::Stale,
            Error::NotFound(_) => Code::NotYet,
            Error::Exists(_) => Code::AlreadyExists,
            Error::Refused(_) => Code::InvalidArgument,
        };
        dfs_proto::Error::new(code, e.to_string())
    }
}
