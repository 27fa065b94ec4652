use super::super::domains::Standing;
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
    judge(chunk, &PATIENCE, &Domains::default())
}

fn under(to: Option<u32>) -> Need {
    Need::Copy(Move {
        urgency: Urgency::Under { live_permille: 666 },
        to: to.map(NodeId),
        instead_of: None,
    })
}

fn one_left() -> Need {
    Need::Copy(Move {
        urgency: Urgency::OneLeft,
        to: None,
        instead_of: None,
    })
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
    let last = Chunk {
        someone_away: true,
        ..chunk(vec![holder(1)], vec![])
    };
    assert_eq!(need(&last), one_left());
}

#[test]
fn a_server_that_never_returns_is_replaced() {
    assert_eq!(
        need(&chunk(vec![holder(1), holder(2), away(3, 90_000)], vec![])),
        under(None)
    );
    assert_eq!(
        need(&chunk(vec![holder(1), holder(2)], vec![away(3, 90_000)])),
        under(None)
    );
}

#[test]
fn one_member_left_is_repaired_as_soon_as_the_others_are_dead() {
    assert_eq!(
        need(&chunk(vec![holder(1), away(2, 30_000), away(3, 30_000)], vec![])),
        one_left()
    );
    assert_eq!(
        need(&chunk(vec![holder(1), away(2, 1_000), away(3, 1_000)], vec![])),
        Need::Nothing
    );
    assert_eq!(need(&chunk(vec![holder(1)], vec![away(3, 1_000)])), one_left());
}

#[test]
fn a_removed_member_that_returned_joins_again() {
    let c = chunk(vec![holder(1), holder(2)], vec![holder(3)]);
    assert_eq!(need(&c), under(Some(3)));
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

fn domains(services: &[(u32, &'static str, Service)]) -> Domains {
    Domains::new(services.iter().map(|(node, host, service)| {
        let standing = Standing {
            host,
            service: *service,
            takes: *service == Service::In,
            ..Standing::default()
        };
        (NodeId(*node), standing)
    }))
}

fn with_drained(node: u32) -> Domains {
    let hosts = ["", "a", "b", "c", "d"];
    let service = |n| if n == node { Service::Draining } else { Service::In };
    domains(&[1, 2, 3, 4].map(|n| (n, hosts[n as usize], service(n))))
}

#[test]
fn a_drained_member_leaves_for_another_one() {
    let leave = Need::Copy(Move {
        urgency: Urgency::Leaving,
        to: None,
        instead_of: Some(NodeId(2)),
    });
    assert_eq!(judge(&chunk(three(), vec![]), &PATIENCE, &with_drained(2)), leave);
    let written = Chunk {
        writing: true,
        ..chunk(three(), vec![])
    };
    assert_eq!(
        judge(&written, &PATIENCE, &with_drained(2)),
        leave,
        "also under its writers"
    );
}

#[test]
fn a_drained_member_that_is_one_too_many_leaves_at_once() {
    let four = vec![holder(1), holder(2), holder(3), holder(4)];
    let need = judge(&chunk(four, vec![]), &PATIENCE, &with_drained(2));
    assert!(matches!(need, Need::Reconfigure { without, .. } if without == [NodeId(2)]));
}

#[test]
fn a_drained_server_is_no_joiner() {
    let c = chunk(vec![holder(1), holder(2)], vec![holder(3)]);
    assert_eq!(judge(&c, &PATIENCE, &with_drained(3)), under(None));
}

#[test]
fn a_chunk_under_its_goal_is_repaired_before_a_member_leaves() {
    let c = chunk(vec![holder(1), holder(2), away(3, 90_000)], vec![]);
    assert_eq!(judge(&c, &PATIENCE, &with_drained(1)), under(None));
    let c = chunk(vec![holder(1), holder(2), away(3, 5_000)], vec![]);
    assert_eq!(
        judge(&c, &PATIENCE, &with_drained(1)),
        Need::Nothing,
        "it may come back"
    );
}

#[test]
fn nothing_is_copied_for_a_server_in_maintenance_unless_one_member_is_left() {
    let d = domains(&[
        (1, "a", Service::In),
        (2, "b", Service::In),
        (3, "c", Service::Maintenance),
    ]);
    let c = chunk(vec![holder(1), holder(2), away(3, 9_000_000)], vec![]);
    assert_eq!(judge(&c, &PATIENCE, &d), Need::Nothing);
    let c = chunk(vec![holder(1), holder(2)], vec![away(3, 9_000_000)]);
    assert_eq!(judge(&c, &PATIENCE, &d), Need::Nothing);
    let c = chunk(vec![holder(1), away(2, 30_000), away(3, 30_000)], vec![]);
    assert_eq!(judge(&c, &PATIENCE, &d), one_left());
}

#[test]
fn members_that_share_a_host_part_but_not_under_a_writer() {
    let d = domains(&[
        (1, "a", Service::In),
        (2, "a", Service::In),
        (3, "b", Service::In),
        (4, "c", Service::In),
    ]);
    let part = Need::Copy(Move {
        urgency: Urgency::Misplaced,
        to: None,
        instead_of: Some(NodeId(2)),
    });
    assert_eq!(judge(&chunk(three(), vec![]), &PATIENCE, &d), part);
    let written = Chunk {
        writing: true,
        ..chunk(three(), vec![])
    };
    assert_eq!(judge(&written, &PATIENCE, &d), Need::Nothing);
}

#[test]
fn who_is_too_many_goes_when_all_are_good_and_nobody_writes() {
    let four = || vec![holder(1), holder(2), holder(3), holder(4)];
    assert!(matches!(need(&chunk(four(), vec![])), Need::Reconfigure { without, .. } if without.len() == 1));
    let written = Chunk {
        writing: true,
        ..chunk(four(), vec![])
    };
    assert_eq!(need(&written), Need::Nothing);
    let one_away = vec![holder(1), holder(2), holder(3), away(4, 5)];
    assert_eq!(need(&chunk(one_away, vec![])), Need::Nothing);
}

#[test]
fn one_copy_left_comes_before_all_and_fewer_copies_before_more() {
    let under = |live_permille| Urgency::Under { live_permille };
    let mut order = [
        Urgency::Uneven,
        Urgency::Misplaced,
        under(666),
        Urgency::Leaving,
        under(333),
        Urgency::OneLeft,
    ];
    order.sort();
    let wanted = [
        Urgency::OneLeft,
        under(333),
        under(666),
        Urgency::Leaving,
        Urgency::Misplaced,
        Urgency::Uneven,
    ];
    assert_eq!(order, wanted);
}

#[test]
fn a_slow_writer_is_stopped_for_a_joiner_that_waited_long() {
    let patient = Holder {
        for_ms: 60_000,
        ..holder(3)
    };
    let c = Chunk {
        writing: true,
        ..chunk(vec![holder(1), holder(2)], vec![patient])
    };
    assert_eq!(need(&c), under(Some(3)));
    let c = Chunk {
        writing: true,
        ..chunk(vec![holder(1), holder(2), away(3, 90_000)], vec![])
    };
    assert_eq!(need(&c), under(None), "nor for one that never returns");
}
