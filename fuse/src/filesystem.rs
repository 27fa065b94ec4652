//! The kernel's requests: decode, call, reply, and nothing else. What they mean is in [`crate::vfs`], how they are
//! waited for in [`crate::desk`].

use crate::attr::{self, Shown};
use crate::caller::Names;
use crate::decode::{self, at, owned};
use crate::desk::{Asked, Desk};
use crate::dotstats::{self, DotStats};
use crate::listing::{Listing, Page};
use crate::stats::Operation as Op;
use crate::vfs::{Create, DirEntry, Entry, Found, LockKind, Locked, Opened, Set, SetXattr, Vfs, Write};
use bytes::Bytes;
use dfs_client::{Kind, Make};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, Generation, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Copies longer than this are answered in parts, so that each ends in time.
const COPY_BYTES_MAX: u64 = 256 << 20;

/// The file system as the kernel sees it.
pub(crate) struct Edge {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) desk: Desk,
    pub(crate) names: Names,
    pub(crate) shown: Shown,
    pub(crate) dotstats: DotStats,
}

impl Edge {
    fn asked(&self, operation: Op, inode: INodeNo, request: &Request) -> Asked {
        self.desk.asked(operation, inode.0, request)
    }

    /// A request that makes or finds a name.
    fn entry(
        &self,
        asked: Asked,
        reply: ReplyEntry,
        work: impl Future<Output = dfs_client::Result<Entry>> + Send + 'static,
    ) {
        let shown = self.shown;
        self.desk.serve(asked, reply, work, move |reply, entry| {
            attr::reply_entry(shown, reply, &entry)
        });
    }

    /// A request that makes something other than a regular file to be opened.
    fn make(&self, request: (Op, &Request), at: (INodeNo, &OsStr), make: Make, reply: ReplyEntry) {
        let (vfs, (parent, name)) = (self.vfs.clone(), (at.0.0, owned(at.1)));
        let (asked, caller) = (
            self.asked(request.0, at.0, request.1).until_killed(),
            self.names.caller(request.1),
        );
        self.entry(asked, reply, async move {
            vfs.make(caller, parent, &name, make).await
        });
    }

    /// A request that is answered with yes.
    fn done(
        &self,
        asked: Asked,
        reply: ReplyEmpty,
        work: impl Future<Output = dfs_client::Result<()>> + Send + 'static,
    ) {
        self.desk.serve(asked, reply, work, |reply, ()| reply.ok());
    }

    /// A request for a listing.
    fn list<R: Listing>(&self, asked: Asked, at: (FileHandle, u64), plus: bool, reply: R) {
        let (vfs, shown, (handle, offset)) = (self.vfs.clone(), self.shown, (at.0.0, at.1));
        let page = Page::new(reply);
        let filled = page.clone();
        let work = async move {
            let mut take = |line: &DirEntry<'_>| filled.add(shown, line);
            vfs.readdir(handle, offset, plus, &mut take).await
        };
        self.desk.serve(asked, page, work, |page, ()| page.done());
    }
}

impl Filesystem for Edge {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        crate::capabilities::ask(config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if dotstats::is_named(parent, name) {
            return reply.entry(&Duration::ZERO, &dotstats::attr(), Generation(0));
        }
        let (vfs, shown, caller) = (self.vfs.clone(), self.shown, self.names.caller(request));
        let (asked, name) = (self.asked(Op::Lookup, parent, request), owned(name));
        let work = async move { vfs.lookup(caller, parent.0, &name).await };
        self.desk
            .serve(asked, reply, work, move |reply, found| match found {
                Found::Entry(entry) => attr::reply_entry(shown, reply, &entry),
                Found::Nothing(ttl) => attr::reply_nothing(reply, ttl),
            });
    }

    fn forget(&self, _request: &Request, inode: INodeNo, count: u64) {
        if inode != dotstats::INODE {
            self.vfs.forget(inode.0, count);
        }
    }

