//! Every rule of section 3, one at a time.

use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const D: NodeId = NodeId(4);
const V2: Version = Version(2);

fn all(n: NodeId) -> Session {
    Session::Connected(u64::from(n.0))
}

fn proposal(active: &[NodeId], members: &[NodeId]) -> Proposal {
    Proposal {
        version: V2,
        members: members.to_vec(),
        active: Version(1),
        active_members: active.to_vec(),
        durable_length: 10,
        holders: active.iter().chain(members).copied().collect(),
        ..Proposal::default()
    }
}

fn whole() -> Adopted {
    Adopted {
        promised: V2,
        synced: Version(1),
        absent: false,
        kind: Kind::Intact,
        restarted: false,
        length: 100,
        fsynced_length: 50,
        digest: 7,
    }
}

fn lost(fsynced_length: u64) -> Adopted {
    Adopted {
        kind: Kind::Lost,
        restarted: true,
        fsynced_length,
        ..whole()
    }
}

fn absent() -> Adopted {
    Adopted {
        synced: Version(0),
        absent: true,
        length: 0,
        fsynced_length: 0,
        digest: 0,
        ..whole()
    }
}

fn ready() -> Answer {
    Answer::Ready(Ready {
        length: 100,
        digest: 7,
        loss: Version(0),
    })
}

/// A change whose everyone was asked and answered this.
fn answered(p: Proposal, answers: &[(NodeId, Adopted)]) -> Change {
    let mut change = Change::new(p);
    change.step(&all);
    for (node, a) in answers {
        change.answered(*node, Answer::Adopted(*a));
    }
    change
}

fn syncs(steps: &[Step]) -> Vec<(NodeId, NodeId, bool, Option<u64>)> {
    steps
        .iter()
        .map(|s| match s {
            Step::Send(n, Order::Sync(s)) => (*n, s.source, s.lost, s.truncate),
            other => panic!("not a sync: {other:?}"),
        })
        .collect()
}

#[test]
fn members_and_leaving_ones_are_asked_to_adopt_once() {
    let mut change = Change::new(proposal(&[A, B, C], &[B, C]));
    let asked: Vec<NodeId> = change
        .step(&all)
        .iter()
        .map(|s| match s {
            Step::Send(
                n,
                Order::Adopt {
                    version: V2,
                    members,
                    truncate: None,
                    active: Version(1),
                },
            ) if *members == [B, C] => *n,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, [A, B, C]);
    assert_eq!(change.step(&all), []);
}

#[test]
fn the_whole_way_to_active() {
    let mut change = answered(
        proposal(&[A, B, C], &[B, C]),
        &[(A, whole()), (B, whole()), (C, whole())],
    );
    assert_eq!(
        syncs(&change.step(&all)),
        [(B, B, false, None), (C, B, false, None)]
    );
    change.answered(B, ready());
    assert_eq!(change.step(&all), []);
    change.answered(C, ready());
    assert_eq!(
        change.step(&all),
        [Step::Activate {
            length: 100,
            loss: Version(0)
        }]
    );
    assert_eq!(change.step(&all), [], "an active change is over");
}

#[test]
fn the_source_is_the_first_whole_member_that_has_not_restarted() {
    let restarted = Adopted {
        restarted: true,
        ..whole()
    };
    let mut change = answered(
        proposal(&[A, B, C], &[A, B, C]),
        &[(A, restarted), (B, lost(60)), (C, whole())],
    );
    assert!(syncs(&change.step(&all)).iter().all(|s| s.1 == C && !s.2));
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, restarted), (B, restarted)]);
    assert!(syncs(&change.step(&all)).iter().all(|s| s.1 == A));
}

#[test]
fn a_member_with_a_bad_block_is_not_the_source() {
    let p = Proposal {
        ailing: [A].into(),
        ..proposal(&[A, B], &[A, B])
    };
    let mut change = answered(
        p,
        &[
            (A, whole()),
            (
                B,
                Adopted {
                    restarted: true,
                    ..whole()
                },
            ),
        ],
    );
    assert!(syncs(&change.step(&all)).iter().all(|s| s.1 == B));
}

