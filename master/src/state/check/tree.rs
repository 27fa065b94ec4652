//! Names: one tree below the root (but for what sessions hold), links counted, listings complete, attributes where
//! inodes are.

use std::collections::BTreeMap;

use dfs_proto::InodeId;

use super::super::{orphans, tables, trash};
use super::Problems;
use crate::store::records::{Dentry, Inode, Kind};
use crate::store::{Read, keys};

/// What the dentries say of an inode.
#[derive(Default)]
struct Seen {
    names: u32,
    subdirectories: u32,
    parent: u64,
}

pub(super) fn check(read: &dyn Read, problems: &mut Problems) {
    let mut seen: BTreeMap<u64, Seen> = BTreeMap::new();
    walk(read, problems, &mut seen);
    let bin = trash::trash_directory(read);
    let (mut files, mut directories) = (0, 0);
    for (key, value) in read.scan_prefix(&[keys::INODE]) {
        let id = keys::last_number(&key);
        let inode: Inode = tables::decode(&value);
        if bin == Some(InodeId(id)) {
            // Not counted: nobody made it.
        } else if inode.kind() == Kind::Directory {
            directories += 1;
        } else {
            files += 1;
        }
        let names = seen.get(&id);
        let is_kept = inode.nlink == 0 && !orphans::holders(read, InodeId(id)).is_empty();
        problems.expect(names.is_some() != is_kept, || {
            format!("inode {id} is not reached from the root and nobody holds it, or both")
        });
        if let Some(names) = names {
            check_inode(problems, id, &inode, names);
        }
        check_xattrs(read, problems, id, &inode);
    }
    let counters = tables::counters(read);
    problems.expect_equal("files", counters.files, files);
    problems.expect_equal("directories", counters.directories, directories);
    let above = read.last(&[keys::INODE], &[keys::INODE + 1]);
    problems.expect(
        above.is_none_or(|(key, _)| keys::last_number(&key) < counters.next_inode),
        || "the next inode's number is in use".into(),
    );
    check_owners(read, problems);
}

/// All dentries, directory by directory from the root: each directory is entered once, or there is a cycle or a second name.
fn walk(read: &dyn Read, problems: &mut Problems, seen: &mut BTreeMap<u64, Seen>) {
    seen.entry(InodeId::ROOT.0).or_default().parent = InodeId::ROOT.0;
    let mut left = vec![InodeId::ROOT];
    if let Some(bin) = trash::trash_directory(read) {
        seen.entry(bin.0).or_default().parent = InodeId::ROOT.0;
        left.push(bin);
    }
    let mut reached = 0_u64;
    while let Some(directory) = left.pop() {
        let mut entries = 0;
        let prefix = keys::under(keys::DENTRY, directory.0);
        for (key, value) in read.scan_prefix(&prefix) {
            entries += 1;
            let name = &key[prefix.len()..];
            let dentry: Dentry = tables::decode(&value);
            let is_new = check_dentry(read, problems, (directory, name), dentry);
            let target = seen.entry(dentry.inode).or_default();
            target.names += 1;
            target.parent = directory.0;
            if dentry.kind() == Kind::Directory {
                let first = target.names == 1 && dentry.inode != InodeId::ROOT.0;
                problems.expect(first, || format!("directory {} has two names", dentry.inode));
                seen.entry(directory.0).or_default().subdirectories += 1;
                if first && is_new {
                    left.push(InodeId(dentry.inode));
                }
            }
        }
        reached += entries;
        check_listing(read, problems, directory, entries);
    }
    let all = read.scan_prefix(&[keys::DENTRY]).count() as u64;
    problems.expect_equal("names reached from the root", all, reached);
}

/// A dentry agrees with its inode and its cursor. Returns whether the inode is there.
fn check_dentry(read: &dyn Read, problems: &mut Problems, place: (InodeId, &[u8]), dentry: Dentry) -> bool {
    let (directory, name) = place;
    let at = || format!("{directory}/{}", String::from_utf8_lossy(name));
    let listed = read.get(&keys::cursor(directory, dentry.cursor));
    problems.expect(listed.as_deref() == Some(name), || {
        format!("{} is not listed at its cursor {}", at(), dentry.cursor)
    });
    let inode = tables::inode(read, InodeId(dentry.inode));
    problems.expect(inode.is_ok(), || {
        format!("{} names inode {}, which is not there", at(), dentry.inode)
    });
    if let Ok(inode) = &inode {
        problems.expect_equal(&at(), dentry.kind(), inode.kind());
    }
    inode.is_ok()
}

fn check_listing(read: &dyn Read, problems: &mut Problems, directory: InodeId, entries: u64) {
    let Ok(inode) = tables::inode(read, directory) else {
        return;
    };
    let what = format!("entries of directory {directory}");
    problems.expect_equal(&what, inode.entries, entries);
    let prefix = keys::under(keys::CURSOR, directory.0);
    problems.expect_equal(&what, read.scan_prefix(&prefix).count() as u64, entries);
    let greatest = read.last(&prefix, &crate::store::after_prefix(&prefix));
    problems.expect(
        greatest.is_none_or(|(key, _)| keys::last_number(&key) <= inode.last_cursor),
        || format!("directory {directory} gives cursors twice"),
    );
    problems.expect(read.get(&keys::cursor(directory, 0)).is_none(), || {
        format!("directory {directory} has an entry at cursor 0")
    });
}

fn check_inode(problems: &mut Problems, id: u64, inode: &Inode, names: &Seen) {
    let what = |field: &str| format!("{field} of inode {id}");
    if inode.kind() == Kind::Directory {
        problems.expect_equal(&what("links"), inode.nlink, 2 + names.subdirectories);
        problems.expect_equal(&what("parent"), inode.parent, names.parent);
    } else {
        problems.expect_equal(&what("links"), inode.nlink, names.names);
    }
    problems.expect(inode.kind() != Kind::Unspecified, || {
        format!("inode {id} has no kind")
    });
    if inode.kind() == Kind::Symlink {
        problems.expect_equal(&what("size"), inode.size, inode.target.len() as u64);
    } else if inode.kind() != Kind::File {
        problems.expect_equal(&what("size"), inode.size, 0);
    }
}

fn check_xattrs(read: &dyn Read, problems: &mut Problems, id: u64, inode: &Inode) {
    let prefix = keys::under(keys::XATTR, id);
    let bytes = read
        .scan_prefix(&prefix)
        .map(|(key, value)| (key.len() - prefix.len() + value.len()) as u64)
        .sum();
    problems.expect_equal(
        &format!("attribute bytes of inode {id}"),
        inode.xattr_bytes,
        bytes,
    );
}

/// Records under an inode need the inode.
fn check_owners(read: &dyn Read, problems: &mut Problems) {
    for table in [keys::CURSOR, keys::EXTENT, keys::XATTR] {
        for (key, _) in read.scan_prefix(&[table]) {
            let id = InodeId(keys::number(&key[1..9]));
            problems.expect(tables::inode(read, id).is_ok(), || {
                format!("key {key:02x?} belongs to an inode that is not there")
            });
        }
    }
}