    fn getattr(&self, request: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        if inode == dotstats::INODE {
            return reply.attr(&Duration::ZERO, &dotstats::attr());
        }
        let (vfs, shown, caller) = (self.vfs.clone(), self.shown, self.names.caller(request));
        let asked = self.asked(Op::Getattr, inode, request);
        let work = async move { vfs.getattr(caller, inode.0, handle.map(|h| h.0)).await };
        self.desk.serve(asked, reply, work, move |reply, got| {
            reply.attr(&got.ttl, &shown.attr(&got.metadata))
        });
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if inode == dotstats::INODE {
            return reply.error(Errno::EPERM);
        }
        let set = Set {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(attr::set_time),
            mtime: mtime.map(attr::set_time),
            // fuser does not hand on FATTR_KILL_SUIDGID, which the kernel sets for whoever lacks CAP_FSETID.
            kill_privileges: size.is_some() && request.uid() != 0,
        };
        let (vfs, shown, caller) = (self.vfs.clone(), self.shown, self.names.caller(request));
        let asked = self.asked(Op::Setattr, inode, request).until_killed();
        let work = async move { vfs.setattr(caller, inode.0, handle.map(|h| h.0), set).await };
        self.desk.serve(asked, reply, work, move |reply, got| {
            reply.attr(&got.ttl, &shown.attr(&got.metadata))
        });
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let (vfs, caller) = (self.vfs.clone(), self.names.caller(request));
        let asked = self.asked(Op::Readlink, inode, request);
        let work = async move { vfs.readlink(caller, inode.0).await };
        self.desk
            .serve(asked, reply, work, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        if dotstats::is_named(parent, name) {
            return reply.error(Errno::EEXIST);
        }
        match decode::node(mode, rdev) {
            Some(make) => self.make((Op::Mknod, request), (parent, name), make, reply),
            None => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        if dotstats::is_named(parent, name) {
            return reply.error(Errno::EEXIST);
        }
        let make = decode::made(Kind::Directory, mode);
        self.make((Op::Mkdir, request), (parent, name), make, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        if dotstats::is_named(parent, name) {
            return reply.error(Errno::EEXIST);
        }
        self.make(
            (Op::Symlink, request),
            (parent, name),
            decode::symlink(target.as_os_str()),
            reply,
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if dotstats::is_named(parent, name) {
            return reply.error(Errno::EPERM);
        }
        let (vfs, caller, name) = (self.vfs.clone(), self.names.caller(request), owned(name));
        let asked = self.asked(Op::Unlink, parent, request).until_killed();
        self.done(
            asked,
            reply,
            async move { vfs.unlink(caller, parent.0, &name).await },
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, caller, name) = (self.vfs.clone(), self.names.caller(request), owned(name));
        let asked = self.asked(Op::Rmdir, parent, request).until_killed();
        self.done(
            asked,
            reply,
            async move { vfs.rmdir(caller, parent.0, &name).await },
        );
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if dotstats::is_named(parent, name) || dotstats::is_named(newparent, newname) {
            return reply.error(Errno::EPERM);
        }
        let Some(mode) = decode::rename_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (vfs, caller, name, newname) = (
            self.vfs.clone(),
            self.names.caller(request),
            owned(name),
            owned(newname),
        );
        let asked = self.asked(Op::Rename, parent, request).until_killed();
        self.done(asked, reply, async move {
            vfs.rename(caller, (parent.0, &name), (newparent.0, &newname), mode)
                .await
        });
    }

    fn link(
        &self,
        request: &Request,
        inode: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        if inode == dotstats::INODE || dotstats::is_named(newparent, newname) {
            return reply.error(Errno::EPERM);
        }
        let (vfs, caller, name) = (self.vfs.clone(), self.names.caller(request), owned(newname));
        let asked = self.asked(Op::Link, inode, request).until_killed();
        self.entry(asked, reply, async move {
            vfs.link(caller, inode.0, newparent.0, &name).await
        });
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if inode == dotstats::INODE {
            return match flags.acc_mode() {
                OpenAccMode::O_RDONLY => reply.opened(self.dotstats.open(self.desk.stats()), dotstats::FLAGS),
                OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => reply.error(Errno::EACCES),
            };
        }
        let (vfs, caller) = (self.vfs.clone(), self.names.caller(request));
        let asked = self.asked(Op::Open, inode, request);
        let work = async move { vfs.open(caller, inode.0, flags.0).await };
        self.desk.serve(asked, reply, work, |reply, opened: Opened| {
            reply.opened(FileHandle(opened.handle), attr::file_flags(opened));
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if dotstats::is_named(parent, name) {
            return reply.error(Errno::EEXIST);
        }
        let (vfs, shown, caller) = (self.vfs.clone(), self.shown, self.names.caller(request));
        let (asked, name) = (
            self.asked(Op::Create, parent, request).until_killed(),
            owned(name),
        );
        let create = Create {
            mode: mode & 0o7777,
            flags,
        };
        let work = async move { vfs.create(caller, parent.0, &name, create).await };
        self.desk.serve(
            asked,
            reply,
            work,
            move |reply, (entry, opened): (Entry, Opened)| {
                let ttl = entry.entry_ttl.min(entry.attr_ttl);
                let (handle, flags) = (FileHandle(opened.handle), attr::file_flags(opened));
                reply.created(
                    &ttl,
                    &shown.attr(&entry.metadata),
                    Generation(entry.generation),
                    handle,
                    flags,
                );
            },
        );
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if inode == dotstats::INODE {
            return reply.data(&self.dotstats.read(handle, offset, size));
        }
        let (vfs, asked, desk) = (
            self.vfs.clone(),
            self.asked(Op::Read, inode, request),
            self.desk.clone(),
        );
        let at = at(inode, handle, offset);
        let work = async move { vfs.read(at, size as usize).await };
        self.desk
            .serve(asked, reply, work, move |reply, pieces: Vec<Bytes>| {
                let length: usize = pieces.iter().map(Bytes::len).sum();
                desk.stats().read_bytes.add(length as u64);
                match pieces.as_slice() {
                    [whole] => reply.data(whole),
                    // fuser takes one piece only.
                    pieces => reply.data(&pieces.concat()),
                }
            });
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut asked = self.asked(Op::Write, inode, request);
        let (at, kill_privileges) = (
            at(inode, handle, offset),
            write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        );
        let desk = self.desk.clone();
        let answer = move |reply: ReplyWrite, written: usize| {
            desk.stats().written_bytes.add(written as u64);
            reply.written(u32::try_from(written).expect("no more than was asked for"));
        };
        if let Some(done) = self.desk.within(|| self.vfs.try_write(at, data, kill_privileges)) {
            return self.desk.answer(&asked, reply, done, answer);
        }
        if decode::is_append(flags) {
            // Asked again after EINTR it would be there twice.
            asked = asked.until_killed();
        }
        let write = Write {
            offset,
            data: Bytes::copy_from_slice(data),
            kill_privileges,
        };
        let (vfs, caller) = (self.vfs.clone(), self.names.caller(request));
        let work = async move { vfs.write(caller, inode.0, handle.0, write).await };
        self.desk.serve(asked, reply, work, answer);
    }

    fn flush(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        if inode == dotstats::INODE {
            return reply.ok();
        }
        let (vfs, asked) = (
            self.vfs.clone(),
            self.asked(Op::Flush, inode, request).until_killed(),
        );
        self.done(asked, reply, async move {
            vfs.flush(inode.0, handle.0, owner.0).await
        });
    }

    fn release(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if inode == dotstats::INODE {
            self.dotstats.close(handle);
            return reply.ok();
        }
        let (vfs, asked) = (
            self.vfs.clone(),
            self.asked(Op::Release, inode, request).until_killed(),
        );
        self.done(asked, reply, async move { vfs.release(inode.0, handle.0).await });
    }

    fn fsync(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        if inode == dotstats::INODE {
            return reply.ok();
        }
        let (vfs, asked) = (self.vfs.clone(), self.asked(Op::Fsync, inode, request));
        self.done(asked, reply, async move {
            vfs.fsync(inode.0, handle.0, data_only).await
        });
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (vfs, caller) = (self.vfs.clone(), self.names.caller(request));
        let asked = self.asked(Op::Opendir, inode, request);
        let work = async move { vfs.opendir(caller, inode.0).await };
        self.desk.serve(asked, reply, work, |reply, opened: Opened| {
            reply.opened(FileHandle(opened.handle), attr::directory_flags(opened));
        });
    }

    fn readdir(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list(
            self.asked(Op::Readdir, inode, request),
            (handle, offset),
            false,
            reply,
        );
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list(
            self.asked(Op::Readdirplus, inode, request),
            (handle, offset),
            true,
            reply,
        );
    }

    fn releasedir(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let asked = self.asked(Op::Releasedir, inode, request);
        self.vfs.releasedir(handle.0);
        self.done(asked, reply, async { Ok(()) });
    }

    fn fsyncdir(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let (vfs, asked) = (self.vfs.clone(), self.asked(Op::Fsyncdir, inode, request));
        self.done(asked, reply, async move { vfs.fsyncdir(handle.0).await });
    }

    fn statfs(&self, request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let (vfs, asked) = (self.vfs.clone(), self.asked(Op::Statfs, inode, request));
        let work = async move { Ok(vfs.statfs().await) };
        self.desk
            .serve(asked, reply, work, |reply, room| attr::reply_room(reply, &room));
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = decode::xattr_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (vfs, caller, name, value) = (
            self.vfs.clone(),
            self.names.caller(request),
            owned(name),
            value.to_vec(),
        );
        let asked = self.asked(Op::Setxattr, inode, request).until_killed();
        self.done(asked, reply, async move {
            let (name, value) = (&name[..], &value[..]);
            vfs.setxattr(caller, inode.0, SetXattr { name, value, mode })
                .await
        });
    }

    fn getxattr(&self, request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if decode::is_unknown_space(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let (vfs, caller, name) = (self.vfs.clone(), self.names.caller(request), owned(name));
        let asked = self.asked(Op::Getxattr, inode, request);
        let work = async move { vfs.getxattr(caller, inode.0, &name).await };
        self.desk.serve(asked, reply, work, move |reply, value| {
            attr::reply_sized(reply, size, &value)
        });
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let (vfs, caller) = (self.vfs.clone(), self.names.caller(request));
        let asked = self.asked(Op::Listxattr, inode, request);
        let work = async move { vfs.listxattr(caller, inode.0).await };
        self.desk.serve(asked, reply, work, move |reply, names| {
            attr::reply_sized(reply, size, &names)
        });
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, caller, name) = (self.vfs.clone(), self.names.caller(request), owned(name));
        let asked = self.asked(Op::Removexattr, inode, request).until_killed();
        self.done(asked, reply, async move {
            vfs.removexattr(caller, inode.0, &name).await
        });
    }

    fn access(&self, request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (vfs, caller) = (self.vfs.clone(), self.names.caller(request));
        let (asked, mask) = (
            self.asked(Op::Access, inode, request),
            mask.bits().cast_unsigned(),
        );
        self.done(
            asked,
            reply,
            async move { vfs.access(caller, inode.0, mask).await },
        );
    }

    fn getlk(
        &self,
        request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let Some(lock) = decode::lock(owner, (start, end), typ, pid) else {
            return reply.error(Errno::EINVAL);
        };
        let (vfs, caller) = (self.vfs.clone(), self.names.caller(request));
        let asked = self.asked(Op::Getlk, inode, request);
        let work = async move { vfs.getlk(caller, inode.0, lock).await };
        self.desk
            .serve(asked, reply, work, move |reply, found| match found {
                Some(other) => reply.locked(
                    other.start,
                    other.end.min(decode::END_OF_FILES),
                    decode::lock_type(other.kind),
                    other.pid,
                ),
                None => reply.locked(0, 0, decode::lock_type(LockKind::Unlock), 0),
            });
    }

    fn setlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let Some(lock) = decode::lock(owner, (start, end), typ, pid) else {
            return reply.error(Errno::EINVAL);
        };
        let (vfs, token) = (self.vfs.clone(), CancellationToken::new());
        let mut asked = self.asked(Op::Setlk, inode, request);
        if sleep {
            asked = asked.until_cancelled(token.clone());
        }
        let work = async move {
            let cancelled = sleep.then(|| token.cancelled());
            vfs.setlk(inode.0, handle.0, lock, cancelled).await
        };
        self.desk.serve(asked, reply, work, |reply, locked| match locked {
            Locked::Done => reply.ok(),
            Locked::Held => reply.error(Errno::EAGAIN),
            Locked::Deadlock => reply.error(Errno::EDEADLK),
            Locked::Cancelled => reply.error(Errno::EINTR),
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(how) = decode::allocate(mode) else {
            return reply.error(Errno::EOPNOTSUPP);
        };
        let (vfs, at) = (self.vfs.clone(), at(inode, handle, offset));
        let asked = self.asked(Op::Fallocate, inode, request).until_killed();
        self.done(asked, reply, async move { vfs.fallocate(at, length, how).await });
    }

    fn lseek(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (Some(whence), Ok(offset)) = (decode::whence(whence), u64::try_from(offset)) else {
            return reply.error(decode::no_place(offset));
        };
        let (vfs, at) = (self.vfs.clone(), at(inode, handle, offset));
        let asked = self.asked(Op::Lseek, inode, request);
        let work = async move { vfs.lseek(at, whence).await };
        self.desk.serve(asked, reply, work, |reply, found| match found {
            Some(offset) => reply.offset(offset.cast_signed()),
            None => reply.error(Errno::ENXIO),
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (vfs, from, to) = (
            self.vfs.clone(),
            at(ino_in, fh_in, offset_in),
            at(ino_out, fh_out, offset_out),
        );
        let asked = self.asked(Op::CopyFileRange, ino_out, request);
        let work = async move { vfs.copy_file_range(from, to, len.min(COPY_BYTES_MAX)).await };
        self.desk.serve(asked, reply, work, |reply, copied| {
            reply.written(u32::try_from(copied).expect("no more than was asked for"));
        });
    }

    fn ioctl(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_bytes: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
