//! Which names of a tree in the trash go next: a walk that stops after a budget and goes on later.

use dfs_proto::{InodeId, Result as Outcome};

use super::access::{self, Access};
use super::tables;
use super::trash::trash_directory;
use crate::command::{Caller, PurgeStep};
use crate::store::records::{Dentry, Kind};
use crate::store::{Key, Read, keys};

/// Where a walk goes on.
#[derive(Clone, Debug)]
pub struct Walk(Vec<Frame>);

/// A directory that is being emptied.
#[derive(Clone, Debug)]
struct Frame {
    parent: InodeId,
    name: Vec<u8>,
    inode: InodeId,
    /// The names before this key are done.
    from: Key,
}

/// Up to `max` names in the order in which they can go, and where to go on; `None`: the entry itself is the last of them,
/// or is gone.
#[must_use]
pub fn purgeable(
    read: &dyn Read,
    entry: u64,
    walk: Option<Walk>,
    max: usize,
) -> (Vec<PurgeStep>, Option<Walk>) {
    let mut steps = Vec::new();
    let mut frames = match walk {
        Some(walk) => walk.0,
        None => match top(read, entry) {
            Some(Ok(frame)) => vec![frame],
            Some(Err(step)) => return (vec![step], None),
            None => return (steps, None),
        },
    };
    while let Some(frame) = frames.last_mut() {
        if steps.len() >= max {
            return (steps, Some(Walk(frames)));
        }
        let end = crate::store::after_prefix(&keys::under(keys::DENTRY, frame.inode.0));
        let next = read.scan(&frame.from, &end).next();
        if let Some((key, value)) = next {
            frame.from.clone_from(&key);
            frame.from.push(0);
            match below(frame.inode, &key[9..], tables::decode(&value)) {
                Ok(deeper) => frames.push(deeper),
                Err(step) => steps.push(step),
            }
        } else if let Some(done) = frames.pop() {
            steps.push(step(done.parent, &done.name, done.inode.0));
        }
    }
    (steps, None)
}

fn top(read: &dyn Read, entry: u64) -> Option<Result<Frame, PurgeStep>> {
    let bin = trash_directory(read)?;
    let name = format!("{entry:016x}").into_bytes();
    let dentry = tables::dentry(read, bin, &name)?;
    Some(below(bin, &name, dentry))
}

/// A directory to empty, or a name that can go.
fn below(parent: InodeId, name: &[u8], dentry: Dentry) -> Result<Frame, PurgeStep> {
    if dentry.kind() != Kind::Directory {
        return Err(step(parent, name, dentry.inode));
    }
    Ok(Frame {
        parent,
        name: name.to_vec(),
        inode: InodeId(dentry.inode),
        from: keys::under(keys::DENTRY, dentry.inode),
    })
}

fn step(parent: InodeId, name: &[u8], inode: u64) -> PurgeStep {
    PurgeStep {
        parent: parent.0,
        name: name.to_vec(),
        inode,
        holders: Vec::new(),
    }
}

/// The directory of that name.
#[must_use]
pub fn directory_in(read: &dyn Read, parent: InodeId, name: &[u8]) -> Option<InodeId> {
    let dentry = tables::dentry(read, parent, name)?;
    (dentry.kind() == Kind::Directory).then_some(InodeId(dentry.inode))
}

/// A part of a directory whose names may all be taken away.
#[derive(Clone, Debug, Default)]
pub struct MayEmpty {
    /// What it has of directories.
    pub directories: Vec<InodeId>,
    /// Where to go on; `None`: those were all.
    pub next: Option<Key>,
}

/// Whether the caller may take all names of a directory away; at most `max` of them from `from` on.
///
/// # Errors
/// `PermissionDenied`, `NotPermitted`.
pub fn may_empty(
    read: &dyn Read,
    caller: &Caller,
    directory: InodeId,
    from: Option<Key>,
    max: usize,
) -> Outcome<MayEmpty> {
    let mut page = MayEmpty::default();
    let Ok(inode) = tables::directory(read, directory) else {
        return Ok(page); // Gone meanwhile.
    };
    if inode.entries > 0 {
        access::require(caller, &inode, Access::WRITE.and(Access::EXECUTE))?;
    }
    let is_sticky = inode.mode & access::STICKY != 0;
    let prefix = keys::under(keys::DENTRY, directory.0);
    let end = crate::store::after_prefix(&prefix);
    for (seen, (key, value)) in read.scan(&from.unwrap_or(prefix), &end).enumerate() {
        if seen == max {
            page.next = Some(key);
            break;
        }
        let dentry: Dentry = tables::decode(&value);
        if is_sticky {
            let entry = tables::known_inode(read, InodeId(dentry.inode));
            access::require_removal(caller, &inode, &entry)?;
        }
        if dentry.kind() == Kind::Directory {
            page.directories.push(InodeId(dentry.inode));
        }
    }
    Ok(page)
}
