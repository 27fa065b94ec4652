//! What events do to the memory, and what the kernel and the rest of the mount must then be told.

use super::{Cache, Node};
use crate::vfs::Invalidate;
use crate::vfs::content::Content;
use dfs_client::{Change, InodeId, Kind, Metadata};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What follows from events.
#[derive(Default)]
pub(in crate::vfs) struct Effects {
    /// The kernel must drop this.
    pub(in crate::vfs) invalidate: Vec<Invalidate>,
    /// Removed files that are held for this mount, which has them not open.
    pub(in crate::vfs) release: Vec<InodeId>,
    /// Append turns wanted elsewhere.
    pub(in crate::vfs) recall: Vec<InodeId>,
    /// Locks may be had on these.
    pub(in crate::vfs) freed: Vec<u64>,
    /// Of these nothing is told any more, though they are needed.
    pub(in crate::vfs) renew: Vec<InodeId>,
}

impl Cache {
    /// Applies what one change of the file system did.
    pub(in crate::vfs) fn apply(&self, changes: &[Change]) -> Effects {
        let mut effects = Effects::default();
        let at = |parent: &InodeId| {
            changes.iter().find_map(|change| match change {
                Change::Attributes(metadata) if metadata.inode == *parent => Some(metadata.change),
                _ => None,
            })
        };
        for change in changes {
            match change {
                Change::Attributes(metadata) => self.told_attributes(metadata, &mut effects),
                Change::Entry { parent, name, now } => {
                    let to = now.map(|(inode, kind)| (inode.0, kind));
                    effects
                        .invalidate
                        .extend(self.told_entry(parent.0, name, to, at(parent)));
                }
                Change::Unlinked { inode, held } => self.told_unlinked(*inode, held.as_ref(), &mut effects),
                Change::Recall { inode } => effects.recall.push(*inode),
                Change::LockFreed { inode } => effects.freed.push(inode.0),
                Change::Forgotten { inodes } => {
                    for inode in inodes {
                        self.told_forgotten(*inode, &mut effects);
                    }
                }
            }
        }
        effects
    }

    fn told_attributes(&self, metadata: &Metadata, effects: &mut Effects) {
        let inode = metadata.inode.0;
        let epoch = self.epoch();
        let told = self.peek(inode, |node| {
            let old = node.known.as_ref().map(|known| known.metadata.clone());
            node.touches += 1;
            node.xattrs = None;
            let newest = node.learn(epoch, metadata);
            let data = metadata.is_file() && moved(old.as_ref(), metadata);
            (newest, data, node.content.clone(), node.lookups > 0)
        });
        let Some((newest, data, content, in_kernel)) = told else {
            return;
        };
        if let Some(content) = content {
            content.changed(&newest);
        }
        if in_kernel {
            effects.invalidate.push(Invalidate::Inode { inode, data });
        }
    }

    /// A name means something else; `at`: the directory's `change` with that.
    fn told_entry(
        &self,
        parent: u64,
        name: &[u8],
        to: Option<(u64, Kind)>,
        at: Option<u64>,
    ) -> Option<Invalidate> {
        self.moved_to(parent, to);
        let news = self.in_known_directory(parent, |directory| directory.told(name, to, at));
        let in_kernel = self.peek(parent, |node| node.lookups > 0 || parent == InodeId::ROOT.0);
        (news != Some(false) && in_kernel == Some(true)).then(|| Invalidate::Entry {
            parent,
            name: name.to_vec(),
        })
    }

    fn told_unlinked(&self, inode: InodeId, held: Option<&Metadata>, effects: &mut Effects) {
        let open = self.peek(inode.0, |node| {
            node.held = held.is_some() && node.opens > 0;
            node.gone = held.is_none();
            node.touches += 1;
            if let (None, Some(known)) = (held, &mut node.known) {
                known.metadata.nlink = 0;
            }
            node.held
        });
        if let Some(metadata) = held {
            self.told_attributes(metadata, effects);
            if open != Some(true) {
                effects.release.push(inode);
            }
        } else if self.peek(inode.0, |node| node.lookups > 0) == Some(true) {
            effects.invalidate.push(Invalidate::Inode {
                inode: inode.0,
                data: false,
            });
        }
    }

    fn told_forgotten(&self, inode: InodeId, effects: &mut Effects) {
        let told = self.peek(inode.0, |node| {
            node.doubt();
            (
                node.is_needed(),
                node.content.clone(),
                self.known_to_kernel(inode.0, node),
            )
        });
        let Some((needed, content, invalidate)) = told else {
            return;
        };
        if needed {
            effects.renew.push(inode);
        }
        if let Some(content) = content {
            content.doubt();
        }
        effects.invalidate.extend(invalidate);
        self.in_known_directory(inode.0, |directory| directory.clear());
    }

    /// The kernel's part in what is known of an inode: its attributes, pages, and names in it.
    pub(super) fn known_to_kernel(&self, inode: u64, node: &Node) -> Vec<Invalidate> {
        if node.lookups == 0 && inode != InodeId::ROOT.0 {
            return Vec::new();
        }
        let names = node.directory.iter().flat_map(|directory| directory.names());
        let entries = names.map(|name| Invalidate::Entry {
            parent: inode,
            name: name.to_vec(),
        });
        let own = Invalidate::Inode { inode, data: true };
        entries.chain([own]).collect()
    }

    /// The stream broke: nothing is sure any more. Returns what the kernel must drop.
    pub(in crate::vfs) fn lost(&self) -> Vec<Invalidate> {
        if super::is_even(self.epoch()) {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        let mut invalidate = Vec::new();
        let mut contents: Vec<Arc<Content>> = Vec::new();
        for shard in &self.shards {
            for (inode, node) in super::lock(shard).iter() {
                contents.extend(node.content.clone());
                invalidate.extend(self.known_to_kernel(*inode, node));
            }
        }
        for content in contents {
            content.doubt();
        }
        invalidate
    }

    /// The stream is there again.
    pub(in crate::vfs) fn back(&self) {
        if !super::is_even(self.epoch()) {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Locks and removed files belong to a session that has ended.
    pub(in crate::vfs) fn new_session(&self) {
        for shard in &self.shards {
            for node in super::lock(shard).values_mut() {
                node.lockers.clear();
                node.held = false;
            }
        }
    }

    /// Inodes that are open here.
    pub(in crate::vfs) fn open_inodes(&self) -> Vec<InodeId> {
        let mut open = Vec::new();
        for shard in &self.shards {
            let shard = super::lock(shard);
            open.extend(
                shard
                    .iter()
                    .filter(|(_, node)| node.opens > 0)
                    .map(|(inode, _)| InodeId(*inode)),
            );
        }
        open
    }
}

/// True if the bytes may have changed between the two.
fn moved(old: Option<&Metadata>, new: &Metadata) -> bool {
    old.is_none_or(|old| {
        old.change >= new.change
            || old.size != new.size
            || old.mtime_ns != new.mtime_ns
            || old.allocated_bytes != new.allocated_bytes
            || old.chunks != new.chunks
    })
}
