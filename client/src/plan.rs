//! What to do where, decided without doing it: cutting writes into packets and reads into parts,
//! ordering replicas, and how long a good read takes.

use dfs_proto::NodeId;
use dfs_proto::capability::Member;
use dfs_proto::limits::PACKET_BYTES_MAX;
use dfs_proto::span::cuts;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// One packet's place: which chunk-sized slot of the file, where in it, and which part of the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PacketCut {
    /// Where the slot begins in the file, bytes.
    pub(crate) slot: u64,
    /// Where the packet begins in the slot, bytes.
    pub(crate) in_chunk: u64,
    /// Its part of the buffer.
    pub(crate) range: Range<usize>,
}

/// Cuts a write at chunk edges and at multiples of the packet size within each chunk, so that all packets of a
/// long stream but its first begin and end at block edges.
pub(crate) fn packets(offset: u64, length: usize, chunk_bytes: u64) -> impl Iterator<Item = PacketCut> {
    cuts(offset, length as u64, chunk_bytes).flat_map(move |chunk| {
        cuts(chunk.offset, chunk.length, PACKET_BYTES_MAX as u64).map(move |packet| {
            let start = usize::try_from(chunk.at + packet.at).expect("a buffer is addressable");
            PacketCut {
                slot: chunk.index * chunk_bytes,
                in_chunk: chunk.offset + packet.at,
                range: start..start + usize::try_from(packet.length).expect("a buffer is addressable"),
            }
        })
    })
}

/// Part of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Zeros: the master says that nothing was ever written there.
    Hole { length: u64 },
    /// Bytes of the extent with this number.
    Chunk {
        extent: usize,
        in_chunk: u64,
        length: u64,
    },
}

/// Cuts a range of a file into parts of at most `part_max` bytes at the extents' edges; what no extent covers is a hole.
/// Extents are (offset, span), in order.
pub(crate) fn parts(range: Range<u64>, extents: &[(u64, u64)], part_max: u64) -> Vec<Part> {
    let mut all = Vec::new();
    let mut position = range.start;
    for (number, (offset, span)) in extents.iter().enumerate() {
        let (start, end) = ((*offset).max(position), (offset + span).min(range.end));
        if start >= end {
            continue;
        }
        if start > position {
            all.push(Part::Hole {
                length: start - position,
            });
        }
        let inside = cuts(start - offset, end - start, part_max);
        all.extend(inside.map(|c| Part::Chunk {
            extent: number,
            in_chunk: c.index * part_max + c.offset,
            length: c.length,
        }));
        position = end;
    }
    if position < range.end {
        all.push(Part::Hole {
            length: range.end - position,
        });
    }
    all
}

/// What is known of a server's behaviour.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    latency_us: u64,
    suspect_until: Option<Instant>,
    /// No new chunk is wanted there.
    avoid_until: Option<Instant>,
}

/// What reads have taught: who is slow or failing, and how long a good read takes.
#[derive(Debug)]
pub(crate) struct Experience {
    servers: BTreeMap<NodeId, Record>,
    /// The latest good reads, microseconds; a ring.
    recent: Vec<u32>,
    next: usize,
    p95: Duration,
    /// Tenths of a hedge that may be sent.
    budget: u32,
}

/// Reads remembered for the p95.
const RECENT_MAX: usize = 128;
/// Never hedge sooner: below it the second request costs more than it gains.
const HEDGE_FLOOR: Duration = Duration::from_millis(10);
/// Without budget for a hedge, and never later: the next replica is asked.
pub(crate) const HEDGE_CEILING: Duration = Duration::from_millis(700);
/// Hedges saved up at most, in tenths: as many as a reader has requests under way.
const BUDGET_MAX: u32 = 160;
/// New chunks go elsewhere after a server failed a write: the master may not have noticed yet.
const AVOID_FOR: Duration = Duration::from_secs(5);
/// A server that failed is the last choice for so long.
const SUSPECT_FOR: Duration = Duration::from_secs(3);

impl Default for Experience {
    fn default() -> Self {
        Experience {
            servers: BTreeMap::new(),
            recent: Vec::new(),
            next: 0,
            p95: HEDGE_CEILING,
            budget: BUDGET_MAX,
        }
    }
}

