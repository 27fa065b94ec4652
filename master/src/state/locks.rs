//! Locks on ranges of bytes (fcntl(2), flock(2)): kept for each owner of each session as POSIX says, across sessions,
//! and gone with the session.
//!
//! An owner's ranges do not overlap, and those of one kind do not touch: a new one splits, joins and changes what was
//! there. Locks of fcntl and of flock are two families that do not meet. Waiting is not here: who waits is a soft fact.

use std::collections::BTreeSet;

use dfs_proto::{ClientId, Code, Error, InodeId, Result};

use super::context::Context;
use super::tables;
use crate::command::{Lock, LockKind, LockRange, Locked, Reply};
use crate::store::records::Lock as Range;
use crate::store::{Read, keys};

/// Ranges of one inode: looking for a conflict reads them all.
const RANGES_MAX: usize = 16_384;

/// A session's open file table or open file.
pub type Owner = (ClientId, u64);

/// The lock of another owner that is in the way, if there is one.
///
/// # Errors
/// `NotFound`, `InvalidArgument`.
pub fn lock_conflict(read: &dyn Read, client: ClientId, wanted: &Lock) -> Result<Option<LockRange>> {
    tables::inode(read, InodeId(wanted.inode))?;
    if wanted.end < wanted.start {
        return Err(Error::new(
            Code::InvalidArgument,
            "a lock ends where it begins, or behind",
        ));
    }
    Ok(conflicts(read, (client, wanted.owner), wanted).next())
}

/// The inodes on which a session has locks.
#[must_use]
pub fn locked_inodes(read: &dyn Read, client: ClientId) -> Vec<InodeId> {
    read.scan_prefix(&keys::under(keys::LOCKER, client.0))
        .map(|(key, _)| InodeId(keys::last_number(&key)))
        .collect()
}

/// True if an owner that waits for this lock waits, over others that wait, for itself.
#[must_use]
pub fn would_deadlock(read: &dyn Read, asker: Owner, wanted: &Lock, waiting: &[(Owner, Lock)]) -> bool {
    let of = |range: LockRange| (ClientId(range.client), range.owner);
    let mut seen = BTreeSet::new();
    let mut left: Vec<Owner> = conflicts(read, asker, wanted).map(of).collect();
    while let Some(holder) = left.pop() {
        if holder == asker {
            return true;
        }
        if seen.insert(holder) {
            for (_, waits_for) in waiting.iter().filter(|(owner, _)| *owner == holder) {
                left.extend(conflicts(read, holder, waits_for).map(of));
            }
        }
    }
    false
}

fn conflicts<'a>(
    read: &'a dyn Read,
    asker: Owner,
    wanted: &Lock,
) -> impl Iterator<Item = LockRange> + use<'a> {
    let wanted = *wanted;
    ranges(read, &family(wanted.inode, wanted.flock)).filter_map(move |(owner, start, range)| {
        let meets = start <= wanted.end && wanted.start <= range.end;
        let excludes = match wanted.kind() {
            LockKind::Unlock => false,
            LockKind::Shared => range.exclusive,
            LockKind::Exclusive => true,
        };
        (owner != asker && meets && excludes).then(|| told(owner, start, range))
    })
}

fn told(owner: Owner, start: u64, range: Range) -> LockRange {
    let kind = if range.exclusive {
        LockKind::Exclusive
    } else {
        LockKind::Shared
    };
    LockRange {
        client: owner.0.0,
        owner: owner.1,
        pid: range.pid,
        start,
        end: range.end,
        kind: kind as i32,
    }
}

fn family(inode: u64, flock: bool) -> Vec<u8> {
    let mut prefix = keys::under(keys::LOCK, inode);
    prefix.push(u8::from(flock));
    prefix
}

fn of_owner(inode: u64, flock: bool, owner: Owner) -> Vec<u8> {
    let mut prefix = keys::lock(InodeId(inode), flock, owner, 0);
    prefix.truncate(prefix.len() - size_of::<u64>());
    prefix
}

