//! Locks on ranges of files, kept at the master for all mounts.
//!
//! flock(2) looks like a lock on the whole range here, since the kernel's requests are the same. Whoever waits is told
//! by the change stream when it may try again, and tries every second in any case.
//!
//! The kernel names the owner of a flock, or of a lock of an open file description, by the address of the open file. It
//! says nothing of such locks when the file is closed but that it is, and that only after the address may belong to
//! another one. So owners have numbers of our own, a closed file's number is never used again, and an owner is gone when
//! the last of the handles through which it has locked is. (A process's locks have gone before: with the first close.)

use super::{Caller, Lock, LockKind, Locked, Vfs, lock};
use dfs_client::{InodeId, LockAnswer, LockRange, Result};
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// A waiter that was told nothing tries again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// Who waits for locks on which inode.
#[derive(Debug, Default)]
pub(super) struct Waits {
    all: Mutex<HashMap<u64, (usize, Arc<Notify>)>>,
    last_owner: AtomicU64,
}

/// An owner of locks on an inode.
#[derive(Clone, Debug, Default)]
pub(super) struct Locker {
    /// At the master.
    number: u64,
    /// Through which it has asked.
    handles: BTreeSet<u64>,
}

/// A place among those who wait for an inode's locks.
struct Wait<'a> {
    waits: &'a Waits,
    inode: u64,
    notify: Arc<Notify>,
}

impl Waits {
    pub(super) fn wake(&self, inode: u64) {
        if let Some((_, notify)) = lock(&self.all).get(&inode) {
            notify.notify_waiters();
        }
    }

    fn new_owner(&self) -> u64 {
        self.last_owner.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn join(&self, inode: u64) -> Wait<'_> {
        let mut all = lock(&self.all);
        let (count, notify) = all.entry(inode).or_default();
        *count += 1;
        Wait {
            waits: self,
            inode,
            notify: notify.clone(),
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut all = lock(&self.waits.all);
        if let Some((count, _)) = all.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.inode);
            }
        }
    }
}

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// A lock that forbids this one; `None` if there is none.
    pub async fn getlk(&self, _caller: Caller, inode: u64, wanted: Lock) -> Result<Option<Lock>> {
        // Who holds nothing is nobody the master knows.
        let owner = self.owner(inode, wanted.owner).unwrap_or_default();
        let asked = asked(Lock { owner, ..wanted });
        match self.own().test_lock(InodeId(inode), &asked).await? {
            LockAnswer::Free => Ok(None),
            LockAnswer::Conflict(held) => Ok(Some(found(held))),
            LockAnswer::Deadlock => Ok(Some(wanted)),
        }
    }

    /// Takes, changes or gives up a lock through a handle. With `cancelled` it waits for others until that future is ready;
    /// without it does not wait.
    pub async fn setlk<C>(
        &self,
        inode: u64,
        handle: u64,
        wanted: Lock,
        cancelled: Option<C>,
    ) -> Result<Locked>
    where
        C: Future<Output = ()> + Send,
    {
        if wanted.kind == LockKind::Unlock {
            return self.unlock(inode, wanted).await;
        }
        let owner = self.cache.at(inode, |node| {
            let locker = node.lockers.entry(wanted.owner).or_insert_with(|| Locker {
                number: self.waits.new_owner(),
                handles: BTreeSet::new(),
            });
            locker.handles.insert(handle);
            locker.number
        });
        let wanted = Lock { owner, ..wanted };
        let Some(cancelled) = cancelled else {
            return self.try_lock(inode, wanted, false).await;
        };
        tokio::pin!(cancelled);
        let place = self.waits.join(inode);
        loop {
            let told = place.notify.notified();
            tokio::pin!(told);
            // From here on no wake-up is missed.
            told.as_mut().enable();
            match self.try_lock(inode, wanted, true).await? {
                Locked::Held => {}
                answer => return Ok(answer),
            }
            tokio::select! {
                () = &mut cancelled => return Ok(Locked::Cancelled),
                () = told => {}
                () = sleep(AGAIN) => {}
            }
        }
    }

    async fn try_lock(&self, inode: u64, wanted: Lock, wait: bool) -> Result<Locked> {
        Ok(
            match self.own().lock(InodeId(inode), &asked(wanted), wait).await? {
                LockAnswer::Free => Locked::Done,
                LockAnswer::Conflict(_) => Locked::Held,
                LockAnswer::Deadlock => Locked::Deadlock,
            },
        )
    }

    fn owner(&self, inode: u64, owner: u64) -> Option<u64> {
        self.cache
            .peek(inode, |node| node.lockers.get(&owner).map(|locker| locker.number))
            .flatten()
    }

    async fn unlock(&self, inode: u64, wanted: Lock) -> Result<Locked> {
        if let Some(owner) = self.owner(inode, wanted.owner) {
            self.give_up(inode, Lock { owner, ..wanted }).await?;
        }
        Ok(Locked::Done)
    }

    /// What was written under the lock is there for whoever takes it next.
    async fn give_up(&self, inode: u64, lock: Lock) -> Result<()> {
        self.settle(inode).await;
        self.own().lock(InodeId(inode), &asked(lock), false).await?;
        // Those who wait in this mount: the change stream tells nobody what was their own doing.
        self.waits.wake(inode);
        Ok(())
    }

    /// The number under which an owner that goes may hold locks. From now on the kernel's name may mean another.
    pub(super) fn forget_owner(&self, inode: u64, owner: u64) -> Option<u64> {
        self.cache
            .peek(inode, |node| node.lockers.remove(&owner))
            .flatten()
            .map(|locker| locker.number)
    }

    /// A handle is closed: the numbers of the owners that go with it.
    pub(super) fn forget_handle(&self, inode: u64, handle: u64) -> Vec<u64> {
        let gone = self.cache.peek(inode, |node| {
            let gone =
                |_: &u64, locker: &mut Locker| locker.handles.remove(&handle) && locker.handles.is_empty();
            let gone = node.lockers.extract_if(.., gone);
            gone.map(|(_, locker)| locker.number).collect()
        });
        gone.unwrap_or_default()
    }

    /// All locks of an owner that is gone, by its number, go.
    pub(super) async fn unlock_all(&self, inode: u64, owner: u64) {
        let all = Lock {
            owner,
            pid: 0,
            start: 0,
            end: u64::MAX,
            kind: LockKind::Unlock,
        };
        if let Err(error) = self.give_up(inode, all).await {
            tracing::warn!(inode, %error, "locks of a closed file were not given up");
        }
    }
}

fn asked(wanted: Lock) -> dfs_client::Lock {
    dfs_client::Lock {
        owner: wanted.owner,
        pid: wanted.pid,
        start: wanted.start,
        end: wanted.end,
        kind: match wanted.kind {
            LockKind::Shared => dfs_client::LockKind::Shared,
            LockKind::Exclusive => dfs_client::LockKind::Exclusive,
            LockKind::Unlock => dfs_client::LockKind::Unlock,
        },
        flock: false,
    }
}

fn found(held: LockRange) -> Lock {
    Lock {
        owner: held.owner,
        pid: held.pid,
        start: held.start,
        end: held.end,
        kind: if held.exclusive {
            LockKind::Exclusive
        } else {
            LockKind::Shared
        },
    }
}
