//! Extended attributes (xattr(7)): `user.` for files and directories by their mode bits, `trusted.` for the superuser,
//! `security.` read by all and set by the superuser. There are no POSIX ACLs: `system.` is not supported.

use dfs_proto::limits::{XATTR_TOTAL_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use dfs_proto::name::NAME_BYTES_MAX;
use dfs_proto::{Code, Error, InodeId, Result};

use super::access::{self, Access};
use super::attributes::touch;
use super::context::Context;
use super::lookup::attributes_of;
use super::tables;
use crate::command::{Caller, Done, RemoveXattr, Reply, SetXattr};
use crate::store::records::{Inode, Kind};
use crate::store::{Read, keys};

/// Who may use a name.
enum Namespace {
    User,
    Trusted,
    Security,
}

fn namespace(name: &[u8]) -> Result<Namespace> {
    let known: [(&[u8], Namespace); 3] = [
        (b"user.", Namespace::User),
        (b"trusted.", Namespace::Trusted),
        (b"security.", Namespace::Security),
    ];
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::new(
            Code::InvalidArgument,
            "the attribute's name is too long",
        ));
    }
    for (prefix, found) in known {
        if let Some(rest) = name.strip_prefix(prefix) {
            return match rest {
                [] => Err(Error::new(Code::InvalidArgument, "an attribute needs a name")),
                [_, ..] if rest.contains(&0) => Err(Error::new(
                    Code::InvalidArgument,
                    "an attribute's name has no NUL",
                )),
                [_, ..] => Ok(found),
            };
        }
    }
    Err(Error::new(Code::NotSupported, "no such namespace of attributes"))
}

/// Read: what may not be seen is not there. `user.` of special files and symlinks never is.
fn require_read(caller: &Caller, inode: &Inode, name: &[u8]) -> Result<()> {
    match namespace(name)? {
        Namespace::User if !has_user_attributes(inode) => Err(Code::NoAttribute.into()),
        Namespace::User => access::require(caller, inode, Access::READ),
        Namespace::Trusted if !caller.is_root() => Err(Code::NoAttribute.into()),
        Namespace::Trusted | Namespace::Security => Ok(()),
    }
}

fn require_write(caller: &Caller, inode: &Inode, name: &[u8]) -> Result<()> {
    match namespace(name)? {
        Namespace::User if !has_user_attributes(inode) => Err(Error::new(
            Code::NotPermitted,
            "only files and directories have user attributes",
        )),
        Namespace::User if inode.kind() == Kind::Directory && inode.mode & access::STICKY != 0 => {
            access::require_owner(caller, inode)?;
            access::require(caller, inode, Access::WRITE)
        }
        Namespace::User => access::require(caller, inode, Access::WRITE),
        Namespace::Trusted | Namespace::Security if !caller.is_root() => Err(Code::NotPermitted.into()),
        Namespace::Trusted | Namespace::Security => Ok(()),
    }
}

fn has_user_attributes(inode: &Inode) -> bool {
    matches!(inode.kind(), Kind::File | Kind::Directory)
}

/// The value of an attribute.
///
/// # Errors
/// `NotFound`, `NoAttribute`, `PermissionDenied`, `NotSupported`, `InvalidArgument`.
pub fn get_xattr(read: &dyn Read, caller: &Caller, inode: InodeId, name: &[u8]) -> Result<Vec<u8>> {
    require_read(caller, &tables::inode(read, inode)?, name)?;
    read.get(&keys::xattr(inode, name))
        .ok_or_else(|| Code::NoAttribute.into())
}

/// The names of the attributes the caller may know of, in order.
///
/// # Errors
/// `NotFound`.
pub fn list_xattr(read: &dyn Read, caller: &Caller, inode: InodeId) -> Result<Vec<Vec<u8>>> {
    tables::inode(read, inode)?;
    let prefix = keys::under(keys::XATTR, inode.0);
    let names = read
        .scan_prefix(&prefix)
        .map(|(key, _)| key[prefix.len()..].to_vec());
    Ok(names
        .filter(|name| caller.is_root() || !name.starts_with(b"trusted."))
        .collect())
}

pub(super) fn set(ctx: &mut Context<'_, '_>, set: &SetXattr) -> Result<Reply> {
    let id = InodeId(set.inode);
    let mut inode = tables::inode(ctx.txn, id)?;
    require_write(&ctx.caller, &inode, &set.name)?;
    if set.value.len() > XATTR_VALUE_BYTES_MAX {
        return Err(Error::new(Code::TooLarge, "the attribute's value is too long"));
    }
    let key = keys::xattr(id, &set.name);
    let size = |value: &[u8]| (set.name.len() + value.len()) as u64;
    let old = match ctx.txn.get(&key) {
        Some(_) if set.create => return Err(Code::AlreadyExists.into()),
        None if set.replace => return Err(Code::NoAttribute.into()),
        Some(value) => size(&value),
        None => 0,
    };
    let total = inode.xattr_bytes - old + size(&set.value);
    if total > XATTR_TOTAL_BYTES_MAX as u64 {
        return Err(Error::new(
            Code::NoSpace,
            "the attributes of one inode are too many",
        ));
    }
    inode.xattr_bytes = total;
    touch(&mut inode, ctx.now_ns);
    ctx.txn.put(key, set.value.as_slice());
    tables::save_inode(ctx.txn, id, &inode);
    Ok(done(ctx, id, &inode))
}

fn done(ctx: &Context<'_, '_>, id: InodeId, inode: &Inode) -> Reply {
    Reply::Done(Done {
        touched: vec![attributes_of(ctx.txn, id, inode)],
    })
}

/// Removes an attribute that may be there and returns its value. The caller saves the inode.
pub(super) fn take(
    ctx: &mut Context<'_, '_>,
    id: InodeId,
    inode: &mut Inode,
    name: &[u8],
) -> Option<Vec<u8>> {
    let key = keys::xattr(id, name);
    let value = ctx.txn.get(&key)?;
    inode.xattr_bytes -= (name.len() + value.len()) as u64;
    ctx.txn.remove(key);
    Some(value)
}

pub(super) fn remove(ctx: &mut Context<'_, '_>, gone: &RemoveXattr) -> Result<Reply> {
    let id = InodeId(gone.inode);
    let mut inode = tables::inode(ctx.txn, id)?;
    require_write(&ctx.caller, &inode, &gone.name)?;
    take(ctx, id, &mut inode, &gone.name).ok_or(Code::NoAttribute)?;
    touch(&mut inode, ctx.now_ns);
    tables::save_inode(ctx.txn, id, &inode);
    Ok(done(ctx, id, &inode))
}

/// The inode goes: all its attributes with it.
pub(super) fn remove_all(ctx: &mut Context<'_, '_>, id: InodeId) {
    let prefix = keys::under(keys::XATTR, id.0);
    let gone: Vec<_> = ctx.txn.scan_prefix(&prefix).map(|(key, _)| key).collect();
    gone.into_iter().for_each(|key| ctx.txn.remove(key));
}
