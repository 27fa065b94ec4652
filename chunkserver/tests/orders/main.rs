//! Chunkservers under a scripted master: register, write, adopt, sync, serve, delete; on disks in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod client;
mod master;

use client::Client;
use dfs_chunkserver::{Chunkserver, Config};
use dfs_proto::Code;
use dfs_proto::net::Tcp;
use dfs_proto::pb::{self, order, order_done};
use dfs_proto::world::World;
use dfs_stdx::blocking::Pool;
use dfs_stdx::disk::{Fault, MemDisk, Surviving};
use dfs_stdx::{Clock, Rng};
use master::{Master, Plan, until};
use std::path::PathBuf;
use std::sync::Arc;

const CHUNK: u64 = 0x11;

struct Node {
    disk: MemDisk,
    master: String,
    running: Option<Chunkserver>,
}

impl Node {
    async fn start(master: &Master) -> Node {
        let mut node = Node {
            disk: MemDisk::new(),
            master: master.addr.clone(),
            running: None,
        };
        node.boot().await;
        node
    }

    async fn boot(&mut self) {
        let world = World {
            dial: Arc::new(Tcp),
            listen: Arc::new(Tcp),
            disk: Arc::new(self.disk.process()),
            clock: Clock::system(),
            rng: Rng::system(),
            pool: Pool::inline(),
        };
        let config = Config {
            listen: "127.0.0.1:0".into(),
            advertise: None,
            masters: vec![self.master.clone()],
            data_dirs: vec![PathBuf::from("/data")],
            host: "host".into(),
            rack: "rack".into(),
            reserve_bytes: 0,
            accept_new_disk: false,
            repair_bytes_a_second: None,
        };
        self.running = Some(Chunkserver::start(config, world).await.unwrap());
    }

    /// The process is killed: what it wrote stays.
    async fn kill(&mut self) {
        self.disk.crash();
        self.running.take().unwrap().stop().await;
    }

    async fn power_cut(&mut self) {
        self.disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
        self.running.take().unwrap().stop().await;
    }
}

struct World3 {
    master: Master,
    nodes: Vec<Node>,
}

impl World3 {
    async fn start(count: usize) -> World3 {
        let master = Master::start().await;
        let mut nodes = Vec::new();
        for n in 1..=count {
            nodes.push(Node::start(&master).await);
            master.registered(n).await;
            master.session(n as u32).await;
        }
        World3 { master, nodes }
    }

    async fn client(&self, node: u32) -> Client {
        Client::dial(&self.master.member(node).addr).await
    }

    /// A writing stream to the head of `members` at version 1.
    async fn writer(&self, members: &[u32]) -> Client {
        let mut client = self.client(members[0]).await;
        client
            .open(self.master.capability(CHUNK, 1, members, 0), 77)
            .await
            .unwrap();
        client
    }

    async fn probe(&self, node: u32, version: u32, members: &[u32]) -> pb::ReplicaState {
        let capability = self.master.capability(CHUNK, version, members, 0);
        self.client(node).await.probe(capability).await
    }

    /// Adopt, sync and activate `plan`; all digests are equal.
    async fn reconfigure(&self, plan: &Plan<'_>) -> pb::Ready {
        for node in plan.members {
            self.master.adopt(*node, CHUNK, plan.version, plan.members).await;
        }
        let syncs = plan.members.iter().map(|n| self.master.sync(*n, plan));
        let readies = futures::future::try_join_all(syncs).await.unwrap();
        assert!(readies.windows(2).all(|w| w[0] == w[1]), "{readies:?}");
        self.master.activated(CHUNK, plan.version, plan.members).await;
        readies[0]
    }
}

fn bytes(fill: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add(fill))
        .collect()
}

fn plan(version: u32, members: &[u32]) -> Plan<'_> {
    Plan {
        chunk: CHUNK,
        version,
        members,
        source: members[0],
        others: members,
        source_lost: false,
        truncate: None,
    }
}

