//! `dfs up`: its folder, its promises about starting and stopping.

use crate::{DFS, cluster};
use dfs_tests::process::{clean, until};
use rustix::process::Signal;
use std::process::Stdio;

#[tokio::test]
async fn a_cluster_is_announced_before_it_says_ready() {
    let cluster = cluster(3);
    let file = &cluster.file;
    assert_eq!(file.pid, cluster.pid());
    assert_eq!(
        (file.masters.len(), file.chunkservers.len(), file.cluster_id.len()),
        (1, 3, 32)
    );
    assert_eq!(file.master.addr, file.masters[0].addr);
    assert!(file.mount.is_none());
    let mut ids: Vec<u32> = file.chunkservers.iter().map(|node| node.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    assert!(cluster.ready.contains(&file.master.addr), "{}", cluster.ready);
    for node in cluster.nodes() {
        assert!(node.data_dir.is_dir() && node.log.is_file());
    }
    let nodes = cluster.json(&["nodes"]);
    for node in &file.chunkservers {
        let of = nodes["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|n| n["node"] == node.id)
            .unwrap();
        assert_eq!(of["addr"], node.addr.as_str());
    }
}

#[tokio::test]
async fn a_stopped_cluster_starts_again_with_its_data_and_its_ports() {
    let mut cluster = cluster(3);
    cluster.ok(&["mkdir", "-p", "/a/b"]);
    let ports = |c: &dfs_tests::process::Cluster| -> Vec<String> {
        c.file.chunkservers.iter().map(|n| n.addr.clone()).collect()
    };
    let before = (ports(&cluster), cluster.file.cluster_id.clone());
    assert!(cluster.stop().await.unwrap().success());
    cluster.nodes_gone().await.unwrap();
    cluster.start_again().unwrap();
    assert_eq!((ports(&cluster), cluster.file.cluster_id.clone()), before);
    cluster.ok(&["test", "-d", "/a/b"]);
}

#[tokio::test]
async fn nodes_die_with_a_killed_up_and_the_folder_starts_again() {
    let mut cluster = cluster(2);
    cluster.ok(&["mkdir", "/a"]);
    cluster.kill_up().await.unwrap();
    cluster.start_again().unwrap();
    cluster.ok(&["test", "-d", "/a"]);
}

#[tokio::test]
async fn a_folder_in_use_is_refused_with_the_name_of_its_user() {
    let cluster = cluster(1);
    let second = clean(DFS.as_ref())
        .args(["up", "--port=0", "--dir"])
        .arg(cluster.dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains(&cluster.pid().to_string()), "{message}");
    cluster.ok(&["ls", "/"]);
}

#[tokio::test]
async fn a_dead_node_stays_dead_until_its_command_line_is_run() {
    let mut cluster = cluster(3);
    let master = cluster.file.master.clone();
    cluster.ok(&["mkdir", "/a"]);
    cluster.kill(&master).await.unwrap();
    // `up` stays without its master.
    cluster.restart(&master).unwrap();
    cluster.ok(&["test", "-d", "/a"]);
    let server = cluster.file.chunkservers[1].clone();
    cluster.kill(&server).await.unwrap();
    cluster.restart(&server).unwrap();
    cluster.wait_healthy(3);
    let status = cluster.json(&["status"]);
    assert_eq!(status["nodes"]["alive"], 3, "{status}");
    assert!(cluster.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_node_brought_back_by_hand_outlives_nobody() {
    // Its command line alone asks for no parent: it lives until it is told to stop, and stops cleanly.
    let mut cluster = cluster(2);
    let server = cluster.file.chunkservers[0].clone();
    cluster.kill(&server).await.unwrap();
    let pid = cluster.restart(&server).unwrap();
    cluster.wait_healthy(2);
    cluster.kill_up().await.unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    assert!(rustix::process::test_kill_process(pid).is_ok());
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    until("it stops", || {
        let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
        matches!(status, Ok(Some((_, status))) if status.exit_status() == Some(0))
    })
    .await
    .unwrap();
}

#[test]
fn settings_are_printed_as_they_would_count() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dfs.toml");
    std::fs::write(&file, "listen = '127.0.0.1:1'\nrack = 'r1'\n").unwrap();
    let output = clean(DFS.as_ref())
        .args([
            "chunkserver",
            "--print-config",
            "--listen=127.0.0.1:3",
            "--config",
        ])
        .arg(&file)
        .env("DFS_LISTEN", "127.0.0.1:2")
        .env("DFS_MASTER", "127.0.0.1:9")
        .env("DFS_DATA_DIR", "/x:/y")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "listen = \"127.0.0.1:3\"",
        "rack = \"r1\"",
        "master = [\"127.0.0.1:9\"]",
        "data_dir = [\"/x\", \"/y\"]",
    ] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
    std::fs::write(&file, "lisen = '127.0.0.1:1'").unwrap();
    let output = clean(DFS.as_ref())
        .args(["chunkserver", "--print-config", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lisen"));
}
