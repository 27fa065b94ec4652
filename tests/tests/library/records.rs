//! Record append: each record once, whole, in its producer's order, over chunk ends and failures.

use super::*;
use dfs_client::Handle;
use std::collections::BTreeMap;

/// A record that says who made it, and is checkable by itself.
fn record(producer: u64, sequence: u64, length: usize) -> Bytes {
    let mut text = format!("{producer}:{sequence}:").into_bytes();
    let fill = b'a' + u8::try_from((producer + sequence) % 26).unwrap();
    text.resize(length.max(text.len()), fill);
    text.push(b'\n');
    text.into()
}

async fn appender(client: &Client, path: &str) -> Handle {
    let options = OpenOptions::new().write(true).create(true);
    client.open_with(path, options).await.unwrap().handle().clone()
}

/// The records in a file, by producer, in the order in which they are there.
fn parsed(bytes: &[u8]) -> BTreeMap<u64, Vec<u64>> {
    let mut all: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let text = std::str::from_utf8(line).expect("a record");
        let mut parts = text.split(':');
        let producer: u64 = parts.next().unwrap().parse().expect("a whole record");
        let sequence: u64 = parts.next().unwrap().parse().expect("a whole record");
        assert_eq!(
            line,
            &record(producer, sequence, line.len() - 1)[..],
            "the record is whole"
        );
        all.entry(producer).or_default().push(sequence);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_append_side_by_side_over_chunk_ends() {
    let cluster = Cluster::start(3).await;
    let mut tasks = tokio::task::JoinSet::new();
    let clients = [cluster.client().await, cluster.client().await];
    let handles = [
        appender(&clients[0], "/log").await,
        appender(&clients[1], "/log").await,
    ];
    for producer in 1..=10u64 {
        let handle = handles[producer as usize % 2].clone();
        tasks.spawn(async move {
            let mut places = Vec::new();
            for sequence in 1..=40 {
                let record = record(producer, sequence, 4_000 + 1_000 * producer as usize);
                let appended = handle
                    .append_record(producer, sequence, record.clone())
                    .await
                    .unwrap();
                places.push((appended.offset.unwrap(), record.clone()));
                let again = handle.append_record(producer, sequence, record).await.unwrap();
                assert_eq!(again, appended);
            }
            places
        });
    }
    let places = tasks.join_all().await;
    for handle in &handles {
        handle.sync_all().await.unwrap();
        handle.close().await.unwrap();
    }
    let bytes = get(&cluster.client().await, "/log").await;
    let all = parsed(&bytes);
    assert_eq!(all.len(), 10);
    assert!(all.values().all(|s| s.iter().copied().eq(1..=40)), "{all:?}");
    for (offset, record) in places.concat() {
        let at = offset as usize;
        assert_eq!(
            &bytes[at..at + record.len()],
            &record[..],
            "it is where it was said to be"
        );
    }
    let chunks = clients[0].chunks("/log").await.unwrap();
    assert!(chunks.len() > 3, "{} chunks", chunks.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_process_with_the_same_producer_repeats_nothing() {
    let cluster = Cluster::start(3).await;
    let big = 200_000;
    let mut first_places = Vec::new();
    {
        let client = cluster.client().await;
        let handle = appender(&client, "/log").await;
        for sequence in 1..=9 {
            let appended = handle.append_record(7, sequence, record(7, sequence, big)).await;
            first_places.push(appended.unwrap().offset);
        }
        for sequence in 1..=9 {
            handle
                .append_record(8, sequence, record(8, sequence, big))
                .await
                .unwrap();
        }
        // Not closed: as if the process had been killed.
        std::mem::forget(handle);
    }
    let client = cluster.client().await;
    let handle = appender(&client, "/log").await;
    let again = handle.append_record(7, 9, record(7, 9, big)).await.unwrap();
    assert_eq!(again.offset, first_places[8], "found in an earlier chunk");
    let older = handle.append_record(7, 3, record(7, 3, big)).await.unwrap();
    assert_eq!(older.offset, None);
    handle.append_record(7, 10, record(7, 10, big)).await.unwrap();
    handle.close().await.unwrap();
    let all = parsed(&get(&client, "/log").await);
    assert!(all[&7].iter().copied().eq(1..=10), "{all:?}");
    assert!(all[&8].iter().copied().eq(1..=9), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_once_in_the_file_though_servers_go() {
    let mut cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let handle = appender(&client, "/log").await;
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 1..=6u64 {
        let handle = handle.clone();
        tasks.spawn(async move {
            for sequence in 1..=150 {
                let record = record(producer, sequence, 3_000);
                handle.append_record(producer, sequence, record).await.unwrap();
            }
        });
    }
    for number in [0, 1] {
        tokio::time::sleep(Duration::from_millis(150)).await;
        cluster.servers[number].take().unwrap().stop().await;
    }
    tasks.join_all().await;
    handle.close().await.unwrap();
    let all = parsed(&get(&client, "/log").await);
    assert_eq!(all.len(), 6);
    assert!(all.values().all(|s| s.iter().copied().eq(1..=150)), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_record_is_refused_and_plain_files_take_records_at_their_end() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    put(&client, "/plain", b"first line\n").await;
    let handle = appender(&client, "/plain").await;
    for (producer, sequence, bytes) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1 << 63, 1, 1)] {
        let refused = handle
            .append_record(producer, sequence, vec![7; bytes].into())
            .await;
        assert_eq!(refused.unwrap_err().code, Code::InvalidArgument);
    }
    let large = vec![7; MIB / 4 + 1];
    let refused = handle.append_record(1, 1, large.into()).await;
    assert_eq!(refused.unwrap_err().code, Code::TooLarge);
    let appended = handle.append_record(1, 1, record(1, 1, 20)).await.unwrap();
    assert_eq!(appended.offset, Some(11));
    handle.close().await.unwrap();
    let bytes = get(&client, "/plain").await;
    assert!(bytes.starts_with(b"first line\n1:1:") && bytes.len() == 11 + 21);
}

/// What a follower hears until it has so many bytes.
async fn heard(client: Client, path: &str, length: usize) -> Vec<u8> {
    let file = client.open(path).await.unwrap();
    let mut following = file.handle().follow(0).unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let next = tokio::time::timeout(Duration::from_secs(20), following.next());
        bytes.extend_from_slice(&next.await.expect("it goes on").unwrap());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_hears_each_record_soon_after_it_is_appended_over_chunk_ends() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let handle = appender(&client, "/log").await;
    let reader = cluster.client().await;
    let file = reader.open("/log").await.unwrap();
    let mut following = file.handle().follow(0).unwrap();
    for sequence in 1..=30 {
        let record = record(1, sequence, 100_000);
        let mut got = Vec::new();
        let hear = async {
            while got.len() < record.len() {
                got.extend_from_slice(&following.next().await.unwrap());
            }
        };
        let append = handle.append_record(1, sequence, record.clone());
        let both = async { tokio::join!(hear, append).1.unwrap() };
        tokio::time::timeout(Duration::from_secs(2), both)
            .await
            .expect("a follower is told");
        assert_eq!(got, record, "record {sequence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_hear_the_same_bytes_though_a_server_goes() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    let handle = appender(&client, "/log").await;
    let length = 100 * 20_001;
    let mut followers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        followers.spawn(heard(cluster.client().await, "/log", length));
    }
    for sequence in 1..=100 {
        let record = record(3, sequence, 20_000);
        handle.append_record(3, sequence, record).await.unwrap();
        if sequence == 40 {
            cluster.servers[1].take().unwrap().stop().await;
        }
    }
    handle.close().await.unwrap();
    let bytes = get(&client, "/log").await;
    assert_eq!(parsed(&bytes)[&3].len(), 100);
    for follower in followers.join_all().await {
        assert!(follower == bytes, "{} of {} bytes", follower.len(), bytes.len());
    }
}
