//! One proposed version on its way to being active (protocol, section 3).
//!
//! adopt: every member, every leaving one and every other possible holder promises the version and says what it has.
//! source: one whole member is named; a lost one only when all possible holders have answered and none is whole.
//! sync: everyone becomes ready. activate: when all are ready with one digest, and each leaving member of the active
//! configuration has promised or has no session. Whatever fails in between ends the proposal: the next version follows.
//!
//! A [`Change`] is told what came back and asked what to do next; it never waits and keeps no time of its own.

mod types;

use super::members::{MEMBERS_MIN, Word};
use super::order::{Adopted, Answer, Kind, Order, Ready, Sync};
use super::{Session, Sessions};
use dfs_proto::{Code, Error, NodeId, Retry, Version};
use std::collections::{BTreeMap, BTreeSet};
pub use types::{Blocked, Proposal, Step, Supersede};

/// A member that lacks more than this is left out, and joins later after a copy in the background, bytes.
pub const DIFFERENCE_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    node: NodeId,
    lost: bool,
    /// Nobody has any bytes, and none were ever fsynced.
    empty: bool,
}

/// The drive of one proposal.
#[derive(Clone, Debug)]
pub struct Change {
    proposal: Proposal,
    /// How the sessions of leaving members stood just after the proposal was logged.
    stood: Option<BTreeMap<NodeId, Session>>,
    /// In which session each was asked to adopt.
    asked: BTreeMap<NodeId, u64>,
    adopted: BTreeMap<NodeId, Adopted>,
    source: Option<Source>,
    syncing: BTreeSet<NodeId>,
    ready: BTreeMap<NodeId, Ready>,
    failed: BTreeMap<NodeId, Word>,
    /// Could not do it just now.
    unwell: BTreeSet<NodeId>,
    /// Set by the last step of its life.
    over: bool,
}

impl Change {
    /// Of a proposal that was just logged.
    #[must_use]
    pub fn new(proposal: Proposal) -> Change {
        Change {
            proposal,
            stood: None,
            asked: BTreeMap::new(),
            adopted: BTreeMap::new(),
            source: None,
            syncing: BTreeSet::new(),
            ready: BTreeMap::new(),
            failed: BTreeMap::new(),
            unwell: BTreeSet::new(),
            over: false,
        }
    }

    /// The version it drives.
    #[must_use]
    pub fn version(&self) -> Version {
        self.proposal.version
    }

