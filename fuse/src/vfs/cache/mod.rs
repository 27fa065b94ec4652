//! What the master told this mount, kept while the change stream keeps it right.
//!
//! A [`Node`] for each inode the kernel or this mount knows; a directory's node has the names in it ([`Directory`]).
//! All of it is for a few instructions behind the short lock of one of many shards, and nothing waits inside.
//!
//! What may be used is a matter of *epochs*: an even one while the stream stands, an odd one while it does not. What was
//! asked for in an even epoch that still lasts is **sure**. The rest is only **remembered**, for the case that the
//! master cannot be asked. Of two attributes of an inode those with the greater `change` are newer, however they came.

mod apply;
mod evict;
mod names;

pub(super) use apply::Effects;
pub(super) use names::{Leads, Line, Own};

use super::content::Content;
use super::lock;
use super::locks::Locker;
use dfs_client::Metadata;
use names::Directory;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Enough that threads seldom meet.
const SHARDS: u64 = 64;

/// The mount's memory.
pub(super) struct Cache {
    shards: Vec<Mutex<HashMap<u64, Node>>>,
    epoch: AtomicU64,
    /// Counts seconds, for deciding what was not used for long.
    tick: AtomicU64,
    /// Never the same for two directories' beginnings.
    serial: AtomicU64,
    nodes: AtomicUsize,
    names: AtomicUsize,
}

/// One inode.
#[derive(Default)]
pub(super) struct Node {
    /// Entries the kernel was answered and has not forgotten.
    pub(super) lookups: u64,
    /// Of a directory: the one that holds it, 0 if that is not known.
    pub(super) parent: u64,
    /// Of a directory: changes of names in it that this mount has under way. The kernel has it locked meanwhile.
    changing: u32,
    /// Handles open here, or being opened.
    pub(super) opens: u32,
    /// It was removed and is held for this mount until it says that it is not open any more.
    pub(super) held: bool,
    /// It is gone at the master, and answered from memory for those who have it open or work in it.
    pub(super) gone: bool,
    /// Its bytes, if someone has it open or lately had.
    pub(super) content: Option<Arc<Content>>,
    /// Of a symlink: what it says, which never changes.
    pub(super) target: Option<Arc<[u8]>>,
    /// Extended attributes.
    pub(super) xattrs: Option<Xattrs>,
    /// Of a directory: the last file made in it was closed without a byte.
    pub(super) makes_empty_files: bool,
    /// Owners that may have locks on it, by the kernel's names.
    pub(super) lockers: BTreeMap<u64, Locker>,
    known: Option<Known>,
    directory: Option<Box<Directory>>,
    /// Events about its attributes.
    touches: u64,
    used: u64,
}

#[derive(Clone, Debug)]
struct Known {
    metadata: Metadata,
    epoch: u64,
}

/// Names of extended attributes, each with its value if that was asked for.
pub(super) type Values = HashMap<Vec<u8>, Option<Arc<[u8]>>>;

/// Extended attributes of an inode, sure while the epoch lasts.
#[derive(Clone, Debug)]
pub(super) struct Xattrs {
    epoch: u64,
    /// All of them.
    pub(super) values: Arc<Values>,
}

/// Taken before a question to the master, shown when its answer is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    epoch: u64,
    moves: u64,
    touches: u64,
}

/// A change of a name that is under way.
pub(super) struct Changing<'a> {
    cache: &'a Cache,
    directory: u64,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.cache.peek(self.directory, |node| node.changing -= 1);
    }
}

fn is_even(epoch: u64) -> bool {
    epoch.is_multiple_of(2)
}

