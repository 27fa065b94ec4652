//! Each operation on one mount.

use crate::cluster::{Cluster, ROOT, TOP};

use dfs_client::{Code, Kind, RenameMode, Time, XattrMode};
use dfs_fuse::vfs::{At, Found, Lock, LockKind, Locked, Set, SetXattr, Whence};
use futures::FutureExt;
use std::future::{Pending, pending};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_made_found_moved_and_removed() {
    let cluster = Cluster::start().await;
    let mount = cluster.mount().await;
    assert_eq!(mount.find(TOP, "a").await, None);
    let directory = mount.mkdir(TOP, "a").await;
    assert_eq!(mount.inode(TOP, "a").await, directory);
    let file = mount.put(directory, "f", b"bytes").await;
    assert_eq!(mount.get(file).await, b"bytes");
    assert_eq!(mount.stat(file).await.size, 5);
    let linked = mount.vfs.link(ROOT, file, TOP, b"l").await.unwrap();
    assert_eq!((linked.metadata.inode.0, linked.metadata.nlink), (file, 2));
    assert_eq!(
        mount.vfs.rmdir(ROOT, TOP, b"a").await.unwrap_err().code,
        Code::NotEmpty
    );
    mount
        .vfs
        .rename(ROOT, (directory, b"f"), (TOP, b"g"), RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(mount.find(directory, "f").await, None);
    assert_eq!(mount.inode(TOP, "g").await, file);
    let refused = mount
        .vfs
        .rename(ROOT, (TOP, b"g"), (TOP, b"a"), RenameMode::NoReplace)
        .await;
    assert_eq!(refused.unwrap_err().code, Code::AlreadyExists);
    mount
        .vfs
        .rename(ROOT, (TOP, b"g"), (TOP, b"a"), RenameMode::Exchange)
        .await
        .unwrap();
    assert_eq!(
        (mount.inode(TOP, "a").await, mount.inode(TOP, "g").await),
        (file, directory)
    );
    mount.vfs.rmdir(ROOT, TOP, b"g").await.unwrap();
    mount.unlink(TOP, "a").await;
    assert_eq!(mount.stat(file).await.nlink, 1);
    assert_eq!(mount.list(TOP).await, ["l"]);
    let symlink = mount
        .make(TOP, "s", Kind::Symlink)
        .await
        .unwrap()
        .metadata
        .inode
        .0;
    assert_eq!(&mount.vfs.readlink(ROOT, symlink).await.unwrap()[..], b"target");
    for (name, kind) in [("p", Kind::Fifo), ("b", Kind::BlockDevice), ("k", Kind::Socket)] {
        assert_eq!(mount.make(TOP, name, kind).await.unwrap().metadata.kind, kind);
        assert_eq!(
            mount.make(TOP, name, kind).await.unwrap_err(),
            Code::AlreadyExists
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cached_is_answered_without_waiting_and_for_long() {
    let cluster = Cluster::start().await;
    let mount = cluster.mount().await;
    let directory = mount.mkdir(TOP, "d").await;
    let file = mount.put(directory, "f", b"").await;

    let Some(Ok(Found::Entry(entry))) = FutureExt::now_or_never(mount.vfs.lookup(ROOT, directory, b"f"))
    else {
        panic!("a name that was just made is cached")
    };
    assert_eq!(
        (entry.metadata.inode.0, entry.entry_ttl),
        (file, Duration::from_secs(3_600))
    );
    let attr = FutureExt::now_or_never(mount.vfs.getattr(ROOT, file, None))
        .expect("attributes are cached")
        .unwrap();
    assert_eq!(attr.ttl, Duration::from_secs(3_600));
    let Some(Ok(Found::Nothing(ttl))) = FutureExt::now_or_never(mount.vfs.lookup(ROOT, directory, b"none"))
    else {
        panic!("a directory that was just made is known completely")
    };
    assert_eq!(ttl, Duration::from_secs(3_600));
    let opened = mount.vfs.opendir(ROOT, directory).await.unwrap();
    let mut lines = 0;
    let mut count = |_: &dfs_fuse::vfs::DirEntry<'_>| {
        lines += 1;
        false
    };
    FutureExt::now_or_never(mount.vfs.readdir(opened.handle, 0, true, &mut count))
        .expect("the listing is cached")
        .unwrap();
    assert_eq!(lines, 3);
    let none = FutureExt::now_or_never(mount.vfs.getxattr(ROOT, file, b"security.capability"))
        .expect("a new file has none");
    assert_eq!(none.unwrap_err().code, Code::NoAttribute);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_file_stays_usable_while_it_is_open() {
    let cluster = Cluster::start().await;
    let mount = cluster.mount().await;
    let (metadata, opened) = mount.create(TOP, "f").await;
    let inode = metadata.inode.0;
    mount.write(inode, opened.handle, 0, b"before").await;
    mount.unlink(TOP, "f").await;
    assert_eq!(mount.find(TOP, "f").await, None);
    mount.write(inode, opened.handle, 6, b" and after").await;
    mount.vfs.fsync(inode, opened.handle, false).await.unwrap();
    assert_eq!(
        mount.read(inode, opened.handle, 0, 100).await,
        b"before and after"
    );
    let attr = mount.vfs.getattr(ROOT, inode, Some(opened.handle)).await.unwrap();
    assert_eq!((attr.metadata.nlink, attr.metadata.size), (0, 16));
    mount.close(inode, opened.handle).await;
    let client = cluster.client(false).await;
    tokio::time::timeout(crate::cluster::BOUND, async {
        while client.inodes().stat(dfs_client::InodeId(inode)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is freed when it is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_are_set_in_every_combination() {
    let cluster = Cluster::start().await;
    let mount = cluster.mount().await;
    let file = mount.put(TOP, "f", b"0123456789").await;
    let opened = mount.vfs.open(ROOT, file, crate::cluster::RDWR).await.unwrap();
    mount.write(file, opened.handle, 10, b"abc").await;
    let set = Set {
        mtime: Some(Time::At(7)),
        atime: Some(Time::At(5)),
        ..Set::default()
    };
    let metadata = mount.set(file, set).await;
    assert_eq!((metadata.mtime_ns, metadata.atime_ns, metadata.size), (7, 5, 13));
    mount.close(file, opened.handle).await;
    assert_eq!(mount.stat(file).await.mtime_ns, 7);
    let set = Set {
        mode: Some(0o6755),
        uid: Some(1),
        gid: Some(2),
        ..Set::default()
    };
    let metadata = mount.set(file, set).await;
    assert_eq!((metadata.uid, metadata.gid), (1, 2));
    mount
        .set(
            file,
            Set {
                mode: Some(0o6755),
                ..Set::default()
            },
        )
        .await;
    let set = Set {
        size: Some(4),
        kill_privileges: true,
        ..Set::default()
    };
    let metadata = mount.set(file, set).await;
    assert_eq!((metadata.size, metadata.mode), (4, 0o755));
    assert_eq!(mount.get(file).await, b"0123");
    let set = Set {
        size: Some(6),
        mode: Some(0o600),
        ..Set::default()
    };
    assert_eq!(mount.set(file, set).await.mode, 0o600);
    assert_eq!(mount.get(file).await, b"0123\0\0");
    let gone = mount.vfs.getattr(ROOT, 9_999, None).await.unwrap_err();
    assert_eq!(gone.code, Code::Stale);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extended_attributes_come_and_go() {
    let cluster = Cluster::start().await;
    let mount = cluster.mount().await;
    let file = mount.put(TOP, "f", b"").await;
    let get = |name: &'static [u8]| mount.vfs.getxattr(ROOT, file, name);
    let set = |value: &'static [u8], mode| SetXattr {
        name: b"user.a",
        value,
        mode,
    };
    assert_eq!(get(b"user.a").await.unwrap_err().code, Code::NoAttribute);
    mount
        .vfs
        .setxattr(ROOT, file, set(b"one", XattrMode::Create))
        .await
        .unwrap();
    let twice = mount
        .vfs
        .setxattr(ROOT, file, set(b"two", XattrMode::Create))
        .await;
    assert_eq!(twice.unwrap_err().code, Code::AlreadyExists);
    assert_eq!(&get(b"user.a").await.unwrap()[..], b"one");
    mount
        .vfs
        .setxattr(ROOT, file, set(b"two", XattrMode::Replace))
        .await
        .unwrap();
    assert_eq!(&get(b"user.a").await.unwrap()[..], b"two");
    assert_eq!(mount.vfs.listxattr(ROOT, file).await.unwrap(), b"user.a\0");
    mount.vfs.removexattr(ROOT, file, b"user.a").await.unwrap();
    assert_eq!(get(b"user.a").await.unwrap_err().code, Code::NoAttribute);
    assert_eq!(
        get(b"system.posix_acl_access").await.unwrap_err().code,
        Code::NotSupported
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_goes_on_while_its_directory_changes() {
    let cluster = Cluster::start().await;
    let (mount, other) = (cluster.mount().await, cluster.mount().await);
    let directory = mount.mkdir(TOP, "d").await;
    for number in 0..100 {
        mount
            .make(directory, &format!("f{number:02}"), Kind::File)
            .await
            .unwrap();
    }
    other.inode(TOP, "d").await;
    for lister in [&mount, &other] {
        let opened = lister.vfs.opendir(ROOT, directory).await.unwrap();
        let first = lister.list_from(opened.handle, 0, 10, false).await;
        assert_eq!(first.len(), 102);
        let tenth = first[10].1;
        mount.unlink(directory, &first[50].0).await;
        let rest = lister.list_from(opened.handle, tenth, 7, true).await;
        assert!(
            rest.iter().all(|line| line.0 != first[50].0),
            "what is gone is not told"
        );
        let mut kept: Vec<&(String, u64)> = first[11..].iter().collect();
        kept.retain(|line| line.0 != first[50].0);
        assert!(rest.iter().eq(kept), "the rest is told once");
        mount.make(directory, &first[50].0, Kind::File).await.unwrap();
        assert_eq!(lister.list_from(opened.handle, 0, 1_000, true).await.len(), 102);
        lister.vfs.releasedir(opened.handle);
    }
    let opened = mount.vfs.opendir(ROOT, directory).await.unwrap();
    for name in mount.list(directory).await {
        mount.unlink(directory, &name).await;
    }
    mount.vfs.rmdir(ROOT, TOP, b"d").await.unwrap();
    assert!(mount.list_from(opened.handle, 0, 10, true).await.is_empty());
    assert_eq!(mount.find(directory, "f00").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_listing_comes_in_pages() {
    let cluster = Cluster::start().await;
    let (mount, other) = (cluster.mount().await, cluster.mount().await);
    let directory = mount.mkdir(TOP, "d").await;
    let names: Vec<String> = (0..5_000).map(|number| format!("f{number:04}")).collect();
    futures::future::join_all(names.iter().map(|name| mount.make(directory, name, Kind::File))).await;
    assert_eq!(other.list(other.inode(TOP, "d").await).await, names);
    assert_eq!(mount.list(directory).await, names);
    let known = FutureExt::now_or_never(other.find(directory, "none"));
    assert_eq!(known, Some(None), "what was listed whole is known whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_taken_tested_and_given_up() {
    let cluster = Cluster::start().await;
    let mount = cluster.mount().await;
    let file = mount.put(TOP, "f", b"").await;
    let opened = mount.vfs.open(ROOT, file, crate::cluster::RDWR).await.unwrap();
    let all = |owner, kind| Lock {
        owner,
        pid: 5,
        start: 0,
        end: u64::MAX,
        kind,
    };
    let take = |owner, kind| {
        mount
            .vfs
            .setlk(file, opened.handle, all(owner, kind), None::<Pending<()>>)
    };
    assert_eq!(take(1, LockKind::Exclusive).await.unwrap(), Locked::Done);
    assert_eq!(take(2, LockKind::Shared).await.unwrap(), Locked::Held);
    let held = mount
        .vfs
        .getlk(ROOT, file, all(2, LockKind::Shared))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((held.owner, held.pid, held.kind), (1, 5, LockKind::Exclusive));
    let waits = mount
        .vfs
        .setlk(file, opened.handle, all(2, LockKind::Shared), Some(pending()));
    let frees = async {
        tokio::task::yield_now().await;
        mount.vfs.flush(file, opened.handle, 1).await.unwrap();
    };
    let (waited, ()) = tokio::join!(waits, frees);
    assert_eq!(waited.unwrap(), Locked::Done);
    let cancelled = mount
        .vfs
        .setlk(file, opened.handle, all(3, LockKind::Exclusive), Some(async {}));
    assert_eq!(cancelled.await.unwrap(), Locked::Cancelled);
    assert_eq!(take(2, LockKind::Unlock).await.unwrap(), Locked::Done);
    assert_eq!(take(3, LockKind::Exclusive).await.unwrap(), Locked::Done);
    mount.vfs.release(file, opened.handle).await.unwrap();
    assert_eq!(take(4, LockKind::Exclusive).await.unwrap(), Locked::Done);
}

/// The kernel calls an open file's locks by its address, which the next open file may get before the first is released.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_the_release_of_another_file_that_had_its_owners_name() {
    let cluster = Cluster::start().await;
    let mount = cluster.mount().await;
    let file = mount.put(TOP, "f", b"").await;
    let open = || mount.vfs.open(ROOT, file, crate::cluster::RDWR);
    let (first, second) = (open().await.unwrap().handle, open().await.unwrap().handle);
    let take = |handle, owner| {
        let wanted = Lock {
            owner,
            pid: 5,
            start: 0,
            end: u64::MAX,
            kind: LockKind::Exclusive,
        };
        mount.vfs.setlk(file, handle, wanted, None::<Pending<()>>)
    };
    assert_eq!(take(first, 1).await.unwrap(), Locked::Done);
    assert_eq!(take(second, 1).await.unwrap(), Locked::Done);
    mount.vfs.release(file, first).await.unwrap();
    let third = open().await.unwrap().handle;
    assert_eq!(take(third, 2).await.unwrap(), Locked::Held);
    mount.vfs.release(file, second).await.unwrap();
    assert_eq!(take(third, 2).await.unwrap(), Locked::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ends_of_a_file_are_found() {
    let cluster = Cluster::start().await;
    let mount = cluster.mount().await;
    let file = mount.put(TOP, "f", b"0123456789").await;
    let opened = mount.vfs.open(ROOT, file, 0).await.unwrap();
    let seek = |offset, whence| {
        mount.vfs.lseek(
            At {
                inode: file,
                handle: opened.handle,
                offset,
            },
            whence,
        )
    };
    assert_eq!(seek(3, Whence::Data).await.unwrap(), Some(3));
    assert_eq!(seek(3, Whence::Hole).await.unwrap(), Some(10));
    assert_eq!(seek(10, Whence::Data).await.unwrap(), None);
    assert!(mount.vfs.statfs().await.capacity_bytes > 0);
}

/// As sqlite does with its shared memory: the file has a size before it has a byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_never_written_reads_as_zeros_up_to_its_size() {
    let cluster = Cluster::start().await;
    let (mount, other) = (cluster.mount().await, cluster.mount().await);
    let (metadata, opened) = mount.create(TOP, "f").await;
    let inode = metadata.inode.0;
    let size = Set {
        size: Some(8_192),
        ..Set::default()
    };
    mount
        .vfs
        .setattr(ROOT, inode, Some(opened.handle), size)
        .await
        .unwrap();
    let read = mount.read(inode, opened.handle, 0, 4_096);
    let bytes = tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
    assert!(bytes == vec![0; 4_096]);
    let elsewhere = other.get(other.inode(TOP, "f").await);
    let bytes = tokio::time::timeout(Duration::from_secs(5), elsewhere)
        .await
        .unwrap();
    assert!(bytes == vec![0; 8_192]);
    mount.close(inode, opened.handle).await;
}
