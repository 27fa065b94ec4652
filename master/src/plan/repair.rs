//! What one chunk needs (protocol, section 7): the most urgent thing, or nothing.
//!
//! In order: leave a frozen chunk alone; finish a proposal; bring a member that fell out of its version's stream to the
//! next one; commit what a dead writer left; bring the chunk back to its goal; let go who is to leave or stands in a bad
//! place, after another one has a copy; let go who is too many; delete stale replicas.

use super::Session;
use super::domains::{Domains, Service};
use super::order::Kind;
use dfs_proto::{NodeId, Version};

/// A replica as last reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// What it has promised.
    pub promised: Version,
    /// Its bytes are whole as of the start of this version.
    pub synced: Version,
    /// Bytes.
    pub length: u64,
    /// What its file is.
    pub kind: Kind,
    /// It was open when its process started.
    pub restarted: bool,
}

/// One server's part in a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// The server.
    pub node: NodeId,
    /// How its session stands.
    pub session: Session,
    /// How long it has been connected, or away, in milliseconds.
    pub for_ms: u64,
    /// Its inventory was compared completely, in this session.
    pub compared: bool,
    /// Its replica, if it has reported one.
    pub replica: Option<Replica>,
}

/// A chunk with everything known about it.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Replicas wanted.
    pub goal: usize,
    /// The active version.
    pub active: Version,
    /// The newest version, active or proposed.
    pub newest: Version,
    /// Committed bytes.
    pub length: u64,
    /// The replicas know more than the master.
    pub frozen: bool,
    /// Someone may be writing it now.
    pub writing: bool,
    /// A writer went away without giving its grant back, or wrote more than was committed.
    pub abandoned: bool,
    /// A server that may have a replica nobody has told of went away, or has not come yet, and may return.
    pub someone_away: bool,
    /// Active members in chain order.
    pub members: Vec<Holder>,
    /// Other servers with a replica, best base for a copy first.
    pub others: Vec<Holder>,
}

/// How long things may stay as they are, milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A server is dead.
    pub dead_ms: u64,
    /// A chunk under goal waits so long for a dead server's return.
    pub repair_ms: u64,
    /// A server that came back is trusted after this.
    pub settle_ms: u64,
}

/// How urgent a copy is; the lesser one is made first. What a client waits for is not among it: that is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// One live member is left.
    OneLeft,
    /// Fewer live members than wanted.
    Under {
        /// Live members of a thousand wanted ones.
        live_permille: usize,
    },
    /// A member is to leave.
    Leaving,
    /// Members share a host or a rack without need.
    Misplaced,
    /// One server is fuller than the others.
    Uneven,
}

/// A copy, and who goes when it has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// How urgent it is.
    pub urgency: Urgency,
    /// Where to; `None`: anywhere that placement finds.
    pub to: Option<NodeId>,
    /// The member in whose place the new one comes: never before the new one is there.
    pub instead_of: Option<NodeId>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing, or nothing now.
    Nothing,
    /// A replica has promised a version that was never proposed.
    Freeze(NodeId, Version),
    /// Bring it to the next version, without these.
    Reconfigure {
        /// Their files are gone or broken, or their servers are dead.
        without: Vec<NodeId>,
        /// For the log.
        why: &'static str,
    },
    /// Copy it to another server and let that one join.
    Copy(Move),
    /// Delete these replicas.
    Delete(Vec<NodeId>),
}

/// Judges one chunk that something refers to.
#[must_use]
pub fn judge(chunk: &Chunk, patience: &Patience, domains: &Domains) -> Need {
    if chunk.frozen {
        return Need::Nothing;
    }
    if let Some((node, promised)) = promised_above(chunk) {
        return Need::Freeze(node, promised);
    }
    if !chunk.members.iter().any(|m| m.session.is_connected()) {
        return Need::Nothing;
    }
    if chunk.newest > chunk.active {
        return Need::Reconfigure {
            without: Vec::new(),
            why: "an unfinished proposal",
        };
    }
    if let Some(need) = fallen_out(chunk) {
        return need;
    }
    if chunk.abandoned {
        return Need::Reconfigure {
            without: Vec::new(),
            why: "its writer is gone",
        };
    }
    under_goal(chunk, patience, domains)
        .or_else(|| displaced(chunk, domains))
        .or_else(|| over_goal(chunk, domains))
        .unwrap_or_else(|| stale(chunk))
}

fn promised_above(chunk: &Chunk) -> Option<(NodeId, Version)> {
    let above = |h: &&Holder| h.compared && h.replica.is_some_and(|r| r.promised > chunk.newest);
    let holder = chunk.members.iter().chain(&chunk.others).find(above)?;
    Some((holder.node, holder.replica?.promised))
}

/// True if a connected member serves its version as it should.
pub(super) fn is_good(chunk: &Chunk, member: &Holder) -> bool {
    member.session.is_connected()
        && (!member.compared
            || member
                .replica
                .map_or(chunk.length == 0 && chunk.active == Version::FIRST, |r| {
                    r.kind == Kind::Intact && !r.restarted && r.synced >= chunk.active
                }))
}

