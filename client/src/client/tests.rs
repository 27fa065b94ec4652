//! Paths, and trees of names at a fake master.

use super::*;
use crate::fake::Cluster;
use bytes::Bytes;

#[test]
fn a_path_is_a_parent_and_a_name() {
    for (path, parent, name) in [
        (&b"/a"[..], &b"/"[..], &b"a"[..]),
        (b"/a/b/", b"/a/", b"b"),
        (b"//a//b", b"//a//", b"b"),
    ] {
        assert_eq!(split(path).unwrap(), (parent, name.to_vec()));
    }
    for bad in [&b"/"[..], b"", b"/a/..", b"/."] {
        assert_eq!(split(bad).unwrap_err().code, Code::InvalidArgument);
    }
}

#[test]
fn a_relative_path_is_refused() {
    assert_eq!(absolute(b"a/b").unwrap_err().code, Code::InvalidArgument);
    assert!(absolute(b"/").is_ok());
}

async fn tree(client: &Client) {
    client.mkdir_all("/a/b/c").await.unwrap();
    for name in ["/a/3", "/a/1", "/a/2", "/a/b/x", "/a/b/c/y"] {
        client.create(name).await.unwrap().close().await.unwrap();
    }
}

fn names(entries: Vec<DirEntry>) -> Vec<String> {
    entries
        .into_iter()
        .map(|e| String::from_utf8(e.name).unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_listed_over_all_its_pages_in_order_of_names() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    tree(&client).await;
    assert_eq!(names(client.list("/a").await.unwrap()), ["1", "2", "3", "b"]);
    assert!(
        client
            .list("/a/b/c")
            .await
            .unwrap()
            .iter()
            .all(|e| e.metadata.is_file())
    );
    assert_eq!(client.list("/nope").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn making_directories_that_exist_is_fine() {
    let cluster = Cluster::start(0).await;
    let client = cluster.client().await;
    let first = client.mkdir_all("/a/b/c").await.unwrap();
    assert_eq!(client.mkdir_all("/a/b/c/").await.unwrap().inode, first.inode);
    assert_eq!(client.mkdir_all("/").await.unwrap().inode, InodeId::ROOT);
    assert_eq!(client.mkdir("/a").await.unwrap_err().code, Code::AlreadyExists);
    assert_eq!(client.mkdir("/").await.unwrap_err().code, Code::AlreadyExists);
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_removed_by_one_call() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    tree(&client).await;
    assert_eq!(client.remove_dir("/a").await.unwrap_err().code, Code::NotEmpty);
    client.remove_all("/a").await.unwrap();
    assert!(cluster.state().names.is_empty());
    assert_eq!(client.remove_all("/a").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_file_keeps_its_bytes() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let mut file = client.create("/old").await.unwrap();
    file.write_bytes(Bytes::from_static(b"kept")).await.unwrap();
    file.close().await.unwrap();
    client.rename("/old", "/new").await.unwrap();
    assert!(!client.exists("/old").await.unwrap());
    assert_eq!(
        &client.open("/new").await.unwrap().read_at(0, 9).await.unwrap()[..],
        b"kept"
    );
}

#[tokio::test(start_paused = true)]
async fn open_options_that_make_no_sense_are_refused() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    client.create("/f").await.unwrap().close().await.unwrap();
    for bad in [OpenOptions::new(), OpenOptions::new().read(true).truncate(true)] {
        assert_eq!(
            client.open_with("/f", bad).await.unwrap_err().code,
            Code::InvalidArgument
        );
    }
    let new = OpenOptions::new().write(true).create_new(true);
    assert_eq!(
        client.open_with("/f", new).await.unwrap_err().code,
        Code::AlreadyExists
    );
    assert_eq!(client.open("/").await.unwrap_err().code, Code::IsADirectory);
    let mut read_only = client.open("/f").await.unwrap();
    assert_eq!(
        read_only
            .write_bytes(Bytes::from_static(b"x"))
            .await
            .unwrap_err()
            .code,
        Code::InvalidArgument
    );
}
