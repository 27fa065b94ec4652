use super::*;
use dfs_proto::limits::Parameters;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

const ANN: ClientId = ClientId(1);
const BOB: ClientId = ClientId(2);
const CAT: ClientId = ClientId(3);
const D: InodeId = InodeId(10);
const F: InodeId = InodeId(11);

fn timings() -> Timings {
    Parameters::default().timings()
}

fn watch() -> Watch {
    Watch::new(&timings(), Instant::now())
}

/// Mounts with their streams.
fn with(watch: &Watch, clients: &[ClientId]) -> Vec<(u64, Receiver<Message>)> {
    let begin = |client: &ClientId| {
        watch.begin(*client);
        watch.attach(*client).unwrap()
    };
    clients.iter().map(begin).collect()
}

fn changed(inode: InodeId) -> Effect {
    Effect::Changed(Attributes {
        inode: inode.0,
        ..Attributes::default()
    })
}

fn is_away(watch: &Watch, client: ClientId) -> bool {
    watch.lock().sessions[&client].line.is_none()
}

/// One command of a client, as the committer tells of it.
fn change(watch: &Watch, index: u64, by: ClientId, effects: Vec<Effect>) {
    let group = watch.group();
    let effects = watch.has_others(Some(by)).then_some(effects);
    let note = Note {
        index,
        by: Some(by),
        told: Vec::new(),
        effects,
    };
    watch.publish(group, vec![note]);
}

fn next(messages: &mut Receiver<Message>) -> Option<Vec<Event>> {
    messages.try_recv().ok().map(|m| m.events)
}

#[test]
fn those_who_were_told_hear_of_changes_that_others_make() {
    let w = watch();
    let mut lines = with(&w, &[ANN, BOB, CAT]);
    for (client, inode) in [(ANN, D), (ANN, F), (BOB, D)] {
        w.told(client, [inode]);
    }
    let name = Effect::Name {
        parent: D,
        name: b"n".to_vec(),
        now: Some((InodeId(12), Kind::File)),
    };
    change(&w, 1, ANN, vec![name.clone(), changed(D), changed(F)]);
    assert_eq!(next(&mut lines[0].1), None, "her own");
    assert_eq!(
        next(&mut lines[1].1),
        Some(vec![event(&name), event(&changed(D))])
    );
    assert_eq!(next(&mut lines[2].1), None, "he was told nothing");
    change(&w, 2, BOB, vec![changed(F)]);
    assert_eq!(next(&mut lines[0].1), Some(vec![event(&changed(F))]));
}

#[test]
fn with_one_mount_alone_nothing_is_gathered_for_its_own_changes() {
    let w = watch();
    assert!(!w.is_used() && !w.has_others(None) && !w.has_others(Some(ANN)));
    w.begin(ANN);
    assert!(!w.has_others(Some(ANN)) && w.has_others(Some(BOB)) && w.has_others(None));
    w.begin(BOB);
    assert!(w.has_others(Some(ANN)));
    w.end(BOB);
    assert!(!w.has_others(Some(ANN)));
}

#[test]
fn a_mount_that_began_when_nothing_was_gathered_loses_its_stream() {
    let w = watch();
    w.begin(ANN);
    let group = w.group();
    let effects = w.has_others(Some(ANN)).then(Vec::new);
    let mut bob = with(&w, &[BOB]).remove(0).1;
    let note = Note {
        index: 1,
        by: Some(ANN),
        told: Vec::new(),
        effects,
    };
    w.publish(group, vec![note]);
    assert!(bob.try_recv().is_err() && bob.is_closed());
    assert!(is_away(&w, BOB) && w.attach(BOB).is_some());
    change(&w, 2, ANN, vec![]);
    assert!(!is_away(&w, BOB));
}

#[test]
fn what_is_gone_is_told_and_forgotten() {
    let w = watch();
    let mut lines = with(&w, &[ANN, BOB]);
    w.told(BOB, [F]);
    change(&w, 1, ANN, vec![Effect::Gone(F)]);
    let gone = Event::Unlinked { inode: F, held: None };
    assert_eq!(next(&mut lines[1].1), Some(vec![gone]));
    assert_eq!(w.lock().registry.len(), 0);
}

