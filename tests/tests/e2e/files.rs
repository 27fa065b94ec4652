//! Files in and out, names, space.

use crate::{cluster, text};
use dfs_tests::process::{content, until};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

#[tokio::test]
async fn a_file_comes_out_as_it_went_in() {
    let cluster = cluster(3);
    let folder = tempfile::tempdir().unwrap();
    let (local, back) = (folder.path().join("in"), folder.path().join("out"));
    for (index, bytes) in [0, 1, 65_535, 65_536, 262_144, 262_145, 3_000_000]
        .into_iter()
        .enumerate()
    {
        let bytes = content(bytes, index as u64);
        std::fs::write(&local, &bytes).unwrap();
        let name = format!("/f{index}");
        let said = cluster.json(&["put", text(&local), &name]);
        assert_eq!(
            (said["files"].as_u64(), said["bytes"].as_u64()),
            (Some(1), Some(bytes.len() as u64))
        );
        let said = cluster.json(&["get", &name, text(&back)]);
        assert_eq!(said["bytes"].as_u64(), Some(bytes.len() as u64));
        assert_eq!(std::fs::read(&back).unwrap(), bytes, "{name}");
        assert_eq!(cluster.ok(&["cat", &name]), bytes);
    }
    // Replaced at once, and nothing is left beside it.
    std::fs::write(&local, "new").unwrap();
    cluster.ok(&["put", text(&local), "/f6"]);
    assert_eq!(cluster.ok(&["cat", "/f6"]), b"new");
    let (code, message) = cluster.fails(&["put", "-n", text(&local), "/f6"]);
    assert_eq!((code, message.as_str()), (1, "put: /f6: File exists"));
    let names = cluster.json(&["ls", "-A", "/"]);
    assert_eq!(names["entries"].as_array().unwrap().len(), 7, "{names}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn operands_are_cps() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::write(&a, "A").unwrap();
    std::fs::write(&b, "B").unwrap();
    std::fs::set_permissions(&b, std::fs::Permissions::from_mode(0o600)).unwrap();
    cluster.ok(&["mkdir", "/d"]);
    cluster.ok(&["put", text(&a), text(&b), "/d"]);
    assert_eq!(cluster.ok(&["cat", "/d/a", "/d/b"]), b"AB");
    assert_eq!(cluster.json(&["stat", "/d/b"])["entries"][0]["mode"], "0600");
    let (code, message) = cluster.fails(&["put", text(&a), text(&b), "/d/a"]);
    assert_eq!((code, message.as_str()), (1, "put: /d/a: Not a directory"));
    cluster.ok(&["mv", "/d/a", "/d/b", "/"]);
    assert_eq!(cluster.ok(&["ls", "/"]), b"a\nb\nd\n");
    let (_, message) = cluster.fails(&["mv", "-n", "/a", "/b"]);
    assert_eq!(message, "mv: /b: File exists");
    cluster.ok(&["mv", "/a", "/b"]);
    assert_eq!(cluster.ok(&["cat", "/b"]), b"A");
    let into = folder.path().join("into");
    std::fs::create_dir(&into).unwrap();
    cluster.ok(&["get", "/b", text(&into)]);
    assert_eq!(std::fs::read(into.join("b")).unwrap(), b"A");
    let (_, message) = cluster.fails(&["get", "-n", "/b", text(&into)]);
    assert!(message.ends_with("/into/b: File exists"), "{message}");
}

#[tokio::test]
async fn stdin_and_stdout_are_a_dash() {
    let cluster = cluster(1);
    let bytes = content(1_500_000, 5);
    let mut put = cluster
        .command()
        .args(["put", "-", "/from-stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(cluster.ok(&["get", "/from-stdin", "-"]), bytes);
}

#[tokio::test]
async fn times_are_kept_when_asked_for() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let (local, back) = (folder.path().join("in"), folder.path().join("out"));
    std::fs::write(&local, "x").unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    std::fs::File::options()
        .write(true)
        .open(&local)
        .unwrap()
        .set_modified(time)
        .unwrap();
    cluster.ok(&["put", "-p", text(&local), "/a"]);
    assert_eq!(
        cluster.json(&["stat", "/a"])["entries"][0]["mtime_ns"],
        1_000_000_000_123_456_789_u64
    );
    cluster.ok(&["get", "-p", "/a", text(&back)]);
    assert_eq!(std::fs::metadata(&back).unwrap().modified().unwrap(), time);
}

#[tokio::test]
async fn what_is_removed_gives_its_room_back() {
    let cluster = cluster(3);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("in");
    std::fs::write(&local, content(2_000_000, 1)).unwrap();
    cluster.ok(&["mkdir", "/d"]);
    cluster.ok(&["put", text(&local), "/d/a"]);
    cluster.ok(&["put", text(&local), "/d/b"]);
    let chunk_bytes = || -> u64 {
        let stores = cluster
            .file
            .chunkservers
            .iter()
            .map(|node| node.data_dir.join("chunks"));
        stores.map(|store| tree_bytes(&store)).sum()
    };
    assert!(chunk_bytes() >= 3 * 4_000_000);
    cluster.ok(&["rm", "-r", "--skip-trash", "/d"]);
    let (code, _) = cluster.fails(&["test", "-e", "/d"]);
    assert_eq!(code, 1);
    until("all room is back", || chunk_bytes() == 0).await.unwrap();
}

/// Bytes of all files below a folder.
fn tree_bytes(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => tree_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
