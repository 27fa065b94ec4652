//! From inodes back to names: slow, for an operator's questions only.

use std::collections::BTreeSet;

use dfs_proto::InodeId;

use super::tables;
use crate::store::records::Dentry;
use crate::store::{Key, Read, keys};

/// Directories above each other that are followed; more is a ring, which cannot be.
const DEPTH_MAX: usize = 4_096;

/// Names of some inodes among all names, a part of them at a time.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Inode, the directory, the name in it.
    pub found: Vec<(InodeId, InodeId, Vec<u8>)>,
    /// Where to go on; `None`: those were all names.
    pub next: Option<Key>,
}

/// Looks for names of `wanted` among at most `max` names from `from` on.
#[must_use]
pub fn names_of(read: &dyn Read, wanted: &BTreeSet<InodeId>, from: Option<Key>, max: usize) -> Named {
    let start = from.unwrap_or_else(|| keys::single(keys::DENTRY));
    let mut named = Named::default();
    for (seen, (key, value)) in read.scan(&start, &[keys::DENTRY + 1]).enumerate() {
        if seen == max {
            named.next = Some(key);
            break;
        }
        let dentry: Dentry = tables::decode(&value);
        if wanted.contains(&InodeId(dentry.inode)) {
            let parent = InodeId(keys::number(&key[1..9]));
            named
                .found
                .push((InodeId(dentry.inode), parent, key[9..].to_vec()));
        }
    }
    named
}

/// The path of a directory; `None` if it is not there, or not below the root.
#[must_use]
pub fn directory_path(read: &dyn Read, directory: InodeId) -> Option<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut at = directory;
    while at != InodeId::ROOT {
        let inode = tables::directory(read, at).ok()?;
        let parent = InodeId(inode.parent);
        let name = read
            .scan_prefix(&keys::under(keys::DENTRY, parent.0))
            .find(|(_, value)| tables::decode::<Dentry>(value).inode == at.0)
            .map(|(key, _)| key[9..].to_vec())?;
        parts.push(name);
        at = parent;
        if parts.len() > DEPTH_MAX {
            return None;
        }
    }
    let mut path = Vec::new();
    for part in parts.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    Some(path)
}
