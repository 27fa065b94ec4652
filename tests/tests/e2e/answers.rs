//! What the commands say, as JSON: the shapes that scripts build on.

use crate::{cluster, text};
use dfs_tests::process::content;
use serde_json::Value;

/// All keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn has(value: &Value, wanted: &[&str]) {
    for key in wanted {
        assert!(keys(value).contains(key), "{key} in {value}");
    }
}

const ENTRY: &[&str] = &[
    "path",
    "name",
    "type",
    "size",
    "mode",
    "uid",
    "gid",
    "nlink",
    "inode",
    "atime_ns",
    "mtime_ns",
    "ctime_ns",
    "replication",
];

#[tokio::test]
async fn answers_have_the_fields_of_the_contract() {
    let cluster = cluster(3);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("in");
    std::fs::write(&local, content(600_000, 1)).unwrap();
    let said = cluster.json(&["put", text(&local), "/a"]);
    assert_eq!(
        keys(&said),
        ["bytes", "failovers", "files", "longest_stall_ms", "seconds"]
    );
    let listed = cluster.json(&["ls", "/"]);
    let entry = &listed["entries"][0];
    has(entry, ENTRY);
    assert_eq!(
        (
            entry["type"].as_str(),
            entry["size"].as_u64(),
            entry["replication"].as_u64()
        ),
        (Some("file"), Some(600_000), Some(3))
    );
    let stat = &cluster.json(&["stat", "/a"])["entries"][0];
    has(stat, ENTRY);
    has(stat, &["chunks", "chunk_bytes", "allocated_bytes"]);
    assert_eq!(
        (stat["chunks"].as_u64(), stat["chunk_bytes"].as_u64()),
        (Some(3), Some(262_144))
    );
    let chunks = cluster.json(&["chunks", "/a"]);
    assert_eq!(keys(&chunks), ["chunks", "path", "size"]);
    for (index, chunk) in chunks["chunks"].as_array().unwrap().iter().enumerate() {
        has(
            chunk,
            &[
                "path", "index", "offset", "length", "chunk", "version", "goal", "state", "members",
            ],
        );
        assert_eq!(
            (chunk["index"].as_u64(), chunk["chunk"].as_str().unwrap().len()),
            (Some(index as u64), 16)
        );
        let members = chunk["members"].as_array().unwrap();
        assert_eq!(members.len(), 3);
        for (member, role) in members.iter().zip(["head", "middle", "tail"]) {
            has(
                member,
                &["node", "addr", "role", "state", "version", "length", "digest"],
            );
            assert_eq!(
                (member["role"].as_str(), member["state"].as_str()),
                (Some(role), Some("ok")),
                "{chunk}"
            );
            assert_eq!(
                (&member["digest"], &member["length"]),
                (&members[0]["digest"], &chunk["length"])
            );
        }
    }
    let fsck = cluster.json(&["fsck", "/", "--verify"]);
    assert_eq!(keys(&fsck), ["chunks", "healthy", "path", "summary"]);
    assert_eq!(
        (
            fsck["healthy"].as_bool(),
            fsck["summary"]["chunks"].as_u64(),
            fsck["summary"]["ok"].as_u64()
        ),
        (Some(true), Some(3), Some(3))
    );
    has(
        &fsck["summary"],
        &[
            "files",
            "directories",
            "bytes",
            "under_goal",
            "over_goal",
            "missing",
            "corrupt",
            "stale",
            "misplaced",
            "orphan",
        ],
    );
}

#[tokio::test]
async fn the_cluster_describes_itself() {
    let cluster = cluster(3);
    let status = cluster.json(&["status"]);
    has(
        &status,
        &[
            "cluster_id",
            "version",
            "healthy",
            "uptime_s",
            "master",
            "files",
            "directories",
            "chunks",
            "nodes",
            "capacity_bytes",
            "used_bytes",
            "free_bytes",
        ],
    );
    assert_eq!(
        (&status["cluster_id"], &status["healthy"]),
        (&cluster.file.cluster_id.as_str().into(), &true.into())
    );
    assert_eq!(keys(&status["master"]), ["addr", "applied_index", "role", "term"]);
    assert_eq!(
        keys(&status["chunks"]),
        ["corrupt", "missing", "ok", "under_goal"]
    );
    assert_eq!(keys(&status["nodes"]), ["alive", "dead", "suspect"]);
    let nodes = cluster.json(&["nodes"]);
    for node in nodes["nodes"].as_array().unwrap() {
        has(
            node,
            &[
                "node",
                "addr",
                "host",
                "rack",
                "state",
                "heartbeat_age_ms",
                "chunks",
                "capacity_bytes",
                "used_bytes",
                "free_bytes",
                "disks",
            ],
        );
        assert_eq!(node["state"], "alive");
        has(
            &node["disks"][0],
            &["path", "state", "capacity_bytes", "free_bytes"],
        );
    }
    let df = cluster.json(&["df"]);
    assert_eq!(keys(&df), ["capacity_bytes", "files", "free_bytes", "used_bytes"]);
    assert!(df["capacity_bytes"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_flipped_bit_is_found_by_a_check_that_reads() {
    let cluster = cluster(3);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("in");
    let bytes = content(200_000, 1);
    std::fs::write(&local, &bytes).unwrap();
    cluster.ok(&["put", text(&local), "/a"]);
    let chunk = cluster.json(&["chunks", "/a"])["chunks"][0]["chunk"]
        .as_str()
        .unwrap()
        .to_owned();
    let shelf = &chunk[14..];
    let file = cluster.file.chunkservers[0]
        .data_dir
        .join("chunks")
        .join(shelf)
        .join(chunk.to_uppercase());
    let file = if file.exists() {
        file
    } else {
        file.with_file_name(&chunk)
    };
    let mut stored = std::fs::read(&file).unwrap();
    let place = stored.len() - 100_000;
    stored[place] ^= 1;
    std::fs::write(&file, stored).unwrap();
    let output = cluster.run(&["fsck", "/", "--verify", "--json"]);
    assert_eq!(
        output.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            checked["healthy"].as_bool(),
            checked["summary"]["corrupt"].as_u64()
        ),
        (Some(false), Some(1))
    );
    assert_eq!(cluster.ok(&["cat", "/a"]), bytes);
}

#[tokio::test]
async fn questions_are_answered_by_the_exit_code() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&full, "x").unwrap();
    cluster.ok(&["put", text(&empty), text(&full), "/"]);
    cluster.ok(&["mkdir", "/d"]);
    for (flag, yes, no) in [
        ("-e", &["/d", "/empty"][..], &["/nope", "/full/x"][..]),
        ("-d", &["/d", "/"], &["/empty", "/nope"]),
        ("-f", &["/empty", "/full"], &["/d", "/nope"]),
        ("-s", &["/full"], &["/empty", "/nope"]),
        ("-z", &["/empty"], &["/full", "/nope"]),
    ] {
        for path in yes {
            cluster.ok(&["test", flag, path]);
        }
        for path in no {
            assert_eq!(
                cluster.fails(&["test", flag, path]),
                (1, String::new()),
                "{flag} {path}"
            );
        }
    }
}
