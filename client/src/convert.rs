//! The one place where wire messages become this crate's types, and back: the control plane here,
//! the frames of the data plane in [`data`].

pub(crate) mod admin;
pub(crate) mod data;

use crate::inodes::Make;
use crate::types::{
    Caller, DirEntry, DirPage, Kind, Metadata, RenameMode, SetAttributes, Space, Time, XattrMode,
};
use bytes::Bytes;
use dfs_proto::capability::{Capability, peek};
use dfs_proto::limits::{MESSAGE_BYTES_MAX, Parameters};
use dfs_proto::{ChunkHandle, ClientId, Code, Error, InodeId, NodeId, Result, Version, pb};
use std::time::Duration;
use tonic::transport::Channel;

pub(crate) use pb::mutate_request::Change;
pub(crate) use pb::query_request::Query;

/// A signed capability, as the master gave it: shown to chunkservers, opaque here.
pub(crate) type Token = pb::Signed;
/// What the master answered to a change.
pub(crate) type Changed = pb::MutateReply;
/// What the master answered to a query.
pub(crate) type Answered = pb::QueryReply;
/// The master's front door.
pub(crate) type NamespaceStub = pb::namespace_client::NamespaceClient<Channel>;
/// The operator's door.
pub(crate) type AdminStub = pb::admin_client::AdminClient<Channel>;

/// Stubs over a channel, with this house's limits.
pub(crate) fn stubs(channel: Channel) -> (NamespaceStub, AdminStub) {
    (
        NamespaceStub::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
        AdminStub::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
    )
}

/// Permission to write one chunk.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) token: Token,
    pub(crate) capability: Capability,
    /// Where the chunk begins in the file.
    pub(crate) file_offset: u64,
    /// How far it may grow.
    pub(crate) span_bytes: u64,
}

/// A chunk of a file, readable with its token.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) span_bytes: u64,
    pub(crate) token: Token,
    pub(crate) capability: Capability,
}

/// Where (part of) a file is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Located {
    pub(crate) size: u64,
    pub(crate) extents: Vec<Extent>,
    pub(crate) writing: bool,
}

/// What a path names.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) metadata: Metadata,
    pub(crate) located: Option<Located>,
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

/// A length to commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) inode: InodeId,
    pub(crate) chunk: ChunkHandle,
    pub(crate) version: Version,
    pub(crate) length: u64,
    pub(crate) durable: bool,
    pub(crate) mtime_ns: i64,
    pub(crate) close: bool,
}

fn unexpected(what: &str) -> Error {
    Error::new(Code::Internal, format!("the master answered without {what}"))
}

fn bytes(of: &[u8]) -> Bytes {
    Bytes::copy_from_slice(of)
}

// --- sessions ---

pub(crate) fn open_session(nonce: u64, name: &str, host: &str) -> pb::OpenSessionRequest {
    pb::OpenSessionRequest {
        nonce,
        name: name.to_owned(),
        host: host.to_owned(),
    }
}

pub(crate) fn opened(reply: &pb::OpenSessionReply) -> Result<Opened> {
    let parameters = reply
        .parameters
        .as_ref()
        .map(Parameters::from)
        .ok_or_else(|| unexpected("parameters"))?;
    if !parameters.are_valid() || reply.client == 0 {
        return Err(unexpected("valid parameters"));
    }
    Ok(Opened {
        client: ClientId(reply.client),
        lease: Duration::from_millis(u64::from(reply.lease_ms.max(1))),
        parameters,
    })
}

pub(crate) fn renew(client: ClientId, writing: Vec<u64>) -> pb::RenewRequest {
    pb::RenewRequest {
        client: client.0,
        writing,
    }
}

pub(crate) fn close_session(client: ClientId) -> pb::CloseSessionRequest {
    pb::CloseSessionRequest { client: client.0 }
}

pub(crate) fn mutate(id: RequestNumber, caller: &Caller, change: Change) -> pb::MutateRequest {
    pb::MutateRequest {
        id: Some(pb::RequestId {
            client: id.client.0,
            sequence: id.sequence,
            lowest_unanswered: id.lowest_unanswered,
        }),
        caller: Some(caller.into()),
        change: Some(change),
    }
}

pub(crate) fn query(client: ClientId, caller: &Caller, query: Query) -> pb::QueryRequest {
    pb::QueryRequest {
        client: client.0,
        caller: Some(caller.into()),
        query: Some(query),
    }
}

/// True if doing it twice is the same as doing it once, so that it may be asked again under a new session.
pub(crate) fn is_idempotent(change: &Change) -> bool {
    match change {
        Change::SetAttributes(_)
        | Change::SetXattr(_)
        | Change::Grant(_)
        | Change::CommitLength(_)
        | Change::Reconfigure(_) => true,
        Change::Make(_)
        | Change::Link(_)
        | Change::Unlink(_)
        | Change::RemoveDirectory(_)
        | Change::Rename(_)
        | Change::RemoveXattr(_) => false,
    }
}

// --- changes ---

