//! Questions about names: one name, a whole path, a directory page by page.

use std::collections::VecDeque;

use dfs_proto::name::{NAME_BYTES_MAX, PATH_BYTES_MAX};
use dfs_proto::{Code, Error, InodeId, Result, limits};

use super::access::{self, Access};
use super::tables;
use crate::command::{Attributes, Caller};
use crate::store::records::{Dentry, Inode, Kind};
use crate::store::{Read, keys};

/// Symlinks followed in one path (MAXSYMLINKS of Linux).
pub const SYMLINKS_MAX: u32 = 40;
/// Entries in one page of a directory.
pub const ENTRIES_MAX: usize = 4_096;

/// What `stat` tells of an inode.
///
/// # Errors
/// `NotFound`.
pub fn get_attributes(read: &dyn Read, inode: InodeId) -> Result<Attributes> {
    Ok(attributes_of(read, inode, &tables::inode(read, inode)?))
}

pub(super) fn attributes_of(read: &dyn Read, id: InodeId, inode: &Inode) -> Attributes {
    Attributes::of(id.0, inode, &tables::parameters(read))
}

/// One name in a directory; `.` and `..` too.
///
/// # Errors
/// `NotFound`, `NotADirectory`, `PermissionDenied`, `NameTooLong`.
pub fn lookup(read: &dyn Read, caller: &Caller, parent: InodeId, name: &[u8]) -> Result<Attributes> {
    let directory = tables::directory(read, parent)?;
    get_attributes(read, step(read, caller, (parent, &directory), name)?)
}

/// The inode behind a name of a directory that the caller may pass.
fn step(read: &dyn Read, caller: &Caller, at: (InodeId, &Inode), name: &[u8]) -> Result<InodeId> {
    let (id, directory) = at;
    access::require(caller, directory, Access::EXECUTE)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(Code::NameTooLong.into());
    }
    match name {
        b"." => Ok(id),
        b".." => Ok(InodeId(directory.parent)),
        _ => match tables::dentry(read, id, name) {
            Some(found) => Ok(InodeId(found.inode)),
            None => Err(Error::new(Code::NotFound, "")),
        },
    }
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Of what is there.
    pub attributes: Attributes,
    /// The directory that has the last name; `None` for the root.
    pub parent: Option<InodeId>,
    /// The last name; empty for the root and where the path ends in `.` or `..`.
    pub name: Vec<u8>,
}

/// Walks a path: from the root if it begins with `/`, else from `base`. Symlinks on the way are followed, one in the
/// last place if `follow` is set or a slash comes after it.
///
/// # Errors
/// `NotFound` (also for the empty path), `NotADirectory`, `PermissionDenied`, `NameTooLong`, `TooManyLinks`.
pub fn resolve(
    read: &dyn Read,
    caller: &Caller,
    base: InodeId,
    path: &[u8],
    follow: bool,
) -> Result<Resolved> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Code::NameTooLong.into());
    }
    if path.is_empty() {
        return Err(Code::NotFound.into());
    }
    let mut walk = Walk {
        read,
        caller,
        at: base,
        via: None,
        links: 0,
        left: VecDeque::new(),
    };
    walk.prepend(path);
    walk.run(follow)?;
    let inode = tables::inode(read, walk.at)?;
    let (parent, name) = walk.via.unwrap_or_else(|| (InodeId(inode.parent), Vec::new()));
    Ok(Resolved {
        attributes: attributes_of(read, walk.at, &inode),
        parent: (walk.at != InodeId::ROOT).then_some(parent),
        name,
    })
}

/// A walk under way: where it is, how it came there, and what is left of the path. An empty name stands for a slash at the end.
struct Walk<'a> {
    read: &'a dyn Read,
    caller: &'a Caller,
    at: InodeId,
    via: Option<(InodeId, Vec<u8>)>,
    links: u32,
    left: VecDeque<Vec<u8>>,
}

