//! Every role can be watched: its numbers follow what happens, and its page is one that Prometheus can read.

use crate::cluster;
use dfs_tests::process::{Cluster, Node, until};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the repository holds for those who watch.
const RULES: &str = include_str!("../../../ops/prometheus/dfs.rules.yml");
const DASHBOARD: &str = include_str!("../../../ops/grafana/dfs.json");
const DOCUMENT: &str = include_str!("../../../docs/operations.md");

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
        "repair   0 waiting",
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

/// Words of a text that begin with `dfs_ROLE_`: names of metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let roles = ["dfs_master_", "dfs_chunkserver_"];
    words
        .filter(|word| {
            roles
                .iter()
                .any(|role| word.starts_with(role) && word.len() > role.len())
        })
        .collect()
}

#[test]
fn every_metric_that_is_spoken_of_is_on_a_page_and_the_other_way_round() {
    let cluster = used();
    let pages = [&cluster.file.master, &cluster.file.chunkservers[0]].map(|node| get(node, "/metrics").1);
    let types = pages.iter().flat_map(|page| page.lines());
    let families: BTreeSet<&str> = types
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for (what, text) in [
        ("rules", RULES),
        ("dashboard", DASHBOARD),
        ("operations.md", DOCUMENT),
    ] {
        let names = named(text);
        assert!(names.len() > 10, "{what} names nothing");
        for name in names {
            let plain = ["_bucket", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            assert!(
                families.contains(plain.unwrap_or(name)),
                "{what}: there is no {name}"
            );
        }
    }
    let written = named(DOCUMENT);
    for family in families.iter().filter(|family| !family.ends_with("_info")) {
        let uptime = family.ends_with("_uptime_seconds");
        assert!(
            uptime || written.contains(family),
            "docs/operations.md says nothing of {family}"
        );
    }
}

#[test]
fn every_alert_is_explained() {
    let alerts = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<&str> = alerts.collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        assert!(
            DOCUMENT.contains(&format!("| `{alert}` |")),
            "docs/operations.md says nothing of {alert}"
        );
    }
}

#[test]
fn the_dashboard_asks_in_every_panel_and_no_two_lie_on_each_other() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let number = |of: &str| panel["gridPos"][of].as_u64().unwrap();
        for (x, y) in (0..number("w")).flat_map(|x| (0..number("h")).map(move |y| (x, y))) {
            assert!(
                taken.insert((number("x") + x, number("y") + y)),
                "{} lies on another",
                panel["title"]
            );
        }
        let asks = |target: &serde_json::Value| target["expr"].as_str().is_some_and(|e| e.contains("dfs_"));
        let targets = panel["targets"].as_array();
        assert!(panel["type"] == "row" || targets.is_some_and(|t| !t.is_empty() && t.iter().all(asks)));
    }
}

/// Prometheus's own tool, if it is here.
fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .find_map(|folder| Some(folder.join("promtool")).filter(|tool| tool.is_file()))
}

#[test]
fn promtool_finds_nothing_wrong() {
    let Some(promtool) = promtool() else {
        println!("skipped: promtool is not here (Debian's package prometheus has it)");
        return;
    };
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/prometheus");
    for args in [
        ["check", "rules", "dfs.rules.yml"],
        ["test", "rules", "dfs.rules.test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let output = Command::new(&promtool)
            .args(args)
            .current_dir(&ops)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {text}");
    }
    let cluster = used();
    for node in cluster.nodes() {
        let (_, page) = get(node, "/metrics");
        let mut check = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}", node.addr);
    }
}