#[test]
fn a_leaving_member_must_promise_or_lose_its_session() {
    let mut change = answered(proposal(&[A, B], &[B]), &[(B, whole())]);
    change.step(&all);
    change.answered(B, ready());
    assert_eq!(change.step(&all), [], "A has a session and has not promised");
    let doubtful = |n| if n == A { Session::Doubtful } else { all(n) };
    assert_eq!(change.step(&doubtful), [], "A may still serve reads");
    let ended = |n| if n == A { Session::Ended } else { all(n) };
    assert_eq!(
        change.step(&ended),
        [Step::Activate {
            length: 100,
            loss: Version(0)
        }]
    );
}

#[test]
fn an_old_replica_is_never_the_source() {
    let old = Adopted {
        synced: Version(0),
        ..whole()
    };
    let mut change = answered(proposal(&[A, B], &[B]), &[(B, old)]);
    assert_eq!(change.step(&all), [Step::Blocked(Blocked::Holders(vec![A]))]);
    change.answered(A, Answer::Adopted(whole()));
    let [Step::Supersede(s)] = &change.step(&all)[..] else {
        panic!("superseded")
    };
    assert_eq!(s.with, [A]);
}

#[test]
fn a_lost_replica_waits_for_all_possible_holders() {
    let mut p = proposal(&[A, B], &[A, B]);
    p.holders.insert(D);
    let mut change = answered(p, &[(A, lost(40)), (B, lost(60))]);
    assert_eq!(change.step(&all), [Step::Blocked(Blocked::Holders(vec![D]))]);
    change.answered(D, Answer::Adopted(absent()));
    assert_eq!(
        syncs(&change.step(&all)),
        [(B, B, true, None)],
        "the source goes first"
    );
    change.answered(
        B,
        Answer::Ready(Ready {
            length: 60,
            digest: 9,
            loss: V2,
        }),
    );
    assert_eq!(syncs(&change.step(&all)), [(A, B, true, None)]);
    change.answered(
        A,
        Answer::Ready(Ready {
            length: 60,
            digest: 9,
            loss: V2,
        }),
    );
    assert_eq!(change.step(&all), [Step::Activate { length: 60, loss: V2 }]);
}

#[test]
fn absent_everywhere_is_empty_only_if_nothing_was_ever_fsynced() {
    let never = Proposal {
        durable_length: 0,
        ..proposal(&[A, B], &[A, B])
    };
    let mut change = answered(never, &[(A, absent()), (B, absent())]);
    assert_eq!(syncs(&change.step(&all)), [(A, A, false, Some(0))]);
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, absent()), (B, absent())]);
    assert_eq!(change.step(&all), [Step::Blocked(Blocked::NoCopy)]);
}

#[test]
fn acknowledged_bytes_that_are_nowhere_are_a_loss_that_is_told() {
    let p = Proposal {
        length: 10,
        durable_length: 0,
        ..proposal(&[A], &[A])
    };
    let mut change = answered(p, &[(A, absent())]);
    assert_eq!(syncs(&change.step(&all)), [(A, A, true, Some(0))]);
    let empty = Ready {
        length: 0,
        digest: 7,
        loss: V2,
    };
    change.answered(A, Answer::Ready(empty));
    assert_eq!(change.step(&all), [Step::Activate { length: 0, loss: V2 }]);
}

