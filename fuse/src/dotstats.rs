//! The file `.stats` at the mount's root: in no listing, the same for everybody, made anew whenever it is opened.

use crate::stats::Stats;
use dfs_stdx::clock::system_time;
use fuser::{FileAttr, FileHandle, FileType, FopenFlags, INodeNo};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// No inode of the cluster: those are counted up from 1.
pub(crate) const INODE: INodeNo = INodeNo(u64::MAX);
/// Its size is not known before it is read.
pub(crate) const FLAGS: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;
/// Its name.
pub const NAME: &str = ".stats";
/// Opened at once; the oldest are forgotten.
const OPEN_MAX: usize = 64;

/// What was read when it was opened, by handle.
#[derive(Debug, Default)]
pub(crate) struct DotStats {
    open: Mutex<BTreeMap<u64, Vec<u8>>>,
}

/// True if the name is its own.
#[must_use]
pub(crate) fn is_named(parent: INodeNo, name: &OsStr) -> bool {
    parent == INodeNo::ROOT && name == NAME
}

/// Its attributes.
#[must_use]
pub(crate) fn attr() -> FileAttr {
    FileAttr {
        ino: INODE,
        size: 0,
        blocks: 0,
        atime: system_time(0),
        mtime: system_time(0),
        ctime: system_time(0),
        crtime: system_time(0),
        kind: FileType::RegularFile,
        perm: 0o444,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4_096,
        flags: 0,
    }
}

impl DotStats {
    /// Opens it.
    pub(crate) fn open(&self, stats: &Stats) -> FileHandle {
        let mut text =
            serde_json::to_vec_pretty(&stats.report()).expect("numbers and strings are always JSON");
        text.push(b'\n');
        let mut open = self.lock();
        let handle = open.last_key_value().map_or(0, |(last, _)| last + 1);
        open.insert(handle, text);
        if open.len() > OPEN_MAX {
            open.pop_first();
        }
        FileHandle(handle)
    }

    /// Part of it.
    #[must_use]
    pub(crate) fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Vec<u8> {
        let open = self.lock();
        let text = open.get(&handle.0).map(Vec::as_slice).unwrap_or_default();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let end = start.saturating_add(size as usize).min(text.len());
        text[start..end].to_vec()
    }

    /// Closes it.
    pub(crate) fn close(&self, handle: FileHandle) {
        self.lock().remove(&handle.0);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Report;
    use dfs_stdx::Clock;

    #[tokio::test]
    async fn it_is_read_in_parts_and_is_json() {
        let (file, stats) = (DotStats::default(), Stats::new("m:1", "/mnt", &Clock::system()));
        let handle = file.open(&stats);
        let mut text = file.read(handle, 0, 10);
        assert_eq!(text.len(), 10);
        text.extend(file.read(handle, 10, 1 << 20));
        let report: Report = serde_json::from_slice(&text).unwrap();
        assert_eq!(report.mountpoint, "/mnt");
        assert!(file.read(handle, 1 << 30, 10).is_empty());
        file.close(handle);
        assert!(file.read(handle, 0, 10).is_empty());
    }

    #[test]
    fn only_the_root_has_it() {
        assert!(is_named(INodeNo(1), OsStr::new(".stats")));
        assert!(!is_named(INodeNo(2), OsStr::new(".stats")));
        assert!(!is_named(INodeNo(1), OsStr::new("stats")));
    }
}
