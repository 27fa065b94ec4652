//! Writing to a fake cluster whose members die, hang and lose power.

use crate::fake::{CHUNK_BYTES, Cluster, pattern};
use crate::{Code, OpenOptions};
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

const MIB: usize = 1 << 20;

async fn written(cluster: &Cluster, bytes: &[u8]) -> crate::Stats {
    let client = cluster.client().await;
    let mut file = client.create("/f").await.unwrap();
    for part in bytes.chunks(MIB) {
        file.write_bytes(Bytes::copy_from_slice(part)).await.unwrap();
    }
    let inode = file.handle().inode();
    let stats = file.handle().clone();
    file.close().await.unwrap();
    assert!(cluster.stored(inode.0) == bytes, "the bytes are there");
    assert_eq!(client.stat("/f").await.unwrap().size, bytes.len() as u64);
    stats.stats()
}

#[tokio::test(start_paused = true)]
async fn bytes_go_to_every_member_and_are_durable_when_closed() {
    let cluster = Cluster::start(3).await;
    let bytes = pattern(10 * MIB + 5);
    assert_eq!(written(&cluster, &bytes).await.failovers, 0);
    let state = cluster.state();
    for chunk in state.chunks.values() {
        assert_eq!((chunk.replicas.len(), chunk.durable), (3, chunk.length));
    }
    assert_eq!(state.reconfigurations, 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drops_the_connection_costs_a_pause_and_no_error() {
    for drops_after in [1, 2, 5] {
        let cluster = Cluster::start(3).await;
        cluster.fault(1, |f| f.drops_after = Some(drops_after));
        let stats = written(&cluster, &pattern(6 * MIB + 77)).await;
        assert!(stats.failovers > 0);
        assert!(
            cluster
                .state()
                .chunks
                .values()
                .all(|c| !c.members.contains(&1) || c.version == 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_dies_is_left_out_of_its_chunks() {
    let cluster = Cluster::start(3).await;
    cluster.fault(2, |f| f.dead = true);
    // The second chunk may have been placed before the first one's failure was known.
    let failovers = written(&cluster, &pattern(5 * MIB)).await.failovers;
    assert!((1..=2).contains(&failovers), "{failovers}");
    assert!(cluster.state().chunks.values().all(|c| c.members == [1, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_hangs_is_found_out_by_asking_all() {
    let cluster = Cluster::start(3).await;
    cluster.fault(1, |f| f.hangs = true);
    let stats = written(&cluster, &pattern(MIB)).await;
    assert!(stats.failovers > 0);
    assert!(cluster.state().chunks.values().all(|c| c.members == [2, 3]));
}

#[tokio::test(start_paused = true)]
async fn an_empty_chunk_without_living_members_is_given_up_for_another() {
    let cluster = Cluster::start(6).await;
    for node in 1..=3 {
        cluster.fault(node, |f| f.dead = true);
    }
    written(&cluster, &pattern(MIB)).await;
    let state = cluster.state();
    let used: Vec<u64> = state
        .inodes
        .values()
        .flat_map(|i| i.slots.values().copied())
        .collect();
    assert!(used.iter().all(|c| state.chunks[c].members == [4, 5, 6]));
}

#[tokio::test(start_paused = true)]
async fn nobody_left_is_an_error_that_names_the_chunk() {
    let cluster = Cluster::start(3).await;
    let client = cluster
        .client_with(|s| s.call_deadline = std::time::Duration::from_secs(2))
        .await;
    let file = client.create("/f").await.unwrap();
    let handle = file.handle().clone();
    handle.write_at(0, Bytes::from(pattern(1000))).await.unwrap();
    for node in 1..=3 {
        cluster.fault(node, |f| f.dead = true);
    }
    let error = handle.write_at(0, Bytes::from(pattern(1000))).await.unwrap_err();
    assert_eq!(error.code, Code::TimedOut);
    assert!(
        error.chunk.is_some() && error.message.contains("could not be written"),
        "{error}"
    );
    assert!(handle.close().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn acknowledged_bytes_that_went_with_the_power_fail_the_next_sync_once() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let file = client.create("/f").await.unwrap();
    let handle = file.handle().clone();
    handle.write_at(0, Bytes::from_static(b"durable")).await.unwrap();
    handle.sync_all().await.unwrap();
    handle
        .write_at(7, Bytes::from_static(b" only acknowledged"))
        .await
        .unwrap();
    cluster.state().power_lost = true;
    cluster.fault(1, |f| f.dead = true);
    let error = handle
        .write_at(30, Bytes::from_static(b"unanswered"))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Lost);
    assert_eq!(handle.sync_all().await.unwrap_err().code, Code::Lost);
    handle.sync_all().await.unwrap();
    handle.write_at(7, Bytes::from_static(b" again")).await.unwrap();
    handle.close().await.unwrap();
    assert_eq!(cluster.stored(handle.inode().0), b"durable again");
}

#[tokio::test(start_paused = true)]
async fn a_write_behind_lost_bytes_is_refused_until_they_are_written_again() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let file = client.create("/f").await.unwrap();
    let handle = file.handle().clone();
    handle.write_at(0, Bytes::from(pattern(1000))).await.unwrap();
    handle.close().await.unwrap();
    cluster.state().lost_end = 1500;
    let file = client
        .open_with("/f", OpenOptions::new().write(true))
        .await
        .unwrap();
    let handle = file.handle().clone();
    let behind = handle
        .write_at(1200, Bytes::from_static(b"behind"))
        .await
        .unwrap_err();
    assert_eq!(behind.code, Code::Lost);
    assert_eq!(handle.flush().await.unwrap_err().code, Code::Lost);
    handle.write_at(1000, Bytes::from(pattern(500))).await.unwrap();
    handle.write_at(1600, Bytes::from_static(b"hole")).await.unwrap();
    handle.close().await.unwrap();
    assert_eq!(cluster.stored(handle.inode().0).len(), 1604);
}

#[tokio::test(start_paused = true)]
async fn small_writes_become_packets() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bytes = pattern(2 * MIB + 300);
    let mut file = client.create("/f").await.unwrap();
    for part in bytes.chunks(1_000) {
        file.write_all(part).await.unwrap();
    }
    let inode = file.handle().inode();
    file.shutdown().await.unwrap();
    assert!(cluster.stored(inode.0) == bytes);
    // Three of data and the sync.
    assert_eq!(cluster.state().applied_packets, 4);
}

#[tokio::test(start_paused = true)]
async fn a_sync_of_many_chunks_reaches_all_of_them() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let options = OpenOptions::new().write(true).create(true).sync_on_close(false);
    let mut file = client.open_with("/f", options).await.unwrap();
    file.write_bytes(Bytes::from(pattern(3 * CHUNK_BYTES as usize + 9)))
        .await
        .unwrap();
    file.handle().flush().await.unwrap();
    assert_eq!(cluster.state().synced_packets, 0);
    file.sync_all().await.unwrap();
    assert!(
        cluster
            .state()
            .chunks
            .values()
            .all(|c| c.durable == c.length && c.length > 0)
    );
    file.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sync_reaches_the_chunks_that_made_room_for_others() {
    for close in [false, true] {
        let cluster = Cluster::start(3).await;
        let client = cluster.client().await;
        let options = OpenOptions::new().write(true).create(true).sync_on_close(close);
        let file = client.open_with("/f", options).await.unwrap();
        let chunks = 3 * super::LANES_MAX as u64 + 2;
        for chunk in 0..chunks {
            let piece = Bytes::from_static(b"in the middle of every chunk");
            file.handle()
                .write_at(chunk * CHUNK_BYTES + 7, piece)
                .await
                .unwrap();
        }
        let handle = file.handle().clone();
        match close {
            false => handle.sync_all().await.unwrap(),
            true => file.close().await.unwrap(),
        }
        let state = cluster.state();
        assert_eq!(state.chunks.len() as u64, chunks);
        for (chunk, c) in &state.chunks {
            assert!(
                c.durable == c.length && c.length > 0,
                "chunk {chunk}, close: {close}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_appender_goes_on_at_the_end() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    for _ in 0..3 {
        let mut file = client.append("/log").await.unwrap();
        file.write_all(b"line\n").await.unwrap();
        file.write_all(b"more\n").await.unwrap();
        file.close().await.unwrap();
    }
    let file = client.open("/log").await.unwrap();
    assert_eq!(
        &file.handle().read_at(0, 100).await.unwrap()[..],
        b"line\nmore\nline\nmore\nline\nmore\n"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_lane_ends_and_the_next_write_begins_another() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let file = client.create("/f").await.unwrap();
    let handle = file.handle().clone();
    handle.write_at(0, Bytes::from_static(b"one")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_eq!(client.stat("/f").await.unwrap().size, 3);
    handle.write_at(3, Bytes::from_static(b" two")).await.unwrap();
    handle.close().await.unwrap();
    assert_eq!(cluster.stored(handle.inode().0), b"one two");
    assert!(cluster.state().chunks.values().all(|c| c.durable == 7));
}

#[tokio::test(start_paused = true)]
async fn what_an_idle_lane_wrote_is_durable_after_a_sync() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let file = client.create("/f").await.unwrap();
    let handle = file.handle().clone();
    handle.write_at(0, Bytes::from_static(b"one")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert!(cluster.state().chunks.values().all(|c| c.durable == 0));
    handle.sync_all().await.unwrap();
    assert!(cluster.state().chunks.values().all(|c| c.durable == 3));
}

#[tokio::test(start_paused = true)]
async fn what_arrived_though_its_acknowledgement_did_not_is_durable_after_a_sync() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let file = client.create("/f").await.unwrap();
    let handle = file.handle().clone();
    cluster.fault(1, |f| f.drops_after = Some(1));
    handle.write_at(0, Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(cluster.state().applied_packets, 1);
    assert_eq!(cluster.state().synced_packets, 0);
    handle.sync_all().await.unwrap();
    assert_eq!(cluster.state().synced_packets, 1);
    assert!(cluster.state().chunks.values().all(|c| c.durable == 3));
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_dropped_ends_in_the_background() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let file = client.create("/f").await.unwrap();
    file.handle()
        .queue_at(0, Bytes::from_static(b"kept"))
        .await
        .unwrap();
    drop(file);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(cluster.state().chunks.values().all(|c| c.durable == 4));
}

#[tokio::test(start_paused = true)]
async fn cutting_a_file_forgets_what_was_beyond() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let mut file = client.create("/f").await.unwrap();
    file.write_bytes(Bytes::from(pattern(2 * CHUNK_BYTES as usize)))
        .await
        .unwrap();
    file.set_len(0).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 0);
    file.close().await.unwrap();
    assert_eq!(client.stat("/f").await.unwrap().size, 0);
}
