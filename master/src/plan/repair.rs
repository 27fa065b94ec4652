//! What one chunk needs (protocol, section 7): the most urgent thing, or nothing.
//!
//! In order: leave a frozen chunk alone; finish a proposal; bring a member that fell out of its version's stream to the
//! next one; commit what a dead writer left; bring the chunk back to its goal; delete stale replicas.

use super::Session;
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
    /// Copy it to this server and let it join; `None`: to any that placement finds.
    Join(Option<NodeId>),
    /// Delete these replicas.
    Delete(Vec<NodeId>),
}

/// Judges one chunk that something refers to.
#[must_use]
pub fn judge(chunk: &Chunk, patience: &Patience) -> Need {
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
    let need = under_goal(chunk, patience);
    if need != Need::Nothing {
        return need;
    }
    stale(chunk)
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

fn under_goal(chunk: &Chunk, patience: &Patience) -> Need {
    let waited_ms = patience.dead_ms.saturating_add(patience.repair_ms);
    let connected = chunk.members.iter().filter(|m| m.session.is_connected()).count();
    let alone = connected == 1 && chunk.goal > 1;
    let hopeless = |m: &&Holder| {
        m.session == Session::Ended && m.for_ms >= if alone { patience.dead_ms } else { waited_ms }
    };
    let counted = chunk.members.len() - chunk.members.iter().filter(hopeless).count();
    if counted >= chunk.goal || (chunk.length == 0 && chunk.writing) {
        return Need::Nothing;
    }
    if chunk.writing && connected > 1 {
        return Need::Nothing; // Its writer would be stopped for it, and most chunks are full soon.
    }
    let returned = |h: &&Holder| h.session.is_connected() && h.compared && h.for_ms >= patience.settle_ms;
    if let Some(base) = chunk.others.iter().find(returned) {
        return Need::Join(Some(base.node));
    }
    let may_return = |h: &&Holder| !h.session.is_connected() && h.for_ms < waited_ms;
    let settling = |h: &&Holder| h.session.is_connected();
    if !alone && (chunk.someone_away || chunk.others.iter().any(|h| may_return(&h) || settling(&h))) {
        return Need::Nothing;
    }
    Need::Join(None)
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
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        dead_ms: 30_000,
        repair_ms: 60_000,
        settle_ms: 1_000,
    };

    fn replica() -> Replica {
        Replica {
            promised: Version(2),
            synced: Version(2),
            length: 9,
            kind: Kind::Intact,
            restarted: false,
        }
    }

    fn holder(node: u32) -> Holder {
        Holder {
            node: NodeId(node),
            session: Session::Connected(1),
            for_ms: 10_000,
            compared: true,
            replica: Some(replica()),
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

    fn chunk(members: Vec<Holder>, others: Vec<Holder>) -> Chunk {
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
            others,
        }
    }

    fn three() -> Vec<Holder> {
        vec![holder(1), holder(2), holder(3)]
    }

    fn need(chunk: &Chunk) -> Need {
        judge(chunk, &PATIENCE)
    }

    #[test]
    fn a_good_chunk_needs_nothing() {
        assert_eq!(need(&chunk(three(), vec![])), Need::Nothing);
    }

    #[test]
    fn a_promise_above_the_newest_proposal_freezes() {
        let above = Holder {
            replica: Some(Replica {
                promised: Version(5),
                ..replica()
            }),
            ..holder(2)
        };
        assert_eq!(
            need(&chunk(vec![holder(1), above], vec![])),
            Need::Freeze(NodeId(2), Version(5))
        );
        let frozen = Chunk {
            frozen: true,
            ..chunk(vec![holder(1), above], vec![])
        };
        assert_eq!(need(&frozen), Need::Nothing);
    }

    #[test]
    fn an_unfinished_proposal_is_superseded() {
        let c = Chunk {
            newest: Version(3),
            ..chunk(three(), vec![])
        };
        assert!(matches!(need(&c), Need::Reconfigure { without, .. } if without.is_empty()));
    }

    #[test]
    fn a_member_that_restarted_under_open_goes_through_the_next_version() {
        let restarted = Holder {
            replica: Some(Replica {
                restarted: true,
                ..replica()
            }),
            ..holder(2)
        };
        let c = chunk(vec![holder(1), restarted, holder(3)], vec![]);
        assert!(matches!(need(&c), Need::Reconfigure { without, .. } if without.is_empty()));
    }

    #[test]
    fn a_member_without_its_file_leaves() {
        let empty = Holder {
            replica: None,
            ..holder(2)
        };
        let c = chunk(vec![holder(1), empty, holder(3)], vec![]);
        assert!(matches!(need(&c), Need::Reconfigure { without, .. } if without == [NodeId(2)]));
    }

    #[test]
    fn a_new_chunk_without_files_needs_nothing() {
        let none = |n| Holder {
            replica: None,
            ..holder(n)
        };
        let c = Chunk {
            active: Version(1),
            newest: Version(1),
            length: 0,
            ..chunk(vec![none(1), none(2), none(3)], vec![])
        };
        assert_eq!(need(&c), Need::Nothing);
    }

    #[test]
    fn a_restart_copies_nothing() {
        assert_eq!(
            need(&chunk(vec![holder(1), holder(2), away(3, 80_000)], vec![])),
            Need::Nothing
        );
        assert_eq!(
            need(&chunk(vec![holder(1), holder(2)], vec![away(3, 80_000)])),
            Need::Nothing
        );
    }

    #[test]
    fn after_a_masters_restart_those_who_have_not_come_yet_are_awaited() {
        let c = Chunk {
            someone_away: true,
            ..chunk(vec![holder(1), holder(2)], vec![])
        };
        assert_eq!(need(&c), Need::Nothing);
        let one_left = Chunk {
            someone_away: true,
            ..chunk(vec![holder(1)], vec![])
        };
        assert_eq!(need(&one_left), Need::Join(None));
    }

    #[test]
    fn a_server_that_never_returns_is_replaced() {
        assert_eq!(
            need(&chunk(vec![holder(1), holder(2), away(3, 90_000)], vec![])),
            Need::Join(None)
        );
        assert_eq!(
            need(&chunk(vec![holder(1), holder(2)], vec![away(3, 90_000)])),
            Need::Join(None)
        );
    }

    #[test]
    fn one_member_left_is_repaired_as_soon_as_the_others_are_dead() {
        assert_eq!(
            need(&chunk(vec![holder(1), away(2, 30_000), away(3, 30_000)], vec![])),
            Need::Join(None)
        );
        assert_eq!(
            need(&chunk(vec![holder(1), away(2, 1_000), away(3, 1_000)], vec![])),
            Need::Nothing
        );
        assert_eq!(
            need(&chunk(vec![holder(1)], vec![away(3, 1_000)])),
            Need::Join(None)
        );
    }

    #[test]
    fn a_removed_member_that_returned_joins_again() {
        let c = chunk(vec![holder(1), holder(2)], vec![holder(3)]);
        assert_eq!(need(&c), Need::Join(Some(NodeId(3))));
        let c = chunk(
            vec![holder(1), holder(2)],
            vec![Holder {
                for_ms: 10,
                ..holder(3)
            }],
        );
        assert_eq!(need(&c), Need::Nothing);
    }

    #[test]
    fn a_writer_is_not_stopped_for_a_joiner() {
        let c = Chunk {
            writing: true,
            ..chunk(vec![holder(1), holder(2)], vec![holder(3)])
        };
        assert_eq!(need(&c), Need::Nothing);
    }

    #[test]
    fn a_dead_writers_bytes_are_committed() {
        let c = Chunk {
            abandoned: true,
            ..chunk(three(), vec![])
        };
        assert!(matches!(need(&c), Need::Reconfigure { .. }));
    }

    #[test]
    fn stale_replicas_go_only_when_the_goal_is_met_by_good_members() {
        assert_eq!(
            need(&chunk(three(), vec![holder(4)])),
            Need::Delete(vec![NodeId(4)])
        );
        let away_member = chunk(vec![holder(1), holder(2), away(3, 5)], vec![holder(4)]);
        assert_eq!(need(&away_member), Need::Nothing);
    }

    #[test]
    fn without_a_connected_member_nothing_is_done() {
        assert_eq!(
            need(&chunk(vec![away(1, 1_000_000)], vec![holder(4)])),
            Need::Nothing
        );
    }
}
