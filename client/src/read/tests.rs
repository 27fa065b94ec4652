//! Reading from a fake cluster whose replicas lie, hang, vanish and lose the master.

use crate::fake::{CHUNK_BYTES, Cluster, pattern};
use crate::{Client, Code, OpenOptions};
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::time::Instant;

const MIB: usize = 1 << 20;

/// A cluster with one file, a client that has not read it yet, and the bytes.
async fn stored(length: usize) -> (Cluster, Client, Vec<u8>) {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bytes = pattern(length);
    let mut file = client.create("/f").await.unwrap();
    file.write_bytes(Bytes::from(bytes.clone())).await.unwrap();
    file.close().await.unwrap();
    (cluster, client, bytes)
}

async fn all(client: &Client) -> Vec<u8> {
    let mut bytes = Vec::new();
    client
        .open("/f")
        .await
        .unwrap()
        .read_to_end(&mut bytes)
        .await
        .unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read() {
    let (cluster, client, bytes) = stored(9 * MIB + 123).await;
    assert!(all(&client).await == bytes);
    let file = client.open("/f").await.unwrap();
    for (offset, length) in [
        (0, 1),
        (CHUNK_BYTES as usize - 5, 10),
        (9 * MIB, 5_000),
        (10 * MIB, 4),
        (17, 4 * MIB),
    ] {
        let expected = &bytes[offset.min(bytes.len())..(offset + length).min(bytes.len())];
        assert!(file.handle().read_at(offset as u64, length).await.unwrap() == expected);
    }
    assert_eq!(cluster.state().reconfigurations, 0);
}

#[tokio::test(start_paused = true)]
async fn next_bytes_gives_the_file_in_packets_and_then_none() {
    let (_cluster, client, bytes) = stored(3 * MIB + 1).await;
    let mut file = client.open("/f").await.unwrap();
    let mut got = Vec::new();
    while let Some(part) = file.next_bytes().await.unwrap() {
        got.extend_from_slice(&part);
    }
    assert!(got == bytes && file.next_bytes().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn seeking_goes_where_it_says() {
    let (_cluster, client, bytes) = stored(2 * MIB).await;
    let mut file = client.open("/f").await.unwrap();
    let mut part = [0; 10];
    for at in [MIB as u64, 5, 2 * MIB as u64 - 10] {
        assert_eq!(file.seek(std::io::SeekFrom::Start(at)).await.unwrap(), at);
        file.read_exact(&mut part).await.unwrap();
        assert!(part[..] == bytes[at as usize..at as usize + 10]);
    }
    assert_eq!(
        file.seek(std::io::SeekFrom::End(-3)).await.unwrap(),
        2 * MIB as u64 - 3
    );
    assert!(file.seek(std::io::SeekFrom::Current(i64::MIN)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_never_seen_while_a_good_replica_lives() {
    let (cluster, client, bytes) = stored(5 * MIB).await;
    cluster.fault(1, |f| f.flips = true);
    cluster.fault(2, |f| f.flips = true);
    assert!(all(&client).await == bytes);
    assert!(cluster.state().reads[&3] >= 5);
}

#[tokio::test(start_paused = true)]
async fn when_all_replicas_are_bad_the_error_says_who_was_tried() {
    let (cluster, _, _) = stored(MIB).await;
    let client = cluster
        .client_with(|s| s.call_deadline = Duration::from_secs(1))
        .await;
    for node in 1..=3 {
        cluster.fault(node, |f| f.flips = true);
    }
    let file = client.open("/f").await.unwrap();
    let error = file.handle().read_at(0, 100).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    for word in [
        "chunk ",
        "version 1",
        "chunkserver 1",
        "chunkserver 2",
        "chunkserver 3",
        "waiting",
    ] {
        assert!(error.message.contains(word), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_costs_nothing_but_another_try() {
    let (cluster, client, bytes) = stored(5 * MIB).await;
    cluster.fault(1, |f| f.dead = true);
    cluster.fault(2, |f| f.dead = true);
    let begun = Instant::now();
    assert!(all(&client).await == bytes);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_server_is_overtaken_by_a_hedge() {
    let (cluster, client, bytes) = stored(5 * MIB).await;
    assert!(all(&client).await == bytes);
    for node in [1, 2] {
        cluster.fault(node, |f| f.hangs = true);
    }
    let begun = Instant::now();
    assert!(all(&client).await == bytes);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_replica_shorter_than_what_was_committed_is_not_believed() {
    let (cluster, client, bytes) = stored(MIB).await;
    for node in [1, 3] {
        cluster.fault(node, |f| f.short = 10);
    }
    assert!(all(&client).await == bytes);
}

#[tokio::test(start_paused = true)]
async fn a_detached_answer_counts_if_nobody_promised_more() {
    let (cluster, client, bytes) = stored(MIB).await;
    for node in 1..=3 {
        cluster.fault(node, |f| f.detached = true);
    }
    assert!(all(&client).await == bytes);
}

#[tokio::test(start_paused = true)]
async fn a_detached_answer_does_not_count_if_another_member_promised_more_or_is_silent() {
    let (cluster, _, _) = stored(MIB).await;
    let client = cluster
        .client_with(|s| s.call_deadline = Duration::from_secs(3))
        .await;
    for node in 1..=3 {
        cluster.fault(node, |f| f.detached = true);
    }
    cluster.fault(2, |f| f.promised_more = 1);
    cluster.fault(3, |f| f.promised_more = 1);
    let file = client.open("/f").await.unwrap();
    assert_eq!(file.handle().read_at(0, 10).await.unwrap_err().code, Code::Stale);
    cluster.fault(2, |f| f.dead = true);
    cluster.fault(3, |f| f.promised_more = 0);
    assert_eq!(
        file.handle().read_at(0, 10).await.unwrap_err().code,
        Code::Unavailable
    );
    cluster.fault(2, |f| (f.dead, f.promised_more, f.forgetful) = (false, 0, true));
    cluster.fault(3, |f| f.forgetful = true);
    assert_eq!(
        file.handle().read_at(0, 10).await.unwrap_err().code,
        Code::Unavailable,
        "who lost its replica cannot vouch"
    );
    let trusting = cluster.client_with(|s| s.stale_ok = true).await;
    assert_eq!(
        trusting
            .open("/f")
            .await
            .unwrap()
            .handle()
            .read_at(0, 10)
            .await
            .unwrap()
            .len(),
        10
    );
}

#[tokio::test(start_paused = true)]
async fn an_out_of_date_place_is_asked_again() {
    let (cluster, client, bytes) = stored(MIB).await;
    let file = client.open("/f").await.unwrap();
    file.handle().read_at(0, 10).await.unwrap();
    for chunk in cluster.state().chunks.values_mut() {
        chunk.version += 1;
        chunk.members = vec![2];
    }
    assert!(file.handle().read_at(5, 10).await.unwrap() == bytes[5..15]);
}

#[tokio::test(start_paused = true)]
async fn an_opened_file_is_read_while_the_master_is_away() {
    let (cluster, client, bytes) = stored(5 * MIB).await;
    cluster.state().writing = true;
    let file = client.open("/f").await.unwrap();
    file.handle().read_at(0, 10).await.unwrap();
    cluster.state().master_away = true;
    for at in [3, MIB, 4 * MIB] {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(file.handle().read_at(at as u64, 10).await.unwrap() == bytes[at..at + 10]);
    }
}

#[tokio::test(start_paused = true)]
async fn when_nobody_tells_of_changes_what_is_known_serves_only_while_the_master_is_away() {
    let (cluster, client, bytes) = stored(100).await;
    let options = OpenOptions::new().read(true).write(true).informed(true);
    let file = client.open_with("/f", options.clone()).await.unwrap();
    let handle = file.handle();
    handle.read_at(0, 10).await.unwrap();
    handle.unsure();
    let locates = cluster.state().locates;
    assert!(handle.read_within(3, 10).await.unwrap() == bytes[3..13]);
    assert_eq!(cluster.state().locates, locates + 1, "the master is asked");
    handle.unsure();
    cluster.state().master_away = true;
    assert!(handle.read_within(3, 10).await.unwrap() == bytes[3..13]);
    let hole = handle.read_within(CHUNK_BYTES, 10).await;
    assert_eq!(
        hole.unwrap_err().code,
        Code::Unavailable,
        "another may have filled it"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_written_and_never_asked_for_is_read_while_the_master_is_away() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .informed(true);
    let file = client.open_with("/f", options).await.unwrap();
    let handle = file.handle();
    handle.write_at(0, Bytes::from_static(b"own")).await.unwrap();
    handle.sync_all().await.unwrap();
    handle.unsure();
    cluster.state().master_away = true;
    assert_eq!(&handle.read_within(0, 3).await.unwrap()[..], b"own");
}

#[tokio::test(start_paused = true)]
async fn holes_are_zeros_and_written_bytes_are_not() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = client.open_with("/f", options).await.unwrap();
    let far = 2 * CHUNK_BYTES + 100;
    file.handle()
        .write_at(far, Bytes::from_static(b"end"))
        .await
        .unwrap();
    file.handle()
        .write_at(10, Bytes::from_static(b"begin"))
        .await
        .unwrap();
    let all = file
        .handle()
        .read_at(0, usize::try_from(far).unwrap() + 50)
        .await
        .unwrap();
    assert_eq!(all.len() as u64, far + 3);
    assert_eq!(
        (&all[10..15], &all[all.len() - 3..]),
        (&b"begin"[..], &b"end"[..])
    );
    assert!(all[15..all.len() - 3].iter().all(|b| *b == 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_power_cut_took_is_an_error_and_no_hole() {
    let (cluster, client, bytes) = stored(1000).await;
    cluster.state().lost_end = 1500;
    let file = client
        .open_with("/f", OpenOptions::new().read(true).write(true))
        .await
        .unwrap();
    file.handle().set_len(2000).await.unwrap();
    let handle = file.handle();
    assert!(handle.read_at(0, 1000).await.unwrap() == bytes);
    let begun = Instant::now();
    assert_eq!(handle.read_at(0, 2000).await.unwrap_err().code, Code::Lost);
    assert!(begun.elapsed() < Duration::from_secs(1), "it is final");
    assert_eq!(handle.read_at(1400, 10).await.unwrap_err().code, Code::Lost);
    assert!(handle.read_at(1500, 500).await.unwrap() == vec![0; 500]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_sees_what_a_writer_has_been_answered_for() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    cluster.state().writing = true;
    let writer = client.create("/f").await.unwrap();
    let reader = client.open("/f").await.unwrap();
    for (at, word) in [(0, &b"one "[..]), (4, b"two "), (8, b"three")] {
        writer
            .handle()
            .write_at(at, Bytes::from_static(word))
            .await
            .unwrap();
        assert!(reader.handle().read_at(at, 100).await.unwrap() == word);
    }
    assert_eq!(reader.handle().len().await.unwrap(), 13);
}

#[tokio::test(start_paused = true)]
async fn own_writes_are_read_back_at_once() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = client.open_with("/f", options).await.unwrap();
    for i in 0..20u64 {
        file.handle()
            .queue_at(i * 3, Bytes::from(vec![i as u8; 3]))
            .await
            .unwrap();
        assert_eq!(&file.handle().read_at(i * 3, 10).await.unwrap()[..], [i as u8; 3]);
    }
    assert_eq!(file.handle().stat().await.unwrap().size, 60);
}

#[tokio::test(start_paused = true)]
async fn probes_name_every_member() {
    let (cluster, client, _) = stored(MIB).await;
    cluster.fault(3, |f| f.dead = true);
    let chunk = {
        let core = &client.inodes.core;
        let inode = client.stat("/f").await.unwrap().inode;
        let located = crate::convert::located(
            core.master
                .query(&Default::default(), crate::convert::locate(inode, 0, 1))
                .await
                .unwrap(),
        );
        let extent = located.unwrap().extents.remove(0);
        crate::ChunkState {
            offset: 0,
            span_bytes: extent.span_bytes,
            chunk: extent.capability.chunk,
            version: extent.capability.version,
            goal: 3,
            length: extent.capability.length,
            writing: false,
            changing: false,
            members: extent.capability.members.clone(),
            replicas: Vec::new(),
            lost_bytes: 0,
            token: extent.token,
        }
    };
    let probed = client.probe(&[chunk], false).await.unwrap();
    let lengths: Vec<_> = probed
        .iter()
        .map(|p| p.replica.as_ref().map(|r| r.length).ok())
        .collect();
    assert_eq!(lengths, [Some(MIB as u64), Some(MIB as u64), None]);
}