#[tokio::test]
async fn a_server_registers_shows_its_replicas_and_keeps_its_number() {
    let mut world = World3::start(1).await;
    let known = world.master.session(1).await;
    assert_eq!(known.register.node, 0);
    assert!(known.inventory.is_empty());
    let mut writer = world.writer(&[1]).await;
    writer.write(0, &bytes(1, 100_000), true).await.unwrap();
    world.nodes[0].kill().await;
    world.master.hang_up();
    world.nodes[0].boot().await;
    let known = world.master.session(1).await;
    assert_eq!(
        (known.register.node, &known.register.cluster[..]),
        (1, &master::CLUSTER[..])
    );
    let [replica] = &known.inventory[..] else {
        panic!("{:?}", known.inventory)
    };
    assert_eq!(
        (replica.chunk, replica.promised, replica.length),
        (CHUNK, 1, 100_000)
    );
    assert!(replica.restarted, "it was open");
    assert_eq!(replica.kind(), pb::ReplicaKind::ReplicaIntact);
}

#[tokio::test]
async fn what_the_chain_wrote_survives_a_reconfigure_with_a_joiner() {
    let world = World3::start(3).await;
    let mut writer = world.writer(&[1, 2]).await;
    let data = bytes(3, 300_000);
    writer.write(0, &data, false).await.unwrap();
    let adopted = world.master.adopt(2, CHUNK, 2, &[1, 2, 3]).await;
    assert_eq!(
        (adopted.promised, adopted.synced, adopted.length),
        (2, 1, 300_000)
    );
    assert!(!adopted.absent && !adopted.restarted);
    let again = world.master.adopt(2, CHUNK, 2, &[1, 2, 3]).await;
    assert_eq!(again, adopted, "adopting twice is adopting once");
    assert!(world.master.adopt(3, CHUNK, 2, &[1, 2, 3]).await.absent);
    let ready = world.reconfigure(&plan(2, &[1, 2, 3])).await;
    assert_eq!((ready.length, ready.loss), (300_000, 0));
    for node in [1, 2, 3] {
        let state = world.probe(node, 2, &[1, 2, 3]).await;
        assert_eq!(
            (state.digest, state.synced, state.length),
            (ready.digest, 2, 300_000)
        );
        assert!(state.bad_blocks.is_empty());
        let capability = world.master.capability(CHUNK, 2, &[1, 2, 3], 300_000);
        let (reply, payload) = world
            .client(node)
            .await
            .read(capability, 1_000, 200_000)
            .await
            .unwrap();
        assert_eq!(&payload[..], &data[1_000..201_000]);
        assert!(!reply.detached);
    }
}

#[tokio::test]
async fn a_late_adopt_is_answered_with_what_is_promised() {
    let world = World3::start(1).await;
    world.writer(&[1]).await.write(0, b"x", false).await.unwrap();
    world.master.adopt(1, CHUNK, 5, &[1]).await;
    let late = world.master.adopt(1, CHUNK, 3, &[1]).await;
    assert_eq!(late.promised, 5);
    let error = world.master.sync(1, &plan(3, &[1])).await.unwrap_err();
    assert_eq!(error.code, Code::Stale);
}

#[tokio::test]
async fn the_old_version_takes_no_packet_after_adopt() {
    let world = World3::start(2).await;
    let mut writer = world.writer(&[1, 2]).await;
    writer.write(0, b"before", false).await.unwrap();
    world.master.adopt(2, CHUNK, 2, &[1, 2]).await;
    assert!(writer.write(6, b"after", false).await.is_err());
    world.master.adopt(1, CHUNK, 2, &[1, 2]).await;
    let mut late = world.client(1).await;
    let error = late
        .open(world.master.capability(CHUNK, 1, &[1, 2], 0), 78)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Stale);
    world.reconfigure(&plan(2, &[1, 2])).await;
}

