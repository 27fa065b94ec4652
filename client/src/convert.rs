//! The one place where wire messages become this crate's types, and back: the control plane here,
//! the frames of the data plane in [`data`].

pub(crate) mod admin;
mod change;
pub(crate) mod data;
mod query;
mod trash;
pub(crate) mod watch;

pub(crate) use change::*;
pub(crate) use query::*;
pub(crate) use trash::*;

use crate::types::{Caller, Kind, LockAnswer, LockKind, LockRange, Metadata};
use bytes::Bytes;
use dfs_proto::calls::{Answer, Ask};
use dfs_proto::limits::{MESSAGE_BYTES_MAX, Parameters};
use dfs_proto::{ClientId, Code, Error, InodeId, Result, pb};
use std::time::Duration;
use tonic::transport::Channel;

/// A signed capability, as the master gave it: shown to chunkservers, opaque here.
pub(crate) type Token = pb::Signed;
/// What the master answered to a change.
pub(crate) type Changed = pb::MutateReply;
/// What the master answered to a query.
pub(crate) type Answered = pb::QueryReply;
/// The operator's door.
pub(crate) type AdminStub = pb::admin_client::AdminClient<Channel>;

/// The operator's door over a channel, with this house's limits.
pub(crate) fn admin_stub(channel: Channel) -> AdminStub {
    AdminStub::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// An opened client session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) client: ClientId,
    pub(crate) lease: Duration,
    pub(crate) parameters: Parameters,
}

/// Which request of which session this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestNumber {
    pub(crate) client: ClientId,
    pub(crate) sequence: u64,
    pub(crate) lowest_unanswered: u64,
}

fn unexpected(what: &str) -> Error {
    Error::new(Code::Internal, format!("the master answered without {what}"))
}

fn another() -> Error {
    Error::new(
        Code::Internal,
        "the master answered something else than was asked",
    )
}

fn bytes(of: &[u8]) -> Bytes {
    Bytes::copy_from_slice(of)
}

// --- sessions ---

pub(crate) fn open_session(nonce: u64, name: &str, host: &str, mount: bool) -> Ask {
    Ask::OpenSession(pb::OpenSessionRequest {
        nonce,
        name: name.to_owned(),
        host: host.to_owned(),
        mount,
    })
}

pub(crate) fn opened(answer: Answer) -> Result<Opened> {
    let Answer::OpenSession(reply) = answer else {
        return Err(another());
    };
    if reply.client == 0 {
        return Err(unexpected("a session"));
    }
    known(ClientId(reply.client), reply.lease_ms, reply.parameters)
}

pub(crate) fn describe() -> Ask {
    Ask::Describe(pb::Describe {})
}

/// What a session would be opened with, in the name of nobody.
pub(crate) fn described(answer: Answer) -> Result<Opened> {
    let Answer::Description(reply) = answer else {
        return Err(another());
    };
    known(ClientId(0), reply.lease_ms, reply.parameters)
}

fn known(client: ClientId, lease_ms: u32, parameters: Option<pb::Parameters>) -> Result<Opened> {
    let parameters = parameters
        .as_ref()
        .map(Parameters::from)
        .filter(Parameters::are_valid)
        .ok_or_else(|| unexpected("valid parameters"))?;
    Ok(Opened {
        client,
        lease: Duration::from_millis(u64::from(lease_ms.max(1))),
        parameters,
    })
}

pub(crate) fn renew(client: ClientId, writing: Vec<u64>) -> Ask {
    Ask::Renew(pb::RenewRequest {
        client: client.0,
        writing,
    })
}

pub(crate) fn close_session(client: ClientId) -> Ask {
    Ask::CloseSession(pb::CloseSessionRequest { client: client.0 })
}

