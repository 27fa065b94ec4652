//! Why a chunk is as it is and what it waits for, in words; and what rests on one server (cli.md, `dfs explain`).
//!
//! The same facts and the same judgment as [`super::repair`]: an explanation of its own would be another truth.

use super::domains::Domains;
use super::order::Kind;
use super::repair::{self, Chunk, Holder, Move, Need, Patience};
use dfs_proto::{NodeId, Version};
use std::collections::BTreeSet;

/// How a chunk is, by its worst trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Ok,
    /// As it should be, and being written.
    Open,
    /// Fewer good members than wanted.
    UnderGoal,
    /// More members than wanted.
    OverGoal,
    /// No good member is connected, or bytes are lost.
    Missing,
    /// A member's replica is bad.
    Corrupt,
    /// Its replicas know more than the master.
    Frozen,
    /// Nothing refers to it.
    Collecting,
}

impl Health {
    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Open => "open",
            Health::UnderGoal => "under_goal",
            Health::OverGoal => "over_goal",
            Health::Missing => "missing",
            Health::Corrupt => "corrupt",
            Health::Frozen => "frozen",
            Health::Collecting => "collecting",
        }
    }
}

/// What is known of a chunk beside its view.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Members with a bad block.
    pub bad: BTreeSet<NodeId>,
    /// Bytes that went with a power cut of all replicas.
    pub lost_bytes: u64,
    /// Nothing refers to it since so many milliseconds.
    pub unreferenced_ms: Option<u64>,
    /// A change of its configuration is under way.
    pub changing: bool,
    /// What that change waits for.
    pub blocked: Option<String>,
    /// A copy for a new member is under way.
    pub joining: bool,
    /// A connected server that is no member has room.
    pub spare: bool,
    /// Where all servers stand.
    pub domains: Domains,
}

/// The explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// By its worst trouble.
    pub health: Health,
    /// Members that would serve it now.
    pub good: Vec<NodeId>,
    /// Why it is so.
    pub why: Vec<String>,
    /// What it waits for.
    pub waits_for: Vec<String>,
}

/// Members of the chunk that would serve it now, as far as is known.
pub fn good<'a>(chunk: &'a Chunk, bad: &'a BTreeSet<NodeId>) -> impl Iterator<Item = NodeId> + 'a {
    chunk
        .members
        .iter()
        .filter(|m| m.session.is_connected() && repair::is_good(chunk, m) && !bad.contains(&m.node))
        .map(|m| m.node)
}

/// Explains one chunk.
#[must_use]
pub fn chunk(chunk: &Chunk, facts: &Facts, patience: &Patience) -> Account {
    let good: Vec<NodeId> = good(chunk, &facts.bad).collect();
    let health = health(chunk, facts, good.len());
    let mut why: Vec<String> = chunk
        .members
        .iter()
        .filter_map(|m| ill(chunk, m, facts))
        .collect();
    if chunk.members.len() < chunk.goal {
        let (has, goal) = (chunk.members.len(), chunk.goal);
        why.push(format!("it has {has} of the {goal} members it should have"));
    }
    if chunk.members.len() > chunk.goal {
        let (has, goal) = (chunk.members.len(), chunk.goal);
        why.push(format!("it has {has} members, and {goal} are wanted"));
    }
    if facts.lost_bytes > 0 {
        let lost = facts.lost_bytes;
        why.push(format!(
            "{lost} bytes behind its end went with a power cut of all its replicas"
        ));
    }
    if chunk.frozen {
        why.push("a replica has promised a version that this master never proposed: it was restored from an older state".into());
    }
    if facts.unreferenced_ms.is_some() {
        why.push("no file refers to it any more".into());
    }
    for other in &chunk.others {
        why.push(format!("node {} has a replica that does not count", other.node));
    }
    let waits_for = waits(chunk, facts, patience);
    Account {
        health,
        good,
        why,
        waits_for,
    }
}

fn health(chunk: &Chunk, facts: &Facts, good: usize) -> Health {
    let broken = |h: &Holder| h.replica.is_some_and(|r| r.kind == Kind::Broken);
    if facts.unreferenced_ms.is_some() {
        Health::Collecting
    } else if chunk.frozen {
        Health::Frozen
    } else if good == 0 || facts.lost_bytes > 0 {
        Health::Missing
    } else if !facts.bad.is_empty() || chunk.members.iter().any(broken) {
        Health::Corrupt
    } else if good < chunk.goal {
        Health::UnderGoal
    } else if chunk.members.len() > chunk.goal {
        Health::OverGoal
    } else if chunk.writing {
        Health::Open
    } else {
        Health::Ok
    }
}

