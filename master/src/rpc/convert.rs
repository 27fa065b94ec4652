//! Messages to commands and questions, answers to messages.

use super::trash;
use crate::command::{self, Caller, Change};
use crate::gate::{Answer, Ask, Grant, Granted, NextChunk, Reconfigure};
use crate::live::servers::Activity;
use crate::state;
use dfs_proto::capability::Key;
use dfs_proto::limits::{GOAL_MAX, XATTR_VALUE_BYTES_MAX};
use dfs_proto::name::{Name, PATH_BYTES_MAX};
use dfs_proto::{ChunkHandle, Code, Error, InodeId, NodeId, Result, Version, pb};
use pb::mutate_request::Change as Asked;
use std::time::Duration;

/// Longest name of an extended attribute, bytes (xattr(7)).
const XATTR_NAME_BYTES_MAX: usize = 255;
/// Most supplementary groups of a caller (NGROUPS_MAX of Linux).
const GROUPS_MAX: usize = 65_536;
/// Most servers a client may name in one request.
const NODES_MAX: usize = 64;

pub(super) fn invalid(why: &str) -> Error {
    Error::new(Code::InvalidArgument, why)
}

/// Who asks; nobody in particular has no rights.
pub(super) fn caller(caller: Option<pb::Caller>) -> Result<Caller> {
    let c = caller.ok_or_else(|| invalid("a request says who asks"))?;
    if c.groups.len() > GROUPS_MAX {
        return Err(invalid("too many groups"));
    }
    Ok(Caller {
        uid: c.uid,
        gid: c.gid,
        groups: c.groups,
    })
}

pub(super) fn request_id(id: Option<pb::RequestId>) -> Result<command::RequestId> {
    let id = id.ok_or_else(|| invalid("a change has a request id"))?;
    Ok(command::RequestId {
        client: id.client,
        sequence: id.sequence,
        lowest_unanswered: id.lowest_unanswered,
    })
}

pub(super) fn name(bytes: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
    Name::new(bytes).map(Name::into_bytes)
}

fn xattr_name(bytes: &[u8]) -> Result<Vec<u8>> {
    if bytes.is_empty() || bytes.len() > XATTR_NAME_BYTES_MAX || bytes.contains(&0) {
        return Err(invalid("not the name of an extended attribute"));
    }
    Ok(bytes.to_vec())
}

fn goal(goal: u32) -> Result<u32> {
    if goal > GOAL_MAX {
        Err(invalid("so many replicas are not kept"))
    } else {
        Ok(goal)
    }
}

fn nodes<C: FromIterator<NodeId>>(numbers: &[u32]) -> Result<C> {
    if numbers.len() > NODES_MAX {
        return Err(invalid("too many servers"));
    }
    Ok(numbers.iter().map(|n| NodeId(*n)).collect())
}

/// What is asked for.
pub(super) fn ask(change: Option<Asked>) -> Result<Ask> {
    let simple = |change: Change| Ok(Ask::Change(change));
    match change.ok_or_else(|| invalid("nothing is asked for, or something unknown"))? {
        Asked::Make(m) => {
            let grant = m.grant;
            Ok(Ask::Make(make(m)?, grant))
        }
        Asked::Link(l) => simple(
            command::Link {
                inode: l.inode,
                parent: l.parent,
                name: name(l.name)?,
            }
            .into(),
        ),
        Asked::Unlink(u) => {
            let unlink = command::Unlink {
                parent: u.parent,
                name: name(u.name)?,
                ..command::Unlink::default()
            };
            Ok(Ask::Unlink(unlink, u.keep))
        }
        Asked::RemoveDirectory(r) => simple(
            command::RemoveDirectory {
                parent: r.parent,
                name: name(r.name)?,
            }
            .into(),
        ),
        Asked::Rename(r) => {
            let keep = r.keep;
            Ok(Ask::Rename(rename(r)?, keep))
        }
        Asked::SetAttributes(s) => simple(set_attributes(&s)?.into()),
        Asked::SetXattr(x) => simple(set_xattr(&x)?.into()),
        Asked::RemoveXattr(x) => simple(
            command::RemoveXattr {
                inode: x.inode,
                name: xattr_name(&x.name)?,
            }
            .into(),
        ),
        Asked::NextChunk(n) => Ok(Ask::NextChunk(NextChunk {
            inode: InodeId(n.inode),
            full: ChunkHandle(n.full),
            version: Version(n.version),
            length: n.length,
            avoid: nodes(&n.avoid)?,
            by_handle: n.by_handle,
        })),
        Asked::Grant(g) => Ok(Ask::Grant(Grant {
            inode: InodeId(g.inode),
            offset: g.offset,
            instead_of: ChunkHandle(g.instead_of),
            avoid: nodes(&g.avoid)?,
            by_handle: g.by_handle,
        })),
        Asked::CommitLength(c) => Ok(commit(&c)),
        Asked::Reconfigure(r) => reconfigure(r),
        Asked::Release(r) => simple(command::Release { inodes: r.inodes }.into()),
        Asked::Lock(l) => Ok(Ask::Lock(lock(&l)?, l.wait)),
        Asked::PunchHole(p) => Ok(Ask::PunchHole(punch_hole(&p))),
        Asked::Discard(d) => trash::discard(d),
        Asked::RestoreTrash(r) => trash::restore(r),
        Asked::EmptyTrash(e) => Ok(trash::empty(e)),
        Asked::Retain(r) => Ok(trash::retain(&r)),
    }
}

