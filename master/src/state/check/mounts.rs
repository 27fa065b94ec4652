//! What sessions hold: removed inodes and locks, each with its session and its inode, told both ways round.

use std::collections::BTreeSet;

use dfs_proto::{ClientId, InodeId};

use super::super::{clients, locks, tables};
use super::Problems;
use crate::store::records::{Kind, Lock};
use crate::store::{Read, keys};

pub(super) fn check(read: &dyn Read, problems: &mut Problems) {
    check_holders(read, problems);
    check_ranges(read, problems);
}

fn check_holders(read: &dyn Read, problems: &mut Problems) {
    let mut all = 0;
    for (key, _) in read.scan_prefix(&[keys::HOLDER]) {
        all += 1;
        let (inode, client) = (
            InodeId(keys::number(&key[1..9])),
            ClientId(keys::last_number(&key)),
        );
        let what = || format!("client {client} holds inode {inode}");
        let is_removed =
            tables::inode(read, inode).is_ok_and(|i| i.nlink == 0 && i.kind() != Kind::Directory);
        problems.expect(is_removed, || format!("{}, which is not removed", what()));
        problems.expect(clients::client(read, client).is_some(), || {
            format!("{} and has ended", what())
        });
        problems.expect(read.contains(&keys::held(client, inode)), || {
            format!("{} and does not list it", what())
        });
    }
    problems.expect_equal("held inodes", read.scan_prefix(&[keys::HELD]).count(), all);
}

fn check_ranges(read: &dyn Read, problems: &mut Problems) {
    let mut lockers = BTreeSet::new();
    let mut before: Option<(InodeId, bool, locks::Owner, Lock)> = None;
    for (key, value) in read.scan_prefix(&[keys::LOCK]) {
        let (inode, flock, owner, start) = keys::lock_parts(&key);
        let range: Lock = tables::decode(&value);
        lockers.insert((owner.0, inode));
        let what = || format!("the lock of {owner:?} on inode {inode} from {start}");
        let apart = before
            .as_ref()
            .filter(|b| (b.0, b.1, b.2) == (inode, flock, owner))
            .is_none_or(|(.., last)| {
                let alike = (last.exclusive, last.pid) == (range.exclusive, range.pid);
                last.end < start && !(alike && last.end.checked_add(1) == Some(start))
            });
        problems.expect(apart && start <= range.end, || {
            format!("{} is not apart from the one before", what())
        });
        problems.expect(tables::inode(read, inode).is_ok(), || {
            format!("{} has no inode", what())
        });
        problems.expect(clients::client(read, owner.0).is_some(), || {
            format!("{} is of a session that has ended", what())
        });
        before = Some((inode, flock, owner, range));
    }
    let listed: BTreeSet<_> = read
        .scan_prefix(&[keys::LOCKER])
        .map(|(key, _)| {
            (
                ClientId(keys::number(&key[1..9])),
                InodeId(keys::last_number(&key)),
            )
        })
        .collect();
    problems.expect_equal("sessions with locks", listed, lockers);
}
