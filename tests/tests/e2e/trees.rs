//! Whole trees in and out.

use crate::{cluster, text};
use dfs_tests::process::content;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

/// A tree with what trees have: nested and empty directories, symlinks that lead nowhere, odd names, modes.
fn plant(root: &Path) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    for index in 0..5_u64 {
        let folder = root.join(format!("d{index}/deep"));
        std::fs::create_dir_all(&folder).unwrap();
        for file in 0..12_u64 {
            let bytes = if file == 0 {
                600_000
            } else {
                (index * 100 + file * 1_000) as usize
            };
            std::fs::write(
                folder.join(format!("f {file}")),
                content(bytes, index * 100 + file),
            )
            .unwrap();
        }
    }
    std::fs::create_dir(root.join("empty")).unwrap();
    std::fs::write(root.join(".hidden"), "").unwrap();
    std::fs::write(
        root.join(std::ffi::OsStr::from_bytes(b"not \xff utf-8\n")),
        "bytes",
    )
    .unwrap();
    symlink("d0/deep", root.join("link")).unwrap();
    symlink("/no/such/place", root.join("dangling")).unwrap();
    std::fs::set_permissions(root.join("d1/deep/f 1"), std::fs::Permissions::from_mode(0o750)).unwrap();
    std::fs::set_permissions(root.join("d2"), std::fs::Permissions::from_mode(0o555)).unwrap();
}

fn assert_same(left: &Path, right: &Path) {
    let diff = Command::new("diff")
        .args(["-r", "--no-dereference"])
        .args([left, right])
        .output()
        .unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[tokio::test]
async fn a_tree_comes_out_as_it_went_in() {
    let cluster = cluster(3);
    let folder = tempfile::tempdir().unwrap();
    let (tree, back) = (folder.path().join("tree"), folder.path().join("back"));
    std::fs::create_dir(&tree).unwrap();
    plant(&tree);
    let said = cluster.json(&["put", "-r", text(&tree), "/"]);
    assert_eq!(said["files"], 64, "{said}");
    let said = cluster.json(&["get", "-r", "/tree", text(&back)]);
    assert_eq!(said["files"], 64, "{said}");
    assert_same(&tree, &back);
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(back.join(path)).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!((mode("d1/deep/f 1"), mode("d2")), (0o750, 0o555));
    // Again, into what is there: replaced, not nested; and by its contents.
    cluster.ok(&["put", "-r", &format!("{}/.", text(&tree)), "/tree"]);
    cluster.ok(&["get", "-r", "/tree/.", text(&back)]);
    assert_same(&tree, &back);
    let listed = cluster.json(&["ls", "-RA", "/tree"]);
    let entries = listed["entries"].as_array().unwrap();
    // 60 files and 10 directories below d0 to d4, and five names beside them.
    assert_eq!(entries.len(), 75);
    let odd = entries.iter().find(|e| e["name_b64"].is_string()).unwrap();
    assert_eq!(
        (odd["name_b64"].as_str(), odd["path"].as_str()),
        (Some("bm90IP8gdXRmLTgK"), Some("/tree/not \u{fffd} utf-8\n"))
    );
    let link = entries.iter().find(|e| e["name"] == "dangling").unwrap();
    assert_eq!(
        (link["type"].as_str(), link["target"].as_str()),
        (Some("symlink"), Some("/no/such/place"))
    );
    cluster.ok(&["rm", "-r", "/tree"]);
    assert_eq!(cluster.ok(&["ls", "-A", "/"]), b"");
}

#[tokio::test]
async fn a_tree_survives_a_killed_chunkserver_in_between() {
    let cluster = cluster(4);
    let folder = tempfile::tempdir().unwrap();
    let (tree, back) = (folder.path().join("tree"), folder.path().join("back"));
    std::fs::create_dir(&tree).unwrap();
    plant(&tree);
    cluster.ok(&["put", "-r", text(&tree), "/tree"]);
    cluster.kill(&cluster.file.chunkservers[0]).await.unwrap();
    cluster.ok(&["get", "-r", "/tree", text(&back)]);
    assert_same(&tree, &back);
    cluster.ok(&["put", "-r", text(&tree), "/again"]);
    std::fs::remove_dir_all(&back).unwrap();
    cluster.ok(&["get", "-r", "/again", text(&back)]);
    assert_same(&tree, &back);
}
