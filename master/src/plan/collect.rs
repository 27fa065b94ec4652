//! What may be deleted for good (protocol, section 7): chunks nothing refers to, and replicas nobody knows.
//!
//! A master that was restored from a backup cannot delete what it does not know: handles above the newest one it ever
//! gave are never deleted, other unknown ones only after a week and slowly.

use dfs_proto::{ChunkHandle, NodeId, Version};
use std::collections::BTreeMap;
use std::time::Duration;

/// An unknown replica is kept so long.
pub const UNKNOWN_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of all chunks, this many per mille may be deleted as unknown in an hour.
pub const UNKNOWN_PER_MILLE_AN_HOUR: u64 = 10;

/// A chunk nothing refers to.
#[derive(Clone, Debug)]
pub struct Unreferenced {
    /// Nanoseconds since 1970: since when.
    pub since_ns: i64,
    /// Index of the command that made it.
    pub birth: u64,
    /// Its newest version.
    pub newest: Version,
    /// Its replicas know more than the master.
    pub frozen: bool,
    /// Who may have a replica: possible holders, and all that have reported one.
    pub holders: BTreeMap<NodeId, Holder>,
}

/// A server that may have a replica of a chunk nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It can be told to delete it.
    Connected,
    /// It may come back with it.
    Away,
    /// It has none any more, or it never comes back.
    Clean,
}

/// What to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not now.
    Wait,
    /// Order these to delete.
    Delete(Vec<NodeId>, Version),
    /// Nobody has it any more: forget it.
    Forget,
}

/// Judges a chunk nothing refers to.
#[must_use]
pub fn unreferenced(chunk: &Unreferenced, now_ns: i64, grace: Duration, applied: u64) -> Verdict {
    let age_ns = now_ns.saturating_sub(chunk.since_ns);
    let grace_ns = i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX);
    if chunk.frozen || chunk.birth > applied || age_ns < grace_ns {
        return Verdict::Wait;
    }
    let told: Vec<NodeId> = chunk
        .holders
        .iter()
        .filter(|(_, h)| **h == Holder::Connected)
        .map(|(n, _)| *n)
        .collect();
    if !told.is_empty() {
        Verdict::Delete(told, chunk.newest)
    } else if chunk.holders.values().all(|h| *h == Holder::Clean) {
        Verdict::Forget
    } else {
        Verdict::Wait
    }
}

/// True if a replica of an unknown chunk may be deleted now.
#[must_use]
pub fn unknown(chunk: ChunkHandle, next_chunk: u64, seen_for: Duration, kept: Duration) -> bool {
    chunk.0 < next_chunk && seen_for >= kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(300);
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn chunk(holders: &[(NodeId, Holder)]) -> Unreferenced {
        Unreferenced {
            since_ns: 0,
            birth: 5,
            newest: Version(3),
            frozen: false,
            holders: holders.iter().copied().collect(),
        }
    }

    fn late(c: &Unreferenced) -> Verdict {
        unreferenced(c, 300_000_000_000, GRACE, 5)
    }

    #[test]
    fn a_chunk_waits_for_its_grace_time() {
        let c = chunk(&[(A, Holder::Connected)]);
        assert_eq!(unreferenced(&c, 299_999_999_999, GRACE, 5), Verdict::Wait);
        assert_eq!(late(&c), Verdict::Delete(vec![A], Version(3)));
    }

    #[test]
    fn nothing_is_deleted_that_is_younger_than_what_is_applied() {
        assert_eq!(
            unreferenced(&chunk(&[(A, Holder::Connected)]), i64::MAX, GRACE, 4),
            Verdict::Wait
        );
    }

    #[test]
    fn a_frozen_chunk_stays() {
        let frozen = Unreferenced {
            frozen: true,
            ..chunk(&[(A, Holder::Connected)])
        };
        assert_eq!(late(&frozen), Verdict::Wait);
    }

    #[test]
    fn it_is_forgotten_when_no_holder_can_have_it() {
        assert_eq!(
            late(&chunk(&[(A, Holder::Clean), (B, Holder::Clean)])),
            Verdict::Forget
        );
        let b_away = chunk(&[(A, Holder::Clean), (B, Holder::Away)]);
        assert_eq!(late(&b_away), Verdict::Wait, "B may come back with it");
    }

    #[test]
    fn an_unknown_chunk_waits_a_week_and_a_later_one_for_ever() {
        let week = UNKNOWN_KEPT;
        assert!(unknown(ChunkHandle(5), 6, week, week));
        assert!(!unknown(ChunkHandle(5), 6, week - Duration::from_secs(1), week));
        assert!(
            !unknown(ChunkHandle(6), 6, week * 9, week),
            "the master never gave this handle"
        );
    }
}
