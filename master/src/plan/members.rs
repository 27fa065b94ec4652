//! Who is in the next version of a chunk (protocol, section 3 rules 2 and 3, section 4 rule 2).
//!
//! Members of the active configuration that stay, in chain order, then joiners. At least one active member is always
//! among them. A client's word alone never leaves fewer than two: then the suspect is exchanged for a joiner, or stays
//! until its session ends or another member says the same.

use super::{Session, Sessions};
use dfs_proto::NodeId;
use std::collections::BTreeMap;

/// A client's word never leaves fewer members than this (or the goal, if that is less).
pub(super) const MEMBERS_MIN: usize = 2;

/// Who says that a member should go; the stronger one is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// A client could not reach it, or the master got no answer in time.
    Client,
    /// Another member could not reach it.
    Member,
    /// It said so itself: no file, a broken file, a failed disk.
    Itself,
}

/// The question.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// The active members in chain order.
    pub active: &'a [NodeId],
    /// Replicas there should be.
    pub goal: usize,
    /// Who should go.
    pub suspects: BTreeMap<NodeId, Word>,
    /// Holders that have what no active member has: they come in whatever the goal.
    pub needed: &'a [NodeId],
    /// Who should come if there is room.
    pub joiners: &'a [NodeId],
    /// A server that could join at once, in exchange for a suspect.
    pub spare: Option<NodeId>,
}

/// No active member is connected: nothing can be proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoActiveMember;

/// The members of the next version, in chain order.
///
/// # Errors
/// [`NoActiveMember`]: wait for one to return.
pub fn choose(ask: &Ask<'_>, sessions: Sessions<'_>) -> Result<Vec<NodeId>, NoActiveMember> {
    let connected = |n: &NodeId| matches!(sessions(*n), Session::Connected(_));
    let present: Vec<NodeId> = ask.active.iter().copied().filter(connected).collect();
    if present.is_empty() {
        return Err(NoActiveMember);
    }
    let mut chosen = stay(ask, &present);
    let may_come = |n: &NodeId| connected(n) && !ask.suspects.contains_key(n) && !ask.active.contains(n);
    let needed: Vec<NodeId> = ask.needed.iter().copied().filter(may_come).collect();
    let joiners: Vec<NodeId> = ask.joiners.iter().copied().filter(may_come).collect();
    let floor = MEMBERS_MIN.min(ask.goal.max(1));
    let goes = |word: Word| {
        present
            .iter()
            .any(|n| ask.suspects.get(n) == Some(&word) && !chosen.contains(n))
    };
    let (on_a_clients, on_a_members) = (goes(Word::Client), goes(Word::Member));
    if (on_a_clients || on_a_members) && chosen.len() + needed.len() + joiners.len() < floor {
        match ask.spare.filter(may_come) {
            Some(spare) => chosen.push(spare),
            None => {
                let stays = |n: &NodeId| chosen.contains(n) || ask.suspects.get(n) == Some(&Word::Client);
                chosen = present.iter().copied().filter(stays).collect();
            }
        }
    }
    for node in needed {
        if !chosen.contains(&node) {
            chosen.push(node);
        }
    }
    for joiner in joiners {
        if chosen.len() < ask.goal.max(1) && !chosen.contains(&joiner) {
            chosen.push(joiner);
        }
    }
    Ok(chosen)
}

/// Those no word speaks against; if there are none, those with the weakest word against them.
fn stay(ask: &Ask<'_>, present: &[NodeId]) -> Vec<NodeId> {
    let weakest = present
        .iter()
        .map(|n| ask.suspects.get(n))
        .min()
        .expect("someone is present");
    present
        .iter()
        .copied()
        .filter(|n| ask.suspects.get(n) == weakest)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);
    const D: NodeId = NodeId(4);

    fn ask<'a>(active: &'a [NodeId], suspects: &[(NodeId, Word)]) -> Ask<'a> {
        Ask {
            active,
            goal: 3,
            suspects: suspects.iter().copied().collect(),
            ..Ask::default()
        }
    }

    fn all(n: NodeId) -> Session {
        Session::Connected(u64::from(n.0))
    }

    #[test]
    fn a_client_removes_one_of_three() {
        assert_eq!(
            choose(&ask(&[A, B, C], &[(A, Word::Client)]), &all),
            Ok(vec![B, C])
        );
    }

    #[test]
    fn a_clients_word_never_leaves_fewer_than_two() {
        assert_eq!(choose(&ask(&[A, B], &[(A, Word::Client)]), &all), Ok(vec![A, B]));
        assert_eq!(
            choose(&ask(&[A, B, C], &[(A, Word::Client), (B, Word::Client)]), &all),
            Ok(vec![A, B, C])
        );
    }

    #[test]
    fn the_suspect_is_exchanged_for_a_joiner() {
        let a = Ask {
            spare: Some(D),
            ..ask(&[A, B], &[(A, Word::Client)])
        };
        assert_eq!(choose(&a, &all), Ok(vec![B, D]));
        let a = Ask {
            spare: Some(D),
            ..ask(&[A, B], &[(A, Word::Member)])
        };
        assert_eq!(choose(&a, &all), Ok(vec![B, D]));
    }

    #[test]
    fn a_lost_session_or_another_members_word_is_enough() {
        assert_eq!(choose(&ask(&[A, B], &[(A, Word::Member)]), &all), Ok(vec![B]));
        let gone = |n| if n == A { Session::Ended } else { all(n) };
        assert_eq!(choose(&ask(&[A, B], &[(A, Word::Client)]), &gone), Ok(vec![B]));
    }

    #[test]
    fn with_a_goal_of_one_the_only_member_stays() {
        let a = Ask {
            goal: 1,
            ..ask(&[A], &[(A, Word::Client)])
        };
        assert_eq!(choose(&a, &all), Ok(vec![A]));
    }

    #[test]
    fn the_last_member_stays_whatever_is_said() {
        assert_eq!(choose(&ask(&[A], &[(A, Word::Itself)]), &all), Ok(vec![A]));
        assert_eq!(
            choose(&ask(&[A, B], &[(A, Word::Itself), (B, Word::Client)]), &all),
            Ok(vec![B])
        );
    }

    #[test]
    fn without_an_active_member_nothing_is_proposed() {
        let a = Ask {
            joiners: &[D],
            ..ask(&[A, B], &[])
        };
        let only_d = |n| if n == D { all(n) } else { Session::Doubtful };
        assert_eq!(choose(&a, &only_d), Err(NoActiveMember));
    }

    #[test]
    fn a_holder_that_is_needed_comes_in_though_the_goal_is_met() {
        let a = Ask {
            needed: &[D],
            ..ask(&[A, B, C], &[])
        };
        assert_eq!(choose(&a, &all), Ok(vec![A, B, C, D]));
    }

    #[test]
    fn joiners_come_last_and_only_up_to_the_goal() {
        let a = Ask {
            joiners: &[D, NodeId(5)],
            ..ask(&[C, A], &[])
        };
        assert_eq!(choose(&a, &all), Ok(vec![C, A, D]));
    }
}
