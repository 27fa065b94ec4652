//! The smaller tools, as their GNU namesakes would do it.

use crate::{cluster, text};
use dfs_tests::process::{Cluster, content};
use std::io::Write as _;
use std::process::Stdio;

fn put(cluster: &Cluster, content: &str, name: &str) {
    let mut put = cluster
        .command()
        .args(["put", "-", name])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
    assert!(put.wait().unwrap().success());
}

#[tokio::test]
async fn head_and_tail_count_lines_and_bytes() {
    let cluster = cluster(1);
    let lines: String = (1..=20).map(|n| format!("line {n}\n")).collect();
    put(&cluster, &lines, "/a");
    let said = |args: &[&str]| String::from_utf8(cluster.ok(args)).unwrap();
    assert_eq!(said(&["head", "/a"]), lines[..lines.find("line 11\n").unwrap()]);
    assert_eq!(said(&["head", "-n", "2", "/a"]), "line 1\nline 2\n");
    assert_eq!(said(&["head", "-c", "9", "/a"]), "line 1\nli");
    assert_eq!(said(&["tail", "/a"]), lines[lines.find("line 11\n").unwrap()..]);
    assert_eq!(said(&["tail", "-n", "1", "/a"]), "line 20\n");
    assert_eq!(said(&["tail", "-c", "3", "/a"]), "20\n");
    assert_eq!(said(&["tail", "-n", "99", "/a"]), lines);
    put(&cluster, "no end", "/b");
    assert_eq!(said(&["tail", "-n", "1", "/b"]), "no end");
    assert_eq!(
        said(&["head", "-n1", "/b", "/a"]),
        "==> /b <==\nno end\n==> /a <==\nline 1\n"
    );
}

#[tokio::test]
async fn trees_are_drawn_searched_and_added_up() {
    let cluster = cluster(1);
    cluster.ok(&["mkdir", "-p", "/t/d/e"]);
    put(&cluster, "12345", "/t/d/a.txt");
    put(&cluster, "", "/t/d/e/empty.csv");
    cluster.ok(&["ln", "-s", "d/a.txt", "/t/link"]);
    let said = |args: &[&str]| String::from_utf8(cluster.ok(args)).unwrap();
    assert_eq!(
        said(&["tree", "/t"]),
        "/t\n├── d\n│   ├── a.txt\n│   └── e\n│       └── empty.csv\n└── link -> d/a.txt\n\n2 directories, 3 files\n"
    );
    assert_eq!(said(&["find", "/t", "-name", "*.txt"]), "/t/d/a.txt\n");
    assert_eq!(
        said(&["find", "/t", "-type", "d", "-mindepth", "1"]),
        "/t/d\n/t/d/e\n"
    );
    assert_eq!(said(&["find", "/t", "-type", "f", "!", "-empty"]), "/t/d/a.txt\n");
    assert_eq!(
        cluster.json(&["find", "/t", "-type", "l"])["entries"][0]["target"],
        "d/a.txt"
    );
    let used = cluster.json(&["du", "/t"]);
    let rows: Vec<_> = used["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["path"].as_str().unwrap())
        .collect();
    assert_eq!(rows, ["/t/d/e", "/t/d", "/t"]);
    let bytes = |path: &str| {
        cluster.json(&["du", "-s", path])["entries"][0]["bytes"]
            .as_u64()
            .unwrap()
    };
    assert!(bytes("/t") >= bytes("/t/d") && bytes("/t/d") >= 5);
}

#[tokio::test]
async fn attributes_are_changed_as_by_the_unix_tools() {
    let cluster = cluster(1);
    let stat = |path: &str| cluster.json(&["stat", path])["entries"][0].clone();
    cluster.ok(&["touch", "/a"]);
    assert_eq!(
        (stat("/a")["size"].as_u64(), stat("/a")["type"].as_str()),
        (Some(0), Some("file"))
    );
    cluster.ok(&["touch", "-c", "/never"]);
    assert_eq!(cluster.fails(&["test", "-e", "/never"]).0, 1);
    cluster.ok(&["chmod", "640", "/a"]);
    cluster.ok(&["chmod", "u+x,g-r", "/a"]);
    assert_eq!(stat("/a")["mode"], "0700");
    cluster.ok(&["ln", "/a", "/b"]);
    assert_eq!(
        (stat("/b")["inode"].clone(), stat("/b")["nlink"].as_u64()),
        (stat("/a")["inode"].clone(), Some(2))
    );
    assert_eq!(cluster.fails(&["ln", "-s", "x", "/a"]).1, "ln: /a: File exists");
    cluster.ok(&["ln", "-sf", "x", "/b"]);
    assert_eq!(
        (stat("/b")["target"].as_str(), stat("/a")["nlink"].as_u64()),
        (Some("x"), Some(1))
    );
    cluster.ok(&["xattr", "set", "/a", "user.k", "v"]);
    assert_eq!(cluster.ok(&["xattr", "list", "/a"]), b"user.k\n");
    assert_eq!(cluster.ok(&["xattr", "get", "/a", "user.k"]), b"v\n");
    cluster.ok(&["xattr", "remove", "/a", "user.k"]);
    assert_eq!(
        cluster.fails(&["xattr", "get", "/a", "user.k"]).1,
        "xattr: /a: No data available"
    );
}

#[tokio::test]
async fn files_grow_shrink_and_are_summed() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("more");
    std::fs::write(&local, "56789").unwrap();
    put(&cluster, "1234", "/a");
    cluster.ok(&["append", text(&local), "/a"]);
    assert_eq!(cluster.ok(&["cat", "/a"]), b"123456789");
    let sum = cluster.json(&["checksum", "/a"]);
    assert_eq!(sum["entries"][0]["checksum"], "cbf43926");
    cluster.ok(&["truncate", "-s", "-4", "/a"]);
    assert_eq!(cluster.ok(&["cat", "/a"]), b"12345");
    cluster.ok(&["truncate", "-s", "300KiB", "/a"]);
    let back = cluster.ok(&["cat", "/a"]);
    assert_eq!((back.len(), &back[..6]), (300 * 1024, &b"12345\0"[..]));
    let chunks = cluster.json(&["chunks", "/a"]);
    let last = chunks["chunks"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (last["chunk"].is_null(), last["state"].as_str()),
        (true, Some("ok")),
        "a hole"
    );
}

#[tokio::test]
async fn setrep_changes_how_many_replicas_there_are_now_and_later() {
    let cluster = cluster(3);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("in");
    std::fs::write(&local, content(600_000, 5)).unwrap();
    cluster.json(&["mkdir", "/d"]);
    cluster.json(&["put", text(&local), "/d/old"]);
    let members = |path: &str| -> Vec<usize> {
        let said = cluster.json(&["chunks", path]);
        let chunks = said["chunks"].as_array().unwrap().iter();
        chunks.map(|c| c["members"].as_array().unwrap().len()).collect()
    };
    for goal in ["1", "2", "3"] {
        let said = cluster.json(&["setrep", "-w", "-t", "60", goal, "/d"]);
        assert_eq!(
            (said["files"].as_u64(), said["directories"].as_u64()),
            (Some(1), Some(1))
        );
        assert_eq!(members("/d/old"), [goal.parse::<usize>().unwrap(); 3]);
    }
    cluster.json(&["setrep", "2", "/d"]);
    cluster.json(&["put", text(&local), "/d/new"]);
    assert_eq!(members("/d/new"), [2; 3], "inherited");
    let back = folder.path().join("back");
    cluster.json(&["get", "/d/old", text(&back)]);
    assert!(std::fs::read(&local).unwrap() == std::fs::read(&back).unwrap());
}
