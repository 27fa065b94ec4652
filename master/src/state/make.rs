//! New inodes: open(2) with `O_CREAT`, mkdir(2), mknod(2), symlink(2).

use dfs_proto::limits::GOAL_MAX;
use dfs_proto::name::PATH_BYTES_MAX;
use dfs_proto::{Code, Error, InodeId, Result};

use super::access::{self, Access, SGID, STICKY};
use super::context::Context;
use super::entries::{self, Place};
use super::{attributes, files, names, tables};
use crate::command::{Made, Make, Reply, Slot};
use crate::store::records::{Inode, Kind};

const GROUP_EXECUTE: u32 = 0o0010;

pub(super) fn make(ctx: &mut Context<'_, '_>, make: &Make) -> Result<Reply> {
    let (place, directory, existing) = names::find(ctx, make.parent, &make.name)?;
    if let Some(dentry) = existing {
        return open_existing(ctx, make, InodeId(dentry.inode));
    }
    names::require_creation(ctx, &directory)?;
    check_shape(ctx, make)?;
    let inode = newborn(ctx, make, &directory);
    let id = number(ctx, inode.kind());
    tables::save_inode(ctx.txn, id, &inode);
    entries::add(ctx, &place, id, inode.kind());
    if inode.kind() == Kind::Directory {
        hang(ctx, id, &place);
    }
    let slot = first_slot(ctx, make, id)?;
    Ok(made(ctx, id, slot, Some(place.parent)))
}

/// With the directory, if the name is new.
fn made(ctx: &Context<'_, '_>, id: InodeId, slot: Option<Slot>, directory: Option<InodeId>) -> Reply {
    let created = directory.is_some();
    Reply::Made(Made {
        attributes: names::now(ctx, id),
        created,
        slot,
        touched: directory.map(|d| names::now(ctx, d)).into_iter().collect(),
    })
}

fn first_slot(ctx: &mut Context<'_, '_>, make: &Make, id: InodeId) -> Result<Option<Slot>> {
    if make.members.is_empty() {
        return Ok(None);
    }
    files::slot_with_chunk(ctx, id, 0, &make.members).map(Some)
}

/// The name is there: a regular file is opened unless the caller wants a new one.
fn open_existing(ctx: &mut Context<'_, '_>, make: &Make, id: InodeId) -> Result<Reply> {
    let mut inode = tables::known_inode(ctx.txn, id);
    if make.kind() != Kind::File || make.exclusive {
        return Err(Code::AlreadyExists.into());
    }
    match inode.kind() {
        Kind::File => {}
        Kind::Directory => return Err(Code::IsADirectory.into()),
        Kind::Unspecified
        | Kind::Symlink
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharacterDevice
        | Kind::BlockDevice => return Err(Code::AlreadyExists.into()),
    }
    if make.write || make.truncate || !make.members.is_empty() {
        access::require(&ctx.caller, &inode, Access::WRITE)?;
    }
    access::require(&ctx.caller, &inode, Access::from_bits(make.access))?;
    if make.truncate {
        let cut = files::set_size(ctx, id, &mut inode, 0)?;
        assert!(cut.is_none(), "size 0 has no boundary chunk");
        attributes::bytes_changed(ctx, &mut inode);
        tables::save_inode(ctx.txn, id, &inode);
    }
    let slot = first_slot(ctx, make, id)?;
    Ok(made(ctx, id, slot, None))
}

fn check_shape(ctx: &Context<'_, '_>, make: &Make) -> Result<()> {
    let invalid = |message: &str| Err(Error::new(Code::InvalidArgument, message));
    if make.goal > GOAL_MAX {
        return invalid("the goal is too high");
    }
    if make.kind() != Kind::File && !make.members.is_empty() {
        return invalid("only regular files have chunks");
    }
    match make.kind() {
        Kind::Unspecified => invalid("an inode needs a kind"),
        Kind::Symlink if make.target.is_empty() => Err(Code::NotFound.into()),
        Kind::Symlink if make.target.len() > PATH_BYTES_MAX => Err(Code::NameTooLong.into()),
        Kind::Symlink if make.target.contains(&0) => invalid("a symlink's target has no NUL"),
        Kind::CharacterDevice | Kind::BlockDevice if !ctx.caller.is_root() => {
            Err(Error::new(Code::NotPermitted, "only root makes device nodes"))
        }
        Kind::CharacterDevice
        | Kind::BlockDevice
        | Kind::Symlink
        | Kind::File
        | Kind::Directory
        | Kind::Fifo
        | Kind::Socket => Ok(()),
    }
}

fn newborn(ctx: &Context<'_, '_>, make: &Make, directory: &Inode) -> Inode {
    let inherits = directory.mode & SGID != 0;
    let gid = if inherits { directory.gid } else { ctx.caller.gid };
    let kind = make.kind();
    let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
    let is_symlink = kind == Kind::Symlink;
    Inode {
        kind: make.kind,
        mode: birth_mode(ctx, make, inherits, gid),
        uid: ctx.caller.uid,
        gid,
        nlink: if kind == Kind::Directory { 2 } else { 1 },
        size: if is_symlink { make.target.len() as u64 } else { 0 },
        atime_ns: ctx.now_ns,
        mtime_ns: ctx.now_ns,
        ctime_ns: ctx.now_ns,
        rdev: if is_device { make.rdev } else { 0 },
        goal: if make.goal == 0 { directory.goal } else { make.goal },
        change: 1,
        target: if is_symlink {
            make.target.clone()
        } else {
            Vec::new()
        },
        ..Inode::default()
    }
}

/// A directory below a setgid one is setgid too; a file cannot be born to run as a group its maker is not in.
fn birth_mode(ctx: &Context<'_, '_>, make: &Make, inherits: bool, gid: u32) -> u32 {
    let mode = make.mode & access::MODE_BITS;
    match make.kind() {
        Kind::Symlink => 0o777,
        Kind::Directory => (mode & (0o777 | STICKY)) | if inherits { SGID } else { 0 },
        Kind::Unspecified
        | Kind::File
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharacterDevice
        | Kind::BlockDevice => {
            let runs_as_group = mode & (SGID | GROUP_EXECUTE) == SGID | GROUP_EXECUTE;
            let may = ctx.caller.is_root() || ctx.caller.is_in(gid);
            if runs_as_group && !may { mode & !SGID } else { mode }
        }
    }
}

fn number(ctx: &mut Context<'_, '_>, kind: Kind) -> InodeId {
    let mut id = 0;
    tables::count(ctx.txn, |c| {
        id = c.next_inode;
        c.next_inode += 1;
        if kind == Kind::Directory {
            c.directories += 1;
        } else {
            c.files += 1;
        }
    });
    InodeId(id)
}

fn hang(ctx: &mut Context<'_, '_>, id: InodeId, place: &Place) {
    tables::edit_inode(ctx.txn, id, |inode| inode.parent = place.parent.0);
}
