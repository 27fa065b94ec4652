//! What is removed can come back, and what is gone for good leaves nothing behind.

use crate::{cluster, text};
use dfs_tests::process::{Cluster, content, until};

fn put(cluster: &Cluster, bytes: &[u8], path: &str) {
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("in");
    std::fs::write(&local, bytes).unwrap();
    cluster.ok(&["put", text(&local), path]);
}

fn entries(cluster: &Cluster) -> Vec<serde_json::Value> {
    cluster.json(&["trash", "ls"])["entries"]
        .as_array()
        .unwrap()
        .clone()
}

/// Files of replicas on all servers.
fn replicas(cluster: &Cluster) -> usize {
    let folders = |node: &dfs_tests::process::Node| {
        let chunks = std::fs::read_dir(node.data_dir.join("chunks")).unwrap();
        chunks
            .map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count())
            .sum::<usize>()
    };
    cluster.file.chunkservers.iter().map(folders).sum()
}

#[test]
fn what_was_removed_comes_back_as_it_was() {
    let cluster = cluster(2);
    let bytes = content(200_000, 21);
    cluster.ok(&["mkdir", "-p", "/d/e"]);
    put(&cluster, &bytes, "/d/e/f");
    cluster.ok(&["rm", "/d/e/f"]);
    assert_eq!(cluster.run(&["cat", "/d/e/f"]).status.code(), Some(1));
    let trash = entries(&cluster);
    assert_eq!(
        (trash.len(), &trash[0]["path"]),
        (1, &"/d/e/f".into()),
        "{trash:?}"
    );
    assert!(trash[0]["due_ns"].as_i64() > trash[0]["removed_ns"].as_i64());
    cluster.ok(&["trash", "restore", "/d/e/f"]);
    assert_eq!(cluster.ok(&["cat", "/d/e/f"]), bytes);

    cluster.ok(&["rm", "-r", "/d"]);
    assert_eq!(cluster.ok(&["ls", "/"]), b"");
    let entry = entries(&cluster)[0]["entry"].as_str().unwrap().to_owned();
    cluster.ok(&["mkdir", "/d"]);
    let taken = cluster.run(&["trash", "restore", &entry]);
    assert_eq!(
        String::from_utf8_lossy(&taken.stderr),
        format!("trash: {entry}: File exists\n")
    );
    cluster.ok(&["trash", "restore", &entry, "/again"]);
    assert_eq!(cluster.ok(&["cat", "/again/e/f"]), bytes);
    assert!(entries(&cluster).is_empty());
}

#[tokio::test]
async fn what_is_gone_for_good_leaves_nothing_behind_and_takes_nothing_along() {
    let cluster = cluster(2);
    cluster.ok(&["mkdir", "-p", "/kept", "/gone/a/b"]);
    let kept = content(150_000, 22);
    put(&cluster, &kept, "/kept/f");
    for name in ["/gone/1", "/gone/a/2", "/gone/a/b/3"] {
        put(&cluster, &content(70_000, 23), name);
    }
    cluster.ok(&["ln", "/gone/1", "/kept/linked"]);
    cluster.ok(&["rm", "-r", "--skip-trash", "/gone"]);
    assert_eq!(cluster.run(&["ls", "/gone"]).status.code(), Some(1));
    assert!(entries(&cluster).is_empty(), "nobody can have it back");
    let chunks = |path: &str| {
        cluster.json(&["chunks", path])["chunks"]
            .as_array()
            .unwrap()
            .len()
    };
    let wanted = 2 * (chunks("/kept/f") + chunks("/kept/linked"));
    until("only what is referred to has replicas", || {
        replicas(&cluster) == wanted
    })
    .await
    .unwrap();
    assert_eq!(cluster.json(&["status"])["files"], 2);
    assert_eq!(cluster.ok(&["cat", "/kept/f"]), kept);
    assert_eq!(cluster.ok(&["cat", "/kept/linked"]), content(70_000, 23));
    assert_eq!(cluster.run(&["fsck", "/", "--verify"]).status.code(), Some(0));
}

#[tokio::test]
async fn a_directory_says_how_long_and_the_trash_can_be_emptied() {
    let cluster = cluster(1);
    cluster.ok(&["mkdir", "-p", "/scratch/deep"]);
    cluster.ok(&["trash", "keep", "/scratch", "off"]);
    let kept = cluster.json(&["trash", "keep", "/scratch/deep"]);
    assert_eq!(
        (&kept["keep_s"], &kept["own_s"]),
        (&0.into(), &serde_json::Value::Null)
    );
    put(&cluster, b"1", "/scratch/deep/x");
    put(&cluster, b"2", "/y");
    cluster.ok(&["rm", "/scratch/deep/x", "/y"]);
    let trash = entries(&cluster);
    assert_eq!((trash.len(), &trash[0]["path"]), (1, &"/y".into()), "{trash:?}");
    cluster.ok(&["trash", "empty"]);
    assert!(entries(&cluster).is_empty());
    until("its room is back", || replicas(&cluster) == 0)
        .await
        .unwrap();
    let gone = cluster.run(&["trash", "restore", "/y"]);
    assert_eq!(
        String::from_utf8_lossy(&gone.stderr),
        "trash: /y: Not in the trash\n"
    );
}
