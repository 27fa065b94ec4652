//! Failure domains: who shares a host or a rack with whom, who is to leave, who is too many.
//!
//! Names are small numbers here, so that judging a million chunks costs little. A chunk is spread better if its members
//! are on more hosts, and on equally many hosts if they are in more racks.

use dfs_proto::NodeId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What an operator wants of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// To serve.
    #[default]
    In,
    /// To give its replicas away.
    Draining,
    /// To be away for a while without anyone copying what it has.
    Maintenance,
}

/// Where a server stands.
#[derive(Clone, Debug, Default)]
pub struct Standing<'a> {
    /// Failure domain.
    pub host: &'a str,
    /// The wider failure domain.
    pub rack: &'a str,
    /// What an operator wants of it.
    pub service: Service,
    /// It can take a replica now.
    pub takes: bool,
    /// Bytes free.
    pub free_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    host: u32,
    rack: u32,
    service: Service,
    free_bytes: u64,
}

/// All servers, as placement of existing chunks is judged by them.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    places: BTreeMap<NodeId, Place>,
    /// (host, rack) of those that take replicas, each once.
    open: BTreeSet<(u32, u32)>,
}

impl Domains {
    /// Of these servers.
    #[must_use]
    pub fn new<'a>(servers: impl IntoIterator<Item = (NodeId, Standing<'a>)>) -> Domains {
        let mut names: BTreeMap<(bool, &'a str), u32> = BTreeMap::new();
        let mut domains = Domains::default();
        for (node, standing) in servers {
            let mut number = |is_rack, name| {
                let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
                *names.entry((is_rack, name)).or_insert(next)
            };
            let (host, rack) = (number(false, standing.host), number(true, standing.rack));
            if standing.takes {
                domains.open.insert((host, rack));
            }
            let place = Place {
                host,
                rack,
                service: standing.service,
                free_bytes: standing.free_bytes,
            };
            domains.places.insert(node, place);
        }
        domains
    }

    /// What an operator wants of it.
    #[must_use]
    pub fn service(&self, node: NodeId) -> Service {
        self.places.get(&node).map_or(Service::In, |p| p.service)
    }

    /// On how many hosts, and in how many racks.
    fn spread(&self, members: impl Iterator<Item = (u32, u32)>) -> (usize, usize) {
        let (hosts, racks): (BTreeSet<u32>, BTreeSet<u32>) = members.unzip();
        (hosts.len(), racks.len())
    }

    fn domains(&self, members: &[NodeId]) -> Vec<(u32, u32)> {
        let known = members.iter().filter_map(|n| self.places.get(n));
        known.map(|p| (p.host, p.rack)).collect()
    }

    /// The member whose place another server should take, so that the chunk is spread better; `None`: nobody's.
    #[must_use]
    pub fn crowded(&self, members: &[NodeId]) -> Option<NodeId> {
        let domains = self.domains(members);
        if domains.len() < members.len() {
            return None; // One that is not known cannot be judged.
        }
        let now = self.spread(domains.iter().copied());
        if now == (members.len(), members.len()) || self.open.is_empty() {
            return None;
        }
        let best = |without: usize| {
            let others = || domains.iter().enumerate().filter(move |(i, _)| *i != without);
            let with = |place: &(u32, u32)| self.spread(others().map(|(_, d)| *d).chain([*place]));
            self.open.iter().map(with).max()
        };
        // Of several the last one of the chain goes: the head is where the writers are used to.
        let (after, leaves) = (0..members.len()).map(|i| (best(i), i)).max()?;
        (after? > now).then(|| members[leaves])
    }

    /// Whom a chunk with more members than its goal loses first: who is to go anyway, then whose loss keeps it spread
    /// best, then who has the least room, then the last of the chain.
    #[must_use]
    pub fn surplus(&self, members: &[NodeId], count: usize) -> Vec<NodeId> {
        let mut left = members.to_vec();
        let mut gone = Vec::new();
        while gone.len() < count && left.len() > 1 {
            let loss = |i: &usize| {
                let others: Vec<NodeId> = left.iter().filter(|n| **n != left[*i]).copied().collect();
                let spread = self.spread(self.domains(&others).into_iter());
                let place = self.places.get(&left[*i]);
                let stays = place.is_some_and(|p| p.service != Service::Draining);
                (
                    stays,
                    Reverse(spread),
                    place.map_or(0, |p| p.free_bytes),
                    Reverse(*i),
                )
            };
            let index = (0..left.len()).min_by_key(loss).expect("someone is left");
            gone.push(left.remove(index));
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u32]) -> Vec<NodeId> {
        numbers.iter().map(|n| NodeId(*n)).collect()
    }

    fn servers(all: &[(u32, &'static str, &'static str)]) -> Domains {
        Domains::new(all.iter().map(|(node, host, rack)| {
            let standing = Standing {
                host,
                rack,
                takes: true,
                free_bytes: 100 - u64::from(*node),
                ..Standing::default()
            };
            (NodeId(*node), standing)
        }))
    }

    #[test]
    fn members_on_one_host_part_when_another_host_can_take_one() {
        let d = servers(&[(1, "a", ""), (2, "a", ""), (3, "b", ""), (4, "c", "")]);
        assert_eq!(d.crowded(&nodes(&[1, 2, 3])), Some(NodeId(2)));
        assert_eq!(d.crowded(&nodes(&[1, 3, 4])), None);
    }

    #[test]
    fn members_in_one_rack_part_when_another_rack_can_take_one() {
        let d = servers(&[(1, "a", "x"), (2, "b", "x"), (3, "c", "x"), (4, "d", "y")]);
        assert_eq!(d.crowded(&nodes(&[1, 2, 3])), Some(NodeId(3)));
        assert_eq!(d.crowded(&nodes(&[1, 2, 4])), None, "two racks for three members");
    }

    #[test]
    fn a_rack_is_never_won_for_a_host() {
        let d = servers(&[(1, "a", "x"), (2, "b", "x"), (3, "a", "y")]);
        assert_eq!(d.crowded(&nodes(&[1, 2])), Some(NodeId(1)), "a and b in y and x");
        let d = servers(&[(1, "a", "x"), (2, "b", "x"), (3, "b", "y"), (4, "b", "z")]);
        let crowded = d.crowded(&nodes(&[1, 2])).expect("b moves to y or z");
        assert_eq!(crowded, NodeId(2));
    }

    #[test]
    fn nobody_moves_when_no_server_takes_anything() {
        let all = [(1, "a"), (2, "a"), (3, "b")];
        let d = Domains::new(all.map(|(node, host)| {
            let standing = Standing {
                host,
                ..Standing::default()
            };
            (NodeId(node), standing)
        }));
        assert_eq!(d.crowded(&nodes(&[1, 2])), None);
    }

    #[test]
    fn every_move_spreads_better_so_that_moving_ends() {
        let d = servers(&[
            (1, "a", "x"),
            (2, "a", "x"),
            (3, "b", "x"),
            (4, "b", "y"),
            (5, "c", "y"),
            (6, "d", "z"),
        ]);
        for first in 1..=6_u32 {
            for second in 1..=6_u32 {
                for third in 1..=6_u32 {
                    let distinct: BTreeSet<u32> = [first, second, third].into();
                    let mut members: Vec<NodeId> = distinct.into_iter().map(NodeId).collect();
                    for _ in 0..3 {
                        let Some(leaves) = d.crowded(&members) else { break };
                        let before = d.spread(d.domains(&members).into_iter());
                        members.retain(|m| *m != leaves);
                        let best = (1..=6_u32)
                            .map(NodeId)
                            .filter(|n| !members.contains(n))
                            .max_by_key(|n| {
                                let mut with = members.clone();
                                with.push(*n);
                                d.spread(d.domains(&with).into_iter())
                            });
                        members.push(best.expect("there are six"));
                        assert!(d.spread(d.domains(&members).into_iter()) > before);
                    }
                    assert_eq!(d.crowded(&members), None);
                }
            }
        }
    }

    #[test]
    fn one_too_many_is_one_that_shares_a_host() {
        let d = servers(&[(1, "a", ""), (2, "b", ""), (3, "b", ""), (4, "c", "")]);
        assert_eq!(
            d.surplus(&nodes(&[1, 2, 3, 4]), 1),
            nodes(&[3]),
            "it has less room than 2"
        );
        assert_eq!(d.surplus(&nodes(&[1, 2, 4]), 1), nodes(&[4]), "the fullest");
        assert_eq!(d.surplus(&nodes(&[1, 2, 3, 4]), 9).len(), 3, "one always stays");
    }

    #[test]
    fn one_that_is_drained_goes_first() {
        let all = [
            (1, "a", Service::Draining),
            (2, "b", Service::In),
            (3, "b", Service::In),
        ];
        let d = Domains::new(all.map(|(node, host, service)| {
            let standing = Standing {
                host,
                service,
                ..Standing::default()
            };
            (NodeId(node), standing)
        }));
        assert_eq!(d.surplus(&nodes(&[1, 2, 3]), 1), nodes(&[1]));
    }
}
