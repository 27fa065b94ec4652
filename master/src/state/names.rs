//! Names come and go: link(2), unlink(2), rmdir(2). The order of checks is Linux's (`fs/namei.c`: `may_create`, `may_delete`).

use dfs_proto::limits::LINKS_MAX;
use dfs_proto::name::Name;
use dfs_proto::{Code, Error, InodeId, Result};

use super::access::{self, Access};
use super::attributes::touch;
use super::context::Context;
use super::entries::{self, Place};
use super::lookup::attributes_of;
use super::orphans::{self, Keepers};
use super::{tables, trash};
use crate::command::{Attributes, Changed, Done, Link, RemoveDirectory, Reply, Unlink};
use crate::store::records::{Dentry, Inode, Kind};

/// A directory the caller may pass, a good name, and what it names.
pub(super) fn find(
    ctx: &Context<'_, '_>,
    parent: u64,
    name: &[u8],
) -> Result<(Place, Inode, Option<Dentry>)> {
    let parent = InodeId(parent);
    if trash::trash_directory(ctx.txn) == Some(parent) {
        return Err(Error::new(
            Code::NotFound,
            "the trash is no directory of the tree",
        ));
    }
    let directory = tables::directory(ctx.txn, parent)?;
    access::require(&ctx.caller, &directory, Access::EXECUTE)?;
    let name = Name::new(name)?;
    let dentry = tables::dentry(ctx.txn, parent, name.as_bytes());
    Ok((Place { parent, name }, directory, dentry))
}

/// As [`find`], for a name that must be there.
pub(super) fn find_existing(
    ctx: &Context<'_, '_>,
    parent: u64,
    name: &[u8],
) -> Result<(Place, Inode, Dentry)> {
    match find(ctx, parent, name)? {
        (place, directory, Some(dentry)) => Ok((place, directory, dentry)),
        (_, _, None) => Err(Error::new(Code::NotFound, "")),
    }
}

pub(super) fn require_creation(ctx: &Context<'_, '_>, directory: &Inode) -> Result<()> {
    access::require(&ctx.caller, directory, Access::WRITE.and(Access::EXECUTE))
}

/// What a command did to inodes that are still there, for its answer.
pub(super) fn now(ctx: &Context<'_, '_>, id: InodeId) -> Attributes {
    attributes_of(ctx.txn, id, &tables::known_inode(ctx.txn, id))
}

pub(super) fn link(ctx: &mut Context<'_, '_>, link: &Link) -> Result<Reply> {
    let id = InodeId(link.inode);
    let mut inode = tables::inode(ctx.txn, id)?;
    let (place, directory, existing) = find(ctx, link.parent, &link.name)?;
    if existing.is_some() {
        return Err(Code::AlreadyExists.into());
    }
    require_creation(ctx, &directory)?;
    if inode.kind() == Kind::Directory {
        return Err(Error::new(Code::NotPermitted, "a directory has one name"));
    }
    if inode.nlink == 0 {
        return Err(Error::new(Code::NotFound, "a removed file gets no name again"));
    }
    if inode.nlink >= LINKS_MAX {
        return Err(Code::LinkLimit.into());
    }
    inode.nlink += 1;
    touch(&mut inode, ctx.now_ns);
    tables::save_inode(ctx.txn, id, &inode);
    entries::add(ctx, &place, id, inode.kind());
    Ok(Reply::Changed(Changed {
        attributes: attributes_of(ctx.txn, id, &inode),
        touched: vec![now(ctx, place.parent)],
        ..Changed::default()
    }))
}

pub(super) fn unlink(ctx: &mut Context<'_, '_>, unlink: &Unlink) -> Result<Reply> {
    let (place, directory, dentry) = find_existing(ctx, unlink.parent, &unlink.name)?;
    let id = InodeId(dentry.inode);
    let inode = tables::known_inode(ctx.txn, id);
    access::require_removal(&ctx.caller, &directory, &inode)?;
    if inode.kind() == Kind::Directory {
        return Err(Code::IsADirectory.into());
    }
    entries::remove(ctx, &place, dentry);
    let keepers = Keepers {
        sessions: &unlink.holders,
        chosen_for: unlink.dying,
    };
    let inode = orphans::drop_link(ctx, id, &keepers)?;
    Ok(Reply::Done(Done {
        touched: vec![attributes_of(ctx.txn, id, &inode), now(ctx, place.parent)],
    }))
}

pub(super) fn remove_directory(ctx: &mut Context<'_, '_>, gone: &RemoveDirectory) -> Result<Reply> {
    let (place, directory, dentry) = find_existing(ctx, gone.parent, &gone.name)?;
    let id = InodeId(dentry.inode);
    let inode = tables::known_inode(ctx.txn, id);
    access::require_removal(&ctx.caller, &directory, &inode)?;
    if inode.kind() != Kind::Directory {
        return Err(Code::NotADirectory.into());
    }
    if inode.entries > 0 {
        return Err(Code::NotEmpty.into());
    }
    entries::remove(ctx, &place, dentry);
    let inode = forget_directory(ctx, id);
    Ok(Reply::Done(Done {
        touched: vec![attributes_of(ctx.txn, id, &inode), now(ctx, place.parent)],
    }))
}

/// An empty directory without a name goes. Returns it as it was at last.
pub(super) fn forget_directory(ctx: &mut Context<'_, '_>, id: InodeId) -> Inode {
    let mut inode = tables::known_inode(ctx.txn, id);
    inode.nlink = 0;
    touch(&mut inode, ctx.now_ns);
    orphans::forget(ctx, id, &inode);
    tables::count(ctx.txn, |c| c.directories -= 1);
    inode
}
