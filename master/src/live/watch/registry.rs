//! Which session was told about which inode. Bounded for each session: beyond the bound the one told about longest ago
//! is forgotten, and its session must be told so.

use dfs_proto::{ClientId, InodeId};
use std::collections::{BTreeMap, BTreeSet};

/// A session's inodes, each with when it was told about, in a count of its own.
#[derive(Debug, Default)]
struct Told {
    when: BTreeMap<InodeId, u64>,
    oldest: BTreeMap<u64, InodeId>,
    next: u64,
}

/// Sessions and inodes, found from either side.
#[derive(Debug)]
pub(super) struct Registry {
    told_max: usize,
    told: BTreeMap<ClientId, Told>,
    sessions: BTreeSet<(InodeId, ClientId)>,
}

impl Registry {
    /// With so many inodes for a session.
    pub(super) fn new(told_max: usize) -> Registry {
        Registry {
            told_max,
            told: BTreeMap::new(),
            sessions: BTreeSet::new(),
        }
    }

    /// The session is told about the inode. Returns one that was forgotten for it.
    pub(super) fn add(&mut self, client: ClientId, inode: InodeId) -> Option<InodeId> {
        let told = self.told.entry(client).or_default();
        let now = told.next;
        if let Some(when) = told.when.get_mut(&inode) {
            // Young enough: to move it at every look would cost more than an exact order is worth.
            if now - *when > self.told_max as u64 / 4 {
                told.oldest.remove(when);
                told.oldest.insert(now, inode);
                *when = now;
                told.next += 1;
            }
            return None;
        }
        told.next += 1;
        told.when.insert(inode, now);
        told.oldest.insert(now, inode);
        self.sessions.insert((inode, client));
        if told.when.len() <= self.told_max {
            return None;
        }
        let oldest = told.oldest.first_key_value().map(|(_, inode)| *inode)?;
        self.remove(client, oldest);
        Some(oldest)
    }

    /// The session is not told about it any more. False: it was not before.
    pub(super) fn remove(&mut self, client: ClientId, inode: InodeId) -> bool {
        let Some(told) = self.told.get_mut(&client) else {
            return false;
        };
        let Some(when) = told.when.remove(&inode) else {
            return false;
        };
        told.oldest.remove(&when);
        self.sessions.remove(&(inode, client));
        true
    }

    /// Sessions that were told about it.
    pub(super) fn sessions(&self, inode: InodeId) -> impl Iterator<Item = ClientId> {
        let all = (inode, ClientId(0))..=(inode, ClientId(u64::MAX));
        self.sessions.range(all).map(|(_, client)| *client)
    }

    /// The inode is gone for good.
    pub(super) fn gone(&mut self, inode: InodeId) {
        let sessions: Vec<ClientId> = self.sessions(inode).collect();
        for client in sessions {
            self.remove(client, inode);
        }
    }

    /// The session is over: so many of its inodes are forgotten. True: that was all.
    pub(super) fn end(&mut self, client: ClientId, most: usize) -> bool {
        let told = self.told.get(&client);
        let some: Vec<InodeId> =
            told.map_or_else(Vec::new, |told| told.when.keys().take(most).copied().collect());
        for inode in &some {
            self.remove(client, *inode);
        }
        let is_all = some.len() < most;
        if is_all {
            self.told.remove(&client);
        }
        is_all
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: ClientId = ClientId(1);
    const BOB: ClientId = ClientId(2);

    fn of(r: &Registry, inode: u64) -> Vec<ClientId> {
        r.sessions(InodeId(inode)).collect()
    }

    #[test]
    fn an_inode_has_the_sessions_that_were_told_about_it() {
        let mut r = Registry::new(100);
        for client in [BOB, ANN, BOB] {
            assert_eq!(r.add(client, InodeId(7)), None);
        }
        r.add(ANN, InodeId(8));
        assert_eq!(
            (of(&r, 7), of(&r, 8), of(&r, 9)),
            (vec![ANN, BOB], vec![ANN], vec![])
        );
        assert!(r.remove(ANN, InodeId(7)) && !r.remove(ANN, InodeId(7)));
        assert_eq!(of(&r, 7), [BOB]);
        r.gone(InodeId(8));
        r.add(BOB, InodeId(9));
        assert!(!r.end(BOB, 1) && !r.end(BOB, 1) && r.end(BOB, 1));
        assert_eq!(r.len(), 0);
    }

    #[test]
    fn beyond_the_bound_the_one_told_about_longest_ago_is_forgotten() {
        let mut r = Registry::new(4);
        for inode in 1..=4 {
            assert_eq!(r.add(ANN, InodeId(inode)), None);
        }
        r.add(BOB, InodeId(1));
        assert_eq!(r.add(ANN, InodeId(1)), None, "told about again");
        assert_eq!(r.add(ANN, InodeId(5)), Some(InodeId(2)));
        assert_eq!(r.add(ANN, InodeId(6)), Some(InodeId(3)));
        assert_eq!((of(&r, 1), of(&r, 2)), (vec![ANN, BOB], vec![]));
        for inode in 10..1_000 {
            r.add(ANN, InodeId(inode));
        }
        assert_eq!(r.len(), 5, "four of hers, one of his");
    }
}
