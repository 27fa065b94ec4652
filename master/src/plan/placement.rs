//! Where a new replica goes: never twice on one server, spread over racks and hosts as far as there are any,
//! where there is room and little was made of late, and first on the writer's own host (GFS, section 4.2).

use dfs_proto::{Code, Error, NodeId, Result};
use std::collections::BTreeSet;

/// A new chunk needs at least this many servers unless its goal is one.
const SERVERS_MIN: usize = 2;
/// Room that must stay on a server after a chunk was placed there, in chunks: others are being filled.
const RESERVE_CHUNKS: u64 = 2;

/// A server that is connected and not suspect.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    /// It.
    pub node: NodeId,
    /// Failure domain.
    pub host: String,
    /// Failure domain.
    pub rack: String,
    /// Bytes free on its disks that have not failed.
    pub free_bytes: u64,
    /// Replicas placed on it of late.
    pub recent: u64,
}

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wish<'a> {
    /// Replicas to place.
    pub count: usize,
    /// The writer's host, or empty.
    pub near: &'a str,
    /// (host, rack) of replicas that are already there.
    pub present: Vec<(String, String)>,
    /// Servers that are not to be taken.
    pub avoid: BTreeSet<NodeId>,
    /// Largest size of the chunk, bytes.
    pub chunk_bytes: u64,
    /// Any number: spreads equal choices.
    pub chance: u64,
}

/// Free bytes without which a server takes no chunk of this size.
#[must_use]
pub fn room(chunk_bytes: u64) -> u64 {
    chunk_bytes.saturating_mul(1 + RESERVE_CHUNKS)
}

/// Up to `count` servers in chain order; fewer if there are not enough.
#[must_use]
pub fn place(candidates: &[Candidate], wish: &Wish<'_>) -> Vec<NodeId> {
    let room = room(wish.chunk_bytes);
    let mut left: Vec<&Candidate> = candidates
        .iter()
        .filter(|c| !wish.avoid.contains(&c.node) && c.free_bytes >= room)
        .collect();
    let mut present = wish.present.clone();
    let mut chosen = Vec::new();
    while chosen.len() < wish.count {
        let first = chosen.is_empty() && present.is_empty();
        let badness = |c: &&&Candidate| {
            let hosts = present.iter().filter(|(host, _)| *host == c.host).count();
            let racks = present.iter().filter(|(_, rack)| *rack == c.rack).count();
            let far = first && !wish.near.is_empty() && c.host != wish.near;
            (hosts, racks, far, std::cmp::Reverse(weight(c, wish.chance)))
        };
        let Some(best) = left.iter().min_by_key(badness).map(|c| (*c).clone()) else {
            break;
        };
        left.retain(|c| c.node != best.node);
        present.push((best.host, best.rack));
        chosen.push(best.node);
    }
    chosen
}

/// Servers for a new chunk of this goal: as many as the goal if there are, at least two (one if the goal is one).
///
/// # Errors
/// `Unavailable` if too few are connected, `NoSpace` if they are full.
pub fn place_new(candidates: &[Candidate], wish: &Wish<'_>) -> Result<Vec<NodeId>> {
    let needed = SERVERS_MIN.min(wish.count);
    let mut chosen = place(candidates, wish);
    if chosen.len() < needed && !wish.avoid.is_empty() {
        // Better on a server someone could not reach than nowhere.
        chosen = place(
            candidates,
            &Wish {
                avoid: BTreeSet::new(),
                ..wish.clone()
            },
        );
    }
    if chosen.len() >= needed {
        Ok(chosen)
    } else if candidates.len() < needed {
        let message = format!(
            "a chunk needs {needed} chunkservers, {} can take one now",
            candidates.len()
        );
        Err(Error::new(Code::Unavailable, message))
    } else {
        Err(Error::new(
            Code::NoSpace,
            format!("fewer than {needed} chunkservers have room for a chunk"),
        ))
    }
}

/// Free space, less for each recent creation, shaken by chance by up to a half.
fn weight(c: &Candidate, chance: u64) -> u64 {
    const UNIT: u64 = 1024;
    let mebibytes = c.free_bytes >> 20;
    let damped = mebibytes.max(1).saturating_mul(UNIT) / (1 + c.recent);
    let shake = mix(chance ^ (u64::from(c.node.0) << 32)) % UNIT;
    damped.saturating_sub(damped / (2 * UNIT) * shake)
}

