//! The client library against a real master and real chunkservers, in one process, over loopback and real files.

#[path = "../../client/examples/wordcount.rs"]
#[expect(dead_code, reason = "an example has a main")]
mod wordcount;

#[path = "library/records.rs"]
mod records;

use bytes::Bytes;
use dfs_chunkserver::Chunkserver;
use dfs_client::{Client, Code, OpenOptions, SetAttributes};
use dfs_master::{Master, View};
use dfs_proto::World;
use dfs_proto::limits::Parameters;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MIB: usize = 1 << 20;
const CHUNK_BYTES: u64 = MIB as u64;

struct Cluster {
    folder: TempDir,
    master: Option<Master>,
    addr: String,
    servers: Vec<Option<Chunkserver>>,
}

impl Cluster {
    async fn start(count: usize) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let master = start_master(&folder, "127.0.0.1:0").await;
        let addr = master.addr().to_owned();
        let mut cluster = Cluster {
            folder,
            master: Some(master),
            addr,
            servers: Vec::new(),
        };
        for number in 0..count {
            let server = cluster.server(number).await;
            cluster.servers.push(Some(server));
        }
        let client = cluster.client().await;
        while client.status().await.unwrap().alive < u32::try_from(count).unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster
    }

    async fn server(&self, number: usize) -> Chunkserver {
        let dir = self.folder.path().join(format!("server{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        let config = dfs_chunkserver::Config {
            listen: "127.0.0.1:0".into(),
            masters: vec![self.addr.clone()],
            data_dirs: vec![dir],
            host: format!("host{number}"),
            ..dfs_chunkserver::Config::default()
        };
        Chunkserver::start(config, World::real("server", 2))
            .await
            .unwrap()
    }

    async fn client(&self) -> Client {
        Client::connect(&self.addr).await.unwrap()
    }
}

