//! Who waits for a lock: sessions that are told when they may try again, and what a ring of waiters is found by.
//!
//! Soft: a waiter that is forgotten (a restart, a full table) tries again by itself.

use crate::command::Lock;
use crate::state::Owner;
use dfs_proto::{ClientId, InodeId};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Waiters remembered at once; looking for a ring reads those of fcntl.
const WAITERS_MAX: usize = 10_000;

/// A waiter tries again every second: one that has not for so long has stopped waiting.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// Waiters by inode and owner: an owner's threads may wait for several ranges, the newest one counts.
#[derive(Debug, Default)]
pub struct Waiters {
    by_inode: BTreeMap<InodeId, BTreeMap<(Owner, bool), Waiter>>,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    wanted: Lock,
    asked: Instant,
}

impl Waiters {
    /// An owner waits until this can be locked.
    pub fn wait(&mut self, owner: Owner, wanted: Lock, now: Instant) {
        let inode = InodeId(wanted.inode);
        self.retain(inode, |_, waiter| now < waiter.asked + PATIENCE);
        if self.count >= WAITERS_MAX {
            return;
        }
        let waiter = Waiter { wanted, asked: now };
        let waiting = self.by_inode.entry(inode).or_default();
        if waiting.insert((owner, wanted.flock), waiter).is_none() {
            self.count += 1;
        }
    }

    /// It does not wait any more.
    pub fn stop(&mut self, owner: Owner, inode: InodeId, flock: bool) {
        self.retain(inode, |key, _| key != (owner, flock));
    }

    /// The session has ended.
    pub fn end_client(&mut self, client: ClientId) {
        let inodes: Vec<InodeId> = self.by_inode.keys().copied().collect();
        for inode in inodes {
            self.retain(inode, |((of, _), _), _| of != client);
        }
    }

    fn retain(&mut self, inode: InodeId, keep: impl Fn((Owner, bool), &Waiter) -> bool) {
        if let Some(waiting) = self.by_inode.get_mut(&inode) {
            let before = waiting.len();
            waiting.retain(|key, waiter| keep(*key, waiter));
            self.count -= before - waiting.len();
            if waiting.is_empty() {
                self.by_inode.remove(&inode);
            }
        }
    }

    /// Sessions that wait for locks of this inode. They stay listed: whoever comes too late waits on.
    #[must_use]
    pub fn of(&self, inode: InodeId) -> BTreeSet<ClientId> {
        let waiting = self.by_inode.get(&inode);
        waiting.map_or_else(BTreeSet::new, |w| {
            w.keys().map(|((client, _), _)| *client).collect()
        })
    }

    /// All that wait for locks of fcntl.
    #[must_use]
    pub fn of_fcntl(&self, now: Instant) -> Vec<(Owner, Lock)> {
        let all = self.by_inode.values().flatten();
        all.filter(|((_, flock), waiter)| !flock && now < waiter.asked + PATIENCE)
            .map(|((owner, _), waiter)| (*owner, waiter.wanted))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_waits_until_it_stops_or_ends() {
        let mut waiters = Waiters::default();
        let (ann, bob) = ((ClientId(1), 7), (ClientId(2), 8));
        let wanted = |inode, flock| Lock {
            inode,
            flock,
            ..Lock::default()
        };
        let t = Instant::now();
        waiters.wait(ann, wanted(5, false), t);
        waiters.wait(ann, wanted(5, true), t);
        waiters.wait(bob, wanted(5, false), t);
        waiters.wait(bob, wanted(6, false), t);
        assert_eq!(waiters.of(InodeId(5)), BTreeSet::from([ann.0, bob.0]));
        assert_eq!(waiters.of_fcntl(t).len(), 3);
        assert!(
            waiters.of_fcntl(t + PATIENCE).is_empty(),
            "they would have asked again"
        );
        waiters.stop(ann, InodeId(5), false);
        waiters.stop(ann, InodeId(5), true);
        assert_eq!(waiters.of(InodeId(5)), BTreeSet::from([bob.0]));
        waiters.end_client(bob.0);
        assert!(waiters.of(InodeId(6)).is_empty() && waiters.count == 0);
    }
}