#[tokio::test]
async fn a_restarted_replica_serves_nothing_until_it_is_ready_again() {
    let mut world = World3::start(2).await;
    let data = bytes(9, 70_000);
    world.writer(&[1, 2]).await.write(0, &data, false).await.unwrap();
    world.nodes[1].kill().await;
    world.master.hang_up();
    world.nodes[1].boot().await;
    world.master.session(1).await;
    world.master.session(2).await;
    let v1 = world.master.capability(CHUNK, 1, &[1, 2], 70_000);
    assert!(world.client(2).await.read(v1.clone(), 0, 10).await.is_err());
    assert!(world.client(1).await.read(v1.clone(), 0, 10).await.is_ok());
    assert!(world.client(2).await.open(v1, 78).await.is_err());
    world.reconfigure(&plan(2, &[1, 2])).await;
    let v2 = world.master.capability(CHUNK, 2, &[1, 2], 70_000);
    let (_, payload) = world.client(2).await.read(v2, 0, 70_000).await.unwrap();
    assert_eq!(&payload[..], &data[..]);
}

#[tokio::test]
async fn after_a_power_cut_of_all_the_fsynced_bytes_are_the_chunk() {
    let mut world = World3::start(2).await;
    let data = bytes(5, 200_000);
    {
        let mut writer = world.writer(&[1, 2]).await;
        writer.write(0, &data, true).await.unwrap();
        writer.write(200_000, &bytes(6, 50_000), false).await.unwrap();
    }
    for node in &mut world.nodes {
        node.power_cut().await;
    }
    world.master.hang_up();
    for node in &mut world.nodes {
        node.boot().await;
    }
    for n in [1, 2] {
        world.master.session(n).await;
        let adopted = world.master.adopt(n, CHUNK, 2, &[1, 2]).await;
        assert_eq!(adopted.kind(), pb::ReplicaKind::ReplicaLost);
        assert_eq!(adopted.fsynced_length, 200_000);
    }
    let lost = Plan {
        source_lost: true,
        ..plan(2, &[1, 2])
    };
    let refused = world.master.sync(1, &plan(2, &[1, 2])).await.unwrap_err();
    assert_eq!(
        refused.code,
        Code::Unavailable,
        "it has lost power since the master thought it whole"
    );
    let ready = world.reconfigure(&lost).await;
    assert_eq!((ready.length, ready.loss), (200_000, 2));
    let v2 = world.master.capability(CHUNK, 2, &[1, 2], 200_000);
    for n in [1, 2] {
        let (_, payload) = world.client(n).await.read(v2.clone(), 0, 200_000).await.unwrap();
        assert_eq!(&payload[..], &data[..]);
    }
}

#[tokio::test]
async fn a_truncating_proposal_cuts_every_member_alike() {
    let world = World3::start(2).await;
    let data = bytes(2, 200_000);
    world.writer(&[1, 2]).await.write(0, &data, false).await.unwrap();
    let ready = world
        .reconfigure(&Plan {
            truncate: Some(100_001),
            ..plan(2, &[1, 2])
        })
        .await;
    assert_eq!(ready.length, 100_001);
    let v2 = world.master.capability(CHUNK, 2, &[1, 2], 100_001);
    for n in [1, 2] {
        let (reply, payload) = world.client(n).await.read(v2.clone(), 0, 200_000).await.unwrap();
        assert_eq!((&payload[..], reply.chunk_length), (&data[..100_001], 100_001));
    }
}

#[tokio::test]
async fn a_copied_base_joins_with_the_difference() {
    let world = World3::start(2).await;
    let data = bytes(4, 500_000);
    let mut writer = world.writer(&[1]).await;
    writer.write(0, &data, false).await.unwrap();
    let copy = pb::Copy {
        chunk: CHUNK,
        version: 1,
        from: world.master.members(&[1]).into_iter().map(Into::into).collect(),
        pull: Some(world.master.pass(CHUNK, 1, &[1])),
    };
    let copied = world.master.order(2, order::Body::Copy(copy)).await.unwrap();
    let order_done::Result::Copied(copied) = copied else {
        panic!("{copied:?}")
    };
    assert_eq!((copied.length, copied.bytes), (500_000, 500_000));
    writer.write(500_000, &bytes(8, 10), false).await.unwrap();
    world.reconfigure(&plan(2, &[1, 2])).await;
    let state = world.probe(2, 2, &[1, 2]).await;
    assert_eq!((state.length, state.synced), (500_010, 2));
}