/// The finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn candidate(node: u32, host: &str, rack: &str) -> Candidate {
        Candidate {
            node: NodeId(node),
            host: host.into(),
            rack: rack.into(),
            free_bytes: 100 * GIB,
            recent: 0,
        }
    }

    fn wish(count: usize) -> Wish<'static> {
        Wish {
            count,
            chunk_bytes: 64 << 20,
            ..Wish::default()
        }
    }

    fn nodes(chosen: &[NodeId]) -> BTreeSet<u32> {
        chosen.iter().map(|n| n.0).collect()
    }

    #[test]
    fn replicas_go_to_distinct_hosts_first() {
        let c = [
            candidate(1, "a", ""),
            candidate(2, "a", ""),
            candidate(3, "b", ""),
            candidate(4, "c", ""),
        ];
        for chance in 0..50 {
            let hosts = nodes(&place(&c, &Wish { chance, ..wish(3) }));
            assert!(hosts.contains(&3) && hosts.contains(&4) && hosts.len() == 3);
        }
    }

    #[test]
    fn replicas_go_to_distinct_racks_among_distinct_hosts() {
        let c = [
            candidate(1, "a", "x"),
            candidate(2, "b", "x"),
            candidate(3, "c", "y"),
        ];
        for chance in 0..50 {
            assert!(nodes(&place(&c, &Wish { chance, ..wish(2) })).contains(&3));
        }
    }

    #[test]
    fn one_host_is_better_than_none_but_never_one_server_twice() {
        let c = [candidate(1, "a", ""), candidate(2, "a", "")];
        assert_eq!(nodes(&place(&c, &wish(3))), [1, 2].into());
    }

    #[test]
    fn the_writers_own_server_is_the_head() {
        let c = [
            candidate(1, "a", ""),
            candidate(2, "b", ""),
            candidate(3, "c", ""),
        ];
        for chance in 0..20 {
            assert_eq!(
                place(
                    &c,
                    &Wish {
                        near: "b",
                        chance,
                        ..wish(3)
                    }
                )[0],
                NodeId(2)
            );
        }
    }

    #[test]
    fn full_servers_take_nothing() {
        let full = Candidate {
            free_bytes: 1,
            ..candidate(1, "a", "")
        };
        let c = [full, candidate(2, "b", ""), candidate(3, "c", "")];
        assert_eq!(nodes(&place(&c, &wish(3))), [2, 3].into());
    }

    #[test]
    fn many_recent_creations_send_the_next_one_elsewhere() {
        let busy = Candidate {
            recent: 10,
            ..candidate(1, "a", "")
        };
        let c = [busy, candidate(2, "b", "")];
        for chance in 0..20 {
            assert_eq!(place(&c, &Wish { chance, ..wish(1) }), [NodeId(2)]);
        }
    }

    #[test]
    fn a_joiner_avoids_the_hosts_that_have_one() {
        let c = [candidate(1, "a", ""), candidate(2, "b", "")];
        let present = vec![("a".to_owned(), String::new())];
        assert_eq!(place(&c, &Wish { present, ..wish(1) }), [NodeId(2)]);
    }

    #[test]
    fn too_few_servers_and_too_little_room_are_told_apart() {
        let c = [candidate(1, "a", "")];
        assert_eq!(place_new(&c, &wish(3)).unwrap_err().code, Code::Unavailable);
        assert!(place_new(&c, &wish(1)).is_ok());
        let full = [
            Candidate {
                free_bytes: 0,
                ..c[0].clone()
            },
            Candidate {
                free_bytes: 0,
                ..candidate(2, "b", "")
            },
        ];
        assert_eq!(place_new(&full, &wish(3)).unwrap_err().code, Code::NoSpace);
    }

    #[test]
    fn a_server_to_avoid_is_still_better_than_none() {
        let c = [candidate(1, "a", ""), candidate(2, "b", "")];
        let avoid = [NodeId(1)].into();
        assert_eq!(
            nodes(&place_new(&c, &Wish { avoid, ..wish(3) }).unwrap()),
            [1, 2].into()
        );
    }

    #[test]
    fn equal_servers_share_the_load() {
        let c = [
            candidate(1, "a", ""),
            candidate(2, "b", ""),
            candidate(3, "c", ""),
        ];
        let heads: BTreeSet<NodeId> = (0..50)
            .map(|chance| place(&c, &Wish { chance, ..wish(3) })[0])
            .collect();
        assert_eq!(heads.len(), 3);
    }
}
