//! The kernel's numbers in the file system's words, and back. What has no word is `None`.

use crate::vfs::{Allocate, At, Lock, LockKind, Whence};
use dfs_client::{Kind, Make, RenameMode, XattrMode};
use fuser::{Errno, FileHandle, INodeNo, LockOwner, OpenFlags, RenameFlags};
use rustix::fs::{FallocateFlags, FileType, OFlags, XattrFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// The last byte of the largest file, as the kernel counts.
pub(crate) const END_OF_FILES: u64 = i64::MAX.cast_unsigned();
/// Of a lock, from fcntl.h: F_RDLCK, F_WRLCK, F_UNLCK.
const LOCK_TYPES: [LockKind; 3] = [LockKind::Shared, LockKind::Exclusive, LockKind::Unlock];
/// From unistd.h.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// A name that outlives its request's buffer.
#[must_use]
pub(crate) fn owned(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

/// A place in an open file.
#[must_use]
pub(crate) fn at(inode: INodeNo, handle: FileHandle, offset: u64) -> At {
    At {
        inode: inode.0,
        handle: handle.0,
        offset,
    }
}

/// What mknod(2) makes.
#[must_use]
pub(crate) fn node(mode: u32, rdev: u32) -> Option<Make> {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::File,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Directory | FileType::Symlink | FileType::Unknown => return None,
    };
    Some(Make {
        rdev: rdev.into(),
        ..made(kind, mode)
    })
}

/// Something without device number and target.
#[must_use]
pub(crate) fn made(kind: Kind, mode: u32) -> Make {
    Make {
        kind,
        mode: mode & 0o7777,
        rdev: 0,
        target: Vec::new(),
    }
}

/// A symlink.
#[must_use]
pub(crate) fn symlink(target: &OsStr) -> Make {
    Make {
        target: owned(target),
        ..made(Kind::Symlink, 0o777)
    }
}

/// How renameat2(2) treats a name that exists.
#[must_use]
pub(crate) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

/// How setxattr(2) treats an attribute that exists.
#[must_use]
pub(crate) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
    if flags.is_empty() {
        Some(XattrMode::Set)
    } else if flags == XattrFlags::CREATE {
        Some(XattrMode::Create)
    } else if flags == XattrFlags::REPLACE {
        Some(XattrMode::Replace)
    } else {
        None
    }
}

/// True for attributes of a space that is not there (ACLs are in it), which `ls -l` asks of every file: the master
/// need not be asked.
#[must_use]
pub(crate) fn is_unknown_space(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"system.")
}

/// What fallocate(2) does.
#[must_use]
pub(crate) fn allocate(mode: i32) -> Option<Allocate> {
    let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
    let keep_size = mode.contains(FallocateFlags::KEEP_SIZE);
    match mode.difference(FallocateFlags::KEEP_SIZE) {
        rest if rest.is_empty() => Some(Allocate::Reserve { keep_size }),
        rest if rest == FallocateFlags::ZERO_RANGE => Some(Allocate::Zero { keep_size }),
        rest if rest == FallocateFlags::PUNCH_HOLE && keep_size => Some(Allocate::Punch),
        _ => None,
    }
}

/// What lseek(2) looks for; the kernel does the rest itself.
#[must_use]
pub(crate) fn whence(whence: i32) -> Option<Whence> {
    match whence {
        SEEK_DATA => Some(Whence::Data),
        SEEK_HOLE => Some(Whence::Hole),
        _ => None,
    }
}

/// Why such a search is refused: what is before a file's beginning is as little in it as what is behind its end.
#[must_use]
pub(crate) fn no_place(offset: i64) -> Errno {
    match offset {
        ..0 => Errno::ENXIO,
        0.. => Errno::EINVAL,
    }
}

/// A lock.
#[must_use]
pub(crate) fn lock(owner: LockOwner, range: (u64, u64), kind: i32, pid: u32) -> Option<Lock> {
    let kind = LOCK_TYPES.get(usize::try_from(kind).ok()?)?;
    let (start, end) = range;
    Some(Lock {
        owner: owner.0,
        pid,
        start,
        end: if end >= END_OF_FILES { u64::MAX } else { end },
        kind: *kind,
    })
}

/// A lock's type in the kernel's numbers.
#[must_use]
pub(crate) fn lock_type(kind: LockKind) -> i32 {
    match kind {
        LockKind::Shared => 0,
        LockKind::Exclusive => 1,
        LockKind::Unlock => 2,
    }
}

/// True if every write goes to the end.
#[must_use]
pub(crate) fn is_append(flags: OpenFlags) -> bool {
    OFlags::from_bits_retain(flags.0.cast_unsigned()).contains(OFlags::APPEND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_to_the_end_is_to_the_end_of_all_files() {
        let found = lock(LockOwner(7), (10, END_OF_FILES), 1, 99).unwrap();
        assert_eq!(
            (found.start, found.end, found.kind),
            (10, u64::MAX, LockKind::Exclusive)
        );
        assert!(lock(LockOwner(7), (0, 0), 3, 99).is_none());
        for (number, kind) in LOCK_TYPES.iter().enumerate() {
            assert_eq!(usize::try_from(lock_type(*kind)).unwrap(), number);
        }
    }

    #[test]
    fn what_fallocate_cannot_do_is_refused() {
        assert_eq!(allocate(0), Some(Allocate::Reserve { keep_size: false }));
        assert_eq!(allocate(1), Some(Allocate::Reserve { keep_size: true }));
        assert_eq!(allocate(3), Some(Allocate::Punch));
        assert_eq!(allocate(0x11), Some(Allocate::Zero { keep_size: true }));
        assert_eq!(allocate(8), None, "collapse");
        assert_eq!(allocate(0x20), None, "insert");
        assert_eq!(allocate(2), None, "a hole that changes the size");
    }

    #[test]
    fn mknod_makes_neither_directories_nor_links() {
        assert_eq!(node(0o010_644, 0).unwrap().kind, Kind::Fifo);
        let device = node(0o020_600, 0x0103).unwrap();
        assert_eq!(
            (device.kind, device.rdev, device.mode),
            (Kind::CharacterDevice, 0x0103, 0o600)
        );
        assert!(node(0o040_755, 0).is_none());
        assert!(node(0o120_777, 0).is_none());
    }

    #[test]
    fn a_rename_is_one_of_three() {
        assert_eq!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace));
        assert_eq!(
            rename_mode(RenameFlags::RENAME_EXCHANGE),
            Some(RenameMode::Exchange)
        );
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
    }
}