async fn start_master(folder: &TempDir, listen: &str) -> Master {
    let data_dir = folder.path().join("master");
    std::fs::create_dir_all(&data_dir).unwrap();
    let config = dfs_master::Config {
        listen: listen.into(),
        advertise: None,
        data_dir,
        parameters: Parameters {
            chunk_bytes: CHUNK_BYTES,
            goal: 3,
            time_divisor: 10,
        },
        view: View::Memory,
        checkpoint_every: 10_000,
        repair_after: None,
    };
    Master::start(config, World::real("master", 2)).await.unwrap()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

async fn put(client: &Client, path: &str, bytes: &[u8]) {
    let mut file = client.create(path).await.unwrap();
    file.write_all(bytes).await.unwrap();
    file.close().await.unwrap();
}

async fn get(client: &Client, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    client
        .open(path)
        .await
        .unwrap()
        .read_to_end(&mut bytes)
        .await
        .unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_come_back_as_they_were_put() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    for length in [0, 1, 4_096, 65_537, 5 * MIB + 7] {
        let bytes = pattern(length);
        put(&client, "/f", &bytes).await;
        assert!(get(&client, "/f").await == bytes, "{length} bytes");
        assert_eq!(client.stat("/f").await.unwrap().size, length as u64);
    }
    let chunks = client.chunks("/f").await.unwrap();
    assert_eq!(chunks.len(), 6);
    let probed = client.probe(&chunks, true).await.unwrap();
    assert_eq!(probed.len(), 18);
    for replica in probed {
        let replica = replica.replica.unwrap();
        assert!(replica.present && replica.serving && replica.bad_blocks.is_empty());
    }
    assert_eq!(client.stats().failovers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwrites_holes_appends_and_cuts_are_what_a_local_file_would_be() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let options = OpenOptions::new().read(true).write(true).create(true);
    let mut file = client.open_with("/f", options).await.unwrap();
    let mut local = vec![0; 3 * MIB + 100];
    let far = 3 * MIB;
    for (at, length) in [
        (far, 100),
        (10, 50),
        (MIB - 20, 40),
        (70_000, 3),
        (0, 65_536),
        (MIB + 5, MIB),
    ] {
        let bytes: Vec<u8> = pattern(length).iter().map(|b| b.wrapping_add(at as u8)).collect();
        file.write_at(at as u64, Bytes::from(bytes.clone()))
            .await
            .unwrap();
        local[at..at + length].copy_from_slice(&bytes);
        assert!(file.read_at(0, 4 * MIB).await.unwrap() == local);
    }
    file.sync_all().await.unwrap();
    for size in [2 * MIB + 17, 2 * MIB + 300, 5, 0] {
        file.set_len(size as u64).await.unwrap();
        local.resize(size, 0);
        assert!(file.read_at(0, 4 * MIB).await.unwrap() == local, "{size} bytes");
    }
    file.close().await.unwrap();
    for word in ["one ", "two ", "three"] {
        let mut file = client.append("/f").await.unwrap();
        file.write_all(word.as_bytes()).await.unwrap();
        file.close().await.unwrap();
    }
    assert_eq!(get(&client, "/f").await, b"one two three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_the_middle_of_a_write_is_a_pause() {
    let mut cluster = Cluster::start(5).await;
    let client = cluster.client().await;
    let bytes = pattern(12 * MIB);
    let mut file = client.create("/f").await.unwrap();
    for (number, part) in bytes.chunks(256 * 1024).enumerate() {
        if number == 20 {
            let members = client.chunks("/f").await.unwrap()[0].members.clone();
            let victim = members[0]
                .host
                .trim_start_matches("host")
                .parse::<usize>()
                .unwrap();
            drop(cluster.servers[victim].take());
        }
        file.write_bytes(Bytes::copy_from_slice(part)).await.unwrap();
    }
    let handle = file.handle().clone();
    file.close().await.unwrap();
    assert!(get(&client, "/f").await == bytes);
    assert!(
        handle.stats().longest_stall < Duration::from_secs(3),
        "{:?}",
        handle.stats()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opened_file_is_read_while_the_master_is_away_and_written_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let bytes = pattern(3 * MIB);
    put(&client, "/f", &bytes).await;
    let file = client.open("/f").await.unwrap();
    file.handle().read_at(0, 1).await.unwrap();
    cluster.master.take().unwrap().stop().await;
    for at in [5, MIB, 2 * MIB + 9] {
        assert!(file.handle().read_at(at as u64, 1000).await.unwrap() == bytes[at..at + 1000]);
    }
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        start_master(&cluster.folder, &cluster.addr).await
    };
    let (master, ()) = tokio::join!(back, put(&client, "/g", b"written after all"));
    cluster.master = Some(master);
    assert_eq!(get(&client, "/g").await, b"written after all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_attributes_and_trees() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    client.mkdir_all("/a/b").await.unwrap();
    put(&client, "/a/b/f", b"bytes").await;
    client.symlink("b/f", "/a/link").await.unwrap();
    client.link("/a/b/f", "/a/hard").await.unwrap();
    assert_eq!(get(&client, "/a/link").await, b"bytes");
    assert_eq!(client.read_link("/a/link").await.unwrap(), b"b/f");
    assert_eq!(client.stat("/a/hard").await.unwrap().nlink, 2);
    let set = SetAttributes {
        mode: Some(0o600),
        ..SetAttributes::default()
    };
    assert_eq!(client.set_attributes("/a/b/f", set).await.unwrap().mode, 0o600);
    client
        .set_xattr("/a/b/f", "user.k", "v", Default::default())
        .await
        .unwrap();
    assert_eq!(client.list_xattrs("/a/hard").await.unwrap(), [b"user.k".to_vec()]);
    let other = client.acting_as(dfs_client::Caller {
        uid: 7,
        gid: 7,
        groups: Vec::new(),
    });
    assert_eq!(
        other.open("/a/b/f").await.unwrap_err().code,
        Code::PermissionDenied
    );
    let names: Vec<_> = client
        .list("/a")
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, [b"b".to_vec(), b"hard".to_vec(), b"link".to_vec()]);
    client.remove_all("/a").await.unwrap();
    assert!(client.list("/").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_reduce_counts_each_word_once_and_commits_by_rename() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    client.mkdir("/books").await.unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for book in 0..2 {
        let mut text = String::new();
        for line in 0..30_000 {
            let word = format!("w{}", line % 97);
            *expected.entry(word.clone()).or_insert(0) += 1;
            *expected.entry(format!("book{book}")).or_insert(0) += 1;
            text.push_str(&format!("{word}, book{book}\n"));
        }
        put(&client, &format!("/books/{book}"), text.as_bytes()).await;
    }
    wordcount::word_count(&client, "/books", "/counts", 100_000)
        .await
        .unwrap();
    let mut found = std::collections::BTreeMap::new();
    for part in client.list("/counts").await.unwrap() {
        let path = [b"/counts/", &part.name[..]].concat();
        let text = get(&client, std::str::from_utf8(&path).unwrap()).await;
        for line in String::from_utf8(text).unwrap().lines() {
            let (word, count) = line.split_once('\t').unwrap();
            found.insert(word.to_owned(), count.parse::<i32>().unwrap());
        }
    }
    assert_eq!(found, expected);
    assert_eq!(
        client.list("/").await.unwrap().len(),
        2,
        "nothing temporary is left"
    );
    let again = wordcount::word_count(&client, "/books", "/counts", 100_000).await;
    assert_eq!(again.unwrap_err().code, Code::AlreadyExists);
}
