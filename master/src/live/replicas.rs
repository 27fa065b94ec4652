//! Which server has reported which replica. What a server without a session reported last is kept: it may come back.

use crate::plan::order::Kind;
use crate::plan::repair::Replica;
use dfs_proto::{ChunkHandle, NodeId, Version};
use std::collections::{BTreeMap, BTreeSet};

/// Replicas by chunk and by server.
#[derive(Debug, Default)]
pub struct Replicas {
    by_chunk: BTreeMap<(ChunkHandle, NodeId), Replica>,
    by_node: BTreeMap<NodeId, BTreeSet<ChunkHandle>>,
    /// Inventories under way: what was not named so far.
    unnamed: BTreeMap<NodeId, BTreeSet<ChunkHandle>>,
    unknown: BTreeSet<(ChunkHandle, NodeId)>,
}

impl Replicas {
    /// Replicas of a chunk, in order of node.
    pub fn of(&self, chunk: ChunkHandle) -> impl Iterator<Item = (NodeId, Replica)> + '_ {
        self.by_chunk
            .range((chunk, NodeId(0))..=(chunk, NodeId(u32::MAX)))
            .map(|((_, node), replica)| (*node, *replica))
    }

    /// One replica.
    #[must_use]
    pub fn get(&self, chunk: ChunkHandle, node: NodeId) -> Option<Replica> {
        self.by_chunk.get(&(chunk, node)).copied()
    }

    /// How many a server has.
    #[must_use]
    pub fn count(&self, node: NodeId) -> usize {
        self.by_node.get(&node).map_or(0, BTreeSet::len)
    }

    /// Up to `max` chunks of a server, behind `after`.
    #[must_use]
    pub fn chunks_after(&self, node: NodeId, after: ChunkHandle, max: usize) -> Vec<ChunkHandle> {
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.by_node
            .get(&node)
            .map_or_else(Vec::new, |c| c.range(behind).take(max).copied().collect())
    }

    /// A replica as reported.
    pub fn put(&mut self, chunk: ChunkHandle, node: NodeId, replica: Replica) {
        self.by_chunk.insert((chunk, node), replica);
        self.by_node.entry(node).or_default().insert(chunk);
        if let Some(unnamed) = self.unnamed.get_mut(&node) {
            unnamed.remove(&chunk);
        }
    }

    /// A replica that must be there, since a write was acknowledged by it; what is known better stays.
    pub fn assume(&mut self, chunk: ChunkHandle, node: NodeId, version: Version, length: u64) {
        let known = self.get(chunk, node);
        if known.is_some_and(|r| r.promised >= version && (r.length >= length || r.restarted)) {
            return;
        }
        let fresh = Replica {
            promised: version,
            synced: version,
            length,
            kind: Kind::Intact,
            restarted: false,
        };
        self.put(
            chunk,
            node,
            Replica {
                length,
                ..known.filter(|r| r.promised >= version).unwrap_or(fresh)
            },
        );
    }

    /// It was deleted, or was never there.
    pub fn remove(&mut self, chunk: ChunkHandle, node: NodeId) {
        self.by_chunk.remove(&(chunk, node));
        if let Some(chunks) = self.by_node.get_mut(&node) {
            chunks.remove(&chunk);
        }
    }

    /// The master has no record of this chunk.
    pub fn note_unknown(&mut self, chunk: ChunkHandle, node: NodeId) {
        self.unknown.insert((chunk, node));
    }

    /// Replicas of chunks the master had no record of when they were reported, and that are still there.
    #[must_use]
    pub fn unknown(&mut self) -> Vec<(ChunkHandle, NodeId)> {
        let known = &self.by_chunk;
        self.unknown.retain(|key| known.contains_key(key));
        self.unknown.iter().copied().collect()
    }

    /// A new inventory of a server begins.
    pub fn begin_inventory(&mut self, node: NodeId) {
        self.unnamed
            .insert(node, self.by_node.get(&node).cloned().unwrap_or_default());
    }

    /// It ends: what it did not name is not there any more.
    pub fn end_inventory(&mut self, node: NodeId) {
        for chunk in self.unnamed.remove(&node).unwrap_or_default() {
            self.remove(chunk, node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const X: ChunkHandle = ChunkHandle(10);
    const Y: ChunkHandle = ChunkHandle(11);

    fn replica(version: u32) -> Replica {
        let v = Version(version);
        Replica {
            promised: v,
            synced: v,
            length: 5,
            kind: Kind::Intact,
            restarted: true,
        }
    }

    #[test]
    fn what_an_inventory_does_not_name_is_gone() {
        let mut r = Replicas::default();
        r.put(X, A, replica(1));
        r.put(Y, A, replica(1));
        r.begin_inventory(A);
        r.put(Y, A, replica(2));
        assert_eq!(r.of(X).count(), 1, "until it ends");
        r.end_inventory(A);
        assert_eq!(
            (r.of(X).count(), r.get(Y, A), r.count(A)),
            (0, Some(replica(2)), 1)
        );
    }

    #[test]
    fn what_is_assumed_does_not_hide_what_was_reported() {
        let mut r = Replicas::default();
        r.put(X, A, replica(2));
        r.assume(X, A, Version(1), 99);
        assert_eq!(r.get(X, A), Some(replica(2)));
        r.assume(Y, A, Version(1), 99);
        assert_eq!(r.get(Y, A).map(|r| (r.length, r.restarted)), Some((99, false)));
    }

    #[test]
    fn replicas_are_found_by_chunk_and_by_server() {
        let mut r = Replicas::default();
        r.put(X, A, replica(1));
        r.put(X, NodeId(2), replica(1));
        assert_eq!(r.of(X).map(|(n, _)| n.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(r.chunks_after(A, ChunkHandle(0), 10), [X]);
        r.remove(X, A);
        assert_eq!(r.chunks_after(A, ChunkHandle(0), 10), []);
    }
}
