//! The memory against what may come in any order.

use super::*;
use crate::vfs::Invalidate;
use dfs_client::{Change, InodeId, Kind};

const DIR: u64 = 10;
const FILE: u64 = 20;

fn metadata(inode: u64, kind: Kind, change: u64) -> Metadata {
    Metadata {
        inode: InodeId(inode),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: change,
        allocated_bytes: 0,
        atime_ns: 0,
        mtime_ns: 0,
        ctime_ns: 0,
        rdev: 0,
        goal: 3,
        chunk_bytes: 1 << 20,
        change,
        chunks: 0,
        xattr_bytes: 0,
    }
}

/// A memory whose stream stands, with a directory that is known completely.
fn cache() -> Cache {
    let cache = Cache::new();
    cache.back();
    cache.learn(cache.epoch(), &metadata(DIR, Kind::Directory, 1));
    cache.new_directory(cache.epoch(), DIR);
    cache
}

fn own(cache: &Cache, at: u64) -> Own {
    Own {
        epoch: cache.epoch(),
        at: Some(at),
    }
}

fn entry(change: u64, to: Option<u64>) -> [Change; 2] {
    let now = to.map(|inode| (InodeId(inode), Kind::File));
    let (parent, name) = (InodeId(DIR), b"n".to_vec());
    [
        Change::Entry { parent, name, now },
        Change::Attributes(metadata(DIR, Kind::Directory, change)),
    ]
}

const TO: Option<(u64, Kind)> = Some((FILE, Kind::File));

#[test]
fn nothing_is_sure_before_the_stream_stands_or_after_it_broke() {
    let cache = Cache::new();
    cache.learn(cache.epoch(), &metadata(FILE, Kind::File, 1));
    assert!(cache.attributes(FILE).is_none() && cache.remembered(FILE).is_some());
    cache.back();
    assert!(
        cache.attributes(FILE).is_none(),
        "it was asked for before the stream stood"
    );
    let stamp = cache.stamp(DIR);
    cache.learn(stamp.epoch(), &metadata(FILE, Kind::File, 1));
    assert!(cache.learn_name(stamp, DIR, b"n", TO));
    assert_eq!(cache.find(DIR, b"n"), Leads::To(FILE, Kind::File));
    cache.lost();
    assert!(cache.attributes(FILE).is_none());
    assert_eq!(cache.find(DIR, b"n"), Leads::Unknown);
    assert_eq!(cache.recall(DIR, b"n"), Leads::To(FILE, Kind::File));
    cache.back();
    assert!(
        !cache.learn_name(stamp, DIR, b"n", TO),
        "an answer from before the gap is not kept"
    );
}

#[test]
fn the_greater_change_wins_however_it_came() {
    let cache = cache();
    cache.learn(cache.epoch(), &metadata(FILE, Kind::File, 5));
    cache.apply(&[Change::Attributes(metadata(FILE, Kind::File, 4))]);
    assert_eq!(cache.attributes(FILE).unwrap().change, 5);
    cache.apply(&[Change::Attributes(metadata(FILE, Kind::File, 6))]);
    assert_eq!(
        cache.learn(cache.epoch(), &metadata(FILE, Kind::File, 5)).change,
        6
    );
}

#[test]
fn an_event_older_than_an_own_change_does_not_undo_it() {
    let cache = cache();
    cache.own_name(own(&cache, 3), DIR, b"n", TO);
    let effects = cache.apply(&entry(2, None));
    assert_eq!(cache.find(DIR, b"n"), Leads::To(FILE, Kind::File));
    assert!(effects.invalidate.is_empty());
    cache.own_name(own(&cache, 4), DIR, b"n", None);
    cache.apply(&entry(3, Some(9)));
    assert_eq!(cache.find(DIR, b"n"), Leads::Nowhere);
    cache.apply(&entry(5, Some(9)));
    assert_eq!(cache.find(DIR, b"n"), Leads::To(9, Kind::File));
    cache.own_name(own(&cache, 4), DIR, b"n", None);
    assert_eq!(
        cache.find(DIR, b"n"),
        Leads::To(9, Kind::File),
        "an answer may come late"
    );
}

