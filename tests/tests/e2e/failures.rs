//! Chunkservers that die or hang in the middle.

use crate::{cluster, text};
use dfs_tests::process::{Cluster, content, until};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

/// A put of `bytes` from a pipe that has taken half of it.
fn half_put(cluster: &Cluster, bytes: &[u8], name: &str) -> Child {
    let mut put = cluster
        .command()
        .args(["put", "--json", "-", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (half, _) = bytes.split_at(bytes.len() / 2);
    put.stdin.as_mut().unwrap().write_all(half).unwrap();
    put
}

/// Gives it the rest; what it says at its end.
fn finish(mut put: Child, bytes: &[u8]) -> Value {
    let (_, rest) = bytes.split_at(bytes.len() / 2);
    put.stdin.take().unwrap().write_all(rest).unwrap();
    let output = put.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The node that heads the newest chunk of a file that is being written.
fn some_member(cluster: &Cluster) -> dfs_tests::process::Node {
    let loads: Vec<u64> = cluster
        .file
        .chunkservers
        .iter()
        .map(|node| std::fs::read_dir(node.data_dir.join("chunks")).map_or(0, |d| d.count() as u64))
        .collect();
    let busiest = (0..loads.len()).max_by_key(|&index| loads[index]).unwrap();
    cluster.file.chunkservers[busiest].clone()
}

#[tokio::test]
async fn a_chunkserver_killed_in_the_middle_of_a_put_is_not_noticed() {
    let mut cluster = cluster(5);
    let bytes = content(8_000_000, 3);
    let put = half_put(&cluster, &bytes, "/a");
    let victim = some_member(&cluster);
    cluster.kill(&victim).await.unwrap();
    let said = finish(put, &bytes);
    assert_eq!(said["bytes"], 8_000_000, "{said}");
    assert_eq!(cluster.ok(&["cat", "/a"]), bytes);
    cluster.restart(&victim).unwrap();
    cluster.wait_healthy(5);
    let output = cluster.run(&["fsck", "/", "--verify"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(cluster.ok(&["cat", "/a"]), bytes);
}

#[tokio::test]
async fn a_chunkserver_killed_in_the_middle_of_a_get_is_not_noticed() {
    let cluster = cluster(3);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("in");
    let bytes = content(24_000_000, 4);
    std::fs::write(&local, &bytes).unwrap();
    cluster.ok(&["put", text(&local), "/a"]);
    let mut get = cluster
        .command()
        .args(["cat", "/a"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = get.stdout.take().unwrap();
    let mut back = vec![0; 4_000_000];
    stdout.read_exact(&mut back).unwrap();
    cluster.kill(&cluster.file.chunkservers[0]).await.unwrap();
    stdout.read_to_end(&mut back).unwrap();
    assert!(get.wait().unwrap().success());
    assert_eq!(back.len(), bytes.len());
    assert!(back == bytes);
}

#[tokio::test]
async fn a_chunkserver_that_hangs_is_left_behind() {
    let cluster = cluster(5);
    let bytes = content(4_000_000, 6);
    let put = half_put(&cluster, &bytes, "/a");
    let victim = some_member(&cluster);
    cluster.signal(&victim, Signal::STOP).unwrap();
    finish(put, &bytes);
    assert_eq!(cluster.ok(&["cat", "/a"]), bytes);
    cluster.signal(&victim, Signal::CONT).unwrap();
    cluster.wait_healthy(5);
    assert_eq!(cluster.ok(&["cat", "/a"]), bytes);
}

#[tokio::test]
async fn an_interrupted_put_leaves_nothing() {
    let cluster = cluster(3);
    let bytes = content(8_000_000, 7);
    let put = half_put(&cluster, &bytes, "/a");
    until("its temporary name is there", || {
        !cluster.json(&["ls", "-A", "/"])["entries"]
            .as_array()
            .unwrap()
            .is_empty()
    })
    .await
    .unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(put.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let output = put.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(cluster.ok(&["ls", "-A", "/"]), b"");
}

#[tokio::test]
async fn a_lost_server_is_replaced_from_the_others() {
    let cluster = cluster(4);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("in");
    let bytes = content(3_000_000, 8);
    std::fs::write(&local, &bytes).unwrap();
    cluster.ok(&["put", text(&local), "/a"]);
    let victim = &cluster.file.chunkservers[1];
    cluster.kill(victim).await.unwrap();
    until("every chunk has its goal on the others", || {
        let status = cluster.json(&["status"]);
        let checked = cluster.run(&["fsck", "/", "--json"]);
        status["nodes"]["dead"] == 1 && checked.status.code() == Some(0)
    })
    .await
    .unwrap();
    let chunks = cluster.json(&["chunks", "/a"]);
    let all = chunks["chunks"].as_array().unwrap();
    assert!(all.iter().all(|c| {
        c["members"]
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["node"] != victim.id)
    }));
    assert_eq!(cluster.ok(&["cat", "/a"]), bytes);
}
