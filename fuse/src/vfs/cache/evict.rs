//! Bounds of the memory: what nobody needs and was not used for long goes first.

use super::Cache;
use crate::vfs::{Invalidate, lock};
use dfs_client::InodeId;
use std::sync::atomic::Ordering;

/// How much is dropped at once when a bound is passed: one part in so many.
const PART: usize = 8;

impl Cache {
    /// A second has passed.
    pub(in crate::vfs) fn tick(&self) {
        self.tick.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops idle inodes if there are too many of them; returns those that went.
    pub(in crate::vfs) fn evict_inodes(&self, max: usize) -> Vec<InodeId> {
        if self.nodes.load(Ordering::Relaxed) <= max {
            return Vec::new();
        }
        let mut idle: Vec<u64> = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            idle.extend(
                shard
                    .values()
                    .filter(|node| !node.is_needed())
                    .map(|node| node.used),
            );
        }
        let wanted = self.nodes.load(Ordering::Relaxed).saturating_sub(max) + max / PART;
        let Some(last) = idle.len().min(wanted).checked_sub(1) else {
            return Vec::new();
        };
        let (_, until, _) = idle.select_nth_unstable(last);
        let until = *until;
        let mut gone = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|inode, node| {
                let stays = node.used > until || node.is_needed() || *inode == InodeId::ROOT.0;
                if !stays {
                    let names = node
                        .directory
                        .as_ref()
                        .map_or(0, |directory| directory.names().count());
                    self.names.fetch_sub(names, Ordering::Relaxed);
                    gone.push(InodeId(*inode));
                }
                stays
            });
        }
        self.nodes.fetch_sub(gone.len(), Ordering::Relaxed);
        gone
    }

    /// Drops the names of directories that were not used for longest, if there are too many names; returns what the
    /// kernel must drop with them, since nobody could tell it later.
    pub(in crate::vfs) fn evict_names(&self, max: usize) -> Vec<Invalidate> {
        if self.names.load(Ordering::Relaxed) <= max {
            return Vec::new();
        }
        let mut directories: Vec<(u64, u64, usize)> = Vec::new();
        for shard in &self.shards {
            directories.extend(lock(shard).iter().filter_map(|(inode, node)| {
                let names = node.directory.as_ref()?.names().count();
                (names > 0).then_some((node.used, *inode, names))
            }));
        }
        directories.sort_unstable();
        let mut surplus = self.names.load(Ordering::Relaxed).saturating_sub(max) + max / PART;
        let mut invalidate = Vec::new();
        for (_, inode, names) in directories {
            if surplus == 0 {
                break;
            }
            surplus = surplus.saturating_sub(names);
            invalidate.extend(
                self.peek(inode, |node| self.known_to_kernel(inode, node))
                    .unwrap_or_default(),
            );
            self.in_known_directory(inode, |directory| directory.clear());
        }
        invalidate
    }
}
