//! How a failure reaches the user: a message like the Unix tool's, one line of JSON, an exit code.
//!
//! The tables here are exhaustive: a new [`Code`] does not compile until someone has decided what a person reads.

use crate::output::PathField;
use dfs_proto::{Code, Error};
use serde::Serialize;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// Failed, or not all of it was done; a `test` that is false.
    Failed = 1,
    /// Typed wrongly.
    Usage = 2,
    /// `fsck`: all is readable, but under goal or stale.
    Degraded = 3,
    /// `fsck`: something is missing or corrupt.
    Damaged = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// What went wrong, with what it was about.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What kind, for `--json` and scripts.
    pub(crate) code: Code,
    /// What a person reads after the subject.
    pub(crate) text: String,
    /// The path (or address) it is about.
    pub(crate) subject: Option<Vec<u8>>,
    /// The reader of our output went away: nobody is there to be told.
    pub(crate) quiet: bool,
}

/// Result with a [`Failure`].
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure about nothing in particular.
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Failure {
        Failure {
            code,
            text: text.into(),
            subject: None,
            quiet: false,
        }
    }

    /// A failure with the Unix text of its code.
    #[must_use]
    pub(crate) fn of(code: Code) -> Failure {
        Failure::new(code, errno_text(code))
    }

    /// Says what it is about, unless that is known already.
    #[must_use]
    pub(crate) fn about(mut self, subject: impl AsRef<[u8]>) -> Failure {
        self.subject.get_or_insert_with(|| subject.as_ref().to_vec());
        self
    }

    /// `ls: /nope: No such file or directory`, without a line end.
    #[must_use]
    pub(crate) fn line(&self, command: &str) -> Vec<u8> {
        let mut line = format!("{command}: ").into_bytes();
        if let Some(subject) = &self.subject {
            line.extend_from_slice(subject);
            line.extend_from_slice(b": ");
        }
        line.extend_from_slice(self.text.as_bytes());
        line
    }

    /// One line of JSON, as the contract of `--json` has it.
    #[must_use]
    pub(crate) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            error: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            code: &'static str,
            message: &'a str,
            #[serde(flatten)]
            path: Option<PathField>,
        }
        let error = Body {
            code: self.code.name(),
            message: &self.text,
            path: self.subject.as_deref().map(PathField::new),
        };
        serde_json::to_string(&Line { error }).expect("strings are always JSON")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(subject) = &self.subject {
            write!(f, "{}: ", String::from_utf8_lossy(subject))?;
        }
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let text = errno_text(error.code);
        let text = match says_it_all(error.code) || error.message.is_empty() {
            true => text.to_owned(),
            false => format!("{text} ({})", error.message),
        };
        Failure::new(error.code, text)
    }
}

impl From<io::Error> for Failure {
    /// One of ours that went through [`io::Error`] comes back whole; else the system's words without its number.
    fn from(error: io::Error) -> Failure {
        if let Some(ours) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return ours.clone().into();
        }
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        let mut failure = Failure::new(code_of(error.kind()), text);
        failure.quiet = error.kind() == io::ErrorKind::BrokenPipe;
        failure
    }
}

impl From<dfs_stdx::settings::Error> for Failure {
    fn from(error: dfs_stdx::settings::Error) -> Failure {
        Failure::new(Code::InvalidArgument, error.to_string().trim_end())
    }
}

/// Says what a failure is about.
pub(crate) trait About<T> {
    /// The path or address it happened at.
    ///
    /// # Errors
    /// The same, with the subject.
    fn about(self, subject: impl AsRef<[u8]>) -> Result<T>;
}

impl<T, E: Into<Failure>> About<T> for std::result::Result<T, E> {
    fn about(self, subject: impl AsRef<[u8]>) -> Result<T> {
        self.map_err(|error| error.into().about(subject))
    }
}

