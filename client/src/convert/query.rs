//! What is asked of the master that changes nothing, and what it answers.

use super::{Answered, Token, bytes, metadata, unexpected};
use crate::types::{DirEntry, DirPage, Lock, LockAnswer, Metadata, Space, Turn};
use dfs_proto::capability::{Capability, peek};
use dfs_proto::{InodeId, Result, pb};
use pb::query_reply::Result as Reply;
pub(crate) use pb::query_request::Query;
use std::time::Duration;

/// A chunk of a file, readable with its token.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) span_bytes: u64,
    pub(crate) token: Token,
    pub(crate) capability: Capability,
    /// Bytes of the chunk from its end to here are lost, not a hole.
    pub(crate) lost_end: u64,
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

pub(crate) fn lookup(parent: InodeId, name: &[u8]) -> Query {
    Query::Lookup(pb::Lookup {
        parent: parent.0,
        name: bytes(name),
    })
}

/// With `access`, bits as of access(2), refused if the caller may not do that with what is there.
pub(crate) fn resolve(path: &[u8], follow: bool, locate: bool, access: u32) -> Query {
    Query::Resolve(pb::Resolve {
        base: 0,
        path: bytes(path),
        follow,
        locate,
        access,
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
        by_handle: true,
        wait_ms: 0,
    })
}

/// As [`locate`] from there to the end; if there is nothing, answered when there is, or after a while.
pub(crate) fn locate_when_there(inode: InodeId, offset: u64, wait: Duration) -> Query {
    Query::Locate(pb::Locate {
        inode: inode.0,
        offset,
        length: u64::MAX - offset,
        by_handle: true,
        wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
    })
}

pub(crate) fn access(inode: InodeId, mask: u32) -> Query {
    Query::Access(pb::Access { inode: inode.0, mask })
}

pub(crate) fn test_lock(inode: InodeId, lock: &Lock) -> Query {
    Query::TestLock(pb::TestLock {
        inode: inode.0,
        owner: lock.owner,
        start: lock.start,
        end: lock.end,
        kind: pb::LockKind::from(lock.kind).into(),
        flock: lock.flock,
    })
}

pub(crate) fn append_turn(inode: InodeId) -> Query {
    Query::AppendTurn(pb::AppendTurn { inode: inode.0 })
}

pub(crate) fn append_done(inode: InodeId) -> Query {
    Query::AppendDone(pb::AppendDone { inode: inode.0 })
}

pub(crate) fn tested(reply: Answered) -> Result<LockAnswer> {
    match reply.result {
        Some(Reply::Locked(l)) => super::lock_answer(l),
        _ => Err(unexpected("which lock is in the way")),
    }
}

pub(crate) fn turn(reply: Answered) -> Result<Turn> {
    match reply.result {
        Some(Reply::Turn(turn)) => Ok(Turn {
            yours: turn.yours,
            metadata: metadata(turn.attributes)?,
        }),
        _ => Err(unexpected("whose turn it is")),
    }
}

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
            lost_end: e.lost_end,
            token,
        })
    };
    Ok(Located {
        size: l.size,
        extents: l.extents.into_iter().map(extent).collect::<Result<_>>()?,
        writing: l.writing,
    })
}
