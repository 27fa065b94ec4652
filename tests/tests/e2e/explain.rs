//! `fsck` and `explain`: the same facts, counted and told.

use crate::{cluster, text};
use dfs_tests::process::{Cluster, content, until};

fn with_a_file(chunkservers: u32) -> (Cluster, Vec<u8>) {
    let cluster = cluster(chunkservers);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("in");
    let bytes = content(300_000, 11);
    std::fs::write(&local, &bytes).unwrap();
    cluster.ok(&["put", text(&local), "/a"]);
    (cluster, bytes)
}

#[tokio::test]
async fn what_rests_on_a_server_says_whether_it_may_be_rebooted() {
    let (cluster, _) = with_a_file(3);
    cluster.wait_healthy(3);
    let servers = cluster.file.chunkservers.clone();
    let node = |index: usize| servers[index].id.to_string();
    let told = cluster.json(&["explain", "node", &node(0)]);
    assert_eq!(
        (&told["safe_to_reboot"], &told["only_here"]),
        (&true.into(), &0.into())
    );
    assert!(told["chunks"].as_u64().unwrap() > 0, "{told}");
    let file = cluster.json(&["explain", "file", "/a"]);
    assert!(
        file["chunks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["health"] == "ok"),
        "{file}"
    );

    cluster.kill(&servers[1]).await.unwrap();
    cluster.kill(&servers[2]).await.unwrap();
    until("the first server has the only good replicas", || {
        let output = cluster.run(&["explain", "node", &node(0)]);
        output.status.code() == Some(3)
    })
    .await
    .unwrap();
    let output = cluster.run(&["explain", "node", &node(0), "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["files"][0]["path"], "/a", "{told}");
    assert!(told["only_here_bytes"].as_u64().unwrap() >= 300_000, "{told}");
    let output = cluster.run(&["explain", "file", "/a", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let file: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let chunk = &file["chunks"][0];
    assert_eq!(chunk["health"], "under_goal", "{chunk}");
    assert!(!chunk["why"].as_array().unwrap().is_empty(), "{chunk}");
    assert!(!chunk["waits_for"].as_array().unwrap().is_empty(), "{chunk}");
    let handle = chunk["chunk"].as_str().unwrap();
    let one = cluster.run(&["explain", "chunk", handle, "--json"]);
    let one: serde_json::Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(one["files"][0]["path"], "/a", "{one}");
    assert_eq!(cluster.run(&["fsck", "/a"]).status.code(), Some(3));
}

#[tokio::test]
async fn a_file_that_nobody_can_serve_is_missing() {
    let (cluster, _) = with_a_file(2);
    let servers = cluster.file.chunkservers.clone();
    for server in &servers {
        cluster.kill(server).await.unwrap();
    }
    until("the file is missing", || {
        let fsck = cluster.run(&["fsck", "/a", "--json"]);
        let explain = cluster.run(&["explain", "file", "/a"]);
        fsck.status.code() == Some(4) && explain.status.code() == Some(4)
    })
    .await
    .unwrap();
}

#[test]
fn what_is_not_there_cannot_be_explained() {
    let cluster = cluster(1);
    for (args, text) in [
        (
            ["explain", "chunk", "ffff"],
            "explain: 000000000000ffff: No such chunk\n",
        ),
        (["explain", "node", "77"], "explain: 77: No such chunkserver\n"),
        (
            ["explain", "file", "/no"],
            "explain: /no: No such file or directory\n",
        ),
    ] {
        let output = cluster.run(&args);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stderr), text);
    }
    assert_eq!(cluster.run(&["explain", "chunk", "/a"]).status.code(), Some(2));
}