/// What the C library says for the errno of a code.
#[must_use]
pub(crate) fn errno_text(code: Code) -> &'static str {
    match code {
        Code::NotFound => "No such file or directory",
        Code::AlreadyExists => "File exists",
        Code::NotEmpty => "Directory not empty",
        Code::NotADirectory => "Not a directory",
        Code::IsADirectory => "Is a directory",
        Code::InvalidArgument => "Invalid argument",
        Code::NameTooLong => "File name too long",
        Code::PermissionDenied => "Permission denied",
        Code::NotPermitted => "Operation not permitted",
        Code::NoSpace => "No space left on device",
        Code::QuotaExceeded => "Disk quota exceeded",
        Code::Busy => "Device or resource busy",
        Code::NotLeader | Code::NotYet | Code::Unavailable => "Resource temporarily unavailable",
        Code::Stale | Code::SessionExpired => "Stale file handle",
        Code::Corrupt | Code::Internal | Code::Lost => "Input/output error",
        Code::TimedOut => "Connection timed out",
        Code::TooManyLinks => "Too many levels of symbolic links",
        Code::NoAttribute => "No data available",
        Code::TooLarge => "File too large",
        Code::LinkLimit => "Too many links",
        Code::NotSupported => "Operation not supported",
    }
}

/// Where the Unix text is enough; elsewhere the sender's message follows it.
fn says_it_all(code: Code) -> bool {
    match code {
        Code::NotFound
        | Code::AlreadyExists
        | Code::NotEmpty
        | Code::NotADirectory
        | Code::IsADirectory
        | Code::NameTooLong
        | Code::PermissionDenied
        | Code::NotPermitted
        | Code::TooManyLinks
        | Code::NoAttribute
        | Code::LinkLimit => true,
        Code::InvalidArgument
        | Code::NoSpace
        | Code::QuotaExceeded
        | Code::Busy
        | Code::NotLeader
        | Code::Stale
        | Code::NotYet
        | Code::Corrupt
        | Code::TimedOut
        | Code::Unavailable
        | Code::Internal
        | Code::SessionExpired
        | Code::TooLarge
        | Code::Lost
        | Code::NotSupported => false,
    }
}

/// Local failures in the words of `--json`.
fn code_of(kind: io::ErrorKind) -> Code {
    use io::ErrorKind as Kind;
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::NotADirectory => Code::NotADirectory,
        Kind::IsADirectory => Code::IsADirectory,
        Kind::DirectoryNotEmpty => Code::NotEmpty,
        Kind::StorageFull => Code::NoSpace,
        Kind::QuotaExceeded => Code::QuotaExceeded,
        Kind::FileTooLarge => Code::TooLarge,
        Kind::InvalidFilename => Code::NameTooLong,
        Kind::InvalidInput => Code::InvalidArgument,
        Kind::ResourceBusy => Code::Busy,
        Kind::TimedOut => Code::TimedOut,
        Kind::Unsupported => Code::NotSupported,
        // `ErrorKind` is open: whatever else the system says is an input/output error in its own words.
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_like_the_unix_tools() {
        let failure = Failure::from(Error::new(Code::NotFound, "inode 7")).about("/nope");
        assert_eq!(failure.line("ls"), b"ls: /nope: No such file or directory");
    }

    #[test]
    fn an_io_error_keeps_its_reason() {
        let failure = Failure::from(Error::new(Code::Corrupt, "chunk 9 version 2: no good replica"));
        assert_eq!(
            failure.line("get"),
            b"get: Input/output error (chunk 9 version 2: no good replica)"
        );
    }

    #[test]
    fn a_failure_is_one_line_of_json() {
        let failure = Failure::of(Code::NotFound).about("/nope");
        assert_eq!(
            failure.json(),
            r#"{"error":{"code":"NotFound","message":"No such file or directory","path":"/nope"}}"#
        );
        let failure = Failure::of(Code::NotFound).about(b"/\xff");
        assert!(
            failure.json().contains(r#""path_b64":"L/8=""#),
            "{}",
            failure.json()
        );
    }

    #[test]
    fn a_local_error_says_what_the_system_says() {
        let error = io::Error::from_raw_os_error(2);
        let failure = Failure::from(error).about("x");
        assert_eq!(
            (failure.code, failure.line("put")),
            (Code::NotFound, b"put: x: No such file or directory".to_vec())
        );
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).quiet);
    }

    #[test]
    fn our_error_survives_an_io_error() {
        let inside = io::Error::other(Error::new(Code::NotEmpty, ""));
        assert_eq!(Failure::from(inside).code, Code::NotEmpty);
    }
}