pub(crate) fn make(parent: InodeId, name: &[u8], make: Make) -> Change {
    Change::Make(pb::Make {
        parent: parent.0,
        name: bytes(name),
        kind: pb::Kind::from(make.kind).into(),
        mode: make.mode,
        rdev: make.rdev,
        target: make.target.into(),
        exclusive: true,
        ..pb::Make::default()
    })
}

/// How a file is created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MakeFile {
    pub(crate) mode: u32,
    pub(crate) goal: u32,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) grant: bool,
}

pub(crate) fn make_file(parent: InodeId, name: &[u8], make: MakeFile) -> Change {
    Change::Make(pb::Make {
        parent: parent.0,
        name: bytes(name),
        kind: pb::Kind::File.into(),
        mode: make.mode,
        goal: make.goal,
        exclusive: make.exclusive,
        truncate: make.truncate,
        grant: make.grant,
        ..pb::Make::default()
    })
}

pub(crate) fn link(inode: InodeId, parent: InodeId, name: &[u8]) -> Change {
    Change::Link(pb::Link {
        inode: inode.0,
        parent: parent.0,
        name: bytes(name),
    })
}

pub(crate) fn unlink(parent: InodeId, name: &[u8]) -> Change {
    Change::Unlink(pb::Unlink {
        parent: parent.0,
        name: bytes(name),
    })
}

pub(crate) fn remove_directory(parent: InodeId, name: &[u8]) -> Change {
    Change::RemoveDirectory(pb::RemoveDirectory {
        parent: parent.0,
        name: bytes(name),
    })
}

pub(crate) fn rename(from: (InodeId, &[u8]), to: (InodeId, &[u8]), mode: RenameMode) -> Change {
    Change::Rename(pb::Rename {
        parent: from.0.0,
        name: bytes(from.1),
        new_parent: to.0.0,
        new_name: bytes(to.1),
        no_replace: mode == RenameMode::NoReplace,
        exchange: mode == RenameMode::Exchange,
    })
}

pub(crate) fn set_attributes(inode: InodeId, set: &SetAttributes, by_handle: bool) -> Change {
    let at = |t: Option<Time>| match t {
        Some(Time::At(ns)) => Some(ns),
        Some(Time::Now) | None => None,
    };
    Change::SetAttributes(pb::SetAttributes {
        inode: inode.0,
        mode: set.mode,
        uid: set.uid,
        gid: set.gid,
        size: set.size,
        atime_ns: at(set.atime),
        atime_now: set.atime == Some(Time::Now),
        mtime_ns: at(set.mtime),
        mtime_now: set.mtime == Some(Time::Now),
        goal: set.goal,
        by_handle,
    })
}

pub(crate) fn set_xattr(inode: InodeId, name: &[u8], value: &[u8], mode: XattrMode) -> Change {
    Change::SetXattr(pb::SetXattr {
        inode: inode.0,
        name: bytes(name),
        value: bytes(value),
        create: mode == XattrMode::Create,
        replace: mode == XattrMode::Replace,
    })
}

pub(crate) fn remove_xattr(inode: InodeId, name: &[u8]) -> Change {
    Change::RemoveXattr(pb::RemoveXattr {
        inode: inode.0,
        name: bytes(name),
    })
}

pub(crate) fn grant(inode: InodeId, offset: u64, instead_of: ChunkHandle, avoid: &[NodeId]) -> Change {
    Change::Grant(pb::Grant {
        inode: inode.0,
        offset,
        instead_of: instead_of.0,
        avoid: avoid.iter().map(|n| n.0).collect(),
    })
}

pub(crate) fn commit_length(c: Commit) -> Change {
    Change::CommitLength(pb::CommitLength {
        inode: c.inode.0,
        chunk: c.chunk.0,
        version: c.version.0,
        length: c.length,
        durable: c.durable,
        mtime_ns: Some(c.mtime_ns),
        close: c.close,
    })
}

pub(crate) fn reconfigure(
    inode: InodeId,
    base: (ChunkHandle, Version),
    suspects: &[NodeId],
    (reason, empty): (&str, bool),
) -> Change {
    Change::Reconfigure(pb::Reconfigure {
        inode: inode.0,
        chunk: base.0.0,
        base: base.1.0,
        suspects: suspects.iter().map(|n| n.0).collect(),
        reason: reason.to_owned(),
        empty,
    })
}

// --- answers to changes ---

pub(crate) fn made(reply: Changed) -> Result<(Metadata, bool, Option<Grant>)> {
    let Some(pb::mutate_reply::Result::Made(made)) = reply.result else {
        return Err(unexpected("what it made"));
    };
    Ok((
        metadata(made.attributes)?,
        made.created,
        made.granted.map(granted_of).transpose()?,
    ))
}

pub(crate) fn attributes_changed(reply: Changed) -> Result<Metadata> {
    match reply.result {
        Some(pb::mutate_reply::Result::Attributes(a)) => metadata(Some(a)),
        _ => Err(unexpected("attributes")),
    }
}