impl Experience {
    /// A good read of this server took so long.
    pub(crate) fn good(&mut self, node: NodeId, took: Duration) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let record = self.servers.entry(node).or_default();
        record.latency_us = match record.latency_us {
            0 => u64::from(us),
            old => (old * 7 + u64::from(us)) / 8,
        };
        record.suspect_until = None;
        self.budget = (self.budget + 1).min(BUDGET_MAX);
        if self.recent.len() < RECENT_MAX {
            self.recent.push(us);
        } else {
            self.recent[self.next] = us;
        }
        self.next = (self.next + 1) % RECENT_MAX;
        if self.next.is_multiple_of(16) {
            let mut sorted = self.recent.clone();
            sorted.sort_unstable();
            self.p95 = Duration::from_micros(u64::from(sorted[sorted.len() * 95 / 100]));
        }
    }

    /// This server failed or was overtaken by a hedge.
    pub(crate) fn bad(&mut self, node: NodeId, now: Instant) {
        self.servers.entry(node).or_default().suspect_until = Some(now + SUSPECT_FOR);
    }

    /// This server failed a write.
    pub(crate) fn failed_write(&mut self, node: NodeId, now: Instant) {
        self.bad(node, now);
        self.servers.entry(node).or_default().avoid_until = Some(now + AVOID_FOR);
    }

    /// Servers on which no new chunk should be.
    pub(crate) fn avoided(&self, now: Instant) -> Vec<NodeId> {
        let avoided = |r: &Record| r.avoid_until.is_some_and(|until| until > now);
        self.servers
            .iter()
            .filter(|(_, r)| avoided(r))
            .map(|(node, _)| *node)
            .collect()
    }

    /// How long to wait for an answer before a second replica is asked; takes a hedge from the budget.
    pub(crate) fn hedge_after(&mut self) -> Duration {
        if self.budget < 10 {
            return HEDGE_CEILING;
        }
        (self.p95 * 2).clamp(HEDGE_FLOOR, HEDGE_CEILING)
    }

    /// A hedge was sent.
    pub(crate) fn hedged(&mut self) {
        self.budget = self.budget.saturating_sub(10);
    }

    /// The members in the order in which to ask them: healthy before suspect, near before far, fast before slow;
    /// equals are spread by `salt`, so that readers of different chunks use different servers.
    pub(crate) fn order(&self, members: &[Member], here: &Here, salt: u64, now: Instant) -> Vec<usize> {
        let mut all: Vec<usize> = (0..members.len()).collect();
        all.sort_by_key(|i| {
            let m = &members[*i];
            let record = self.servers.get(&m.node).copied().unwrap_or_default();
            let suspect = record.suspect_until.is_some_and(|until| until > now);
            // Latencies within a factor of four count as equal.
            let speed = (64 - (record.latency_us / 1_000).leading_zeros()) / 2;
            let spread = (salt ^ u64::from(m.node.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (suspect, here.distance(m), speed, spread)
        });
        all
    }
}

/// Where this client runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Here {
    pub(crate) host: String,
    pub(crate) rack: String,
}

