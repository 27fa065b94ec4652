//! What can go wrong, and how it is retried: the one error type that crosses crates and the wire.

use crate::ids::{ChunkHandle, NodeId, Version};

/// Result with dfs's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $retry:ident;)*) => {
        /// Why a call failed. The numbers are the wire's and never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[repr(u32)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// Every code, in order of number.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// From the wire; an unknown number is [`Code::Internal`].
            #[must_use]
            pub fn from_wire(number: u32) -> Code {
                match number {
                    $($number => Code::$name,)*
                    _ => Code::Internal,
                }
            }

            /// How a caller may retry: the retry loop looks at this and nothing else.
            #[must_use]
            pub fn retry(self) -> Retry {
                match self {
                    $(Code::$name => Retry::$retry,)*
                }
            }

            /// The name as documented and as `--json` prints it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Code::$name => stringify!($name),)*
                }
            }
        }
    };
}

codes! {
    /// No such file, chunk or attribute holder (ENOENT).
    NotFound = 1, Never;
    /// The name exists (EEXIST).
    AlreadyExists = 2, Never;
    /// The directory is not empty (ENOTEMPTY).
    NotEmpty = 3, Never;
    /// A path component is not a directory (ENOTDIR).
    NotADirectory = 4, Never;
    /// A directory where a file is needed (EISDIR).
    IsADirectory = 5, Never;
    /// The arguments make no sense (EINVAL).
    InvalidArgument = 6, Never;
    /// A name over 255 bytes or a path over 4,095 (ENAMETOOLONG).
    NameTooLong = 7, Never;
    /// Mode bits forbid it (EACCES), or a capability is missing, forged or expired.
    PermissionDenied = 8, Never;
    /// Only the owner or root may (EPERM).
    NotPermitted = 9, Never;
    /// No server has room (ENOSPC).
    NoSpace = 10, Never;
    /// A quota forbids it (EDQUOT).
    QuotaExceeded = 11, Never;
    /// Someone else is at it; soon it will be free (EBUSY).
    Busy = 12, Same;
    /// Ask the leader instead.
    NotLeader = 13, Leader;
    /// The version or location is out of date.
    Stale = 14, Refresh;
    /// The version is not known here yet, or the bytes are not committed yet.
    NotYet = 15, Other;
    /// The replica's bytes fail their checksum, or its disk fails (EIO).
    Corrupt = 16, Other;
    /// The deadline passed (ETIMEDOUT).
    TimedOut = 17, Other;
    /// It cannot be reached, or not now.
    Unavailable = 18, Other;
    /// A bug or a broken invariant on the other side (EIO).
    Internal = 19, Never;
    /// Too many symlinks on the way (ELOOP).
    TooManyLinks = 20, Never;
    /// No such extended attribute (ENODATA).
    NoAttribute = 21, Never;
    /// The client session has ended: what it held is gone (ESTALE).
    SessionExpired = 22, Never;
    /// The file or chunk would grow beyond its limit (EFBIG).
    TooLarge = 23, Never;
    /// Bytes this writer had acknowledged but not fsynced went with a power cut of all replicas (EIO, once).
    Lost = 24, Never;
    /// The link count would exceed its limit (EMLINK).
    LinkLimit = 25, Never;
    /// This kind of file cannot do that (EOPNOTSUPP).
    NotSupported = 26, Never;
}

impl Code {
    /// True if it tells of trouble in the cluster, and not of what was asked: what a watcher counts as a failure.
    #[must_use]
    pub fn is_fault(self) -> bool {
        use Code::{Corrupt, Internal, Lost, NoSpace, TimedOut, Unavailable};
        matches!(self, Corrupt | Internal | Lost | NoSpace | TimedOut | Unavailable)
    }
}

/// What a caller does about a [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Tell the user.
    Never,
    /// Back off, ask the same again.
    Same,
    /// Try the next replica.
    Other,
    /// Drop the cached location and ask the master.
    Refresh,
    /// Follow the hint to the leader.
    Leader,
}

/// A failure, typed, with what a person needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", if message.is_empty() { code.name() } else { "" })]
pub struct Error {
    /// What kind.
    pub code: Code,
    /// For a person; may be empty where the code says it all.
    pub message: String,
    /// The chunk and version it is about, if any.
    pub chunk: Option<(ChunkHandle, Version)>,
    /// The server it is about (a suspect, or the sender), if any.
    pub node: Option<NodeId>,
    /// With [`Code::NotLeader`]: who to ask.
    pub leader: Option<String>,
}

impl Error {
    /// An error with a message.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error {
            code,
            message: message.into(),
            chunk: None,
            node: None,
            leader: None,
        }
    }

    /// Names the chunk and the version it is about.
    #[must_use]
    pub fn on_chunk(mut self, chunk: ChunkHandle, version: Version) -> Error {
        self.chunk = Some((chunk, version));
        self
    }

    /// Names the server it is about.
    #[must_use]
    pub fn on_node(mut self, node: NodeId) -> Error {
        self.node = Some(node);
        self
    }

    /// How to retry.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.code.retry()
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Error {
        Error::new(code, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in Code::ALL {
            assert_eq!(Code::from_wire(*code as u32), *code);
        }
        assert_eq!(Code::from_wire(9_999), Code::Internal);
    }

    #[test]
    fn an_error_without_a_message_prints_its_code() {
        assert_eq!(Error::from(Code::NotEmpty).to_string(), "NotEmpty");
        assert_eq!(Error::new(Code::Busy, "wait").to_string(), "wait");
    }
}
