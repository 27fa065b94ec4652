//! Attributes and who may change them (chmod(2), chown(2), utimensat(2), truncate(2); Linux's `setattr_prepare`).

use dfs_proto::limits::GOAL_MAX;
use dfs_proto::{ChunkHandle, Code, Error, InodeId, Result, Version};

use super::access::{self, Access, MODE_BITS, SGID};
use super::context::Context;
use super::lookup::attributes_of;
use super::{files, tables, xattrs};
use crate::command::{Caller, Changed, Reply, SetAttributes};
use crate::store::records::{Inode, Kind};

/// What execve(2) gives a program; as good as suid.
const CAPABILITY: &[u8] = b"security.capability";

/// An inode changed, its bytes did not.
pub(super) fn touch(inode: &mut Inode, now_ns: i64) {
    inode.ctime_ns = now_ns;
    inode.change += 1;
}

/// Bytes or length of a file changed: times move, and nobody but the superuser leaves suid behind.
pub(super) fn bytes_changed(ctx: &Context<'_, '_>, inode: &mut Inode) {
    inode.mtime_ns = ctx.now_ns;
    touch(inode, ctx.now_ns);
    drop_privileges(&ctx.caller, inode);
}

/// A user other than the superuser wrote.
pub(super) fn drop_privileges(caller: &Caller, inode: &mut Inode) {
    if !caller.is_root() {
        inode.mode = access::without_privileges(caller, inode);
    }
}

pub(super) fn set(ctx: &mut Context<'_, '_>, set: &SetAttributes) -> Result<Reply> {
    let id = InodeId(set.inode);
    let mut inode = tables::inode(ctx.txn, id)?;
    check_owner(&ctx.caller, &inode, set)?;
    check_mode_and_goal(&ctx.caller, &inode, set)?;
    check_times(&ctx.caller, &inode, set)?;
    check_size(ctx, id, &inode, set)?;

    let killed = kills_privileges(ctx, id, &mut inode, set);
    if !killed && *set == only_kill(set) {
        return Ok(answer(ctx, id, &inode, None));
    }
    let mut truncating = None;
    if let Some(size) = set.size {
        truncating = files::set_size(ctx, id, &mut inode, size)?;
        bytes_changed(ctx, &mut inode);
    }
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    if let Some(mode) = set.mode {
        let may_setgid = ctx.caller.is_root() || ctx.caller.is_in(inode.gid);
        inode.mode = mode & MODE_BITS & if may_setgid { MODE_BITS } else { !SGID };
    }
    set_times(&mut inode, set, ctx.now_ns);
    inode.goal = set.goal.unwrap_or(inode.goal);
    if set.size.is_none() {
        touch(&mut inode, ctx.now_ns);
    }
    tables::save_inode(ctx.txn, id, &inode);
    Ok(answer(ctx, id, &inode, truncating))
}

fn answer(
    ctx: &Context<'_, '_>,
    id: InodeId,
    inode: &Inode,
    truncating: Option<(ChunkHandle, Version)>,
) -> Reply {
    let (chunk, version) = truncating.map_or((0, 0), |(chunk, version)| (chunk.0, version.0));
    Reply::Changed(Changed {
        attributes: attributes_of(ctx.txn, id, inode),
        truncating: chunk,
        truncating_version: version,
        touched: Vec::new(),
    })
}

/// Nothing but taking privileges away.
fn only_kill(set: &SetAttributes) -> SetAttributes {
    SetAttributes {
        inode: set.inode,
        by_handle: set.by_handle,
        kill_privileges: true,
        ..SetAttributes::default()
    }
}

/// A write, or a new owner or group, takes suid, sgid and `security.capability` of a file away, the superuser's chown
/// too (as Linux). True if there was anything to take.
fn kills_privileges(ctx: &mut Context<'_, '_>, id: InodeId, inode: &mut Inode, set: &SetAttributes) -> bool {
    // A mount hears of chown(-1, -1) as of a change of nothing.
    let is_nothing = SetAttributes {
        kill_privileges: true,
        ..set.clone()
    } == only_kill(set);
    let owns = access::require_owner(&ctx.caller, inode).is_ok();
    let kills = set.kill_privileges || set.uid.is_some() || set.gid.is_some() || (is_nothing && owns);
    if !kills || inode.kind() == Kind::Directory {
        return false;
    }
    let before = inode.mode;
    inode.mode = access::without_privileges(&ctx.caller, inode);
    xattrs::take(ctx, id, inode, CAPABILITY).is_some() || inode.mode != before
}

/// The superuser gives files away; an owner gives them to groups of its own.
fn check_owner(caller: &Caller, inode: &Inode, set: &SetAttributes) -> Result<()> {
    let owns = caller.uid == inode.uid;
    let uid_ok = set.uid.is_none_or(|uid| owns && uid == inode.uid);
    let gid_ok = set
        .gid
        .is_none_or(|gid| owns && (gid == inode.gid || caller.is_in(gid)));
    if caller.is_root() || (uid_ok && gid_ok) {
        Ok(())
    } else {
        Err(Error::new(Code::NotPermitted, "only root gives files away"))
    }
}

fn check_mode_and_goal(caller: &Caller, inode: &Inode, set: &SetAttributes) -> Result<()> {
    if set.mode.is_some() || set.goal.is_some() {
        access::require_owner(caller, inode)?;
    }
    if set.mode.is_some() && inode.kind() == Kind::Symlink {
        return Err(Error::new(Code::NotSupported, "a symbolic link has no mode"));
    }
    if set.goal.is_some_and(|goal| goal > GOAL_MAX) {
        return Err(Error::new(Code::InvalidArgument, "the goal is too high"));
    }
    Ok(())
}

/// Chosen times are the owner's; "now" for both, or with a new size, needs write permission only.
fn check_times(caller: &Caller, inode: &Inode, set: &SetAttributes) -> Result<()> {
    if set.atime_ns.is_some() || set.mtime_ns.is_some() {
        return access::require_owner(caller, inode);
    }
    if !(set.atime_now || set.mtime_now) || set.size.is_some() {
        return Ok(());
    }
    if access::require_owner(caller, inode).is_ok() {
        return Ok(());
    }
    if set.atime_now && set.mtime_now {
        return access::require(caller, inode, Access::WRITE);
    }
    Err(Error::new(Code::NotPermitted, "only the owner sets one time"))
}

fn check_size(ctx: &Context<'_, '_>, id: InodeId, inode: &Inode, set: &SetAttributes) -> Result<()> {
    if set.size.is_none() {
        return Ok(());
    }
    tables::file(ctx.txn, id)?;
    if set.by_handle {
        return Ok(());
    }
    access::require(&ctx.caller, inode, Access::WRITE)
}

fn set_times(inode: &mut Inode, set: &SetAttributes, now_ns: i64) {
    let chosen = |now: bool, time: Option<i64>| if now { Some(now_ns) } else { time };
    inode.atime_ns = chosen(set.atime_now, set.atime_ns).unwrap_or(inode.atime_ns);
    inode.mtime_ns = chosen(set.mtime_now, set.mtime_ns).unwrap_or(inode.mtime_ns);
}
