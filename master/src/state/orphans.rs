//! Removed files that stay usable: an inode without a name lives while sessions hold it (unlink(2): "if any processes
//! still have the file open, the file will remain in existence").
//!
//! Who holds it is decided before the log, for the inode the name meant then. Two tables tell it both ways round:
//! inode -> sessions, session -> inodes. Directories are not kept.

use dfs_proto::{ClientId, Code, Error, InodeId, Result};

use super::attributes::touch;
use super::context::Context;
use super::{clients, files, locks, tables, xattrs};
use crate::command::{Done, Release, Reply};
use crate::store::records::{Inode, Kind};
use crate::store::{Read, keys};

/// Inodes that one command may release.
const RELEASED_MAX: usize = 4_096;

/// Who keeps an inode that loses its last name.
pub(super) struct Keepers<'a> {
    /// Sessions; those that have ended do not count.
    pub(super) sessions: &'a [u64],
    /// The inode they were chosen for, 0: there was none; `None`: nobody chose.
    pub(super) chosen_for: Option<u64>,
}

/// The inode that would lose a name with this one, if it is one that can be kept.
#[must_use]
pub fn dying(read: &dyn Read, parent: InodeId, name: &[u8]) -> Option<InodeId> {
    tables::dentry(read, parent, name)
        .filter(|d| d.kind() != Kind::Directory)
        .map(|d| InodeId(d.inode))
}

/// The sessions that hold a removed inode.
#[must_use]
pub fn holders(read: &dyn Read, inode: InodeId) -> Vec<ClientId> {
    read.scan_prefix(&keys::under(keys::HOLDER, inode.0))
        .map(|(key, _)| ClientId(keys::last_number(&key)))
        .collect()
}

/// The removed inodes that a session holds.
#[must_use]
pub fn held(read: &dyn Read, client: ClientId) -> Vec<InodeId> {
    read.scan_prefix(&keys::under(keys::HELD, client.0))
        .map(|(key, _)| InodeId(keys::last_number(&key)))
        .collect()
}

/// One name less; with the last one the inode, its attributes and its chunks go, unless sessions keep it.
/// Returns it as it is now, or was at last.
pub(super) fn drop_link(ctx: &mut Context<'_, '_>, id: InodeId, keepers: &Keepers<'_>) -> Result<Inode> {
    let mut inode = tables::known_inode(ctx.txn, id);
    inode.nlink -= 1;
    touch(&mut inode, ctx.now_ns);
    tables::save_inode(ctx.txn, id, &inode);
    if inode.nlink > 0 {
        return Ok(inode);
    }
    if keepers.chosen_for.is_some_and(|chosen| chosen != id.0) {
        return Err(Error::new(Code::Busy, "the name means another file by now"));
    }
    let live = |session: &u64| clients::client(ctx.txn, ClientId(*session)).is_some();
    let sessions: Vec<u64> = keepers.sessions.iter().copied().filter(live).collect();
    for session in &sessions {
        ctx.txn.put(keys::holder(id, ClientId(*session)), []);
        ctx.txn.put(keys::held(ClientId(*session), id), []);
    }
    if sessions.is_empty() {
        free(ctx, id);
    }
    Ok(inode)
}

fn free(ctx: &mut Context<'_, '_>, id: InodeId) {
    let mut inode = tables::known_inode(ctx.txn, id);
    assert!(inode.nlink == 0 && inode.kind() != Kind::Directory);
    if inode.chunks > 0 {
        files::free_from(ctx, id, &mut inode, 0);
    }
    forget(ctx, id, &inode);
    tables::count(ctx.txn, |c| c.files -= 1);
}

/// The record of an inode goes with all that hangs on it but chunks.
pub(super) fn forget(ctx: &mut Context<'_, '_>, id: InodeId, inode: &Inode) {
    if inode.xattr_bytes > 0 {
        xattrs::remove_all(ctx, id);
    }
    locks::remove_all(ctx, id);
    ctx.txn.remove(keys::inode(id));
}

pub(super) fn release(ctx: &mut Context<'_, '_>, release: &Release) -> Result<Reply> {
    let client = ctx
        .client
        .ok_or_else(|| Error::new(Code::InvalidArgument, "a session releases what it holds"))?;
    if release.inodes.len() > RELEASED_MAX {
        return Err(Error::new(Code::InvalidArgument, "too many inodes at once"));
    }
    for id in &release.inodes {
        let_go(ctx, client, InodeId(*id));
    }
    Ok(Reply::Done(Done::default()))
}

/// A session ends: it holds nothing any more.
pub(super) fn end_client(ctx: &mut Context<'_, '_>, client: ClientId) {
    for id in held(ctx.txn, client) {
        let_go(ctx, client, id);
    }
}

fn let_go(ctx: &mut Context<'_, '_>, client: ClientId, id: InodeId) {
    let key = keys::holder(id, client);
    if !ctx.txn.contains(&key) {
        return;
    }
    ctx.txn.remove(key);
    ctx.txn.remove(keys::held(client, id));
    if holders(ctx.txn, id).is_empty() {
        free(ctx, id);
    }
}