impl Here {
    /// 0: this host, 1: this rack, 2: elsewhere or unknown.
    fn distance(&self, member: &Member) -> u8 {
        if !self.host.is_empty() && self.host == member.host {
            0
        } else if !self.rack.is_empty() && self.rack == member.rack {
            1
        } else {
            2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn packets_end_at_packet_multiples_and_chunk_edges() {
        let all: Vec<_> = packets(5 * MIB - 10, 2 * MIB as usize, 5 * MIB).collect();
        let shape: Vec<_> = all
            .iter()
            .map(|p| (p.slot, p.in_chunk, p.range.len() as u64))
            .collect();
        assert_eq!(
            shape,
            [(0, 5 * MIB - 10, 10), (5 * MIB, 0, MIB), (5 * MIB, MIB, MIB - 10)]
        );
    }

    #[test]
    fn what_no_extent_covers_is_a_hole() {
        let all = parts(5..45, &[(10, 10), (30, 10)], 8);
        assert_eq!(
            all,
            [
                Part::Hole { length: 5 },
                Part::Chunk {
                    extent: 0,
                    in_chunk: 0,
                    length: 8
                },
                Part::Chunk {
                    extent: 0,
                    in_chunk: 8,
                    length: 2
                },
                Part::Hole { length: 10 },
                Part::Chunk {
                    extent: 1,
                    in_chunk: 0,
                    length: 8
                },
                Part::Chunk {
                    extent: 1,
                    in_chunk: 8,
                    length: 2
                },
                Part::Hole { length: 5 },
            ]
        );
    }

    proptest! {
        #[test]
        fn packets_tile_the_buffer(offset in 0u64..1 << 30, length in 0usize..5 << 20, blocks in 1u64..64) {
            let chunk_bytes = blocks * 64 * 1024;
            let mut next = 0;
            for p in packets(offset, length, chunk_bytes) {
                prop_assert_eq!(p.range.start, next);
                prop_assert_eq!(p.slot + p.in_chunk, offset + next as u64);
                prop_assert!(p.in_chunk + p.range.len() as u64 <= chunk_bytes);
                prop_assert!(p.range.len() <= PACKET_BYTES_MAX && !p.range.is_empty());
                next = p.range.end;
            }
            prop_assert_eq!(next, length);
        }

        #[test]
        fn parts_tile_the_range(start in 0u64..500, length in 0u64..500, present in proptest::collection::vec(any::<bool>(), 10)) {
            let extents: Vec<_> = present.iter().enumerate().filter(|(_, p)| **p).map(|(i, _)| (i as u64 * 100, 100)).collect();
            let mut position = start;
            for part in parts(start..start + length, &extents, 64) {
                match part {
                    Part::Hole { length } => position += length,
                    Part::Chunk { extent, in_chunk, length } => {
                        prop_assert_eq!(extents[extent].0 + in_chunk, position);
                        position += length;
                    }
                }
            }
            prop_assert_eq!(position, start + length);
        }
    }

    fn member(node: u32, host: &str, rack: &str) -> Member {
        Member {
            node: NodeId(node),
            addr: String::new(),
            host: host.into(),
            rack: rack.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn near_replicas_come_first_and_failing_ones_last() {
        let members = [member(1, "x", "r2"), member(2, "y", "r1"), member(3, "me", "r1")];
        let here = Here {
            host: "me".into(),
            rack: "r1".into(),
        };
        let mut e = Experience::default();
        let now = Instant::now();
        assert_eq!(e.order(&members, &here, 0, now), [2, 1, 0]);
        e.bad(NodeId(3), now);
        assert_eq!(e.order(&members, &here, 0, now), [1, 0, 2]);
        assert_eq!(e.order(&members, &here, 0, now + SUSPECT_FOR)[0], 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_replica_comes_after_a_fast_one_of_the_same_distance() {
        let members = [member(1, "", ""), member(2, "", "")];
        let mut e = Experience::default();
        e.good(NodeId(1), Duration::from_millis(100));
        e.good(NodeId(2), Duration::from_millis(1));
        for salt in 0..10 {
            assert_eq!(e.order(&members, &Here::default(), salt, Instant::now()), [1, 0]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_chunks_avoid_a_server_that_failed_a_write_for_a_while() {
        let mut e = Experience::default();
        let now = Instant::now();
        e.failed_write(NodeId(4), now);
        e.bad(NodeId(5), now);
        assert_eq!(e.avoided(now), [NodeId(4)]);
        assert!(e.avoided(now + AVOID_FOR).is_empty());
    }

    #[test]
    fn hedges_wait_for_twice_the_p95_and_have_a_budget() {
        let mut e = Experience::default();
        assert_eq!(e.hedge_after(), HEDGE_CEILING);
        for _ in 0..RECENT_MAX {
            e.good(NodeId(1), Duration::from_millis(20));
        }
        assert_eq!(e.hedge_after(), Duration::from_millis(40));
        for _ in 0..16 {
            e.hedged();
        }
        assert_eq!(e.hedge_after(), HEDGE_CEILING);
    }
}
