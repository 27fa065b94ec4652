//! The trash in messages.

use super::{Answered, Change, Query, bytes, kind, unexpected};
use crate::types::{Discard, Retention, Trashed};
use dfs_proto::{InodeId, Result, pb};
use pb::query_reply::Result as Reply;
use std::time::Duration;

pub(crate) fn discard((parent, name): (InodeId, &[u8]), path: &[u8], how: Discard) -> Change {
    Change::Discard(pb::Discard {
        parent: parent.0,
        name: bytes(name),
        path: bytes(path),
        recursive: how.recursive,
        skip_trash: how.skip_trash,
    })
}

pub(crate) fn restore(entry: u64, to: Option<(InodeId, &[u8])>) -> Change {
    Change::RestoreTrash(pb::RestoreTrash {
        entry,
        parent: to.map_or(0, |(parent, _)| parent.0),
        name: to.map_or_else(Default::default, |(_, name)| bytes(name)),
    })
}

pub(crate) fn empty_trash(entries: &[u64]) -> Change {
    Change::EmptyTrash(pb::EmptyTrash {
        entries: entries.to_vec(),
    })
}

pub(crate) fn retain(directory: InodeId, keep: Option<Duration>) -> Change {
    Change::Retain(pb::Retain {
        inode: directory.0,
        keep_s: keep.map(|k| k.as_secs()),
    })
}

pub(crate) fn list_trash(after: u64, entries_max: u32) -> Query {
    Query::ListTrash(pb::ListTrash { after, entries_max })
}

pub(crate) fn get_retention(directory: InodeId) -> Query {
    Query::GetRetention(pb::GetRetention { inode: directory.0 })
}

/// A page, and where the next one begins (0: there is none).
pub(crate) fn trash_page(answer: Answered) -> Result<(Vec<Trashed>, u64)> {
    let Some(Reply::Trash(page)) = answer.result else {
        return Err(unexpected("what is in the trash"));
    };
    let entries = page.entries.into_iter().map(entry).collect::<Result<_>>()?;
    Ok((entries, page.next))
}

fn entry(e: pb::TrashEntry) -> Result<Trashed> {
    Ok(Trashed {
        kind: kind(e.kind())?,
        entry: e.entry,
        inode: InodeId(e.inode),
        size: e.size,
        path: e.path.into(),
        parent: InodeId(e.parent),
        name: e.name.into(),
        uid: e.uid,
        removed_ns: e.removed_ns,
        due_ns: e.due_ns,
    })
}

pub(crate) fn retention(answer: Answered) -> Result<Retention> {
    let Some(Reply::Retention(r)) = answer.result else {
        return Err(unexpected("how long the trash keeps"));
    };
    Ok(Retention {
        keep: Duration::from_secs(r.keep_s),
        own: r.own_s.map(Duration::from_secs),
    })
}