pub(crate) fn granted(reply: Changed) -> Result<Grant> {
    match reply.result {
        Some(pb::mutate_reply::Result::Granted(g)) => granted_of(g),
        _ => Err(unexpected("a grant")),
    }
}

fn granted_of(g: pb::Granted) -> Result<Grant> {
    let token = g.capability.ok_or_else(|| unexpected("a capability"))?;
    Ok(Grant {
        capability: peek(&token)?,
        token,
        file_offset: g.file_offset,
        span_bytes: g.span_bytes,
    })
}

// --- queries ---

pub(crate) fn lookup(parent: InodeId, name: &[u8]) -> Query {
    Query::Lookup(pb::Lookup {
        parent: parent.0,
        name: bytes(name),
    })
}

pub(crate) fn resolve(path: &[u8], follow: bool, locate: bool) -> Query {
    Query::Resolve(pb::Resolve {
        base: 0,
        path: bytes(path),
        follow,
        locate,
    })
}

pub(crate) fn get_attributes(inode: InodeId) -> Query {
    Query::GetAttributes(pb::GetAttributes { inode: inode.0 })
}

pub(crate) fn read_directory(inode: InodeId, cursor: u64, entries_max: u32) -> Query {
    Query::ReadDirectory(pb::ReadDirectory {
        inode: inode.0,
        cursor,
        entries_max,
        attributes: true,
    })
}

pub(crate) fn read_link(inode: InodeId) -> Query {
    Query::ReadLink(pb::ReadLink { inode: inode.0 })
}

pub(crate) fn get_xattr(inode: InodeId, name: &[u8]) -> Query {
    Query::GetXattr(pb::GetXattr {
        inode: inode.0,
        name: bytes(name),
    })
}

pub(crate) fn list_xattr(inode: InodeId) -> Query {
    Query::ListXattr(pb::ListXattr { inode: inode.0 })
}

pub(crate) fn stat_fs() -> Query {
    Query::StatFs(pb::StatFs {})
}

pub(crate) fn locate(inode: InodeId, offset: u64, length: u64) -> Query {
    Query::Locate(pb::Locate {
        inode: inode.0,
        offset,
        length,
    })
}

// --- answers to queries ---

use pb::query_reply::Result as Reply;

pub(crate) fn attributes(reply: Answered) -> Result<Metadata> {
    match reply.result {
        Some(Reply::Attributes(a)) => metadata(Some(a)),
        _ => Err(unexpected("attributes")),
    }
}

pub(crate) fn resolved(reply: Answered) -> Result<Resolved> {
    let Some(Reply::Resolved(r)) = reply.result else {
        return Err(unexpected("what the path names"));
    };
    Ok(Resolved {
        metadata: metadata(r.attributes)?,
        located: r.located.map(located_of).transpose()?,
    })
}

pub(crate) fn directory(reply: Answered) -> Result<DirPage> {
    let Some(Reply::Directory(page)) = reply.result else {
        return Err(unexpected("a directory"));
    };
    let entry = |e: pb::DirectoryEntry| {
        Ok(DirEntry {
            name: e.name.into(),
            cursor: e.cursor,
            metadata: metadata(e.attributes)?,
        })
    };
    Ok(DirPage {
        entries: page.entries.into_iter().map(entry).collect::<Result<_>>()?,
        end: page.end,
        parent: InodeId(page.parent),
    })
}

pub(crate) fn target(reply: Answered) -> Result<Vec<u8>> {
    match reply.result {
        Some(Reply::Target(t)) => Ok(t.into()),
        _ => Err(unexpected("a link's target")),
    }
}

pub(crate) fn value(reply: Answered) -> Result<Vec<u8>> {
    match reply.result {
        Some(Reply::Value(v)) => Ok(v.into()),
        _ => Err(unexpected("a value")),
    }
}

pub(crate) fn names(reply: Answered) -> Result<Vec<Vec<u8>>> {
    match reply.result {
        Some(Reply::Names(n)) => Ok(n.names.into_iter().map(Into::into).collect()),
        _ => Err(unexpected("names")),
    }
}

pub(crate) fn space(reply: Answered) -> Result<Space> {
    match reply.result {
        Some(Reply::Space(s)) => Ok(Space {
            capacity_bytes: s.capacity_bytes,
            used_bytes: s.used_bytes,
            free_bytes: s.free_bytes,
            files: s.files,
            directories: s.directories,
        }),
        _ => Err(unexpected("the space")),
    }
}

pub(crate) fn located(reply: Answered) -> Result<Located> {
    match reply.result {
        Some(Reply::Located(l)) => located_of(l),
        _ => Err(unexpected("locations")),
    }
}

fn located_of(l: pb::Located) -> Result<Located> {
    let extent = |e: pb::Extent| {
        let token = e.capability.ok_or_else(|| unexpected("a capability"))?;
        Ok(Extent {
            offset: e.offset,
            span_bytes: e.span_bytes,
            capability: peek(&token)?,
            token,
        })
    };
    Ok(Located {
        size: l.size,
        extents: l.extents.into_iter().map(extent).collect::<Result<_>>()?,
        writing: l.writing,
    })
}

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
