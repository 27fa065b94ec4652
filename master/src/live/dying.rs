//! Inodes that are about to lose a name: who keeps them is being decided, so nobody new is told about them until it is done.
//!
//! In order: the gate marks the inode, and then looks who was told about it; a reader registers, and then looks for the
//! mark, both under the guard of its reading. So a session that finds the name before it goes is among those who keep the
//! inode, or waits and finds that the name is gone.

use dfs_proto::InodeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A reader waits no longer: a decision takes a commit of the log.
const AWAITED_MAX: Duration = Duration::from_secs(1);

/// Marked inodes, each with how many changes are about it.
#[derive(Debug)]
pub struct Dying {
    count: AtomicUsize,
    marked: Mutex<BTreeMap<InodeId, u32>>,
    changed: watch::Sender<()>,
}

/// As long as it lives, nobody new is told about its inode.
#[derive(Debug)]
pub struct Mark {
    dying: Arc<Dying>,
    inode: InodeId,
}

impl Default for Dying {
    fn default() -> Self {
        Dying {
            count: AtomicUsize::new(0),
            marked: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Dying {
    /// Marks an inode.
    ///
    /// # Panics
    /// If a holder of the table panicked.
    #[must_use]
    pub fn mark(self: &Arc<Self>, inode: InodeId) -> Mark {
        let mut marked = self.marked.lock().expect("no panic while marks are held");
        *marked.entry(inode).or_default() += 1;
        self.count.store(marked.len(), Ordering::SeqCst);
        drop(marked);
        Mark {
            dying: self.clone(),
            inode,
        }
    }

    /// True if one of these is marked.
    ///
    /// # Panics
    /// If a holder of the table panicked.
    #[must_use]
    pub fn has_any(&self, inodes: &[InodeId]) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let marked = self.marked.lock().expect("no panic while marks are held");
        inodes.iter().any(|inode| marked.contains_key(inode))
    }

    /// Waits until none of these is marked, or for long enough. True: long enough.
    pub async fn outlasts(&self, inodes: &[InodeId]) -> bool {
        let mut changed = self.changed.subscribe();
        let gone = async {
            while self.has_any(inodes) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(AWAITED_MAX, gone).await.is_err()
    }
}

impl Mark {
    /// What is marked.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        self.inode
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut marked = self.dying.marked.lock().expect("no panic while marks are held");
        if let Some(count) = marked.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                marked.remove(&self.inode);
            }
        }
        self.dying.count.store(marked.len(), Ordering::SeqCst);
        drop(marked);
        self.dying.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_until_the_last_mark_is_gone_and_not_for_ever() {
        let (dying, x) = (Arc::new(Dying::default()), [InodeId(7)]);
        let (first, second) = (dying.mark(x[0]), dying.mark(x[0]));
        drop(first);
        assert!(dying.has_any(&x) && !dying.has_any(&[InodeId(8)]));
        assert!(dying.outlasts(&x).await);
        let ends = async {
            tokio::task::yield_now().await;
            drop(second);
        };
        let (waited, ()) = tokio::join!(dying.outlasts(&x), ends);
        assert!(!waited && !dying.has_any(&x));
    }
}