fn ranges<'a>(read: &'a dyn Read, prefix: &[u8]) -> impl Iterator<Item = (Owner, u64, Range)> + use<'a> {
    read.scan_prefix(prefix).map(|(key, value)| {
        let (_, _, owner, start) = keys::lock_parts(&key);
        (owner, start, tables::decode(&value))
    })
}

pub(super) fn set(ctx: &mut Context<'_, '_>, wanted: &Lock) -> Result<Reply> {
    let client = ctx
        .client
        .ok_or_else(|| Error::new(Code::InvalidArgument, "a lock belongs to a session"))?;
    if let Some(conflict) = lock_conflict(ctx.txn, client, wanted)? {
        return Ok(Reply::Locked(Locked {
            conflict: Some(conflict),
            freed: false,
        }));
    }
    let owner = (client, wanted.owner);
    let own = of_owner(wanted.inode, wanted.flock, owner);
    let before: Vec<(u64, Range)> = ranges(ctx.txn, &own)
        .map(|(_, start, range)| (start, range))
        .collect();
    let (after, freed) = changed(&before, wanted);
    let id = InodeId(wanted.inode);
    if after.len() > before.len() && all_of(ctx.txn, id).count() >= RANGES_MAX {
        return Err(Error::new(Code::NoSpace, "the inode has too many locks"));
    }
    let key = |start| keys::lock(id, wanted.flock, owner, start);
    for (start, _) in before.iter().filter(|b| !after.iter().any(|a| a.0 == b.0)) {
        ctx.txn.remove(key(*start));
    }
    for (start, range) in after.iter().filter(|a| !before.contains(a)) {
        tables::save(ctx.txn, key(*start), range);
    }
    mark(ctx, client, id);
    Ok(Reply::Locked(Locked {
        conflict: None,
        freed,
    }))
}

fn all_of(read: &dyn Read, id: InodeId) -> impl Iterator<Item = (Owner, u64, Range)> + use<'_> {
    ranges(read, &keys::under(keys::LOCK, id.0))
}

/// The session is listed with the inodes where it has locks.
fn mark(ctx: &mut Context<'_, '_>, client: ClientId, id: InodeId) {
    let key = keys::locker(client, id);
    let has = all_of(ctx.txn, id).any(|(owner, ..)| owner.0 == client);
    match (has, ctx.txn.contains(&key)) {
        (true, false) => ctx.txn.put(key, []),
        (false, true) => ctx.txn.remove(key),
        (true, true) | (false, false) => {}
    }
}

/// An owner's ranges after a change, in order, and whether any byte is less locked than before.
fn changed(before: &[(u64, Range)], wanted: &Lock) -> (Vec<(u64, Range)>, bool) {
    let kind = wanted.kind();
    let (mut parts, mut freed) = (Vec::with_capacity(before.len() + 2), false);
    for (start, range) in before.iter().copied() {
        if range.end < wanted.start || start > wanted.end {
            parts.push((start, range));
            continue;
        }
        freed |= kind == LockKind::Unlock || (kind == LockKind::Shared && range.exclusive);
        if start < wanted.start {
            let end = wanted.start - 1;
            parts.push((start, Range { end, ..range }));
        }
        if range.end > wanted.end {
            parts.push((wanted.end + 1, range));
        }
    }
    if kind != LockKind::Unlock {
        let range = Range {
            end: wanted.end,
            exclusive: kind == LockKind::Exclusive,
            pid: wanted.pid,
        };
        parts.push((wanted.start, range));
    }
    parts.sort_unstable_by_key(|(start, _)| *start);
    (joined(parts), freed)
}