impl Cache {
    pub(super) fn new() -> Cache {
        Cache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            epoch: AtomicU64::new(1),
            tick: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            nodes: AtomicUsize::new(0),
            names: AtomicUsize::new(0),
        }
    }

    /// The present epoch.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// True if what was asked for in that epoch may be believed now.
    pub(super) fn is_sure(&self, epoch: u64) -> bool {
        is_even(epoch) && epoch == self.epoch()
    }

    fn shard(&self, inode: u64) -> &Mutex<HashMap<u64, Node>> {
        &self.shards[usize::try_from(inode % SHARDS).expect("few shards")]
    }

    /// Does something with a node, which is there afterwards.
    pub(super) fn at<R>(&self, inode: u64, act: impl FnOnce(&mut Node) -> R) -> R {
        let mut shard = lock(self.shard(inode));
        let node = shard.entry(inode).or_insert_with(|| {
            self.nodes.fetch_add(1, Ordering::Relaxed);
            Node::default()
        });
        node.used = self.tick.load(Ordering::Relaxed);
        act(node)
    }

    /// Does something with a node that is known.
    pub(super) fn peek<R>(&self, inode: u64, act: impl FnOnce(&mut Node) -> R) -> Option<R> {
        let mut shard = lock(self.shard(inode));
        let node = shard.get_mut(&inode)?;
        node.used = self.tick.load(Ordering::Relaxed);
        Some(act(node))
    }

    /// This mount is about to change a name in a directory; it is done when the answer is dropped.
    pub(super) fn changing(&self, directory: u64) -> Changing<'_> {
        self.at(directory, |node| node.changing += 1);
        Changing {
            cache: self,
            directory,
        }
    }

    /// True while the kernel holds the directory's lock for a change of this mount's own.
    pub(super) fn is_changing(&self, directory: u64) -> bool {
        self.peek(directory, |node| node.changing > 0) == Some(true)
    }

    /// Before a question about an inode or a name in it.
    pub(super) fn stamp(&self, inode: u64) -> Stamp {
        let epoch = self.epoch();
        let moves = self.in_directory(inode, |directory| directory.moves());
        let touches = self.at(inode, |node| node.touches);
        Stamp {
            epoch,
            moves,
            touches,
        }
    }

    /// Sure attributes (or those of an inode that is gone).
    pub(super) fn attributes(&self, inode: u64) -> Option<Metadata> {
        let epoch = self.epoch();
        self.peek(inode, |node| node.sure(epoch).cloned())?
    }

    /// Attributes as last heard of, however long ago.
    pub(super) fn remembered(&self, inode: u64) -> Option<Metadata> {
        self.peek(inode, |node| {
            node.known.as_ref().map(|known| known.metadata.clone())
        })?
    }

    /// Keeps attributes that were asked for in an epoch; returns the newest known.
    pub(super) fn learn(&self, epoch: u64, metadata: &Metadata) -> Metadata {
        self.at(metadata.inode.0, |node| node.learn(epoch, metadata))
    }

    /// The kernel gives back lookups.
    pub(super) fn forget(&self, inode: u64, count: u64) {
        self.peek(inode, |node| node.lookups = node.lookups.saturating_sub(count));
    }

    /// What is known of an inode may be wrong.
    pub(super) fn doubt(&self, inode: u64) {
        self.peek(inode, Node::doubt);
    }

    /// Its extended attributes have changed.
    pub(super) fn drop_xattrs(&self, inode: u64) {
        self.peek(inode, |node| {
            node.xattrs = None;
            node.touches += 1;
        });
    }

    /// This mount has just made it: it has no extended attributes, and a directory has no names.
    pub(super) fn new_inode(&self, epoch: u64, metadata: &Metadata) {
        if !self.is_sure(epoch) {
            return;
        }
        let inode = metadata.inode.0;
        self.at(inode, |node| {
            // Someone may have been faster with one.
            if node.touches == 0 {
                node.xattrs = Some(Xattrs {
                    epoch,
                    values: Arc::default(),
                });
            }
        });
        if metadata.is_dir() {
            self.new_directory(epoch, inode);
        }
    }

    /// Whether files made in a directory are going to be written, judged by the last one.
    pub(super) fn expects_bytes(&self, directory: u64) -> bool {
        self.peek(directory, |node| !node.makes_empty_files)
            .unwrap_or(true)
    }

    /// Extended attributes that are sure.
    pub(super) fn xattrs(&self, inode: u64) -> Option<Xattrs> {
        let epoch = self.epoch();
        self.peek(inode, |node| {
            node.xattrs.clone().filter(|x| x.epoch == epoch && is_even(epoch))
        })?
    }

    /// Keeps the names of extended attributes, if no event spoke of the inode since the stamp was taken.
    pub(super) fn learn_xattrs(&self, stamp: Stamp, inode: u64, values: Arc<Values>) {
        self.peek(inode, |node| {
            if is_even(stamp.epoch) && node.touches == stamp.touches {
                node.xattrs = Some(Xattrs {
                    epoch: stamp.epoch,
                    values,
                });
            }
        });
    }

    /// As [`Cache::learn_xattrs`], of one value; only beside names that are known: it says nothing of other ones.
    pub(super) fn learn_xattr(&self, stamp: Stamp, inode: u64, name: &[u8], value: &Arc<[u8]>) {
        self.peek(inode, |node| {
            if node.touches == stamp.touches
                && let Some(known) = node.xattrs.as_mut().filter(|x| x.epoch == stamp.epoch)
                && let Some(known) = Arc::make_mut(&mut known.values).get_mut(name)
            {
                *known = Some(value.clone());
            }
        });
    }
}

impl Stamp {
    /// In which epoch the question was asked.
    pub(super) fn epoch(self) -> u64 {
        self.epoch
    }
}

impl Node {
    /// Attributes that may be believed.
    pub(super) fn sure(&self, epoch: u64) -> Option<&Metadata> {
        let known = self.known.as_ref()?;
        (self.gone || (known.epoch == epoch && is_even(epoch))).then_some(&known.metadata)
    }

    fn learn(&mut self, epoch: u64, metadata: &Metadata) -> Metadata {
        let epoch = if is_even(epoch) { epoch } else { 0 };
        let known = self.known.get_or_insert_with(|| Known {
            metadata: metadata.clone(),
            epoch,
        });
        // Older ones prove as well that what is known was not outdated when they were asked for.
        known.epoch = known.epoch.max(epoch);
        if metadata.change >= known.metadata.change {
            known.metadata = metadata.clone();
        }
        known.metadata.clone()
    }

    /// Nothing is known for sure any more.
    fn doubt(&mut self) {
        if let Some(known) = &mut self.known {
            known.epoch = 1;
        }
        self.xattrs = None;
        self.touches += 1;
    }

    /// Takes over what its bytes' owner knows of the attributes: nobody tells this mount of its own writes.
    pub(super) fn learn_from_content(&mut self) {
        if let (Some(content), Some(known)) = (&self.content, &mut self.known) {
            content.overlay(&mut known.metadata);
        }
    }

    /// Of its bytes only the attributes stay.
    pub(super) fn drop_content(&mut self) {
        self.learn_from_content();
        self.content = None;
    }

    /// Someone besides the cache needs it.
    fn is_needed(&self) -> bool {
        self.lookups > 0
            || self.opens > 0
            || self.held
            || self.changing > 0
            || !self.lockers.is_empty()
            || self.content.as_ref().is_some_and(|content| !content.is_idle())
    }
}

#[cfg(test)]
mod tests;
