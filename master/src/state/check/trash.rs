//! The trash: each name in its directory has its record and its mark, and the other way round.

use super::super::{tables, trash};
use super::Problems;
use crate::store::records::{Dentry, Trashed};
use crate::store::{Read, keys};

pub(super) fn check(read: &dyn Read, problems: &mut Problems) {
    let all: Vec<(u64, Trashed)> = trash::trashed_after(read, 0, usize::MAX);
    let names = trash::trash_directory(read).map_or(0, |bin| {
        read.scan_prefix(&keys::under(keys::DENTRY, bin.0)).count()
    });
    problems.expect_equal("names in the trash", names, all.len());
    let marks = read.scan_prefix(&[keys::TRASH_DUE]).count();
    problems.expect_equal("marks of the trash", marks, all.len());
    for (entry, trashed) in &all {
        let name = format!("{entry:016x}").into_bytes();
        let dentry: Option<Dentry> =
            trash::trash_directory(read).and_then(|bin| tables::dentry(read, bin, &name));
        problems.expect_equal(
            &format!("entry {entry} of the trash"),
            dentry.map(|d| (d.inode, d.kind)),
            Some((trashed.inode, trashed.kind)),
        );
        problems.expect(read.contains(&keys::trash_due(trashed.due_ns, *entry)), || {
            format!("entry {entry} of the trash is never due")
        });
    }
}
