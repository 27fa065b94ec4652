//! Every invariant that holds between tables, over the whole state: what tests ask after each step, and an operator when
//! in doubt. Reads everything and keeps counts of everything in memory.
//!
//! Not here: whether bytes exist on any server.

mod chunks;
mod mounts;
mod sessions;
mod trash;
mod tree;

use std::collections::BTreeSet;

use super::tables;
use crate::store::{Read, keys};

/// Violations named in one answer.
const PROBLEMS_MAX: usize = 100;

/// What is wrong; empty if nothing is.
#[must_use]
pub fn check(read: &dyn Read) -> Vec<String> {
    let mut problems = Problems(Vec::new());
    if tables::cluster(read).is_none() {
        problems.expect(read.scan(&[1], &[0xff]).next().is_none(), || {
            "there is state without a cluster".into()
        });
        return problems.0;
    }
    check_tables(read, &mut problems);
    tree::check(read, &mut problems);
    chunks::check(read, &mut problems);
    sessions::check(read, &mut problems);
    mounts::check(read, &mut problems);
    trash::check(read, &mut problems);
    problems.0
}

/// What was found so far.
struct Problems(Vec<String>);

impl Problems {
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds && self.0.len() < PROBLEMS_MAX {
            self.0.push(otherwise());
        }
    }

    fn expect_equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, stored: T, counted: T) {
        self.expect(stored == counted, || {
            format!("{what}: stored {stored:?}, counted {counted:?}")
        });
    }
}

fn check_tables(read: &dyn Read, problems: &mut Problems) {
    let known = BTreeSet::from([
        keys::CLUSTER,
        keys::COUNTERS,
        keys::KEYS,
        keys::INODE,
        keys::DENTRY,
        keys::CURSOR,
        keys::EXTENT,
        keys::XATTR,
        keys::HOLDER,
        keys::LOCK,
        keys::CHUNK,
        keys::PROPOSAL,
        keys::COLLECT,
        keys::CLIENT,
        keys::NONCE,
        keys::RESULT,
        keys::HELD,
        keys::LOCKER,
        keys::SERVER,
        keys::IDENTITY,
        keys::DISK,
        keys::TRASH,
        keys::TRASH_DUE,
    ]);
    for (key, _) in read.scan(&[1], &[0xff]) {
        problems.expect(known.contains(&key[0]), || {
            format!("key {key:02x?} is of no table")
        });
    }
}
