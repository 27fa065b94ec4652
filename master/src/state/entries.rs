//! The two tables of a directory, changed together: name -> inode, and cursor -> name for listings.
//!
//! A cursor is given once and grows with every name that is added, so a listing that goes on from one misses nothing
//! and repeats nothing that stays.

use dfs_proto::InodeId;
use dfs_proto::name::Name;

use super::context::Context;
use super::tables;
use crate::store::keys;
use crate::store::records::{Dentry, Inode, Kind};

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) parent: InodeId,
    pub(super) name: Name,
}

/// The directory's bytes changed.
fn modified(directory: &mut Inode, now_ns: i64) {
    directory.mtime_ns = now_ns;
    directory.ctime_ns = now_ns;
    directory.change += 1;
}

/// Adds a name that is not there. A subdirectory is counted in the directory's links.
pub(super) fn add(ctx: &mut Context<'_, '_>, place: &Place, inode: InodeId, kind: Kind) {
    let mut directory = tables::known_inode(ctx.txn, place.parent);
    directory.last_cursor += 1;
    directory.entries += 1;
    directory.nlink += u32::from(kind == Kind::Directory);
    modified(&mut directory, ctx.now_ns);
    tables::save_inode(ctx.txn, place.parent, &directory);
    let dentry = Dentry {
        inode: inode.0,
        kind: kind as i32,
        cursor: directory.last_cursor,
    };
    let name = place.name.as_bytes();
    tables::save(ctx.txn, keys::dentry(place.parent, name), &dentry);
    ctx.txn.put(keys::cursor(place.parent, dentry.cursor), name);
}

/// Takes a name away.
pub(super) fn remove(ctx: &mut Context<'_, '_>, place: &Place, dentry: Dentry) {
    let mut directory = tables::known_inode(ctx.txn, place.parent);
    directory.entries -= 1;
    directory.nlink -= u32::from(dentry.kind() == Kind::Directory);
    modified(&mut directory, ctx.now_ns);
    tables::save_inode(ctx.txn, place.parent, &directory);
    ctx.txn.remove(keys::dentry(place.parent, place.name.as_bytes()));
    ctx.txn.remove(keys::cursor(place.parent, dentry.cursor));
}

/// Lets a name that is there mean something else; it keeps its cursor.
pub(super) fn point(ctx: &mut Context<'_, '_>, place: &Place, old: Dentry, to: Dentry) {
    let mut directory = tables::known_inode(ctx.txn, place.parent);
    directory.nlink += u32::from(to.kind() == Kind::Directory);
    directory.nlink -= u32::from(old.kind() == Kind::Directory);
    modified(&mut directory, ctx.now_ns);
    tables::save_inode(ctx.txn, place.parent, &directory);
    let dentry = Dentry {
        cursor: old.cursor,
        ..to
    };
    tables::save(
        ctx.txn,
        keys::dentry(place.parent, place.name.as_bytes()),
        &dentry,
    );
}