/// What is wrong with a member.
fn ill(chunk: &Chunk, member: &Holder, facts: &Facts) -> Option<String> {
    let node = member.node;
    if !member.session.is_connected() {
        return Some(format!("node {node} is away since {}", span(member.for_ms)));
    }
    if facts.bad.contains(&node) {
        return Some(format!("node {node} has found a block that fails its checksum"));
    }
    if repair::is_good(chunk, member) {
        return None;
    }
    Some(match member.replica {
        None => format!("node {node} has no file for it any more"),
        Some(r) if r.kind == Kind::Broken => format!("node {node} cannot read its file"),
        Some(r) if r.kind == Kind::Lost => {
            format!("node {node} lost power while it was written: only what was fsynced is sure there")
        }
        Some(r) if r.synced < chunk.active => {
            format!("node {node} has the bytes of version {} only", r.synced)
        }
        Some(_) => format!("node {node} restarted while it was written, and goes through the next version"),
    })
}

fn waits(chunk: &Chunk, facts: &Facts, patience: &Patience) -> Vec<String> {
    let mut waits = Vec::new();
    if facts.unreferenced_ms.is_some() {
        let away = chunk.members.iter().chain(&chunk.others);
        let away = away.filter(|h| !h.session.is_connected());
        waits.extend(away.map(|h| format!("node {}, which may return with a replica", h.node)));
        waits.push("the grace time of removed chunks".into());
        return waits;
    }
    if chunk.frozen {
        waits.push("an operator: by itself the master does nothing with it".into());
        return waits;
    }
    if let Some(blocked) = &facts.blocked {
        waits.push(blocked.clone());
    }
    if facts.changing {
        waits.push("its next version, which is being brought about".into());
    }
    if facts.joining {
        waits.push("a copy for a new member, which is under way".into());
    }
    if !waits.is_empty() {
        return waits;
    }
    match repair::judge(chunk, patience, &facts.domains) {
        Need::Nothing => waits.extend(idle(chunk, patience)),
        Need::Freeze(node, _) => waits.push(format!(
            "node {node} knows more than the master: it is being frozen"
        )),
        Need::Reconfigure { why, .. } => waits.push(format!("its next version: {why}")),
        Need::Copy(Move { to: Some(node), .. }) => {
            waits.push(format!("a copy to node {node}: it is in the queue"));
        }
        Need::Copy(_) if facts.spare => waits.push("a copy to another server: it is in the queue".into()),
        Need::Copy(_) => waits.push("another server with room for a replica: there is none".into()),
        Need::Delete(nodes) => {
            waits.extend(
                nodes
                    .iter()
                    .map(|n| format!("the deletion of the replica on node {n}")),
            );
        }
    }
    waits
}

/// Why nothing is done about a chunk that is not as it should be.
fn idle(chunk: &Chunk, patience: &Patience) -> Vec<String> {
    let connected = chunk.members.iter().filter(|m| m.session.is_connected()).count();
    let away = || chunk.members.iter().filter(|m| !m.session.is_connected());
    if connected == 0 {
        return away().map(|m| format!("the return of node {}", m.node)).collect();
    }
    if connected >= chunk.goal {
        return Vec::new();
    }
    if chunk.writing && connected > 1 {
        return vec!["the end of its writer, who would be stopped for a copy".into()];
    }
    let limit = patience.dead_ms + if connected == 1 { 0 } else { patience.repair_ms };
    let mut waits: Vec<String> = away()
        .filter(|m| m.for_ms < limit)
        .map(|m| {
            let left = span(limit - m.for_ms);
            format!(
                "the return of node {}, for {left} more: then it is copied elsewhere",
                m.node
            )
        })
        .collect();
    if waits.is_empty() && chunk.someone_away {
        waits.push("servers that are away and may have a replica of it".into());
    }
    waits
}

fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} s", ms / 1_000),
    }
}

/// What rests on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burden {
    /// Chunks it is a member of.
    pub chunks: u64,
    /// Of these, no other good member has them.
    pub only_here: u64,
    /// Their committed bytes.
    pub only_here_bytes: u64,
    /// Exactly one other good member has them, and more were wanted.
    pub one_other: u64,
    /// Being written.
    pub writing: u64,
}

