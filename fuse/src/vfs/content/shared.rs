//! What the contents of one mount share, and the one task that sees to it that nothing waits too long.

use super::Content;
use super::budget::Budget;
use super::buffer::Pool;
use super::clean::Clean;
use dfs_client::{Caller, Client, InodeId, Inodes, Result};
use futures::stream::{StreamExt as _, iter};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Files that are settled at the same time.
const SETTLING_MAX: usize = 32;
/// Reads ahead that are under way at the same time, each of a packet.
const AHEAD_MAX: usize = 32;
/// What was written without a sync is remembered so long after the last write: by then every chunkserver has synced it
/// of its own accord.
const UNSYNCED_KEPT: Duration = Duration::from_secs(60);

/// Bounds of one mount's contents.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes written by programs that not every member has: a writer waits when they are reached.
    pub dirty_bytes: u64,
    /// Bytes kept for reading again.
    pub cache_bytes: u64,
    /// How far a sequential reader is run ahead of.
    pub readahead_bytes: u64,
    /// Nothing written waits longer before it is sent.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            dirty_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            readahead_bytes: 8 << 20,
            age: Duration::from_secs(1),
        }
    }
}

/// What the contents of one mount share: connection, buffers, cache, one background task.
#[derive(Debug)]
pub struct Shared {
    /// In the mount's own name: what may be done with a file is asked when it is opened.
    pub(super) inodes: Inodes,
    pub(super) limits: Limits,
    pub(super) pool: Pool,
    pub(super) budget: Budget,
    pub(super) ahead: Arc<Semaphore>,
    clean: Mutex<Clean>,
    /// Those there are.
    all: Mutex<BTreeMap<InodeId, Weak<Content>>>,
    /// Those with something to send, to commit or to remember.
    active: Mutex<BTreeMap<InodeId, Arc<Content>>>,
    settling: Arc<Semaphore>,
    woken: Arc<Notify>,
}

impl Shared {
    /// Starts the background task.
    #[must_use]
    pub fn start(client: &Client, limits: Limits) -> Arc<Shared> {
        let shared = Arc::new(Shared {
            inodes: client.inodes().acting_as(Caller::default()),
            limits,
            pool: Pool::default(),
            budget: Budget::new(limits.dirty_bytes),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            clean: Mutex::new(Clean::new(limits.cache_bytes)),
            all: Mutex::default(),
            active: Mutex::default(),
            settling: Arc::new(Semaphore::new(SETTLING_MAX)),
            woken: Arc::default(),
        });
        tokio::spawn(tend(
            Arc::downgrade(&shared),
            shared.woken.clone(),
            limits.age / 4,
        ));
        shared
    }

    /// Sends everything and commits all lengths (unmount, syncfs).
    ///
    /// # Errors
    /// The first failure.
    pub async fn settle_all(&self) -> Result<()> {
        let all: Vec<Arc<Content>> = self.active().values().cloned().collect();
        let settled = iter(all).map(|content| async move { content.settle().await });
        settled
            .buffer_unordered(SETTLING_MAX)
            .fold(Ok(()), |first, one| async move { first.and(one) })
            .await
    }

    /// Forgets everything that was read.
    pub fn drop_clean(&self) {
        self.clean().clear();
    }

    pub(super) fn clean(&self) -> MutexGuard<'_, Clean> {
        self.clean.lock().expect("no panic while held")
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<InodeId, Arc<Content>>> {
        self.active.lock().expect("no panic while held")
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<InodeId, Weak<Content>>> {
        self.all.lock().expect("no panic while held")
    }

    /// The content of this file: the one there is, or what is made now.
    pub(super) fn content(&self, inode: InodeId, make: impl FnOnce() -> Content) -> Arc<Content> {
        let mut all = self.all();
        if let Some(there) = all.get(&inode).and_then(Weak::upgrade) {
            return there;
        }
        // One that is on its way out may have left something, and heard of no change since.
        self.clean().remove_file(inode.0);
        let made = Arc::new(make());
        all.insert(inode, Arc::downgrade(&made));
        made
    }

    /// A content is gone.
    pub(super) fn gone(&self, inode: InodeId) {
        let mut all = self.all();
        if all.get(&inode).is_some_and(|c| c.strong_count() == 0) {
            all.remove(&inode);
            drop(all);
            self.clean().remove_file(inode.0);
        }
    }

    /// This content has something to send.
    pub(super) fn note(&self, content: &Arc<Content>) {
        let news = self.active().insert(content.inode(), content.clone()).is_none();
        if news {
            self.woken.notify_one();
        }
    }

    /// There is no room: what does not make some by itself is sent now.
    pub(super) fn press(&self) {
        let all: Vec<Arc<Content>> = self.active().values().cloned().collect();
        all.iter().for_each(Content::press);
    }

    fn tend(&self) {
        let age = self.limits.age * 3 / 4;
        let all: Vec<Arc<Content>> = self.active().values().cloned().collect();
        for content in all {
            if content.is_due(age) {
                let Ok(permit) = self.settling.clone().try_acquire_owned() else {
                    return;
                };
                tokio::spawn(async move {
                    // What fails is kept for the open handles.
                    let _ = content.settle().await;
                    drop(permit);
                });
            } else if content.may_rest(UNSYNCED_KEPT) {
                self.rest(&content);
            }
        }
    }

    /// Lets go of a content, unless it was written to meanwhile.
    fn rest(&self, content: &Arc<Content>) {
        let mut active = self.active();
        if content.try_rest(UNSYNCED_KEPT) {
            let gone = active.remove(&content.inode());
            drop(active);
            drop(gone);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.woken.notify_one();
    }
}

/// The background task's life: it looks at the active contents a few times in the longest time they may wait.
async fn tend(shared: Weak<Shared>, woken: Arc<Notify>, every: Duration) {
    loop {
        let Some(idle) = shared.upgrade().map(|s| s.active().is_empty()) else {
            return;
        };
        if idle {
            woken.notified().await;
        } else {
            tokio::time::sleep(every).await;
        }
        if let Some(shared) = shared.upgrade() {
            shared.tend();
        }
    }
}
