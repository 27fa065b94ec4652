//! What was removed and is kept for a while, or is being removed piece by piece.
//!
//! The trash is a directory that no path leads to. What is discarded moves there, under the index of its command in hex,
//! with a record of where it was: one rename, whatever is below it. When it is due it goes a few names at a time, so that
//! a tree of a million files stops nobody. A tree that skips the trash is there, too, but due at once and for nobody to
//! have back.

use std::collections::BTreeMap;

use dfs_proto::name::Name;
use dfs_proto::{Code, Error, InodeId, Result};

use super::access::{self, Access};
use super::attributes::touch;
use super::context::Context;
use super::entries::{self, Place};
use super::orphans::{self, Keepers};
use super::{chunks, files, names, rename, tables};
use crate::command::{
    Changed, Discard, Done, EmptyTrash, ForgetChunks, Purge, PurgeStep, Purged, Reply, Restore, Retain,
};
use crate::store::records::{Dentry, Inode, Kind, Trashed};
use crate::store::{Read, Txn, keys};

/// Chunks of one file that one step frees; a longer file takes several.
pub(super) const STEP_CHUNKS: usize = 256;
/// Entries that one command may name.
const ENTRIES_MAX: usize = 4_096;

/// The directory of the trash, if there ever was anything in it.
#[must_use]
pub fn trash_directory(read: &dyn Read) -> Option<InodeId> {
    let id = tables::counters(read).trash;
    (id != 0).then_some(InodeId(id))
}

/// Entries behind `after`, at most `max`.
#[must_use]
pub fn trashed_after(read: &dyn Read, after: u64, max: usize) -> Vec<(u64, Trashed)> {
    read.scan(&keys::trash(after.saturating_add(1)), &[keys::TRASH + 1])
        .take(max)
        .map(|(key, value)| (keys::last_number(&key), tables::decode(&value)))
        .collect()
}

/// Entries that are due by now, the oldest first, behind one that was named before; with their times.
#[must_use]
pub fn trash_due(read: &dyn Read, now_ns: i64, after: Option<(i64, u64)>, max: usize) -> Vec<(i64, u64)> {
    let start = after.map_or_else(
        || keys::single(keys::TRASH_DUE),
        |(due, entry)| keys::trash_due(due, entry.saturating_add(1)),
    );
    read.scan(&start, &keys::trash_due(now_ns.saturating_add(1), 0))
        .take(max)
        .map(|(key, _)| {
            let ordered = keys::number(&key[1..9]);
            ((ordered ^ (1 << 63)).cast_signed(), keys::last_number(&key))
        })
        .collect()
}

/// How long the trash keeps what is removed in this directory, seconds: by the nearest directory that says so.
#[must_use]
pub fn retention(read: &dyn Read, directory: InodeId) -> Option<u64> {
    let mut at = directory;
    loop {
        let inode = tables::inode(read, at).ok()?;
        if inode.keep_s.is_some() || at == InodeId::ROOT {
            return inode.keep_s;
        }
        at = InodeId(inode.parent);
    }
}

/// Its name in the directory of the trash.
fn place(bin: InodeId, entry: u64) -> Place {
    Place {
        parent: bin,
        name: Name::new(format!("{entry:016x}").into_bytes()).expect("hex digits are a name"),
    }
}

fn saved(read: &dyn Read, entry: u64) -> Option<Trashed> {
    tables::load(read, &keys::trash(entry))
}

/// The directory of the trash, made when it is first needed.
fn bin(ctx: &mut Context<'_, '_>) -> InodeId {
    if let Some(bin) = trash_directory(ctx.txn) {
        return bin;
    }
    let mut id = 0;
    tables::count(ctx.txn, |c| {
        id = c.next_inode;
        c.next_inode += 1;
        c.trash = id;
    });
    let made = Inode {
        kind: Kind::Directory as i32,
        mode: 0o700,
        nlink: 2,
        atime_ns: ctx.now_ns,
        mtime_ns: ctx.now_ns,
        ctime_ns: ctx.now_ns,
        change: 1,
        parent: InodeId::ROOT.0,
        ..Inode::default()
    };
    tables::save_inode(ctx.txn, InodeId(id), &made);
    InodeId(id)
}