impl Walk<'_> {
    /// Puts a path before what is left; an absolute one starts at the root again.
    fn prepend(&mut self, path: &[u8]) {
        if path.first() == Some(&b'/') {
            self.at = InodeId::ROOT;
            self.via = None;
        }
        let names: Vec<_> = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect();
        if path.last() == Some(&b'/') && self.left.is_empty() && !names.is_empty() {
            self.left.push_front(Vec::new());
        }
        for name in names.into_iter().rev() {
            self.left.push_front(name.to_vec());
        }
    }

    fn run(&mut self, follow: bool) -> Result<()> {
        while let Some(name) = self.left.pop_front() {
            let directory = tables::directory(self.read, self.at)?;
            if name.is_empty() {
                continue;
            }
            let next = step(self.read, self.caller, (self.at, &directory), &name)?;
            let inode = tables::known_inode(self.read, next);
            if inode.kind() == Kind::Symlink && (follow || !self.left.is_empty()) {
                self.links += 1;
                if self.links > SYMLINKS_MAX {
                    return Err(Code::TooManyLinks.into());
                }
                self.prepend(&inode.target);
                continue;
            }
            let dots = name == b"." || name == b"..";
            self.via = (!dots).then_some((self.at, name));
            self.at = next;
        }
        Ok(())
    }
}

/// Where a symlink points.
///
/// # Errors
/// `NotFound`, `InvalidArgument` if it is none.
pub fn read_link(read: &dyn Read, inode: InodeId) -> Result<Vec<u8>> {
    let found = tables::inode(read, inode)?;
    if found.kind() == Kind::Symlink {
        Ok(found.target)
    } else {
        Err(Error::new(Code::InvalidArgument, "not a symbolic link"))
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// What it names.
    pub inode: InodeId,
    /// What that is.
    pub kind: Kind,
    /// Where to go on after it; never 0, and the same for as long as the name stays.
    pub cursor: u64,
    /// If they were asked for and the caller may pass the directory.
    pub attributes: Option<Attributes>,
}

/// Some names of a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// In the order in which they were added; without `.` and `..`.
    pub entries: Vec<Entry>,
    /// There are no more.
    pub end: bool,
    /// Where the directory hangs; the root's is the root.
    pub parent: InodeId,
}

/// Which part of a directory is wanted.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// 0, or the cursor of the last entry seen.
    pub cursor: u64,
    /// At most so many entries; [`ENTRIES_MAX`] counts too.
    pub entries_max: usize,
    /// With attributes.
    pub attributes: bool,
}

/// A page of a directory. Names that stay are seen exactly once, whatever is added or removed meanwhile.
///
/// # Errors
/// `NotFound`, `NotADirectory`, `PermissionDenied`.
pub fn read_directory(read: &dyn Read, caller: &Caller, inode: InodeId, page: PageRequest) -> Result<Page> {
    let directory = tables::directory(read, inode)?;
    access::require(caller, &directory, Access::READ)?;
    let attributes = page.attributes && access::require(caller, &directory, Access::EXECUTE).is_ok();
    let max = page.entries_max.clamp(1, ENTRIES_MAX);
    let start = keys::cursor(inode, page.cursor.saturating_add(1));
    let end = crate::store::after_prefix(&keys::under(keys::CURSOR, inode.0));
    let mut names = read.scan(&start, &end);
    let found: Vec<_> = names.by_ref().take(max).collect();
    let is_end = names.next().is_none();
    drop(names);
    let parameters = attributes.then(|| tables::parameters(read));
    let entries = found
        .into_iter()
        .map(|(key, name)| {
            let dentry = tables::dentry(read, inode, &name).expect("a cursor's name is in its directory");
            let cursor = keys::last_number(&key);
            assert_eq!(dentry.cursor, cursor, "a name has one cursor");
            entry_of(read, dentry, name, parameters.as_ref())
        })
        .collect();
    Ok(Page {
        entries,
        end: is_end,
        parent: InodeId(directory.parent),
    })
}

fn entry_of(
    read: &dyn Read,
    dentry: Dentry,
    name: Vec<u8>,
    attributes: Option<&limits::Parameters>,
) -> Entry {
    let inode = InodeId(dentry.inode);
    let known = |parameters| Attributes::of(inode.0, &tables::known_inode(read, inode), parameters);
    Entry {
        name,
        inode,
        kind: dentry.kind(),
        cursor: dentry.cursor,
        attributes: attributes.map(known),
    }
}