#[test]
fn the_inode_told_about_longest_ago_is_forgotten_aloud() {
    let w = Watch::with_bound(&timings(), Instant::now(), 2);
    let mut ann = with(&w, &[ANN]).remove(0).1;
    w.told(ANN, [D, F, InodeId(12)]);
    assert_eq!(next(&mut ann), Some(vec![Event::Forgotten(vec![D])]));
    w.forget(ANN, &[F]);
    assert_eq!(next(&mut ann), Some(vec![Event::Forgotten(vec![F])]));
    assert_eq!(w.lock().registry.len(), 1);
}

#[test]
fn after_a_start_every_mount_may_hold_everything_for_a_lease() {
    let w = watch();
    let (early, late) = (w.started, w.started + timings().client_lease);
    with(&w, &[ANN, BOB]);
    w.told(ANN, [F]);
    assert_eq!(w.holders_of(F, early), BTreeSet::from([ANN, BOB]));
    assert_eq!(w.holders_of(F, late), BTreeSet::from([ANN]));
    let stream = w.attach(ANN).unwrap().0;
    w.detach(ANN, stream);
    assert_eq!(
        w.holders_of(F, late),
        BTreeSet::from([ANN]),
        "its files are open all the same"
    );
    w.end(ANN);
    assert!(w.holders_of(F, late).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_settled_when_the_others_have_acknowledged() {
    let w = Arc::new(watch());
    let lines = with(&w, &[ANN, BOB]);
    w.told(BOB, [F]);
    change(&w, 1, ANN, vec![changed(F)]);
    let settling = {
        let w = w.clone();
        tokio::spawn(async move { w.settle(1, &Clock::system()).await })
    };
    tokio::task::yield_now().await;
    assert!(!settling.is_finished());
    let then = Instant::now();
    assert!(w.ack(BOB, lines[1].0, 1));
    settling.await.unwrap();
    assert_eq!(then.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_change_that_nobody_was_told_about_nor_for_its_maker() {
    let w = watch();
    let _lines = with(&w, &[ANN, BOB]);
    w.told(ANN, [F]);
    change(&w, 1, ANN, vec![changed(F), changed(D)]);
    let then = Instant::now();
    w.settle(1, &Clock::system()).await;
    assert_eq!(then.elapsed(), Duration::ZERO);
    assert_eq!(w.waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_laggard_is_waited_for_once_and_cut_when_it_stays_behind() {
    let w = watch();
    let lines = with(&w, &[ANN, BOB]);
    w.told(BOB, [F]);
    let clock = Clock::system();
    let then = Instant::now();
    for index in 1..=3 {
        change(&w, index, ANN, vec![changed(F)]);
        w.settle(index, &clock).await;
    }
    assert_eq!(then.elapsed(), ACK_WITHIN, "the first one waited");
    // It catches up, and is waited for again.
    assert!(w.keeps_up(BOB, lines[1].0, clock.now()));
    w.ack(BOB, lines[1].0, 3);
    change(&w, 4, ANN, vec![changed(F)]);
    w.settle(4, &clock).await;
    assert_eq!(then.elapsed(), ACK_WITHIN * 2);
    let long = clock.now() + timings().session_master;
    assert!(!w.keeps_up(BOB, lines[1].0, long) && is_away(&w, BOB));
    assert!(lines[1].1.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_or_overflows_is_not_waited_for() {
    let w = Arc::new(watch());
    let lines = with(&w, &[ANN, BOB]);
    w.told(BOB, [F]);
    change(&w, 1, ANN, vec![changed(F)]);
    assert!(w.detach(BOB, lines[1].0) && !w.detach(BOB, lines[1].0));
    let then = Instant::now();
    w.settle(1, &Clock::system()).await;
    let (_, messages) = w.attach(BOB).unwrap();
    for index in 2.. {
        change(&w, index, ANN, vec![changed(F)]);
        if is_away(&w, BOB) {
            break;
        }
    }
    assert!(messages.is_closed() && messages.len() > 1_000);
    w.settle(3, &Clock::system()).await;
    assert_eq!(then.elapsed(), Duration::ZERO);
}

#[test]
fn changes_nobody_settles_are_forgotten() {
    let w = watch();
    let lines = with(&w, &[ANN, BOB]);
    w.told(BOB, [F]);
    let (stream, mut messages) = (lines[1].0, lines.into_iter().nth(1).unwrap().1);
    for index in 1..=2 * UNSETTLED_MAX as u64 {
        change(&w, index, ANN, vec![changed(F)]);
        let message = messages.try_recv().unwrap();
        w.ack(BOB, stream, message.sequence);
    }
    assert_eq!(w.lock().unsettled.len(), UNSETTLED_MAX);
}