#[test]
fn an_answer_from_before_an_event_is_not_kept() {
    let cache = cache();
    let stamp = cache.stamp(DIR);
    cache.apply(&entry(2, None));
    assert!(!cache.learn_name(stamp, DIR, b"n", TO));
    assert_eq!(cache.find(DIR, b"n"), Leads::Nowhere);
    assert!(cache.learn_name(cache.stamp(DIR), DIR, b"n", TO));
}

#[test]
fn the_kernel_is_told_of_what_it_may_know_only() {
    let cache = cache();
    cache.learn(cache.epoch(), &metadata(FILE, Kind::File, 1));
    let told = |cache: &Cache, change| {
        cache
            .apply(&[Change::Attributes(metadata(FILE, Kind::File, change))])
            .invalidate
    };
    assert!(told(&cache, 2).is_empty());
    cache.at(FILE, |node| node.lookups += 1);
    let data = true;
    assert_eq!(told(&cache, 3), [Invalidate::Inode { inode: FILE, data }]);
    assert!(cache.apply(&entry(2, TO.map(|to| to.0))).invalidate.is_empty());
    cache.at(DIR, |node| node.lookups += 1);
    let (parent, name) = (DIR, b"n".to_vec());
    let told = cache.apply(&entry(3, None)).invalidate;
    assert_eq!(told[0], Invalidate::Entry { parent, name });
    cache.forget(FILE, 1);
    assert_eq!(
        cache.lost().len(),
        2,
        "the directory and the name that was removed from it"
    );
}

#[test]
fn a_removed_file_is_held_by_whom_has_it_open_and_given_back_by_others() {
    let cache = cache();
    let held = Some(metadata(FILE, Kind::File, 2));
    let unlinked = [Change::Unlinked {
        inode: InodeId(FILE),
        held,
    }];
    assert_eq!(cache.apply(&unlinked).release, [InodeId(FILE)]);
    cache.at(FILE, |node| node.opens += 1);
    assert!(cache.apply(&unlinked).release.is_empty());
    assert!(cache.peek(FILE, |node| node.held).unwrap());
}

#[test]
fn idle_inodes_and_names_are_dropped_when_there_are_too_many() {
    let cache = cache();
    for inode in 100..200 {
        cache.learn(cache.epoch(), &metadata(inode, Kind::File, 1));
        cache.own_name(
            own(&cache, inode),
            DIR,
            inode.to_string().as_bytes(),
            Some((inode, Kind::File)),
        );
    }
    cache.at(150, |node| node.lookups += 1);
    cache.tick();
    assert!(cache.evict_inodes(200).is_empty());
    let gone = cache.evict_inodes(50);
    assert!(gone.len() >= 50 && !gone.contains(&InodeId(150)));
    assert!(cache.evict_names(100).is_empty());
    cache.at(DIR, |node| node.lookups += 1);
    cache.own_name(own(&cache, 300), DIR, b"again", TO);
    let told = cache.evict_names(0);
    assert!(told.contains(&Invalidate::Entry {
        parent: DIR,
        name: b"again".to_vec()
    }));
    assert_eq!(cache.find(DIR, b"again"), Leads::Unknown);
}

#[test]
fn the_value_of_one_extended_attribute_says_nothing_of_the_others() {
    let cache = cache();
    let stamp = cache.stamp(5);
    let value: Arc<[u8]> = b"v"[..].into();
    cache.learn_xattr(stamp, 5, b"user.a", &value);
    assert!(cache.xattrs(5).is_none(), "its names were never listed");
    cache.learn_xattrs(stamp, 5, Arc::new([(b"user.a".to_vec(), None)].into()));
    cache.learn_xattr(stamp, 5, b"user.a", &value);
    cache.learn_xattr(stamp, 5, b"user.b", &value);
    assert_eq!(
        *cache.xattrs(5).unwrap().values,
        [(b"user.a".to_vec(), Some(value))].into()
    );
}