    /// Bytes the members may have to pull, as far as known: how long to wait for them.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.adopted.values().map(|a| a.length).max().unwrap_or_default()
    }

    /// True once a source is named: members are becoming ready.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.source.is_some()
    }

    /// Takes an answer to one of this change's orders.
    pub fn answered(&mut self, node: NodeId, answer: Answer) {
        match answer {
            Answer::Adopted(adopted) => {
                self.adopted.insert(node, adopted);
            }
            Answer::Ready(ready) if self.syncing.contains(&node) => {
                self.ready.insert(node, ready);
            }
            Answer::Failed(error) => self.blame(node, &error),
            Answer::Ready(_) | Answer::Copied | Answer::Deleted => {}
        }
    }

    /// A failure speaks against the member it names, against the one that tells of it, or only against the moment.
    fn blame(&mut self, node: NodeId, error: &Error) {
        let members = &self.proposal.members;
        match error.node.filter(|n| *n != node && members.contains(n)) {
            Some(other) => {
                self.failed.entry(other).or_insert(Word::Member);
            }
            None if error.retry() == Retry::Never || error.code == Code::Corrupt => {
                self.failed.insert(node, Word::Itself);
            }
            None => {
                self.unwell.insert(node);
            }
        }
    }

    /// The time for the current phase is up: who has not answered is suspect.
    pub fn deadline_passed(&mut self) {
        for member in &self.proposal.members {
            let answered = if self.source.is_some() {
                // Behind a source that goes first, the others were not asked yet.
                self.ready.contains_key(member) || !self.syncing.contains(member)
            } else {
                self.adopted.contains_key(member)
            };
            if !answered {
                self.failed.entry(*member).or_insert(Word::Client);
            }
        }
    }

    /// What to do now. After `Activate`, `Supersede` or `Freeze` nothing more comes.
    pub fn step(&mut self, sessions: Sessions<'_>) -> Vec<Step> {
        if self.over {
            return Vec::new();
        }
        if self.stood.is_none() {
            self.stood = Some(self.leaving().map(|n| (n, sessions(n))).collect());
        }
        let mut steps = self.ask(sessions);
        if let Some(last) = self.conclude(sessions, &mut steps) {
            self.over = !matches!(last, Step::Blocked(_));
            steps.push(last);
        }
        steps
    }

    /// Orders to adopt for everyone who is connected and was not asked in this session.
    fn ask(&mut self, sessions: Sessions<'_>) -> Vec<Step> {
        let p = &self.proposal;
        let everyone: BTreeSet<NodeId> = p
            .members
            .iter()
            .chain(&p.active_members)
            .chain(&p.holders)
            .copied()
            .collect();
        let mut steps = Vec::new();
        for node in everyone {
            let Session::Connected(session) = sessions(node) else {
                continue;
            };
            let again = self.asked.get(&node).is_some_and(|s| *s != session);
            if again && p.members.contains(&node) {
                continue; // Its session ended meanwhile: the proposal is over.
            }
            if self.asked.insert(node, session) != Some(session) {
                let order = Order::Adopt {
                    version: p.version,
                    members: p.members.clone(),
                    truncate: p.truncate,
                    active: p.active,
                };
                steps.push(Step::Send(node, order));
            }
        }
        steps
    }

    fn conclude(&mut self, sessions: Sessions<'_>, steps: &mut Vec<Step>) -> Option<Step> {
        let version = self.proposal.version;
        if let Some((node, a)) = self.adopted.iter().find(|(_, a)| a.promised > version) {
            return Some(Step::Freeze(*node, a.promised));
        }
        if let Some(supersede) = self.broken(sessions) {
            return Some(Step::Supersede(supersede));
        }
        if self.source.is_none() {
            if !self.proposal.members.iter().all(|m| self.adopted.contains_key(m)) {
                return None;
            }
            match self.choose() {
                Ok(source) => self.source = Some(source),
                Err(step) => return Some(step),
            }
        }
        self.order_sync(steps);
        self.finish(sessions)
    }

    /// A member failed, or its session is not the one it was asked in.
    fn broken(&self, sessions: Sessions<'_>) -> Option<Supersede> {
        let members = &self.proposal.members;
        let without: BTreeMap<NodeId, Word> = self
            .failed
            .iter()
            .filter(|(n, _)| members.contains(n))
            .map(|(n, w)| (*n, *w))
            .collect();
        if !without.is_empty() {
            return Some(Supersede {
                without,
                why: "a member failed",
                ..Supersede::default()
            });
        }
        let unwell: BTreeSet<NodeId> = self
            .unwell
            .iter()
            .filter(|n| members.contains(n))
            .copied()
            .collect();
        if !unwell.is_empty() {
            return Some(Supersede {
                unwell,
                why: "a member could not do it now",
                ..Supersede::default()
            });
        }
        let gone = |m: &&NodeId| {
            sessions(**m)
                != self
                    .asked
                    .get(m)
                    .map_or(Session::Ended, |s| Session::Connected(*s))
        };
        members.iter().any(|m| gone(&m)).then(|| Supersede {
            why: "a member's session ended",
            ..Supersede::default()
        })
    }

    fn is_whole(&self, a: &Adopted) -> bool {
        !a.absent && a.kind == Kind::Intact && a.synced >= self.proposal.active
    }

    fn is_lost(&self, a: &Adopted) -> bool {
        !a.absent && a.kind == Kind::Lost && a.synced >= self.proposal.active
    }

    /// The one source of this version. All members have answered.
    fn choose(&self) -> Result<Source, Step> {
        let members = &self.proposal.members;
        let whole = |n: &&NodeId| self.adopted.get(n).is_some_and(|a| self.is_whole(a));
        let flaws = |n: &&NodeId| {
            let restarted = self.adopted.get(n).is_some_and(|a| a.restarted);
            (self.proposal.ailing.contains(n), restarted)
        };
        if let Some(node) = members.iter().filter(whole).min_by_key(flaws) {
            let source = Source {
                node: *node,
                lost: false,
                empty: false,
            };
            return self.leave_out(source).map_or(Ok(source), Err);
        }
        let come_in = |node: NodeId| {
            Err(Step::Supersede(Supersede {
                with: vec![node],
                why: "another holder has what no member has",
                ..Supersede::default()
            }))
        };
        let holders = || self.proposal.holders.iter().chain(members);
        if let Some(node) = holders().find(whole) {
            return come_in(*node);
        }
        let silent: Vec<NodeId> = holders()
            .filter(|h| !self.adopted.contains_key(h))
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if !silent.is_empty() {
            return Err(Step::Blocked(Blocked::Holders(silent)));
        }
        self.choose_lost().map_or_else(
            || self.nothing_left(),
            |node| {
                if members.contains(&node) {
                    Ok(Source {
                        node,
                        lost: true,
                        empty: false,
                    })
                } else {
                    come_in(node)
                }
            },
        )
    }

    /// The lost replica with the greatest fsynced length; among equals a member, the first in chain order.
    fn choose_lost(&self) -> Option<NodeId> {
        let place = |n: &NodeId| {
            self.proposal
                .members
                .iter()
                .position(|m| m == n)
                .unwrap_or(usize::MAX)
        };
        self.adopted
            .iter()
            .filter(|(_, a)| self.is_lost(a))
            .max_by_key(|(n, a)| (a.fsynced_length, std::cmp::Reverse(place(n))))
            .map(|(n, _)| *n)
    }

    /// Everyone has answered and nobody has anything: empty if nothing was ever fsynced.
    fn nothing_left(&self) -> Result<Source, Step> {
        let never = |a: &Adopted| a.absent || (a.synced == Version(0) && a.kind != Kind::Broken);
        let first = *self.proposal.members.first().expect("a proposal has members");
        if self.proposal.durable_length == 0 && self.adopted.values().all(never) {
            Ok(Source {
                node: first,
                // What was acknowledged went with the power: its writer has to hear of it.
                lost: self.proposal.length > 0,
                empty: true,
            })
        } else {
            Err(Step::Blocked(Blocked::NoCopy))
        }
    }

    /// Members that lack much are left out, and those whose file cannot be used: someone else stays.
    fn leave_out(&self, source: Source) -> Option<Step> {
        let length = self.adopted.get(&source.node).map_or(0, |a| a.length);
        let answer = |n: &NodeId| self.adopted.get(n).expect("all members have answered");
        let usable = |n: &NodeId| {
            let a = answer(n);
            self.is_whole(a) || self.is_lost(a) || self.proposal.based.contains(n)
        };
        let broken = |n: &NodeId| !usable(n) && answer(n).kind == Kind::Broken;
        let members = &self.proposal.members;
        // Rather a longer sync than a chunk with one member.
        let enough = members.iter().filter(|n| usable(n)).count() >= MEMBERS_MIN;
        let lacks = |n: &NodeId| enough && !usable(n) && length > DIFFERENCE_BYTES_MAX;
        let left_out = members.iter().filter(|n| broken(n) || lacks(n));
        let without: BTreeMap<NodeId, Word> = left_out.map(|n| (*n, Word::Itself)).collect();
        (!without.is_empty()).then_some(Step::Supersede(Supersede {
            without,
            why: "a member lacks much",
            ..Supersede::default()
        }))
    }

    /// Orders to sync. A source that changes itself (it is lost, or cut) goes first, so that all pull what it will be.
    fn order_sync(&mut self, steps: &mut Vec<Step>) {
        let source = self.source.expect("a source is named before sync is ordered");
        let p = &self.proposal;
        let truncate = if source.empty { Some(0) } else { p.truncate };
        let alike = |n: &&NodeId| {
            **n != source.node
                && self.adopted.get(n).is_some_and(|a| {
                    if source.lost {
                        self.is_lost(a)
                    } else {
                        self.is_whole(a)
                    }
                })
        };
        let others: Vec<NodeId> = std::iter::once(&source.node)
            .chain(p.members.iter().filter(alike))
            .copied()
            .collect();
        let source_first = source.lost || truncate.is_some();
        for member in &p.members {
            let waits = source_first && *member != source.node && !self.ready.contains_key(&source.node);
            if !waits && self.syncing.insert(*member) {
                let sync = Sync {
                    version: p.version,
                    members: p.members.clone(),
                    source: source.node,
                    others: others.clone(),
                    lost: source.lost,
                    truncate,
                };
                steps.push(Step::Send(*member, Order::Sync(sync)));
            }
        }
    }

    /// Active members that are not in the proposal.
    fn leaving(&self) -> impl Iterator<Item = NodeId> + '_ {
        let p = &self.proposal;
        p.active_members
            .iter()
            .copied()
            .filter(|n| !p.members.contains(n))
    }

    /// A leaving member serves nothing of the version before: it has promised this one, or its session is over, or it
    /// began after the proposal was logged. In the latter case it is compared with the proposal before it serves the chunk.
    fn is_told(&self, node: NodeId, sessions: Sessions<'_>) -> bool {
        let promised = |a: &Adopted| a.promised >= self.proposal.version;
        let stood = self.stood.as_ref().and_then(|s| s.get(&node)).copied();
        match sessions(node) {
            _ if self.adopted.get(&node).is_some_and(promised) => true,
            Session::Ended => true,
            Session::Doubtful => false,
            now @ Session::Connected(_) => stood.is_some_and(|stood| stood != now),
        }
    }

    /// Leaving members that show signs of life but do not promise while everyone else is ready, with their sessions.
    #[must_use]
    pub fn held_up_by(&self, sessions: Sessions<'_>) -> Vec<(NodeId, u64)> {
        let all_ready = self.proposal.members.iter().all(|m| self.ready.contains_key(m));
        let silent = self
            .leaving()
            .filter(|n| all_ready && !self.is_told(*n, sessions));
        silent
            .filter_map(|node| match sessions(node) {
                Session::Connected(session) => Some((node, session)),
                Session::Doubtful | Session::Ended => None,
            })
            .collect()
    }

    fn finish(&self, sessions: Sessions<'_>) -> Option<Step> {
        let p = &self.proposal;
        let ready: Vec<&Ready> = p.members.iter().filter_map(|m| self.ready.get(m)).collect();
        if ready.len() < p.members.len() {
            return None;
        }
        let first = ready[0];
        if ready
            .iter()
            .any(|r| (r.length, r.digest) != (first.length, first.digest))
        {
            return Some(Step::Supersede(Supersede {
                why: "members differ",
                ..Supersede::default()
            }));
        }
        if !self.leaving().all(|n| self.is_told(n, sessions)) {
            return None;
        }
        let source = self.source.expect("members are ready behind a source");
        let told_loss = ready.iter().map(|r| r.loss).max().unwrap_or_default();
        let loss = if source.lost {
            told_loss.max(p.version)
        } else {
            told_loss
        };
        Some(Step::Activate {
            length: first.length,
            loss,
        })
    }
}

#[cfg(test)]
mod tests;