#[test]
fn torn_blocks_come_from_members_of_the_sources_kind_only() {
    let others = |answers: &[(NodeId, Adopted)]| {
        let mut change = answered(proposal(&[A, B, C], &[A, B, C]), answers);
        match change.step(&all).remove(0) {
            Step::Send(_, Order::Sync(sync)) => sync.others,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(others(&[(A, whole()), (B, lost(60)), (C, whole())]), [A, C]);
    assert_eq!(others(&[(A, absent()), (B, lost(60)), (C, lost(5))]), [B, C]);
}

#[test]
fn absent_here_and_unknown_there_is_not_empty() {
    let never = Proposal {
        durable_length: 0,
        ..proposal(&[A, B], &[B])
    };
    let mut change = answered(never, &[(B, absent())]);
    assert_eq!(change.step(&all), [Step::Blocked(Blocked::Holders(vec![A]))]);
}

#[test]
fn a_broken_replica_is_never_taken_for_an_empty_one() {
    let broken = Adopted {
        kind: Kind::Broken,
        synced: Version(0),
        ..whole()
    };
    let never = Proposal {
        durable_length: 0,
        ..proposal(&[A, B], &[A, B])
    };
    let mut change = answered(never, &[(A, broken), (B, absent())]);
    assert_eq!(change.step(&all), [Step::Blocked(Blocked::NoCopy)]);
}

#[test]
fn who_lacks_much_is_left_out_unless_it_was_copied() {
    let much = Adopted {
        length: DIFFERENCE_BYTES_MAX + 1,
        ..whole()
    };
    let answers = [(A, much), (B, much), (C, absent())];
    let mut change = answered(proposal(&[A, B, C], &[A, B, C]), &answers);
    let [Step::Supersede(s)] = &change.step(&all)[..] else {
        panic!("superseded")
    };
    assert_eq!(s.without, BTreeMap::from([(C, Word::Itself)]));
    let based = Proposal {
        based: [C].into(),
        ..proposal(&[A, B], &[A, B, C])
    };
    let mut change = answered(based, &answers);
    assert_eq!(syncs(&change.step(&all)).len(), 3);
}

#[test]
fn who_lacks_much_stays_if_only_one_other_would_be_left() {
    let much = Adopted {
        length: DIFFERENCE_BYTES_MAX + 1,
        ..whole()
    };
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, much), (B, absent())]);
    assert_eq!(syncs(&change.step(&all)).len(), 2);
}

#[test]
fn a_broken_member_is_left_out_however_little_it_lacks() {
    let broken = Adopted {
        kind: Kind::Broken,
        ..whole()
    };
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, broken), (B, whole())]);
    let [Step::Supersede(s)] = &change.step(&all)[..] else {
        panic!("superseded")
    };
    assert_eq!(s.without, BTreeMap::from([(A, Word::Itself)]));
}

#[test]
fn a_failed_order_or_a_lost_session_ends_the_proposal() {
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, whole())]);
    change.answered(B, Answer::Failed(Error::from(Code::NoSpace)));
    let [Step::Supersede(s)] = &change.step(&all)[..] else {
        panic!("superseded")
    };
    assert_eq!(s.without, BTreeMap::from([(B, Word::Itself)]));

    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, whole()), (B, whole())]);
    let again = |n| if n == B { Session::Connected(99) } else { all(n) };
    let [Step::Supersede(s)] = &change.step(&again)[..] else {
        panic!("superseded")
    };
    assert!(
        s.without.is_empty(),
        "it is back: it may take part in the next version"
    );
}

#[test]
fn a_failure_speaks_against_the_member_it_names() {
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, whole()), (B, whole())]);
    change.step(&all);
    change.answered(B, Answer::Failed(Error::from(Code::TimedOut).on_node(A)));
    let [Step::Supersede(s)] = &change.step(&all)[..] else {
        panic!("superseded")
    };
    assert_eq!(s.without, BTreeMap::from([(A, Word::Member)]));
}

#[test]
fn who_is_busy_is_asked_again() {
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, whole())]);
    change.answered(B, Answer::Failed(Error::from(Code::Busy).on_node(B)));
    let [Step::Supersede(s)] = &change.step(&all)[..] else {
        panic!("superseded")
    };
    assert!(s.without.is_empty() && s.unwell == [B].into());
}

