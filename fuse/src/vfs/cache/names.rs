//! The names in a directory, as far as they are known: where each leads, or that it leads nowhere.

use super::{Cache, Stamp, is_even};
use dfs_client::Kind;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Removed names remembered in a directory all of whose names are known.
const BURIED_MAX: usize = 16_384;

/// Where a name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vfs) enum Leads {
    /// The master has to be asked.
    Unknown,
    /// There is none.
    Nowhere,
    /// To this inode.
    To(u64, Kind),
}

/// A name with what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vfs) struct Line {
    /// The name.
    pub(in crate::vfs) name: Box<[u8]>,
    /// The inode.
    pub(in crate::vfs) inode: u64,
    /// What that is.
    pub(in crate::vfs) kind: Kind,
}

/// The names of one directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    names: HashMap<Box<[u8]>, Name>,
    /// When they were asked for.
    epoch: u64,
    /// A name that is not here does not exist.
    complete: bool,
    /// Names put down as leading nowhere since such were last swept out.
    buried: usize,
    /// Changes by events and by this mount: an answer that was asked for before one of them is not kept.
    moves: u64,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    to: Option<(u64, Kind)>,
    /// The directory's `change` at which it came to mean this, as far as that is known: what is older does not count.
    at: u64,
}

impl Directory {
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    fn find(&self, epoch: u64, name: &[u8]) -> Leads {
        if self.epoch != epoch || !is_even(epoch) {
            return Leads::Unknown;
        }
        self.recall(name)
    }

    fn recall(&self, name: &[u8]) -> Leads {
        match self.names.get(name) {
            Some(Name {
                to: Some((inode, kind)),
                ..
            }) => Leads::To(*inode, *kind),
            Some(Name { to: None, .. }) => Leads::Nowhere,
            None if self.complete => Leads::Nowhere,
            None => Leads::Unknown,
        }
    }

    /// What was known in another epoch is void in this one.
    fn enter(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.names.clear();
            self.complete = false;
            self.epoch = epoch;
        }
    }

    fn put(&mut self, name: &[u8], to: Option<(u64, Kind)>, at: u64) {
        if to.is_none() && self.complete {
            self.buried += 1;
            if self.buried > BURIED_MAX {
                // They only keep late events from bringing a name back, and such are not that late.
                self.names.retain(|_, known| known.to.is_some());
                self.buried = 0;
            }
        }
        match self.names.get_mut(name) {
            Some(known) if known.at > at => {}
            Some(known) => *known = Name { to, at },
            None => drop(self.names.insert(name.into(), Name { to, at })),
        }
    }

    /// By an event of another mount. Returns false if more is known already.
    pub(super) fn told(&mut self, name: &[u8], to: Option<(u64, Kind)>, at: Option<u64>) -> bool {
        self.moves += 1;
        let known = self.names.get(name).copied();
        match (known, at) {
            (Some(known), Some(at)) if known.at >= at => return false,
            // Nobody asked for it.
            (None, _) if !self.complete => {}
            (_, Some(at)) => self.put(name, to, at),
            (_, None) => self.unknow(name),
        }
        true
    }

    /// The master has to be asked for this name.
    fn unknow(&mut self, name: &[u8]) {
        self.names.remove(name);
        self.complete = false;
    }

    pub(super) fn clear(&mut self) {
        self.names = HashMap::new();
        self.complete = false;
        self.moves += 1;
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.keys().map(|name| &**name)
    }

    fn lines(&self) -> Vec<Line> {
        let lines = self.names.iter().filter_map(|(name, known)| {
            let (inode, kind) = known.to?;
            Some(Line {
                name: name.clone(),
                inode,
                kind,
            })
        });
        lines.collect()
    }
}

/// Where a change that this mount made itself took place.
#[derive(Clone, Copy, Debug)]
pub(in crate::vfs) struct Own {
    /// When it was asked for.
    pub(in crate::vfs) epoch: u64,
    /// The directory's `change` after it; `None` if the answer did not say.
    pub(in crate::vfs) at: Option<u64>,
}

impl Cache {
    pub(super) fn in_directory<R>(&self, inode: u64, act: impl FnOnce(&mut Directory) -> R) -> R {
        self.at(inode, |node| {
            let directory = node.directory.get_or_insert_with(|| {
                // A directory that was forgotten and is known again must not look as if nothing had moved.
                let moves = self.serial.fetch_add(1 << 32, Ordering::Relaxed);
                Box::new(Directory {
                    moves,
                    ..Directory::default()
                })
            });
            counted(&self.names, directory, act)
        })
    }

    pub(super) fn in_known_directory<R>(
        &self,
        inode: u64,
        act: impl FnOnce(&mut Directory) -> R,
    ) -> Option<R> {
        self.peek(inode, |node| {
            let directory = node.directory.as_mut()?;
            Some(counted(&self.names, directory, act))
        })?
    }