#[tokio::test]
async fn without_a_session_answers_are_marked_detached_and_come_back_after_a_comparison() {
    let world = World3::start(2).await;
    world
        .writer(&[1, 2])
        .await
        .write(0, b"hello", false)
        .await
        .unwrap();
    let v1 = world.master.capability(CHUNK, 1, &[1, 2], 5);
    world.master.silence(true);
    world.master.hang_up();
    let mut client = world.client(2).await;
    let mut detached = false;
    for _ in 0..200 {
        detached = client.read(v1.clone(), 0, 5).await.unwrap().0.detached;
        if detached {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(detached);
    assert_eq!(client.promised(v1.clone()).await.promised, 1);
    // Node 2 was left out meanwhile: it promises that before it serves again.
    world.master.ask_promise(2, CHUNK, 2);
    world.master.silence(false);
    world.master.session(1).await;
    world.master.session(2).await;
    let capability = v1.clone();
    for _ in 0..200 {
        if client.promised(capability.clone()).await.promised == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(client.read(v1.clone(), 0, 5).await.unwrap_err().code, Code::Stale);
    let (reply, payload) = world.client(1).await.read(v1, 0, 5).await.unwrap();
    assert_eq!((reply.detached, &payload[..]), (false, &b"hello"[..]));
}

#[tokio::test]
async fn a_deleted_replica_is_not_born_again_by_a_late_packet() {
    let world = World3::start(1).await;
    let mut writer = world.writer(&[1]).await;
    writer.write(0, b"old", false).await.unwrap();
    world.master.adopt(1, CHUNK, 4, &[]).await;
    let delete = |version| {
        order::Body::Delete(pb::Delete {
            chunk: CHUNK,
            version,
        })
    };
    let error = world.master.order(1, delete(3)).await.unwrap_err();
    assert_eq!(error.code, Code::Stale, "it has promised more");
    world.master.order(1, delete(4)).await.unwrap();
    world.master.order(1, delete(4)).await.unwrap();
    let v1 = world.master.capability(CHUNK, 1, &[1], 0);
    let mut late = world.client(1).await;
    let opened = late.open(v1.clone(), 79).await;
    assert!(opened.is_err() || late.write(0, b"late", false).await.is_err());
    assert!(late_read_fails(&world, v1).await);
}

async fn late_read_fails(world: &World3, capability: pb::Signed) -> bool {
    world.client(1).await.read(capability, 0, 4).await.is_err()
}

#[tokio::test]
async fn a_broken_link_over_uncommitted_bytes_is_reported() {
    let mut world = World3::start(2).await;
    let mut writer = world.writer(&[1, 2]).await;
    writer.write(0, b"fine", false).await.unwrap();
    world.nodes[1].kill().await;
    assert!(writer.write(4, b"lost", false).await.is_err());
    let master = world.master.clone();
    let reported = until("a trouble", || master.troubles().pop()).await;
    assert_eq!(
        (reported.0, reported.1.kind()),
        (1, pb::TroubleKind::TroubleLinkBroken)
    );
    assert_eq!((reported.1.chunk, reported.1.suspect), (CHUNK, 2));
}

#[tokio::test]
async fn an_absent_replica_promises_and_says_that_it_is_absent() {
    let mut world = World3::start(1).await;
    let adopted = world.master.adopt(1, CHUNK, 3, &[1]).await;
    assert!(adopted.absent);
    assert_eq!((adopted.promised, adopted.length), (3, 0));
    world.nodes[0].kill().await;
    world.master.hang_up();
    world.nodes[0].boot().await;
    let known = world.master.session(1).await;
    assert_eq!((known.inventory[0].promised, known.inventory[0].synced), (3, 0));
}

#[tokio::test]
async fn a_chunk_nobody_wrote_becomes_ready_empty() {
    let world = World3::start(2).await;
    let ready = world.reconfigure(&plan(2, &[1, 2])).await;
    assert_eq!(ready.length, 0);
}

#[tokio::test]
async fn a_newer_adopt_does_not_wait_for_an_older_sync() {
    let world = World3::start(2).await;
    world
        .writer(&[1, 2])
        .await
        .write(0, b"bytes", false)
        .await
        .unwrap();
    for node in [1, 2] {
        world.master.adopt(node, CHUNK, 2, &[1, 2]).await;
    }
    let old = plan(2, &[1, 2]);
    // The source never becomes ready: nobody told it to.
    let waiting = world.master.sync(2, &old);
    let newer = async {
        tokio::task::yield_now().await;
        world.master.adopt(2, CHUNK, 3, &[1, 2]).await
    };
    let (waited, adopted) = futures::future::join(waiting, newer).await;
    assert_eq!(waited.unwrap_err().code, Code::Stale);
    assert_eq!((adopted.promised, adopted.synced), (3, 1));
    world.reconfigure(&plan(3, &[1, 2])).await;
}

#[tokio::test]
async fn a_flipped_bit_at_the_source_is_healed_from_another_member() {
    let world = World3::start(3).await;
    let data = bytes(7, 200_000);
    world.writer(&[1, 2]).await.write(0, &data, true).await.unwrap();
    let file = PathBuf::from(format!("/data/chunks/{:02x}/{CHUNK:016x}", CHUNK & 0xff));
    assert!(world.nodes[0].disk.rot(&file, 12_288 + 70_000, 3));
    world.reconfigure(&plan(2, &[1, 2, 3])).await;
    let v2 = world.master.capability(CHUNK, 2, &[1, 2, 3], 200_000);
    let (_, payload) = world.client(3).await.read(v2, 0, 200_000).await.unwrap();
    assert_eq!(&payload[..], &data[..]);
    let master = world.master.clone();
    let reported = until("a trouble", || master.troubles().pop()).await;
    assert_eq!(
        (reported.0, reported.1.kind()),
        (1, pb::TroubleKind::TroubleBadBlock)
    );
}

#[tokio::test]
async fn after_a_failed_fsync_the_disk_is_fenced_also_for_the_next_process() {
    let mut world = World3::start(2).await;
    let mut writer = world.writer(&[1, 2]).await;
    writer.write(0, b"applied", false).await.unwrap();
    world.nodes[1]
        .disk
        .fault(Fault::io("sync_data").under("/data/chunks"));
    assert!(writer.write(7, b" and fsynced", true).await.is_err());
    let master = world.master.clone();
    let failed = pb::TroubleKind::TroubleDiskFailed;
    until("a trouble", || {
        master
            .troubles()
            .iter()
            .any(|t| t.1.kind() == failed)
            .then_some(())
    })
    .await;
    let v1 = world.master.capability(CHUNK, 1, &[1, 2], 7);
    assert!(world.client(2).await.read(v1, 0, 7).await.is_err());
    let adopted = world.master.adopt(2, CHUNK, 2, &[1]).await;
    assert_eq!(
        (adopted.kind(), adopted.promised),
        (pb::ReplicaKind::ReplicaBroken, 2)
    );
    let ready = world.reconfigure(&plan(2, &[1])).await;
    assert!(ready.length >= 7);
    world.nodes[1].kill().await;
    world.master.hang_up();
    world.nodes[1].boot().await;
    let known = world.master.session(2).await;
    assert_eq!(known.inventory[0].kind(), pb::ReplicaKind::ReplicaBroken);
    assert!(known.register.disks[0].failed);
}

#[tokio::test]
async fn a_master_that_is_not_the_leader_names_the_one_to_ask() {
    let leader = Master::start().await;
    let follower = Master::start().await;
    follower.name_leader(&leader.addr);
    let _node = Node::start(&follower).await;
    leader.session(1).await;
}

#[tokio::test]
async fn a_server_of_another_cluster_is_not_entered() {
    let mut world = World3::start(1).await;
    world.nodes[0].kill().await;
    let foreign = Master::start().await;
    foreign.found_cluster([8; 16]);
    world.nodes[0].master = foreign.addr.clone();
    world.nodes[0].boot().await;
    until("two refused tries", || {
        (foreign.registrations() >= 2).then_some(())
    })
    .await;
    assert_eq!(foreign.heartbeats(), 0);
}

/// Two members, of which node 1 has applied what node 2 did not take and nobody acknowledged; node 1 is the source of
/// version 2, and node 2 dies at its `count`-th change on disk while it becomes the same. True if it did die.
async fn dies_in_sync(count: u64, fsynced: bool) -> (World3, bool) {
    let world = World3::start(2).await;
    let mut writer = world.writer(&[1, 2]).await;
    writer.write(0, &bytes(1, 200_000), fsynced).await.unwrap();
    world.master.adopt(2, CHUNK, 2, &[1, 2]).await;
    assert!(writer.write(100_000, &bytes(99, 150_000), false).await.is_err());
    world.master.adopt(1, CHUNK, 2, &[1, 2]).await;
    let v2 = plan(2, &[1, 2]);
    world.master.sync(1, &v2).await.unwrap();
    world.nodes[1].disk.die_after(count);
    let died = world.master.sync(2, &v2).await.is_err();
    (world, died)
}

async fn adopt_after_restart(world: &mut World3) -> Vec<pb::Adopted> {
    world.master.hang_up();
    let mut answers = Vec::new();
    for node in [1, 2] {
        if world.nodes[node as usize - 1].running.is_none() {
            world.nodes[node as usize - 1].boot().await;
        }
        world.master.session(node).await;
        answers.push(world.master.adopt(node, CHUNK, 3, &[2, 1]).await);
    }
    answers
}

async fn read_all(world: &World3) -> Vec<u8> {
    let v3 = world.master.capability(CHUNK, 3, &[2, 1], 200_000);
    let (_, payload) = world.client(2).await.read(v3, 0, 300_000).await.unwrap();
    payload.to_vec()
}

#[tokio::test]
async fn a_whole_member_stays_whole_wherever_its_process_dies_in_sync() {
    let old = bytes(1, 200_000);
    let new = [&old[..100_000], &bytes(99, 150_000)].concat();
    let (mut deaths, mut olds, mut news) = (0, 0, 0);
    for count in 0..14 {
        let (mut world, died) = dies_in_sync(count, false).await;
        world.nodes[1].kill().await;
        for adopted in adopt_after_restart(&mut world).await {
            assert_eq!(adopted.kind(), pb::ReplicaKind::ReplicaIntact);
            assert!(adopted.synced >= 1, "a whole member stays whole");
        }
        world.reconfigure(&plan(3, &[2, 1])).await;
        let found = read_all(&world).await;
        deaths += usize::from(died);
        olds += usize::from(found == old);
        news += usize::from(found == new);
        assert!(
            found == old || found == new,
            "death {count} left neither the old nor the new bytes"
        );
    }
    assert!(
        deaths > 4 && olds > 0 && news > 0,
        "{deaths} deaths, {olds} old, {news} new"
    );
}

#[tokio::test]
async fn fsynced_bytes_survive_a_power_cut_of_all_wherever_it_meets_a_sync() {
    let old = bytes(1, 200_000);
    let new = [&old[..100_000], &bytes(99, 150_000)].concat();
    let mut lost = 0;
    for count in 0..14 {
        let (mut world, _) = dies_in_sync(count, true).await;
        for node in &mut world.nodes {
            node.disk.power_cut(&Rng::seeded(count), Surviving::Random);
            node.running.take().unwrap().stop().await;
        }
        let answers = adopt_after_restart(&mut world).await;
        let whole = |a: &pb::Adopted| a.kind() == pb::ReplicaKind::ReplicaIntact && a.synced >= 1;
        let place = answers.iter().position(whole);
        lost += usize::from(place.is_none());
        let longest = usize::from(answers[1].fsynced_length > answers[0].fsynced_length);
        let source = place.unwrap_or(longest) as u32 + 1;
        world
            .reconfigure(&Plan {
                source,
                source_lost: place.is_none(),
                ..plan(3, &[2, 1])
            })
            .await;
        let found = read_all(&world).await;
        assert!(found.len() >= old.len(), "cut {count} left {} bytes", found.len());
        let written = |n: usize| Some(&found[n]) == old.get(n) || found[n] == new[n];
        assert!(
            (0..found.len()).all(written),
            "cut {count} left bytes that nobody wrote there"
        );
    }
    assert!(lost > 0, "no cut left only lost replicas");
}