pub(super) fn discard(ctx: &mut Context<'_, '_>, asked: &Discard) -> Result<Reply> {
    let (from, directory, dentry) = names::find_existing(ctx, asked.parent, &asked.name)?;
    let id = InodeId(dentry.inode);
    let inode = tables::known_inode(ctx.txn, id);
    access::require_removal(&ctx.caller, &directory, &inode)?;
    let is_directory = inode.kind() == Kind::Directory;
    if is_directory && !asked.recursive {
        return Err(Code::IsADirectory.into());
    }
    if is_directory && inode.entries > 0 {
        access::require(&ctx.caller, &inode, Access::WRITE.and(Access::EXECUTE))?;
    }
    let is_trash =
        trash_directory(ctx.txn).is_some_and(|bin| rename::is_at_or_below(ctx.txn, from.parent, bin));
    let keep_ns = if asked.skip || is_trash {
        0
    } else {
        retention(ctx.txn, from.parent).map_or(asked.keep_ns, |s| s.saturating_mul(1_000_000_000))
    };
    let is_brief = if is_directory {
        inode.entries == 0
    } else {
        inode.chunks <= STEP_CHUNKS as u64
    };
    entries::remove(ctx, &from, dentry);
    let gone = if keep_ns > 0 || !is_brief {
        keep(ctx, asked, (&from, id, inode.kind()), keep_ns);
        names::now(ctx, id)
    } else if is_directory {
        let last = names::forget_directory(ctx, id);
        super::lookup::attributes_of(ctx.txn, id, &last)
    } else {
        let keepers = Keepers {
            sessions: &asked.holders,
            chosen_for: asked.dying,
        };
        let last = orphans::drop_link(ctx, id, &keepers)?;
        super::lookup::attributes_of(ctx.txn, id, &last)
    };
    Ok(Reply::Done(Done {
        touched: vec![gone, names::now(ctx, from.parent)],
    }))
}

/// Into the trash, for so long; 0: nobody can have it back.
fn keep(ctx: &mut Context<'_, '_>, asked: &Discard, what: (&Place, InodeId, Kind), keep_ns: u64) {
    let (from, id, kind) = what;
    let bin = bin(ctx);
    let entry = ctx.index;
    entries::add(ctx, &place(bin, entry), id, kind);
    let now_ns = ctx.now_ns;
    tables::edit_inode(ctx.txn, id, |inode| {
        if kind == Kind::Directory {
            inode.parent = bin.0;
        }
        touch(inode, now_ns);
    });
    let trashed = Trashed {
        inode: id.0,
        kind: kind as i32,
        parent: from.parent.0,
        name: from.name.as_bytes().to_vec(),
        path: asked.path.clone(),
        uid: ctx.caller.uid,
        removed_ns: now_ns,
        due_ns: now_ns.saturating_add_unsigned(keep_ns),
        gone: keep_ns == 0,
    };
    ctx.txn.put(keys::trash_due(trashed.due_ns, entry), []);
    tables::save(ctx.txn, keys::trash(entry), &trashed);
}

fn forget(txn: &mut Txn<'_>, entry: u64, trashed: &Trashed) {
    txn.remove(keys::trash(entry));
    txn.remove(keys::trash_due(trashed.due_ns, entry));
}

/// An entry that the caller may have back, or do away with.
fn own(ctx: &Context<'_, '_>, entry: u64) -> Result<Trashed> {
    let trashed = saved(ctx.txn, entry).filter(|t| !t.gone);
    let trashed = trashed.ok_or_else(|| Error::new(Code::NotFound, "that is not in the trash"))?;
    if ctx.caller.is_root() || ctx.caller.uid == trashed.uid {
        Ok(trashed)
    } else {
        Err(Error::new(Code::NotPermitted, "somebody else removed it"))
    }
}

pub(super) fn restore(ctx: &mut Context<'_, '_>, asked: &Restore) -> Result<Reply> {
    let trashed = own(ctx, asked.entry)?;
    let bin = bin(ctx);
    let id = InodeId(trashed.inode);
    let (parent, name) = match asked.parent {
        0 => (trashed.parent, &trashed.name),
        chosen if asked.name.is_empty() => (chosen, &trashed.name),
        chosen => (chosen, &asked.name),
    };
    let gone = || {
        Error::new(
            Code::NotFound,
            "the directory it was in is gone: say where it is to be",
        )
    };
    let (to, directory, taken) = names::find(ctx, parent, name).map_err(|error| match error.code {
        Code::NotFound | Code::NotADirectory if asked.parent == 0 => gone(),
        _ => error,
    })?;
    if rename::is_at_or_below(ctx.txn, to.parent, bin) {
        return Err(gone());
    }
    if taken.is_some() {
        return Err(Code::AlreadyExists.into());
    }
    names::require_creation(ctx, &directory)?;
    let from = place(bin, asked.entry);
    let dentry = known_dentry(ctx.txn, &from);
    entries::remove(ctx, &from, dentry);
    entries::add(ctx, &to, id, dentry.kind());
    rename::arrive(ctx, id, to.parent);
    forget(ctx.txn, asked.entry, &trashed);
    Ok(Reply::Changed(Changed {
        attributes: names::now(ctx, id),
        touched: vec![names::now(ctx, to.parent)],
        ..Changed::default()
    }))
}

fn known_dentry(read: &dyn Read, place: &Place) -> Dentry {
    tables::dentry(read, place.parent, place.name.as_bytes())
        .expect("an entry of the trash has its name there")
}