    /// Where a name leads, for sure.
    pub(in crate::vfs) fn find(&self, parent: u64, name: &[u8]) -> Leads {
        let epoch = self.epoch();
        let found = self.peek(parent, |node| match (&node.directory, node.gone) {
            (_, true) => Leads::Nowhere,
            (Some(directory), false) => directory.find(epoch, name),
            (None, false) => Leads::Unknown,
        });
        found.unwrap_or(Leads::Unknown)
    }

    /// Notes that the kernel is told that a name leads nowhere, so that it can be told otherwise.
    pub(in crate::vfs) fn note_nowhere(&self, parent: u64, name: &[u8]) {
        self.in_known_directory(parent, |directory| {
            if directory.complete && !directory.names.contains_key(name) {
                directory.put(name, None, 0);
            }
        });
    }

    /// Where a name led when the master was last heard.
    pub(in crate::vfs) fn recall(&self, parent: u64, name: &[u8]) -> Leads {
        self.in_known_directory(parent, |directory| directory.recall(name))
            .unwrap_or(Leads::Unknown)
    }

    /// Keeps the answer to a question for a name, unless the directory moved since. True if it was kept.
    pub(in crate::vfs) fn learn_name(
        &self,
        stamp: Stamp,
        parent: u64,
        name: &[u8],
        to: Option<(u64, Kind)>,
    ) -> bool {
        self.is_sure(stamp.epoch)
            && self.in_directory(parent, |directory| {
                if directory.moves != stamp.moves {
                    return false;
                }
                directory.enter(stamp.epoch);
                let at = directory.names.get(name).map_or(0, |known| known.at);
                directory.put(name, to, at);
                true
            })
    }

    /// Keeps a page of a listing, unless the directory moved since it began.
    pub(in crate::vfs) fn learn_names<'a>(
        &self,
        stamp: Stamp,
        directory: u64,
        names: impl Iterator<Item = (&'a [u8], u64, Kind)>,
    ) {
        if !self.is_sure(stamp.epoch) {
            return;
        }
        self.in_directory(directory, |known| {
            if known.moves != stamp.moves {
                return;
            }
            known.enter(stamp.epoch);
            for (name, inode, kind) in names {
                let at = known.names.get(name).map_or(0, |known| known.at);
                known.put(name, Some((inode, kind)), at);
            }
        });
    }

    /// A directory is in another one now.
    pub(super) fn moved_to(&self, parent: u64, to: Option<(u64, Kind)>) {
        if let Some((inode, Kind::Directory)) = to {
            self.peek(inode, |node| node.parent = parent);
        }
    }

    /// Keeps what a change of this mount's own did to a name.
    pub(in crate::vfs) fn own_name(&self, own: Own, parent: u64, name: &[u8], to: Option<(u64, Kind)>) {
        let sure = self.is_sure(own.epoch);
        self.moved_to(parent, to);
        self.in_directory(parent, |directory| {
            directory.moves += 1;
            match own.at {
                Some(at) if sure => {
                    directory.enter(own.epoch);
                    directory.put(name, to, at);
                }
                Some(_) | None => directory.unknow(name),
            }
        });
    }

    /// A directory that this mount has just made is empty, and every name in it will be heard of.
    pub(in crate::vfs) fn new_directory(&self, epoch: u64, inode: u64) {
        if self.is_sure(epoch) {
            self.in_directory(inode, |directory| {
                directory.enter(epoch);
                directory.complete = true;
            });
        }
    }

    /// The directory was removed.
    pub(in crate::vfs) fn clear_directory(&self, inode: u64) {
        self.in_known_directory(inode, Directory::clear);
    }

    /// All names were learnt since the stamp was taken, and nothing moved.
    pub(in crate::vfs) fn listed(&self, stamp: Stamp, inode: u64) {
        if self.is_sure(stamp.epoch) {
            self.in_directory(inode, |directory| {
                if directory.moves == stamp.moves {
                    directory.enter(stamp.epoch);
                    directory.complete = true;
                }
            });
        }
    }

    /// All names of a directory, if all are known for sure.
    pub(in crate::vfs) fn lines(&self, inode: u64) -> Option<Vec<Line>> {
        let epoch = self.epoch();
        let whole = |directory: &Directory| directory.complete && directory.epoch == epoch && is_even(epoch);
        self.in_known_directory(inode, |directory| whole(directory).then(|| directory.lines()))?
    }

    /// All names of a directory that were known when the master was last heard.
    pub(in crate::vfs) fn remembered_lines(&self, inode: u64) -> Option<Vec<Line>> {
        self.in_known_directory(inode, |directory| directory.lines())
    }
}

/// The count of all names stays right.
fn counted<R>(total: &AtomicUsize, directory: &mut Directory, act: impl FnOnce(&mut Directory) -> R) -> R {
    let before = directory.names.len();
    let result = act(directory);
    let after = directory.names.len();
    if after >= before {
        total.fetch_add(after - before, Ordering::Relaxed);
    } else {
        total.fetch_sub(before - after, Ordering::Relaxed);
    }
    result
}