fn commit(c: &pb::CommitLength) -> Ask {
    let commit = command::CommitLength {
        inode: c.inode,
        chunk: c.chunk,
        version: c.version,
        length: c.length,
        durable: c.durable,
        mtime_ns: c.mtime_ns,
        by_handle: c.by_handle,
        unused: c.close && c.length == 0,
    };
    Ask::Commit(commit, c.close)
}

fn reconfigure(r: pb::Reconfigure) -> Result<Ask> {
    Ok(Ask::Reconfigure(Reconfigure {
        inode: InodeId(r.inode),
        chunk: ChunkHandle(r.chunk),
        base: Version(r.base),
        suspects: nodes(&r.suspects)?,
        reason: r.reason.chars().take(200).collect(),
        empty: r.empty,
        by_handle: r.by_handle,
    }))
}

fn punch_hole(p: &pb::PunchHole) -> command::PunchHole {
    command::PunchHole {
        inode: p.inode,
        offset: p.offset,
        length: p.length,
        mtime_ns: p.mtime_ns,
        by_handle: p.by_handle,
        tail: false,
    }
}

fn make(m: pb::Make) -> Result<command::Make> {
    let kind = command::Kind::try_from(m.kind).map_err(|_| invalid("an unknown kind of file"))?;
    if m.target.len() > PATH_BYTES_MAX {
        return Err(Code::NameTooLong.into());
    }
    let is_symlink = kind == command::Kind::Symlink;
    if is_symlink == m.target.is_empty() || m.target.contains(&0) {
        return Err(invalid("a symlink, and nothing else, has a target without NUL"));
    }
    Ok(command::Make {
        parent: m.parent,
        name: name(m.name)?,
        kind: m.kind,
        mode: m.mode,
        rdev: m.rdev,
        target: m.target.to_vec(),
        exclusive: m.exclusive,
        goal: goal(m.goal)?,
        truncate: m.truncate,
        write: m.grant || m.truncate,
        members: Vec::new(),
        access: m.access,
    })
}

fn lock(l: &pb::Lock) -> Result<command::Lock> {
    let kind = command::LockKind::try_from(l.kind).map_err(|_| invalid("an unknown kind of lock"))?;
    Ok(command::Lock {
        inode: l.inode,
        owner: l.owner,
        pid: l.pid,
        start: l.start,
        end: l.end,
        kind: kind as i32,
        flock: l.flock,
    })
}

/// The lock that a question is about.
pub(super) fn tested(t: &pb::TestLock) -> Result<command::Lock> {
    lock(&pb::Lock {
        inode: t.inode,
        owner: t.owner,
        start: t.start,
        end: t.end,
        kind: t.kind,
        flock: t.flock,
        ..pb::Lock::default()
    })
}

/// What came of a lock.
pub(super) fn locked(conflict: Option<command::LockRange>, deadlock: bool) -> pb::Locked {
    let range = |c: command::LockRange| pb::LockRange {
        client: c.client,
        owner: c.owner,
        pid: c.pid,
        start: c.start,
        end: c.end,
        kind: c.kind,
    };
    pb::Locked {
        conflict: conflict.map(range),
        deadlock,
    }
}

fn rename(r: pb::Rename) -> Result<command::Rename> {
    Ok(command::Rename {
        parent: r.parent,
        name: name(r.name)?,
        new_parent: r.new_parent,
        new_name: name(r.new_name)?,
        no_replace: r.no_replace,
        exchange: r.exchange,
        ..command::Rename::default()
    })
}

fn set_attributes(s: &pb::SetAttributes) -> Result<command::SetAttributes> {
    Ok(command::SetAttributes {
        inode: s.inode,
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        size: s.size,
        atime_ns: s.atime_ns,
        atime_now: s.atime_now,
        mtime_ns: s.mtime_ns,
        mtime_now: s.mtime_now,
        goal: s.goal.map(goal).transpose()?,
        by_handle: s.by_handle,
        kill_privileges: s.kill_privileges,
    })
}

fn set_xattr(x: &pb::SetXattr) -> Result<command::SetXattr> {
    if x.value.len() > XATTR_VALUE_BYTES_MAX {
        return Err(Error::new(
            Code::TooLarge,
            "an attribute's value is at most 64 KiB",
        ));
    }
    Ok(command::SetXattr {
        inode: x.inode,
        name: xattr_name(&x.name)?,
        value: x.value.to_vec(),
        create: x.create,
        replace: x.replace,
    })
}