pub(super) fn empty(ctx: &mut Context<'_, '_>, asked: &EmptyTrash) -> Result<Reply> {
    if asked.entries.len() > ENTRIES_MAX {
        return Err(Error::new(Code::InvalidArgument, "too many entries at once"));
    }
    for entry in &asked.entries {
        let trashed = match own(ctx, *entry) {
            Ok(trashed) => trashed,
            Err(error) if error.code == Code::NotFound => continue,
            Err(error) => return Err(error),
        };
        ctx.txn.remove(keys::trash_due(trashed.due_ns, *entry));
        let due = Trashed {
            due_ns: trashed.due_ns.min(ctx.now_ns),
            gone: true,
            ..trashed
        };
        ctx.txn.put(keys::trash_due(due.due_ns, *entry), []);
        tables::save(ctx.txn, keys::trash(*entry), &due);
    }
    Ok(Reply::Done(Done::default()))
}

pub(super) fn retain(ctx: &mut Context<'_, '_>, asked: &Retain) -> Result<Reply> {
    let id = InodeId(asked.inode);
    let mut inode = tables::directory(ctx.txn, id)?;
    access::require_owner(&ctx.caller, &inode)?;
    inode.keep_s = asked.keep_s;
    touch(&mut inode, ctx.now_ns);
    tables::save_inode(ctx.txn, id, &inode);
    Ok(Reply::Done(Done {
        touched: vec![names::now(ctx, id)],
    }))
}

pub(super) fn purge(ctx: &mut Context<'_, '_>, asked: &Purge) -> Result<Reply> {
    let trashed = saved(ctx.txn, asked.entry).filter(|t| t.due_ns <= ctx.now_ns);
    let (Some(trashed), Some(bin)) = (trashed, trash_directory(ctx.txn)) else {
        return Ok(Reply::Purged(Purged::default()));
    };
    let mut belongs: BTreeMap<u64, bool> = BTreeMap::new();
    let mut gone = 0;
    for step in &asked.steps {
        let parent = InodeId(step.parent);
        let is_inside = parent == bin || {
            let read: &dyn Read = ctx.txn;
            let top = InodeId(trashed.inode);
            *belongs
                .entry(step.parent)
                .or_insert_with(|| tables::inode(read, parent).is_ok() && is_below(read, parent, (top, bin)))
        };
        gone += u64::from(is_inside && remove(ctx, (bin, asked.entry, &trashed), step)?);
    }
    Ok(Reply::Purged(Purged { gone }))
}

/// True if the directory is `top`, which is in the trash, or below it.
fn is_below(read: &dyn Read, directory: InodeId, (top, bin): (InodeId, InodeId)) -> bool {
    rename::is_at_or_below(read, directory, top) && rename::is_at_or_below(read, top, bin)
}

/// One name, if it still means what it meant. False: it stays.
fn remove(ctx: &mut Context<'_, '_>, within: (InodeId, u64, &Trashed), step: &PurgeStep) -> Result<bool> {
    let (bin, entry, trashed) = within;
    let (id, parent) = (InodeId(step.inode), InodeId(step.parent));
    let Ok(name) = Name::new(step.name.clone()) else {
        return Ok(false);
    };
    let from = Place { parent, name };
    let found = tables::dentry(ctx.txn, parent, &step.name).filter(|d| d.inode == step.inode);
    let Some(dentry) = found else { return Ok(false) };
    let is_top = parent == bin;
    if is_top && from.name.as_bytes() != place(bin, entry).name.as_bytes() {
        return Ok(false);
    }
    let mut inode = tables::known_inode(ctx.txn, id);
    if inode.kind() == Kind::Directory {
        if inode.entries > 0 {
            return Ok(false);
        }
        entries::remove(ctx, &from, dentry);
        names::forget_directory(ctx, id);
    } else if inode.nlink == 1 && step.holders.is_empty() && inode.chunks > STEP_CHUNKS as u64 {
        files::free_last(ctx, id, &mut inode, STEP_CHUNKS);
        return Ok(true);
    } else {
        entries::remove(ctx, &from, dentry);
        let keepers = Keepers {
            sessions: &step.holders,
            chosen_for: Some(id.0),
        };
        orphans::drop_link(ctx, id, &keepers)?;
    }
    if is_top {
        forget(ctx.txn, entry, trashed);
    }
    Ok(true)
}

pub(super) fn forget_chunks(ctx: &mut Context<'_, '_>, asked: &ForgetChunks) -> Result<Reply> {
    let mut gone = 0;
    for chunk in &asked.chunks {
        let one = crate::command::ForgetChunk { chunk: *chunk };
        gone += u64::from(chunks::forget(ctx, &one).is_ok());
    }
    Ok(Reply::Purged(Purged { gone }))
}
