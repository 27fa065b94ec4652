//! The trash in messages.

use super::convert::{invalid, name};
use crate::command::{self, Caller};
use crate::gate::Ask;
use crate::state;
use crate::store::Read;
use crate::store::records::Trashed;
use dfs_proto::name::PATH_BYTES_MAX;
use dfs_proto::{InodeId, Result, pb};
use std::time::Duration;

/// Entries looked at in one answer.
const ENTRIES_MAX: u32 = 4_096;

pub(super) fn discard(d: pb::Discard) -> Result<Ask> {
    if d.path.len() > PATH_BYTES_MAX {
        return Err(invalid("the path is too long"));
    }
    Ok(Ask::Discard(command::Discard {
        parent: d.parent,
        name: name(d.name)?,
        path: d.path.into(),
        recursive: d.recursive,
        skip: d.skip_trash,
        ..command::Discard::default()
    }))
}

pub(super) fn restore(r: pb::RestoreTrash) -> Result<Ask> {
    let restore = command::Restore {
        entry: r.entry,
        parent: r.parent,
        name: if r.name.is_empty() {
            Vec::new()
        } else {
            name(r.name)?
        },
    };
    Ok(Ask::Change(restore.into()))
}

pub(super) fn empty(e: pb::EmptyTrash) -> Ask {
    Ask::Trash(command::EmptyTrash { entries: e.entries }.into())
}

pub(super) fn retain(r: &pb::Retain) -> Ask {
    let retain = command::Retain {
        inode: r.inode,
        keep_s: r.keep_s,
    };
    Ask::Change(retain.into())
}

/// A page of what the caller may have back.
pub(super) fn list(read: &dyn Read, caller: &Caller, asked: &pb::ListTrash) -> pb::TrashPage {
    let max = asked.entries_max.clamp(1, ENTRIES_MAX) as usize;
    let page = state::trashed_after(read, asked.after, max);
    let next = page
        .last()
        .filter(|_| page.len() == max)
        .map_or(0, |(entry, _)| *entry);
    let entries = page
        .iter()
        .filter(|(_, t)| !t.gone && (caller.is_root() || caller.uid == t.uid))
        .map(|(number, t)| entry(read, *number, t))
        .collect();
    pb::TrashPage { entries, next }
}

fn entry(read: &dyn Read, number: u64, t: &Trashed) -> pb::TrashEntry {
    let size = state::get_attributes(read, InodeId(t.inode)).map_or(0, |a| a.size);
    pb::TrashEntry {
        entry: number,
        inode: t.inode,
        kind: t.kind,
        size,
        path: t.path.clone().into(),
        parent: t.parent,
        name: t.name.clone().into(),
        uid: t.uid,
        removed_ns: t.removed_ns,
        due_ns: t.due_ns,
    }
}

/// What counts in a directory.
///
/// # Errors
/// `NotFound`.
pub(super) fn retention(read: &dyn Read, directory: InodeId, usual: Duration) -> Result<pb::Retention> {
    let inode = state::inode(read, directory)?;
    Ok(pb::Retention {
        keep_s: state::retention(read, directory).unwrap_or(usual.as_secs()),
        own_s: inode.keep_s,
    })
}