pub(crate) fn mutate(id: RequestNumber, caller: &Caller, change: Change) -> Ask {
    Ask::Mutate(pb::MutateRequest {
        id: Some(pb::RequestId {
            client: id.client.0,
            sequence: id.sequence,
            lowest_unanswered: id.lowest_unanswered,
        }),
        caller: Some(caller.into()),
        change: Some(change),
    })
}

pub(crate) fn changed(answer: Answer) -> Result<Changed> {
    match answer {
        Answer::Mutate(reply) => Ok(reply),
        _ => Err(another()),
    }
}

pub(crate) fn query(client: ClientId, caller: &Caller, query: Query) -> Ask {
    Ask::Query(pb::QueryRequest {
        client: client.0,
        caller: Some(caller.into()),
        query: Some(query),
    })
}

pub(crate) fn answered(answer: Answer) -> Result<Answered> {
    match answer {
        Answer::Query(reply) => Ok(reply),
        _ => Err(another()),
    }
}

// --- what both changes and queries answer ---

fn metadata(attributes: Option<pb::Attributes>) -> Result<Metadata> {
    let a = attributes.ok_or_else(|| unexpected("attributes"))?;
    Ok(Metadata {
        inode: InodeId(a.inode),
        kind: kind(a.kind())?,
        mode: a.mode,
        uid: a.uid,
        gid: a.gid,
        nlink: a.nlink,
        size: a.size,
        allocated_bytes: a.allocated_bytes,
        atime_ns: a.atime_ns,
        mtime_ns: a.mtime_ns,
        ctime_ns: a.ctime_ns,
        rdev: a.rdev,
        goal: a.goal,
        chunk_bytes: a.chunk_bytes,
        change: a.change,
        chunks: a.chunks,
        xattr_bytes: a.xattr_bytes,
    })
}

fn kind(kind: pb::Kind) -> Result<Kind> {
    match kind {
        pb::Kind::File => Ok(Kind::File),
        pb::Kind::Directory => Ok(Kind::Directory),
        pb::Kind::Symlink => Ok(Kind::Symlink),
        pb::Kind::Fifo => Ok(Kind::Fifo),
        pb::Kind::Socket => Ok(Kind::Socket),
        pb::Kind::CharacterDevice => Ok(Kind::CharacterDevice),
        pb::Kind::BlockDevice => Ok(Kind::BlockDevice),
        pb::Kind::Unspecified => Err(unexpected("a kind")),
    }
}

fn lock_answer(l: pb::Locked) -> Result<LockAnswer> {
    Ok(match (l.conflict, l.deadlock) {
        (_, true) => LockAnswer::Deadlock,
        (None, false) => LockAnswer::Free,
        (Some(range), false) => LockAnswer::Conflict(LockRange {
            client: ClientId(range.client),
            owner: range.owner,
            pid: range.pid,
            start: range.start,
            end: range.end,
            exclusive: range.kind() == pb::LockKind::Exclusive,
        }),
    })
}

impl From<LockKind> for pb::LockKind {
    fn from(kind: LockKind) -> pb::LockKind {
        match kind {
            LockKind::Unlock => pb::LockKind::Unlock,
            LockKind::Shared => pb::LockKind::Shared,
            LockKind::Exclusive => pb::LockKind::Exclusive,
        }
    }
}

impl From<Kind> for pb::Kind {
    fn from(kind: Kind) -> pb::Kind {
        match kind {
            Kind::File => pb::Kind::File,
            Kind::Directory => pb::Kind::Directory,
            Kind::Symlink => pb::Kind::Symlink,
            Kind::Fifo => pb::Kind::Fifo,
            Kind::Socket => pb::Kind::Socket,
            Kind::CharacterDevice => pb::Kind::CharacterDevice,
            Kind::BlockDevice => pb::Kind::BlockDevice,
        }
    }
}

impl From<&Caller> for pb::Caller {
    fn from(c: &Caller) -> pb::Caller {
        pb::Caller {
            uid: c.uid,
            gid: c.gid,
            groups: c.groups.clone(),
        }
    }
}
