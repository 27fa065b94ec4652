//! What is asked of the master that changes something, and what it answers.

use super::{Changed, Token, bytes, metadata, unexpected};
use crate::inodes::Make;
use crate::types::{Lock, LockAnswer, Made, Metadata, RenameMode, SetAttributes, Time, XattrMode};
use dfs_proto::capability::{Capability, peek};
use dfs_proto::{ChunkHandle, InodeId, NodeId, Result, Version, pb};
pub(crate) use pb::mutate_request::Change;

/// Permission to write one chunk.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) token: Token,
    pub(crate) capability: Capability,
    /// Where the chunk begins in the file.
    pub(crate) file_offset: u64,
    /// How far it may grow.
    pub(crate) span_bytes: u64,
    /// In the chunk: bytes from its end to here went with a power cut of all replicas.
    pub(crate) lost_end: u64,
}

/// A length to commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) inode: InodeId,
    pub(crate) chunk: ChunkHandle,
    pub(crate) version: Version,
    pub(crate) length: u64,
    pub(crate) durable: bool,
    /// Of the last write that the master was not told of.
    pub(crate) mtime_ns: Option<i64>,
    pub(crate) close: bool,
}

/// True if doing it twice is the same as doing it once, so that it may be asked again under a new session.
pub(crate) fn is_idempotent(change: &Change) -> bool {
    match change {
        Change::SetAttributes(_)
        | Change::SetXattr(_)
        | Change::Grant(_)
        | Change::NextChunk(_)
        | Change::CommitLength(_)
        | Change::Reconfigure(_)
        | Change::Release(_)
        | Change::Lock(_)
        | Change::PunchHole(_)
        | Change::EmptyTrash(_)
        | Change::Retain(_) => true,
        Change::Make(_)
        | Change::Link(_)
        | Change::Unlink(_)
        | Change::RemoveDirectory(_)
        | Change::Rename(_)
        | Change::RemoveXattr(_)
        | Change::Discard(_)
        | Change::RestoreTrash(_) => false,
    }
}

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
    /// What the file is opened for, if it is there: bits as of access(2).
    pub(crate) access: u32,
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
        access: make.access,
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

pub(crate) fn unlink(parent: InodeId, name: &[u8], keep: bool) -> Change {
    Change::Unlink(pb::Unlink {
        parent: parent.0,
        name: bytes(name),
        keep,
    })
}

pub(crate) fn remove_directory(parent: InodeId, name: &[u8]) -> Change {
    Change::RemoveDirectory(pb::RemoveDirectory {
        parent: parent.0,
        name: bytes(name),
    })
}

pub(crate) fn rename(from: (InodeId, &[u8]), to: (InodeId, &[u8]), mode: RenameMode, keep: bool) -> Change {
    Change::Rename(pb::Rename {
        parent: from.0.0,
        name: bytes(from.1),
        new_parent: to.0.0,
        new_name: bytes(to.1),
        no_replace: mode == RenameMode::NoReplace,
        exchange: mode == RenameMode::Exchange,
        keep,
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
        kill_privileges: set.kill_privileges,
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
        by_handle: true,
    })
}

pub(crate) fn commit_length(c: Commit) -> Change {
    Change::CommitLength(pb::CommitLength {
        inode: c.inode.0,
        chunk: c.chunk.0,
        version: c.version.0,
        length: c.length,
        durable: c.durable,
        mtime_ns: c.mtime_ns,
        close: c.close,
        by_handle: true,
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
        by_handle: true,
    })
}

/// The chunk for the next record: the last one, or the one behind `full` (with the version and the length it has).
pub(crate) fn next_chunk(
    inode: InodeId,
    full: Option<(ChunkHandle, Version, u64)>,
    avoid: &[NodeId],
) -> Change {
    let (full, version, length) = full.unwrap_or_default();
    Change::NextChunk(pb::NextChunk {
        inode: inode.0,
        full: full.0,
        version: version.0,
        length,
        avoid: avoid.iter().map(|n| n.0).collect(),
        by_handle: true,
    })
}

pub(crate) fn release(inodes: &[InodeId]) -> Change {
    Change::Release(pb::Release {
        inodes: inodes.iter().map(|i| i.0).collect(),
    })
}

pub(crate) fn lock(inode: InodeId, lock: &Lock, wait: bool) -> Change {
    Change::Lock(pb::Lock {
        inode: inode.0,
        owner: lock.owner,
        pid: lock.pid,
        start: lock.start,
        end: lock.end,
        kind: pb::LockKind::from(lock.kind).into(),
        wait,
        flock: lock.flock,
    })
}

pub(crate) fn punch_hole(inode: InodeId, offset: u64, length: u64, mtime_ns: Option<i64>) -> Change {
    Change::PunchHole(pb::PunchHole {
        inode: inode.0,
        offset,
        length,
        mtime_ns,
        by_handle: true,
    })
}

pub(crate) fn made(reply: Changed) -> Result<(Made, Option<Grant>)> {
    let touched = touched_of(reply.touched)?;
    match reply.result {
        Some(pb::mutate_reply::Result::Made(made)) => {
            let is = Made {
                metadata: metadata(made.attributes)?,
                created: made.created,
                touched,
            };
            Ok((is, made.granted.map(granted_of).transpose()?))
        }
        // A link: the inode was there, its name is new.
        Some(pb::mutate_reply::Result::Attributes(a)) => {
            let is = Made {
                metadata: metadata(Some(a))?,
                created: true,
                touched,
            };
            Ok((is, None))
        }
        _ => Err(unexpected("what it made")),
    }
}

/// What else a change touched, as it is now.
pub(crate) fn touched(reply: Changed) -> Result<Vec<Metadata>> {
    touched_of(reply.touched)
}

/// The attributes of the one inode that a change touched.
pub(crate) fn attributes_touched(reply: Changed) -> Result<Metadata> {
    touched(reply)?.pop().ok_or_else(|| unexpected("attributes"))
}

fn touched_of(all: Vec<pb::Attributes>) -> Result<Vec<Metadata>> {
    all.into_iter().map(|a| metadata(Some(a))).collect()
}

pub(crate) fn locked(reply: Changed) -> Result<LockAnswer> {
    match reply.result {
        Some(pb::mutate_reply::Result::Locked(l)) => super::lock_answer(l),
        _ => Err(unexpected("what came of the lock")),
    }
}

pub(crate) fn attributes_changed(reply: Changed) -> Result<Metadata> {
    match reply.result {
        Some(pb::mutate_reply::Result::Attributes(a)) => metadata(Some(a)),
        _ => Err(unexpected("attributes")),
    }
}

/// The file's attributes after a commit, if the master said them.
pub(crate) fn committed(reply: Changed) -> Option<Metadata> {
    match reply.result {
        Some(pb::mutate_reply::Result::Committed(c)) => metadata(c.attributes).ok(),
        _ => None,
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
        lost_end: g.lost_end,
    })
}