#[test]
fn silence_past_the_deadline_makes_a_suspect() {
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, whole())]);
    change.deadline_passed();
    let [Step::Supersede(s)] = &change.step(&all)[..] else {
        panic!("superseded")
    };
    assert_eq!(s.without, BTreeMap::from([(B, Word::Client)]));
}

#[test]
fn a_leaving_members_failure_does_not_end_the_proposal() {
    let mut change = answered(proposal(&[A, B], &[B]), &[(B, whole())]);
    change.answered(A, Answer::Failed(Error::from(Code::Corrupt)));
    assert_eq!(syncs(&change.step(&all)).len(), 1);
}

#[test]
fn different_digests_are_never_activated() {
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, whole()), (B, whole())]);
    change.step(&all);
    change.answered(A, ready());
    change.answered(
        B,
        Answer::Ready(Ready {
            length: 100,
            digest: 8,
            loss: Version(0),
        }),
    );
    assert!(matches!(&change.step(&all)[..], [Step::Supersede(_)]));
}

#[test]
fn a_promise_above_the_proposal_freezes_the_chunk() {
    let above = Adopted {
        promised: Version(9),
        ..whole()
    };
    let mut change = answered(proposal(&[A, B], &[A, B]), &[(A, above)]);
    assert_eq!(change.step(&all), [Step::Freeze(A, Version(9))]);
}

#[test]
fn a_truncating_source_is_cut_before_the_others_pull() {
    let cut = Proposal {
        truncate: Some(5),
        ..proposal(&[A, B], &[A, B])
    };
    let mut change = answered(cut, &[(A, whole()), (B, whole())]);
    assert_eq!(syncs(&change.step(&all)), [(A, A, false, Some(5))]);
    change.answered(
        A,
        Answer::Ready(Ready {
            length: 5,
            digest: 1,
            loss: Version(0),
        }),
    );
    assert_eq!(syncs(&change.step(&all)), [(B, A, false, Some(5))]);
}

#[test]
fn an_answer_nobody_asked_for_is_not_counted() {
    let mut change = answered(proposal(&[A], &[A]), &[]);
    change.answered(A, ready());
    change.answered(A, Answer::Adopted(whole()));
    assert_eq!(
        syncs(&change.step(&all)).len(),
        1,
        "ready before sync counts for nothing"
    );
    assert_eq!(change.step(&all), []);
}

#[test]
fn a_returning_holder_is_asked_again_in_its_new_session() {
    let mut change = Change::new(proposal(&[A, B], &[B]));
    let away = |n| if n == A { Session::Doubtful } else { all(n) };
    assert_eq!(change.step(&away).len(), 1);
    assert!(matches!(
        &change.step(&all)[..],
        [Step::Send(A, Order::Adopt { .. })]
    ));
}

fn held_up() -> Change {
    let mut change = answered(proposal(&[A, B, C], &[B, C]), &[(B, whole()), (C, whole())]);
    change.step(&all);
    change.answered(B, ready());
    change.answered(C, ready());
    change
}

#[test]
fn a_leaving_member_that_lives_but_never_promises_is_named() {
    let mut change = held_up();
    assert_eq!(change.step(&all), []);
    assert_eq!(change.held_up_by(&all), [(A, 1)]);
    let gone = |n| if n == A { Session::Doubtful } else { all(n) };
    assert_eq!(change.held_up_by(&gone), [], "nothing can be ended there");
    change.answered(A, Answer::Adopted(whole()));
    assert_eq!(change.held_up_by(&all), []);
}

#[test]
fn a_session_that_began_after_the_proposal_does_not_hold_it_up() {
    let mut change = held_up();
    let again = |n| if n == A { Session::Connected(77) } else { all(n) };
    let steps = change.step(&again);
    assert!(matches!(steps.last(), Some(Step::Activate { .. })), "{steps:?}");
}

#[test]
fn nobody_holds_it_up_before_the_members_are_ready() {
    let mut change = answered(proposal(&[A, B, C], &[B, C]), &[(B, whole()), (C, whole())]);
    change.step(&all);
    assert_eq!(change.held_up_by(&all), []);
}