/// Connected members that are out of their version's stream, or have lost their file.
fn fallen_out(chunk: &Chunk) -> Option<Need> {
    let out = |m: &&Holder| m.session.is_connected() && !is_good(chunk, m);
    let fallen: Vec<&Holder> = chunk.members.iter().filter(out).collect();
    if fallen.is_empty() {
        return None;
    }
    let useless = |m: &&&Holder| {
        m.replica
            .is_none_or(|r| r.kind == Kind::Broken || r.synced < chunk.active)
    };
    let without = fallen.iter().filter(useless).map(|m| m.node).collect();
    Some(Need::Reconfigure {
        without,
        why: "a member fell out of the stream",
    })
}

/// `None`: it is at its goal. `Some(Nothing)`: it is not, and someone or something is awaited.
fn under_goal(chunk: &Chunk, patience: &Patience, domains: &Domains) -> Option<Need> {
    let waited_ms = patience.dead_ms.saturating_add(patience.repair_ms);
    let connected = chunk.members.iter().filter(|m| m.session.is_connected()).count();
    let alone = connected == 1 && chunk.goal > 1;
    let is_maintained = |h: &Holder| domains.service(h.node) == Service::Maintenance && !alone;
    let hopeless = |m: &&Holder| {
        m.session == Session::Ended
            && m.for_ms >= if alone { patience.dead_ms } else { waited_ms }
            && !is_maintained(m)
    };
    let gone = chunk.members.iter().filter(hopeless).count();
    let counted = chunk.members.len() - gone;
    if counted >= chunk.goal {
        return None;
    }
    let is_new = chunk.length == 0 && chunk.writing;
    // A writer is stopped for a moment by the joiner: most chunks are full soon, so it is only done for who waits long.
    let is_busy = chunk.writing && connected > 1 && gone == 0;
    let settled_ms = if is_busy {
        patience.repair_ms
    } else {
        patience.settle_ms
    };
    let copy = |to| {
        Some(Need::Copy(Move {
            urgency: if alone {
                Urgency::OneLeft
            } else {
                Urgency::Under {
                    live_permille: connected * 1_000 / chunk.goal,
                }
            },
            to,
            instead_of: None,
        }))
    };
    let returned = |h: &&Holder| {
        h.session.is_connected()
            && h.compared
            && h.for_ms >= settled_ms
            && domains.service(h.node) == Service::In
    };
    match chunk.others.iter().find(returned) {
        Some(base) if !is_new => return copy(Some(base.node)),
        Some(_) | None => {}
    }
    let awaited = |h: &Holder| match h.session.is_connected() {
        true => domains.service(h.node) == Service::In,
        false => h.for_ms < waited_ms || is_maintained(h),
    };
    if is_new || is_busy || !alone && (chunk.someone_away || chunk.others.iter().any(awaited)) {
        return Some(Need::Nothing);
    }
    copy(None)
}

/// A member that is to leave, or that shares a host or a rack without need, makes room for another one.
fn displaced(chunk: &Chunk, domains: &Domains) -> Option<Need> {
    if !is_settled(chunk) || chunk.length == 0 && chunk.writing {
        return None;
    }
    let instead = |urgency, node| {
        Some(Need::Copy(Move {
            urgency,
            to: None,
            instead_of: Some(node),
        }))
    };
    let good = good_members(chunk);
    if good.len() > chunk.goal {
        return None; // Who is too many goes without a copy.
    }
    let drained = |m: &&NodeId| domains.service(**m) == Service::Draining;
    if let Some(node) = good.iter().find(drained) {
        return instead(Urgency::Leaving, *node);
    }
    if chunk.writing {
        return None;
    }
    domains
        .crowded(&good)
        .and_then(|node| instead(Urgency::Misplaced, node))
}

/// Too many good members: some go, by rule.
fn over_goal(chunk: &Chunk, domains: &Domains) -> Option<Need> {
    let good = good_members(chunk);
    if chunk.writing || !is_settled(chunk) || good.len() <= chunk.goal {
        return None;
    }
    Some(Need::Reconfigure {
        without: domains.surplus(&good, good.len() - chunk.goal),
        why: "it is over its goal",
    })
}

/// Every member is good, and there are as many as wanted.
fn is_settled(chunk: &Chunk) -> bool {
    chunk.members.len() >= chunk.goal && chunk.members.iter().all(|m| m.compared && is_good(chunk, m))
}

fn good_members(chunk: &Chunk) -> Vec<NodeId> {
    let good = chunk.members.iter().filter(|m| is_good(chunk, m));
    good.map(|m| m.node).collect()
}

/// Replicas that are no possible holders go when the goal is met by good members.
fn stale(chunk: &Chunk) -> Need {
    let good = chunk
        .members
        .iter()
        .filter(|m| m.compared && is_good(chunk, m))
        .count();
    if good < chunk.goal || chunk.members.len() > good {
        return Need::Nothing;
    }
    let gone: Vec<NodeId> = chunk
        .others
        .iter()
        .filter(|h| h.session.is_connected() && h.compared)
        .map(|h| h.node)
        .collect();
    if gone.is_empty() {
        Need::Nothing
    } else {
        Need::Delete(gone)
    }
}

#[cfg(test)]
mod tests;
