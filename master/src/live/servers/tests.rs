use super::*;
use dfs_proto::limits::Parameters;

const A: NodeId = NodeId(1);

fn servers(now: Instant) -> Servers {
    let mut servers = Servers::new(Parameters::default().timings(), now);
    servers.learn(
        A,
        &records::Server {
            addr: "h:1".into(),
            ..records::Server::default()
        },
    );
    servers
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn after_a_restart_nobody_is_away_until_a_session_could_have_ended() {
    let t = Instant::now();
    let s = servers(t);
    assert_eq!(s.session(A, t + seconds(4)), Session::Doubtful);
    assert_eq!(s.session(A, t + seconds(5)), Session::Ended);
    assert_eq!(s.session(NodeId(9), t), Session::Ended);
}

#[test]
fn a_session_the_peer_ended_is_over_at_once() {
    let t = Instant::now();
    let mut s = servers(t);
    let (number, _orders) = s.connect(A, 7, 0, t);
    assert_eq!(s.session(A, t), Session::Connected(number));
    s.disconnect(A, number, true, t + seconds(1));
    assert_eq!(s.session(A, t + seconds(1)), Session::Ended);
}

#[test]
fn a_session_that_the_master_ended_may_be_live_for_its_peer() {
    let t = Instant::now();
    let mut s = servers(t);
    let (number, _orders) = s.connect(A, 7, 0, t);
    s.disconnect(A, number, false, t + seconds(1));
    assert_eq!(s.session(A, t + seconds(4)), Session::Doubtful);
    assert_eq!(s.session(A, t + seconds(5)), Session::Ended);
}

#[test]
fn a_line_that_breaks_after_silence_leaves_doubt() {
    let t = Instant::now();
    let mut s = servers(t);
    let (number, _orders) = s.connect(A, 7, 0, t);
    s.disconnect(A, number, true, t + seconds(3));
    assert_eq!(s.session(A, t + seconds(4)), Session::Doubtful);
    assert_eq!(s.session(A, t + seconds(5)), Session::Ended);
}

#[test]
fn without_heartbeats_a_session_ends_and_does_not_come_back() {
    let t = Instant::now();
    let mut s = servers(t);
    let (number, mut orders) = s.connect(A, 7, 0, t);
    assert!(s.heartbeat(A, number, t + seconds(4)));
    assert!(!s.expire(t + seconds(8)));
    assert!(!s.heartbeat(A, number, t + seconds(9)), "too late");
    assert!(s.expire(t + seconds(9)));
    assert_eq!(s.session(A, t + seconds(9)), Session::Ended);
    assert!(orders.try_recv().is_err() && orders.is_closed());
}

#[test]
fn another_live_process_with_the_same_identity_is_noticed() {
    let t = Instant::now();
    let mut s = servers(t);
    s.connect(A, 7, 0, t);
    assert!(s.is_taken(A, 8, t) && !s.is_taken(A, 7, t));
    assert!(!s.is_taken(A, 8, t + seconds(5)));
}

#[test]
fn an_old_sessions_end_does_not_touch_the_new_one() {
    let t = Instant::now();
    let mut s = servers(t);
    let (old, _orders) = s.connect(A, 7, 0, t);
    let (new, _orders) = s.connect(A, 7, 0, t);
    s.disconnect(A, old, true, t);
    assert_eq!(s.session(A, t), Session::Connected(new));
    assert!(!s.heartbeat(A, old, t));
}

#[test]
fn only_connected_servers_with_heartbeats_take_new_replicas() {
    let t = Instant::now();
    let mut s = servers(t);
    assert!(s.candidates(t).is_empty());
    let (_, _orders) = s.connect(A, 7, 0, t);
    let disk = Disk {
        free_bytes: 9,
        ..Disk::default()
    };
    let failed = Disk {
        free_bytes: 5,
        failed: true,
        ..Disk::default()
    };
    s.report(A, vec![disk, failed], 0);
    assert_eq!(s.candidates(t)[0].free_bytes, 9);
    assert!(s.candidates(t + seconds(3)).is_empty());
}

#[test]
fn orders_reach_connected_servers_only() {
    let t = Instant::now();
    let mut s = servers(t);
    let order = || Ordered {
        id: 1,
        chunk: ChunkHandle(1),
        order: Order::Activated {
            version: dfs_proto::Version(1),
        },
    };
    assert!(!s.send(A, order()));
    let (_, mut orders) = s.connect(A, 7, 0, t);
    assert!(s.send(A, order()));
    assert_eq!(orders.try_recv().unwrap().id, 1);
}
