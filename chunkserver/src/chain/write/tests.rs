use super::*;

const W: WriterId = WriterId(1);
const V: WriterId = WriterId(2);

fn packet(writer: WriterId, sequence: u64, offset: u64) -> Heading {
    Heading {
        writer,
        sequence,
        offset,
        length: 10,
        sync: false,
    }
}

fn take(number: u64) -> Effect {
    Effect::Take { number, data: true }
}

fn ack(writer: WriterId, sequence: u64, length: u64) -> Effect {
    Effect::Ack {
        writer,
        sequence,
        // The packets of these tests are ten bytes each, or known from before.
        offset: length.saturating_sub(10),
        length,
    }
}

fn head() -> Write {
    Write::new(true, false, 0, std::iter::empty())
}

fn now() -> Instant {
    Instant::now()
}

/// The effects of one step.
fn of(step: impl FnOnce(&mut Vec<Effect>)) -> Vec<Effect> {
    let mut effects = Vec::new();
    step(&mut effects);
    effects
}

#[test]
fn a_head_numbers_packets_of_all_writers_without_gaps() {
    let mut w = head();
    let numbers: Vec<_> = [packet(W, 1, 0), packet(V, 7, 10), packet(W, 2, 20)]
        .map(|p| w.take_from_client(p, now()))
        .into();
    assert_eq!(numbers, [Some(take(1)), Some(take(2)), Some(take(3))]);
}

#[test]
fn a_packet_is_committed_when_it_is_applied_here_and_below() {
    let mut w = head();
    w.take_from_client(packet(W, 1, 0), now());
    w.take_from_client(packet(W, 2, 10), now());
    assert_eq!(of(|e| w.acked_below(2, e)), []);
    assert_eq!(of(|e| w.applied(1, e)), [ack(W, 1, 10), Effect::Committed(1)]);
    assert!(w.uncommitted().eq(std::iter::once(10..20)));
    assert_eq!(of(|e| w.applied(2, e)), [ack(W, 2, 20), Effect::Committed(2)]);
    assert!(w.is_quiet());
}

#[test]
fn one_acknowledgement_covers_all_packets_of_a_writer_up_to_it() {
    let mut w = head();
    for p in [packet(W, 1, 0), packet(V, 1, 10), packet(W, 2, 20)] {
        w.take_from_client(p, now());
    }
    w.applied(3, &mut Vec::new());
    let effects = of(|e| w.acked_below(3, e));
    let of_v = Effect::Ack {
        writer: V,
        sequence: 1,
        offset: 10,
        length: 30,
    };
    assert_eq!(effects, [of_v, ack(W, 2, 30), Effect::Committed(3)]);
}

#[test]
fn a_duplicate_is_not_taken_again_and_is_acknowledged_when_the_first_is_committed() {
    let mut w = head();
    w.take_from_client(packet(W, 1, 0), now());
    assert_eq!(w.take_from_client(packet(W, 1, 0), now()), None);
    w.applied(1, &mut Vec::new());
    assert_eq!(of(|e| w.acked_below(1, e)), [ack(W, 1, 10), Effect::Committed(1)]);
    assert_eq!(w.take_from_client(packet(W, 1, 0), now()), Some(ack(W, 1, 10)));
}

#[test]
fn a_retry_after_a_reconfigure_is_known_from_the_writer_table() {
    let mut w = Write::new(true, false, 50, [(W, 4, 40)].into_iter());
    assert_eq!(w.take_from_client(packet(W, 4, 40), now()), Some(ack(W, 4, 50)));
    assert_eq!(w.take_from_client(packet(W, 5, 50), now()), Some(take(1)));
    assert_eq!(w.committed_sequence(W), 4);
}

#[test]
fn a_repeated_packet_that_asks_for_an_fsync_travels_again_without_its_bytes() {
    let mut w = Write::new(true, true, 50, [(W, 4, 40)].into_iter());
    let again = Heading {
        sync: true,
        ..packet(W, 4, 40)
    };
    assert_eq!(
        w.take_from_client(again, now()),
        Some(Effect::Take {
            number: 1,
            data: false
        })
    );
    assert_eq!(of(|e| w.applied(1, e)), [ack(W, 4, 50)]);
}