/// Ranges that touch and are alike become one.
fn joined(parts: Vec<(u64, Range)>) -> Vec<(u64, Range)> {
    let mut all: Vec<(u64, Range)> = Vec::with_capacity(parts.len());
    for (start, range) in parts {
        match all.last_mut() {
            Some((_, last))
                if last.end.checked_add(1) == Some(start)
                    && (last.exclusive, last.pid) == (range.exclusive, range.pid) =>
            {
                last.end = range.end;
            }
            Some(_) | None => all.push((start, range)),
        }
    }
    all
}

/// A session ends: its locks with it.
pub(super) fn end_client(ctx: &mut Context<'_, '_>, client: ClientId) {
    for id in locked_inodes(ctx.txn, client) {
        remove(ctx, id, |owner| owner.0 == client);
        ctx.txn.remove(keys::locker(client, id));
    }
}

/// The inode goes: all locks on it too.
pub(super) fn remove_all(ctx: &mut Context<'_, '_>, id: InodeId) {
    for client in remove(ctx, id, |_| true) {
        ctx.txn.remove(keys::locker(client, id));
    }
}

/// Returns whose locks they were.
fn remove(ctx: &mut Context<'_, '_>, id: InodeId, of: impl Fn(Owner) -> bool) -> BTreeSet<ClientId> {
    let gone: Vec<_> = ctx
        .txn
        .scan_prefix(&keys::under(keys::LOCK, id.0))
        .map(|(key, _)| (keys::lock_parts(&key).2, key))
        .filter(|(owner, _)| of(*owner))
        .collect();
    let mut clients = BTreeSet::new();
    for (owner, key) in gone {
        clients.insert(owner.0);
        ctx.txn.remove(key);
    }
    clients
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(start: u64, end: u64, kind: LockKind) -> Lock {
        Lock {
            start,
            end,
            kind: kind as i32,
            ..Lock::default()
        }
    }

    fn kinds() -> impl Strategy<Value = LockKind> {
        prop_oneof![
            Just(LockKind::Unlock),
            Just(LockKind::Shared),
            Just(LockKind::Exclusive)
        ]
    }

    proptest! {
        #[test]
        fn ranges_say_of_each_byte_what_was_asked_last(
            steps in prop::collection::vec((0_u64..20, 0_u64..20, kinds()), 1..30),
        ) {
            let (mut ranges, mut bytes) = (Vec::new(), [LockKind::Unlock; 20]);
            for (a, b, kind) in steps {
                let (start, end) = (a.min(b), a.max(b));
                let old = bytes;
                bytes[start as usize..=end as usize].fill(kind);
                let (after, freed) = changed(&ranges, &wanted(start, end, kind));
                ranges = after;
                prop_assert_eq!(freed, old.iter().zip(&bytes).any(|(old, new)| new < old));
                let mut last_end = None;
                for (start, range) in &ranges {
                    prop_assert!(*start <= range.end && last_end.is_none_or(|end| end < *start));
                    last_end = Some(range.end);
                }
                for (n, kind) in bytes.iter().enumerate() {
                    let n = n as u64;
                    let found = ranges.iter().find(|(start, r)| *start <= n && n <= r.end);
                    let found = found.map_or(LockKind::Unlock, |(_, r)| match r.exclusive {
                        true => LockKind::Exclusive,
                        false => LockKind::Shared,
                    });
                    prop_assert_eq!(found, *kind);
                }
            }
        }
    }

    #[test]
    fn ranges_reach_to_the_end_and_join_there() {
        let all = wanted(0, u64::MAX, LockKind::Shared);
        let (ranges, _) = changed(&[], &all);
        let (ranges, freed) = changed(&ranges, &wanted(u64::MAX, u64::MAX, LockKind::Unlock));
        assert!(freed && ranges.len() == 1 && ranges[0].1.end == u64::MAX - 1);
        let (ranges, freed) = changed(&ranges, &wanted(u64::MAX, u64::MAX, LockKind::Shared));
        assert!(!freed);
        assert_eq!(ranges.len(), 1, "they touch and are alike");
    }
}
