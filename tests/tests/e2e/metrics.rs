//! Every role can be watched: its numbers follow what happens, and its page is one that Prometheus can read.

use crate::cluster;
use dfs_tests::process::{Cluster, Node, until};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// The answer of a node's HTTP: status line and body.
fn get(node: &Node, path: &str) -> (String, String) {
    let addr = node.metrics.as_ref().unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {addr}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Samples by name and labels, as on the page.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

fn scrape(node: &Node) -> BTreeMap<String, f64> {
    let (status, page) = get(node, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    samples(&page)
}

/// A cluster with a file of two chunks in it, read once.
fn used() -> Cluster {
    let cluster = cluster(3);
    let file = cluster.dir().join("file");
    std::fs::write(&file, vec![7; 300 * 1024]).unwrap();
    cluster.ok(&["put", crate::text(&file), "/file"]);
    assert_eq!(cluster.ok(&["cat", "/file"]).len(), 300 * 1024);
    cluster.wait_healthy(3);
    cluster
}

#[tokio::test]
async fn the_numbers_of_every_node_follow_what_happens() {
    let cluster = used();
    let master = cluster.file.master.clone();
    // A round through the chunks is told when it is over.
    until("both chunks are counted", || {
        scrape(&master)["dfs_master_chunks{health=\"ok\"}"] == 2.0
    })
    .await
    .unwrap();
    let of = scrape(&master);
    assert_eq!(of["dfs_master_chunk_copies{goal=\"3\",copies=\"3\"}"], 2.0);
    assert_eq!(of["dfs_master_servers{state=\"alive\"}"], 3.0);
    assert_eq!(of["dfs_master_files"], 1.0);
    assert!(of["dfs_master_call_duration_seconds_count{call=\"make\"}"] >= 1.0);
    assert!(of["dfs_master_log_sync_duration_seconds_count"] >= 1.0);
    let servers: Vec<_> = cluster.file.chunkservers.iter().map(scrape).collect();
    let total = |name: &str| servers.iter().map(|of| of[name]).sum::<f64>();
    assert_eq!(total("dfs_chunkserver_replicas"), 6.0);
    assert!(total("dfs_chunkserver_packet_bytes_total") >= 900.0 * 1024.0);
    assert!(total("dfs_chunkserver_read_bytes_total") >= 300.0 * 1024.0);
    assert!(total("dfs_chunkserver_disk_sync_duration_seconds_count") >= 6.0);
    for of in &servers {
        assert_eq!(of["dfs_chunkserver_session_live"], 1.0);
        assert!(of["dfs_chunkserver_apply_duration_seconds_count"] >= 1.0);
        assert!(
            of.keys()
                .any(|name| name.starts_with("dfs_chunkserver_disk_free_bytes{path="))
        );
    }
}

#[tokio::test]
async fn a_chunkserver_without_a_master_is_not_healthy() {
    let cluster = cluster(1);
    let server = &cluster.file.chunkservers[0];
    assert_eq!(get(&cluster.file.master, "/healthz").0, "HTTP/1.1 200 OK");
    assert_eq!(
        get(server, "/healthz"),
        ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned())
    );
    cluster.kill(&cluster.file.master).await.unwrap();
    until("it notices", || {
        get(server, "/healthz").0.starts_with("HTTP/1.1 503 ")
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn every_page_has_each_family_once_with_its_type_and_a_name_that_says_its_unit() {
    let cluster = used();
    for node in cluster.nodes() {
        let (_, page) = get(node, "/metrics");
        let mut seen = BTreeSet::new();
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(seen.insert(name), "{name} twice");
            assert!(page.contains(&format!("# HELP {name} ")), "{name}");
            match kind {
                "counter" => assert!(name.ends_with("_total"), "{name}"),
                "histogram" => assert!(name.ends_with("_seconds"), "{name}"),
                "gauge" => assert!(!name.ends_with("_total"), "{name}"),
                other => panic!("{name} is a {other}"),
            }
        }
        for name in samples(&page).keys() {
            let plain = name.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| plain.strip_suffix(end));
            assert!(
                seen.contains(plain) || family.is_some_and(|f| seen.contains(f)),
                "{name}"
            );
        }
    }
}

#[test]
fn top_says_once_into_a_pipe_what_goes_on() {
    let cluster = used();
    let text = String::from_utf8(cluster.ok(&["top", "--interval=0.3"])).unwrap();
    for word in [
        " healthy",
        "repair   0 changing",
        "clients  ",
        "NODE ADDRESS",
        " all ",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(!text.contains('\x1b'), "no terminal, no escapes: {text}");
    let top = cluster.json(&["top", "--interval=0.3"]);
    assert_eq!(top["servers"].as_array().unwrap().len(), 3, "{top}");
    assert_eq!(top["servers"][0]["state"], "alive", "{top}");
    assert_eq!(
        (&top["chunks"]["ok"], &top["queues"]["one_copy"]),
        (&2.into(), &0.into()),
        "{top}"
    );
    assert!(top["rates"]["read_bytes_per_s"].is_u64(), "{top}");
    let (code, message) = cluster.fails(&["top", "--interval=0"]);
    assert_eq!(
        (code, message.as_str()),
        (1, "top: an interval is a number of seconds from 0.2")
    );
}
