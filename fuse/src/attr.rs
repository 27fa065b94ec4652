//! Attributes in the kernel's words, as the mount's options show them.

use crate::options::Options;
use crate::vfs;
use dfs_client::{Kind, Metadata, Time};
use dfs_stdx::clock::{system_ns, system_time};
use fuser::{
    Errno, FileAttr, FileType, FopenFlags, Generation, INodeNo, ReplyEntry, ReplyStatfs, ReplyXattr,
    TimeOrNow,
};
use std::time::Duration;

/// What programs are told is a good size for reads and writes.
const BLOCK_BYTES: u32 = 64 * 1024;
/// In which `df` counts.
const STATFS_BLOCK_BYTES: u32 = 4_096;
/// Shown as the number of inodes that could still be made.
const INODES_FREE: u64 = 1 << 40;
const NAME_BYTES_MAX: u32 = 255;

/// What the mount shows instead of what is so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown {
    uid: Option<u32>,
    gid: Option<u32>,
    umask: u32,
}

impl Shown {
    /// What the options ask for.
    #[must_use]
    pub(crate) fn of(options: &Options) -> Shown {
        Shown {
            uid: options.uid,
            gid: options.gid,
            umask: options.umask.unwrap_or(0),
        }
    }

    /// Attributes of an inode.
    #[must_use]
    pub(crate) fn attr(self, of: &Metadata) -> FileAttr {
        FileAttr {
            ino: INodeNo(of.inode.0),
            size: of.size,
            blocks: of.allocated_bytes.div_ceil(512),
            atime: system_time(of.atime_ns),
            mtime: system_time(of.mtime_ns),
            ctime: system_time(of.ctime_ns),
            crtime: system_time(0),
            kind: kind(of.kind),
            perm: u16::try_from(of.mode & !self.umask & 0o7777).expect("twelve bits"),
            nlink: of.nlink,
            uid: self.uid.unwrap_or(of.uid),
            gid: self.gid.unwrap_or(of.gid),
            // Device numbers cross FUSE in 32 bits.
            rdev: u32::try_from(of.rdev).unwrap_or(0),
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }
}

/// Attributes of which only number and type are looked at.
#[must_use]
pub(crate) fn bare(inode: u64, of: Kind) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode),
        size: 0,
        blocks: 0,
        atime: system_time(0),
        mtime: system_time(0),
        ctime: system_time(0),
        crtime: system_time(0),
        kind: kind(of),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Answers with a name and what it leads to.
pub(crate) fn reply_entry(shown: Shown, reply: ReplyEntry, entry: &vfs::Entry) {
    let attr = shown.attr(&entry.metadata);
    reply.entry_with_ttls(
        &entry.attr_ttl,
        &entry.entry_ttl,
        &attr,
        Generation(entry.generation),
    );
}

/// Answers that there is no such name, which the kernel may believe for a while: inode 0 says so.
pub(crate) fn reply_nothing(reply: ReplyEntry, ttl: Duration) {
    match ttl.is_zero() {
        true => reply.error(Errno::ENOENT),
        false => reply.entry_with_ttls(&Duration::ZERO, &ttl, &bare(0, Kind::File), Generation(0)),
    }
}

/// Answers with an attribute's value, or its size if that was asked.
pub(crate) fn reply_sized(reply: ReplyXattr, wanted: u32, value: &[u8]) {
    let size = u32::try_from(value.len()).expect("values are short");
    match wanted {
        0 => reply.size(size),
        _ if wanted < size => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// Answers how much room there is.
pub(crate) fn reply_room(reply: ReplyStatfs, room: &vfs::Room) {
    let block = u64::from(STATFS_BLOCK_BYTES);
    let (all, free) = (room.capacity_bytes / block, room.free_bytes / block);
    // Inodes are records at the master: there is no table that could be full.
    let files = room.inodes.saturating_add(INODES_FREE);
    reply.statfs(
        all,
        free,
        free,
        files,
        INODES_FREE,
        STATFS_BLOCK_BYTES,
        NAME_BYTES_MAX,
        STATFS_BLOCK_BYTES,
    );
}

/// An inode's type in the kernel's words.
#[must_use]
pub(crate) fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// How the kernel may treat the cached pages of an opened file.
#[must_use]
pub(crate) fn file_flags(opened: vfs::Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    flags.set(direct, opened.direct_io);
    flags
}

/// How it may treat the cached listing of an opened directory.
#[must_use]
pub(crate) fn directory_flags(opened: vfs::Opened) -> FopenFlags {
    match opened.keep_cache {
        true => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        false => FopenFlags::empty(),
    }
}

/// A time the kernel sets.
#[must_use]
pub(crate) fn set_time(time: TimeOrNow) -> Time {
    match time {
        TimeOrNow::Now => Time::Now,
        TimeOrNow::SpecificTime(at) => Time::At(system_ns(at)),
    }
}
