//! Two mounts of one cluster: what one does the other sees at once, from its caches.

use crate::cluster::{BOUND, Cluster, RDWR, ROOT, TOP};
use dfs_client::{Kind, RenameMode};
use dfs_fuse::vfs::{Invalidate, Set};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_made_by_one_are_seen_by_the_other() {
    let cluster = Cluster::start().await;
    let (a, b) = (cluster.mount().await, cluster.mount().await);
    assert_eq!(b.find(TOP, "x").await, None);
    assert_eq!(b.list(TOP).await, [""; 0]);
    let directory = a.mkdir(TOP, "x").await;
    assert_eq!(b.inode(TOP, "x").await, directory);
    assert_eq!(b.list(TOP).await, ["x"]);
    let file = b.put(directory, "f", b"from b").await;
    assert_eq!(a.inode(directory, "f").await, file);
    assert_eq!(a.get(file).await, b"from b");
    a.vfs
        .rename(ROOT, (directory, b"f"), (TOP, b"g"), RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(b.find(directory, "f").await, None);
    assert_eq!(b.inode(TOP, "g").await, file);
    b.unlink(TOP, "g").await;
    assert_eq!(a.find(TOP, "g").await, None);
    assert_eq!(a.list(TOP).await, ["x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_and_bytes_of_one_are_seen_by_the_other() {
    let cluster = Cluster::start().await;
    let (a, b) = (cluster.mount().await, cluster.mount().await);
    let file = a.put(TOP, "f", b"first").await;
    assert_eq!(b.get(b.inode(TOP, "f").await).await, b"first");
    a.set(
        file,
        Set {
            mode: Some(0o600),
            ..Set::default()
        },
    )
    .await;
    assert_eq!(b.stat(file).await.mode, 0o600);
    let opened = b.vfs.open(ROOT, file, RDWR).await.unwrap();
    let written = a.vfs.open(ROOT, file, RDWR).await.unwrap();
    a.write(file, written.handle, 0, b"second").await;
    a.vfs.fsync(file, written.handle, false).await.unwrap();
    assert_eq!(b.stat(file).await.size, 6);
    assert_eq!(b.read(file, opened.handle, 0, 100).await, b"second");
    b.set(
        file,
        Set {
            size: Some(3),
            ..Set::default()
        },
    )
    .await;
    assert_eq!(a.stat(file).await.size, 3);
    assert_eq!(a.read(file, written.handle, 0, 100).await, b"sec");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_removed_by_one_stays_usable_for_the_other() {
    let cluster = Cluster::start().await;
    let (a, b) = (cluster.mount().await, cluster.mount().await);
    let file = a.put(TOP, "f", b"bytes").await;
    let opened = b.vfs.open(ROOT, b.inode(TOP, "f").await, RDWR).await.unwrap();
    a.unlink(TOP, "f").await;
    assert_eq!(b.find(TOP, "f").await, None);
    assert_eq!(b.read(file, opened.handle, 0, 100).await, b"bytes");
    b.write(file, opened.handle, 0, b"BYTES").await;
    b.vfs.fsync(file, opened.handle, false).await.unwrap();
    assert_eq!(b.stat(file).await.nlink, 0);
    b.close(file, opened.handle).await;
    let client = cluster.client(false).await;
    timeout(BOUND, async {
        while client.inodes().stat(dfs_client::InodeId(file)).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is freed when nobody has it open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_is_told_what_to_drop() {
    let cluster = Cluster::start().await;
    let (a, b) = (cluster.mount().await, cluster.mount().await);
    let mut notices = b.vfs.notices().unwrap();
    assert_eq!(b.find(TOP, "f").await, None);
    let (making, told) = tokio::join!(a.make(TOP, "f", Kind::File), async {
        let notice = timeout(BOUND, notices.recv()).await.unwrap().unwrap();
        b.vfs.told(notice.number);
        notice.what
    });
    making.unwrap();
    let name = b"f".to_vec();
    assert_eq!(told, Invalidate::Entry { parent: TOP, name });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_master_away_what_is_remembered_answers_and_comes_right_again() {
    let mut cluster = Cluster::start().await;
    let a = cluster.mount().await;
    let directory = a.mkdir(TOP, "d").await;
    let file = a.put(directory, "f", b"bytes").await;
    cluster.stop_master().await;
    assert_eq!(timeout(BOUND, a.inode(directory, "f")).await.unwrap(), file);
    assert_eq!(timeout(BOUND, a.stat(file)).await.unwrap().size, 5);
    assert_eq!(timeout(BOUND, a.list(directory)).await.unwrap(), ["f"]);
    assert_eq!(timeout(BOUND, a.find(directory, "g")).await.unwrap(), None);
    timeout(BOUND, a.vfs.statfs()).await.unwrap();
    cluster.restart_master().await;
    timeout(BOUND, a.vfs.watching()).await.unwrap();
    a.put(directory, "g", b"more").await;
    assert_eq!(a.list(directory).await, ["f", "g"]);
    let b = cluster.mount().await;
    b.unlink(b.inode(TOP, "d").await, "f").await;
    assert_eq!(a.find(directory, "f").await, None);
}
