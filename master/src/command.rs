//! The sentence: everything that changes hard state, as data.
//!
//! A [`Command`] is decided by the gate (its time, its placement, its secrets), made durable by the log and then given to
//! `state::apply`, which needs nothing else. Its encoding is protobuf behind one byte of format version: fields and
//! changes may be added, numbers never mean anything else. Ids are raw numbers here because the log stores them;
//! `state` turns them into their types.

mod change;
mod mount;
mod reply;
#[cfg(test)]
mod tests;
mod trash;

pub use crate::store::records::Kind;
pub use change::*;
pub use mount::*;
pub use reply::*;
pub use trash::*;

use dfs_proto::{Code, Error, Result};

/// First byte of every encoded command and reply.
pub const FORMAT: u8 = 1;

/// One change of the hard state with all that could differ between two runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// When the gate took it, nanoseconds since 1970-01-01 UTC.
    #[prost(int64, tag = "1")]
    pub time_ns: i64,
    /// Set if it comes from a client: its result is remembered under it.
    #[prost(message, optional, tag = "2")]
    pub request: Option<RequestId>,
    /// Whose rights count; none: the master's own work.
    #[prost(message, optional, tag = "3")]
    pub caller: Option<Caller>,
    /// What is to change; `None` only if a newer program wrote it.
    #[prost(
        oneof = "Change",
        tags = "10, 11, 12, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 36, 40, 41, 42, 43, 60, 61, 62, 63, \
                70, 71, 72, 73, 74, 75"
    )]
    pub change: Option<Change>,
}

impl Command {
    /// The master's own work: no caller, no request id.
    #[must_use]
    pub fn internal(time_ns: i64, change: impl Into<Change>) -> Command {
        Command {
            time_ns,
            request: None,
            caller: None,
            change: Some(change.into()),
        }
    }

    /// A client's request.
    #[must_use]
    pub fn from_client(
        time_ns: i64,
        request: RequestId,
        caller: Caller,
        change: impl Into<Change>,
    ) -> Command {
        Command {
            time_ns,
            request: Some(request),
            caller: Some(caller),
            change: Some(change.into()),
        }
    }

    /// The log's payload.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        versioned(self)
    }

    /// Reads a log's payload.
    ///
    /// # Errors
    /// `Internal` if this program cannot read it: a newer format, an unknown change, or garbage.
    pub fn from_bytes(bytes: &[u8]) -> Result<Command> {
        let command: Command = unversioned(bytes)?;
        if command.change.is_none() {
            return Err(unreadable("a change this program does not know"));
        }
        Ok(command)
    }
}

fn versioned(message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.encoded_len() + 1);
    bytes.push(FORMAT);
    message.encode_raw(&mut bytes);
    bytes
}

fn unversioned<M: prost::Message + Default>(bytes: &[u8]) -> Result<M> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => M::decode(rest).map_err(|e| unreadable(&e.to_string())),
        Some((other, _)) => Err(unreadable(&format!("format {other}"))),
        None => Err(unreadable("nothing")),
    }
}

fn unreadable(what: &str) -> Error {
    Error::new(
        Code::Internal,
        format!("this program cannot read a stored command: {what}"),
    )
}

/// A client's name for one of its requests: the same one, repeated, gets the first one's answer.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RequestId {
    /// The client session.
    #[prost(uint64, tag = "1")]
    pub client: u64,
    /// From 1, never reused in a session.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// Results below it may be forgotten.
    #[prost(uint64, tag = "3")]
    pub lowest_unanswered: u64,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Caller {
    /// User.
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    /// Effective group.
    #[prost(uint32, tag = "2")]
    pub gid: u32,
    /// Supplementary groups.
    #[prost(uint32, repeated, tag = "3")]
    pub groups: Vec<u32>,
}

impl Caller {
    /// The superuser; the master itself acts as it.
    pub const ROOT: Caller = Caller {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };

    /// True for the superuser.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// True if `gid` is one of its groups.
    #[must_use]
    pub fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}
