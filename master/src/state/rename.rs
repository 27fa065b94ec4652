//! rename(2), with `RENAME_NOREPLACE` and `RENAME_EXCHANGE`. The order of checks is Linux's (`vfs_rename`).

use dfs_proto::{Code, Error, InodeId, Result};

use super::access::{self, Access};
use super::attributes::touch;
use super::context::Context;
use super::entries::{self, Place};
use super::lookup::attributes_of;
use super::orphans::{self, Keepers};
use super::{names, tables};
use crate::command::{Attributes, Done, Rename, Reply};
use crate::store::Read;
use crate::store::records::{Dentry, Inode, Kind};

/// A name under rename with all that is asked of it.
struct Side {
    place: Place,
    directory: Inode,
    dentry: Dentry,
    inode: Inode,
}

impl Side {
    fn id(&self) -> InodeId {
        InodeId(self.dentry.inode)
    }

    fn is_directory(&self) -> bool {
        self.inode.kind() == Kind::Directory
    }
}

pub(super) fn rename(ctx: &mut Context<'_, '_>, rename: &Rename) -> Result<Reply> {
    if rename.no_replace && rename.exchange {
        return Err(Error::new(Code::InvalidArgument, "replace nothing, or exchange"));
    }
    let (place, directory, dentry) = names::find_existing(ctx, rename.parent, &rename.name)?;
    let from = side(ctx, place, directory, dentry);
    let (place, directory, dentry) = names::find(ctx, rename.new_parent, &rename.new_name)?;
    match dentry {
        Some(_) if rename.no_replace => Err(Code::AlreadyExists.into()),
        None if rename.exchange => Err(Error::new(Code::NotFound, "")),
        Some(dentry) => {
            let to = side(ctx, place, directory, dentry);
            check_ancestors(ctx.txn, &from, &to, rename.exchange)?;
            if from.dentry.inode == to.dentry.inode {
                return Ok(Reply::Done(Done::default()));
            }
            let other = if rename.exchange {
                exchange(ctx, &from, &to)?
            } else {
                let keepers = Keepers {
                    sessions: &rename.holders,
                    chosen_for: rename.dying,
                };
                replace(ctx, &from, &to, &keepers)?
            };
            Ok(done(ctx, &from, to.place.parent, Some(other)))
        }
        None => {
            refuse_own_descendant(ctx.txn, &from, place.parent)?;
            access::require_removal(&ctx.caller, &from.directory, &from.inode)?;
            names::require_creation(ctx, &directory)?;
            require_move(ctx, &from, place.parent)?;
            entries::remove(ctx, &from.place, from.dentry);
            entries::add(ctx, &place, from.id(), from.inode.kind());
            arrive(ctx, from.id(), place.parent);
            Ok(done(ctx, &from, place.parent, None))
        }
    }
}

/// The answer: what was moved, both directories, and what was replaced or exchanged.
fn done(ctx: &Context<'_, '_>, from: &Side, into: InodeId, other: Option<Attributes>) -> Reply {
    let mut touched = vec![names::now(ctx, from.id()), names::now(ctx, from.place.parent)];
    if into != from.place.parent {
        touched.push(names::now(ctx, into));
    }
    touched.extend(other);
    Reply::Done(Done { touched })
}

fn side(ctx: &Context<'_, '_>, place: Place, directory: Inode, dentry: Dentry) -> Side {
    let inode = tables::known_inode(ctx.txn, InodeId(dentry.inode));
    Side {
        place,
        directory,
        dentry,
        inode,
    }
}

/// A directory cannot move below itself, nor take the place of one that it is in.
fn check_ancestors(read: &dyn Read, from: &Side, to: &Side, exchange: bool) -> Result<()> {
    refuse_own_descendant(read, from, to.place.parent)?;
    if to.is_directory() && is_at_or_below(read, from.place.parent, to.id()) {
        return Err(if exchange {
            Error::new(Code::InvalidArgument, "a directory cannot move into itself")
        } else {
            Code::NotEmpty.into()
        });
    }
    Ok(())
}

fn refuse_own_descendant(read: &dyn Read, from: &Side, into: InodeId) -> Result<()> {
    if from.is_directory() && is_at_or_below(read, into, from.id()) {
        return Err(Error::new(
            Code::InvalidArgument,
            "a directory cannot move into itself",
        ));
    }
    Ok(())
}

pub(super) fn is_at_or_below(read: &dyn Read, directory: InodeId, ancestor: InodeId) -> bool {
    let mut at = directory;
    loop {
        if at == ancestor {
            return true;
        }
        if at == InodeId::ROOT {
            return false;
        }
        at = InodeId(tables::known_inode(read, at).parent);
    }
}

/// A directory that gets another parent has its `..` written.
fn require_move(ctx: &Context<'_, '_>, from: &Side, into: InodeId) -> Result<()> {
    if from.is_directory() && from.place.parent != into {
        access::require(&ctx.caller, &from.inode, Access::WRITE)?;
    }
    Ok(())
}

/// Returns what was replaced, as it is or was at last.
fn replace(ctx: &mut Context<'_, '_>, from: &Side, to: &Side, keepers: &Keepers<'_>) -> Result<Attributes> {
    access::require_removal(&ctx.caller, &from.directory, &from.inode)?;
    access::require_removal(&ctx.caller, &to.directory, &to.inode)?;
    match (from.is_directory(), to.is_directory()) {
        (true, false) => return Err(Code::NotADirectory.into()),
        (false, true) => return Err(Code::IsADirectory.into()),
        (true, true) | (false, false) => {}
    }
    require_move(ctx, from, to.place.parent)?;
    if to.inode.entries > 0 {
        return Err(Code::NotEmpty.into());
    }
    entries::remove(ctx, &from.place, from.dentry);
    entries::point(ctx, &to.place, to.dentry, from.dentry);
    let replaced = if to.is_directory() {
        names::forget_directory(ctx, to.id())
    } else {
        orphans::drop_link(ctx, to.id(), keepers)?
    };
    arrive(ctx, from.id(), to.place.parent);
    Ok(attributes_of(ctx.txn, to.id(), &replaced))
}

fn exchange(ctx: &mut Context<'_, '_>, from: &Side, to: &Side) -> Result<Attributes> {
    access::require_removal(&ctx.caller, &from.directory, &from.inode)?;
    access::require_removal(&ctx.caller, &to.directory, &to.inode)?;
    require_move(ctx, from, to.place.parent)?;
    require_move(ctx, to, from.place.parent)?;
    entries::point(ctx, &from.place, from.dentry, to.dentry);
    entries::point(ctx, &to.place, to.dentry, from.dentry);
    arrive(ctx, from.id(), to.place.parent);
    arrive(ctx, to.id(), from.place.parent);
    Ok(names::now(ctx, to.id()))
}

/// The inode has its new name: its ctime moves, and a directory knows where it hangs.
pub(super) fn arrive(ctx: &mut Context<'_, '_>, id: InodeId, parent: InodeId) {
    let now_ns = ctx.now_ns;
    tables::edit_inode(ctx.txn, id, |inode| {
        if inode.kind() == Kind::Directory {
            inode.parent = parent.0;
        }
        touch(inode, now_ns);
    });
}