impl Burden {
    /// Counts a chunk. True if it would be lost with the server.
    pub fn add(&mut self, node: NodeId, chunk: &Chunk, bad: &BTreeSet<NodeId>) -> bool {
        if !chunk.members.iter().any(|m| m.node == node) {
            return false;
        }
        self.chunks += 1;
        self.writing += u64::from(chunk.writing);
        let never_written = chunk.length == 0 && chunk.active == Version::FIRST;
        let others = good(chunk, bad).filter(|n| *n != node).count();
        match others {
            0 if !never_written => {
                self.only_here += 1;
                self.only_here_bytes += chunk.length;
                return true;
            }
            1 if chunk.goal > 2 => self.one_other += 1,
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Session;
    use crate::plan::repair::Replica;

    const PATIENCE: Patience = Patience {
        dead_ms: 30_000,
        repair_ms: 60_000,
        settle_ms: 1_000,
    };

    fn holder(node: u32) -> Holder {
        Holder {
            node: NodeId(node),
            session: Session::Connected(1),
            for_ms: 10_000,
            compared: true,
            replica: Some(Replica {
                promised: Version(2),
                synced: Version(2),
                length: 9,
                kind: Kind::Intact,
                restarted: false,
            }),
        }
    }

    fn away(node: u32, for_ms: u64) -> Holder {
        Holder {
            session: Session::Ended,
            for_ms,
            compared: false,
            ..holder(node)
        }
    }

    fn of(members: Vec<Holder>) -> Chunk {
        Chunk {
            goal: 3,
            active: Version(2),
            newest: Version(2),
            length: 9,
            frozen: false,
            writing: false,
            abandoned: false,
            someone_away: false,
            members,
            others: Vec::new(),
        }
    }

    fn told(of: &Chunk, facts: &Facts) -> Account {
        chunk(of, facts, &PATIENCE)
    }

    #[test]
    fn a_good_chunk_needs_no_words() {
        let account = told(&of(vec![holder(1), holder(2), holder(3)]), &Facts::default());
        assert_eq!((account.health, account.good.len()), (Health::Ok, 3));
        assert!(account.why.is_empty() && account.waits_for.is_empty());
    }

    #[test]
    fn a_member_that_is_away_is_waited_for_until_it_is_copied() {
        let account = told(
            &of(vec![holder(1), holder(2), away(3, 50_000)]),
            &Facts::default(),
        );
        assert_eq!(account.health, Health::UnderGoal);
        assert_eq!(account.why, ["node 3 is away since 50 s"]);
        assert_eq!(
            account.waits_for,
            ["the return of node 3, for 40 s more: then it is copied elsewhere"]
        );
    }

    #[test]
    fn without_another_server_a_copy_waits_for_one() {
        let under = of(vec![holder(1), holder(2), away(3, 100_000)]);
        let none = told(&under, &Facts::default());
        assert_eq!(
            none.waits_for,
            ["another server with room for a replica: there is none"]
        );
        let facts = Facts {
            spare: true,
            ..Facts::default()
        };
        assert_eq!(
            told(&under, &facts).waits_for,
            ["a copy to another server: it is in the queue"]
        );
    }

    #[test]
    fn a_chunk_nobody_can_serve_is_missing_and_waits_for_its_members() {
        let account = told(&of(vec![away(1, 5_000), away(2, 5_000)]), &Facts::default());
        assert_eq!(account.health, Health::Missing);
        assert_eq!(
            account.waits_for,
            ["the return of node 1", "the return of node 2"]
        );
    }

    #[test]
    fn a_bad_replica_and_a_frozen_chunk_are_told() {
        let three = of(vec![holder(1), holder(2), holder(3)]);
        let bad = Facts {
            bad: BTreeSet::from([NodeId(2)]),
            ..Facts::default()
        };
        assert_eq!(told(&three, &bad).health, Health::Corrupt);
        assert_eq!(told(&three, &bad).good, [NodeId(1), NodeId(3)]);
        let frozen = Chunk {
            frozen: true,
            ..three
        };
        assert_eq!(told(&frozen, &Facts::default()).health, Health::Frozen);
    }

    #[test]
    fn what_is_only_on_one_server_rests_on_it() {
        let mut burden = Burden::default();
        let none = BTreeSet::new();
        assert!(!burden.add(NodeId(1), &of(vec![holder(1), holder(2), holder(3)]), &none));
        assert!(burden.add(NodeId(1), &of(vec![holder(1), away(2, 5)]), &none));
        assert!(!burden.add(NodeId(1), &of(vec![holder(1), holder(2)]), &none));
        assert!(!burden.add(NodeId(9), &of(vec![holder(1)]), &none));
        assert_eq!((burden.chunks, burden.only_here, burden.one_other), (3, 1, 1));
        assert_eq!(burden.only_here_bytes, 9);
    }
}