pub(super) fn attributes(a: &command::Attributes) -> pb::Attributes {
    pb::Attributes {
        inode: a.inode,
        kind: a.kind,
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
    }
}

/// The answer to a change, grants signed.
pub(super) fn answer(answer: &Answer, key: &Key, lease: Duration) -> pb::MutateReply {
    use pb::mutate_reply::Result as Told;
    let granted = |g: &Granted| pb::Granted {
        capability: Some(key.sign(&g.capability)),
        file_offset: g.slot.offset,
        span_bytes: g.slot.span,
        lease_ms: u32::try_from(lease.as_millis()).unwrap_or(u32::MAX),
        lost_end: g.lost_end,
    };
    let touched: &[command::Attributes] = match answer {
        Answer::Made(made, _) => &made.touched,
        Answer::Attributes(_, touched) | Answer::Done(touched) => touched,
        Answer::Granted(_) | Answer::Committed(_) | Answer::Locked(..) => &[],
    };
    let told = match answer {
        Answer::Made(made, grant) => Told::Made(pb::Made {
            attributes: Some(attributes(&made.attributes)),
            created: made.created,
            granted: grant.as_ref().map(granted),
        }),
        Answer::Attributes(a, _) => Told::Attributes(attributes(a)),
        Answer::Done(_) => Told::Done(pb::Done {}),
        Answer::Granted(g) => Told::Granted(granted(g)),
        Answer::Committed(c) => Told::Committed(pb::Committed {
            size: c.size,
            attributes: c.attributes.as_ref().map(attributes),
        }),
        Answer::Locked(conflict, deadlock) => Told::Locked(locked(*conflict, *deadlock)),
    };
    pb::MutateReply {
        result: Some(told),
        touched: touched.iter().map(attributes).collect(),
    }
}

pub(super) fn page(page: state::Page) -> pb::DirectoryPage {
    let entry = |e: state::Entry| pb::DirectoryEntry {
        name: e.name.into(),
        inode: e.inode.0,
        kind: e.kind as i32,
        cursor: e.cursor,
        attributes: e.attributes.as_ref().map(attributes),
    };
    pb::DirectoryPage {
        entries: page.entries.into_iter().map(entry).collect(),
        end: page.end,
        parent: page.parent.0,
    }
}

/// What a server says it has done.
pub(super) fn worked(a: pb::Activity) -> Activity {
    Activity {
        reads: a.reads,
        read_bytes: a.read_bytes,
        packets: a.packets,
        packet_bytes: a.packet_bytes,
        copied_bytes: a.copied_bytes,
        syncs: a.syncs,
        orders: a.orders,
    }
}

/// The same, for an operator.
pub(super) fn activity(a: Activity) -> pb::Activity {
    pb::Activity {
        reads: a.reads,
        read_bytes: a.read_bytes,
        packets: a.packets,
        packet_bytes: a.packet_bytes,
        copied_bytes: a.copied_bytes,
        syncs: a.syncs,
        orders: a.orders,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(asked: Asked) -> Code {
        ask(Some(asked)).expect_err("refused").code
    }

    #[test]
    fn bad_names_are_refused_before_anything_else() {
        let unlink = |name: &'static [u8]| {
            Asked::Unlink(pb::Unlink {
                parent: 1,
                name: name.into(),
                keep: false,
            })
        };
        assert_eq!(code(unlink(b"a/b")), Code::InvalidArgument);
        assert_eq!(code(unlink(b"")), Code::InvalidArgument);
        let long = Asked::Link(pb::Link {
            name: vec![b'x'; 256].into(),
            ..pb::Link::default()
        });
        assert_eq!(code(long), Code::NameTooLong);
    }

    #[test]
    fn only_symlinks_have_targets() {
        let make = |kind, target: &'static [u8]| {
            Asked::Make(pb::Make {
                name: "n".into(),
                kind,
                target: target.into(),
                ..pb::Make::default()
            })
        };
        assert!(ask(Some(make(3, b"to"))).is_ok());
        assert_eq!(code(make(3, b"")), Code::InvalidArgument);
        assert_eq!(code(make(1, b"to")), Code::InvalidArgument);
        assert_eq!(code(make(99, b"")), Code::InvalidArgument);
    }

    #[test]
    fn missing_parts_are_invalid_arguments() {
        assert_eq!(ask(None).expect_err("refused").code, Code::InvalidArgument);
        assert_eq!(caller(None).expect_err("refused").code, Code::InvalidArgument);
        assert_eq!(request_id(None).expect_err("refused").code, Code::InvalidArgument);
        let many = pb::Reconfigure {
            suspects: vec![1; NODES_MAX + 1],
            ..pb::Reconfigure::default()
        };
        assert_eq!(code(Asked::Reconfigure(many)), Code::InvalidArgument);
    }
}
