//! Which copies go on at once: the most urgent first, spread over many sources and many targets.
//!
//! Each server takes part in a few copies at a time, as source and as target. What is most urgent (one copy left) may
//! exceed that a little: it never waits behind what is not.

use super::repair::Urgency;
use dfs_proto::NodeId;
use std::collections::BTreeMap;

/// Copies one server receives at once.
pub const TO_MAX: usize = 4;
/// Copies one server is read for at once.
pub const FROM_MAX: usize = 4;
/// As many more for what is most urgent.
const URGENT_MORE: usize = 4;

/// How many copies each server takes part in.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    to: BTreeMap<NodeId, usize>,
    from: BTreeMap<NodeId, usize>,
}

impl Lanes {
    /// True if one more copy to this server may begin.
    #[must_use]
    pub fn may_receive(&self, node: NodeId, urgency: Urgency) -> bool {
        self.to.get(&node).copied().unwrap_or(0) < room(TO_MAX, urgency)
    }

    /// Those that can be copied from, the least busy first; empty: all are busy.
    #[must_use]
    pub fn sources(&self, holders: &[NodeId], urgency: Urgency) -> Vec<NodeId> {
        let busy = |n: &NodeId| self.from.get(n).copied().unwrap_or(0);
        let mut sources = holders.to_vec();
        sources.sort_by_key(busy);
        if sources
            .first()
            .is_some_and(|n| busy(n) >= room(FROM_MAX, urgency))
        {
            sources.clear();
        }
        sources
    }

    /// A copy begins.
    pub fn begin(&mut self, from: NodeId, to: NodeId) {
        *self.from.entry(from).or_default() += 1;
        *self.to.entry(to).or_default() += 1;
    }

    /// It ends.
    pub fn end(&mut self, from: NodeId, to: NodeId) {
        less(&mut self.from, from);
        less(&mut self.to, to);
    }

    /// Copies under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.to.values().sum()
    }
}

fn room(max: usize, urgency: Urgency) -> usize {
    match urgency {
        Urgency::OneLeft => max + URGENT_MORE,
        Urgency::Under { .. } | Urgency::Leaving | Urgency::Misplaced | Urgency::Uneven => max,
    }
}

fn less(counts: &mut BTreeMap<NodeId, usize>, node: NodeId) {
    if let Some(count) = counts.get_mut(&node) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    #[test]
    fn the_least_busy_holder_is_read_first() {
        let mut lanes = Lanes::default();
        lanes.begin(A, C);
        assert_eq!(lanes.sources(&[A, B], Urgency::Leaving), [B, A]);
        lanes.end(A, C);
        assert_eq!(
            lanes.sources(&[A, B], Urgency::Leaving),
            [A, B],
            "in chain order among equals"
        );
        assert_eq!(lanes.under_way(), 0);
    }

    #[test]
    fn a_busy_server_takes_only_what_is_most_urgent() {
        let mut lanes = Lanes::default();
        for _ in 0..TO_MAX {
            lanes.begin(A, B);
        }
        assert!(!lanes.may_receive(B, Urgency::Leaving) && lanes.may_receive(B, Urgency::OneLeft));
        assert!(lanes.sources(&[A], Urgency::Uneven).is_empty());
        assert_eq!(lanes.sources(&[A], Urgency::OneLeft), [A]);
        assert!(lanes.may_receive(C, Urgency::Uneven));
        for _ in 0..URGENT_MORE {
            lanes.begin(A, B);
        }
        assert!(!lanes.may_receive(B, Urgency::OneLeft), "bounded all the same");
    }
}