#[test]
fn a_member_acknowledges_up_what_itself_and_all_below_have_applied() {
    let mut w = Write::new(false, false, 0, std::iter::empty());
    assert_eq!(w.take_from_above(1, packet(W, 1, 0), now()), take(1));
    assert_eq!(of(|e| w.applied(1, e)), []);
    assert_eq!(of(|e| w.acked_below(1, e)), [Effect::AckUp(1)]);
    assert!(!w.is_quiet(), "only the head knows what is committed");
    assert_eq!(of(|e| w.committed_above(1, e)), [Effect::Committed(1)]);
    assert!(w.is_quiet());
}

#[test]
fn a_member_does_not_take_more_for_committed_than_it_has_applied() {
    let mut w = Write::new(false, true, 0, std::iter::empty());
    w.take_from_above(1, packet(W, 1, 0), now());
    assert_eq!(of(|e| w.committed_above(9, e)), []);
    assert!(!w.is_quiet());
}

#[test]
fn a_gap_ends_the_stream() {
    let mut w = Write::new(false, true, 0, std::iter::empty());
    assert_eq!(w.take_from_above(2, packet(W, 1, 0), now()), Effect::Gap);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_counts_for_nothing() {
    let mut w = head();
    w.take_from_client(packet(W, 1, 0), now());
    w.applied(1, &mut Vec::new());
    assert_eq!(of(|e| w.acked_below(2, e)), []);
    assert!(!w.is_quiet());
}

#[test]
fn the_window_bounds_what_is_under_way() {
    let mut w = head();
    for n in 1..=FLIGHT_MAX as u64 {
        assert!(w.has_room());
        w.take_from_client(packet(W, n, n * 10), now());
    }
    assert!(!w.has_room());
    w.applied(1, &mut Vec::new());
    w.acked_below(1, &mut Vec::new());
    assert!(w.has_room());
}

#[test]
fn a_member_that_is_full_still_hears_what_is_committed() {
    let mut w = Write::new(false, true, 0, std::iter::empty());
    let last = FLIGHT_MAX as u64;
    for n in 1..=last {
        assert_eq!(w.take_from_above(n, packet(W, n, n * 10), now()), take(n));
        w.applied(n, &mut Vec::new());
    }
    // The head has room again after the first commit, and tells of it with the next packet.
    assert!(w.has_room());
    w.committed_above(1, &mut Vec::new());
    assert_eq!(
        w.take_from_above(last + 1, packet(W, last + 1, 0), now()),
        take(last + 1)
    );
    assert_eq!(w.uncommitted().count(), FLIGHT_MAX);
}

#[test]
fn a_head_that_never_commits_is_left() {
    let mut w = Write::new(false, true, 0, std::iter::empty());
    let last = 2 * FLIGHT_MAX as u64;
    for n in 1..=last {
        assert_eq!(w.take_from_above(n, packet(W, n, n * 10), now()), take(n));
    }
    assert_eq!(
        w.take_from_above(last + 1, packet(W, last + 1, 0), now()),
        Effect::Gap
    );
}

#[test]
fn the_zeros_of_a_gap_are_uncommitted_with_their_packet() {
    let mut w = head();
    w.take_from_client(packet(W, 1, 100), now());
    w.take_from_client(packet(W, 2, 105), now());
    assert_eq!(w.uncommitted().collect::<Vec<_>>(), [0..110, 105..115]);
}

#[test]
fn whoever_holds_up_a_packet_is_named() {
    let deadline = Duration::from_secs(3);
    let start = now();
    let mut w = head();
    assert_eq!(w.late_at(deadline), None);
    w.take_from_client(packet(W, 1, 0), start);
    assert_eq!(w.late(start + deadline / 2, deadline), None);
    w.applied(1, &mut Vec::new());
    assert_eq!(w.late(start + deadline, deadline), Some(Late::Below));
    let mut w = head();
    w.take_from_client(packet(W, 1, 0), start);
    w.acked_below(1, &mut Vec::new());
    assert_eq!(w.late(start + deadline, deadline), Some(Late::Here));
}

#[test]
fn a_quiet_stream_opens_again_with_the_next_number() {
    let mut w = Write::new(false, true, 0, std::iter::empty());
    w.take_from_above(1, packet(W, 1, 0), now());
    w.applied(1, &mut Vec::new());
    w.committed_above(1, &mut Vec::new());
    w.restart(5);
    assert_eq!(w.take_from_above(5, packet(W, 2, 10), now()), take(5));
    assert_eq!(of(|e| w.applied(5, e)), [Effect::AckUp(5)]);
}
