//! Follows the change stream: first the memory learns, then the kernel is told, then the master hears that it was.
//!
//! The kernel may be slow to take a notice about a name: it waits for requests of this mount that are under way in the
//! same directory, and these may wait, through the master, for another mount that waits in the same way for this one.
//! So an acknowledgement does not wait for the kernel if that is known to be so, and else only for a moment.

use super::cache::Effects;
use super::reach::State;
use super::{Invalidate, Vfs};
use dfs_client::{Change, Event, InodeId, Sequence, Watch};
use futures::StreamExt as _;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long an acknowledgement waits for the kernel.
const KERNEL_MAX: Duration = Duration::from_millis(10);
/// How long the stream may be lost before the master counts as away.
const AWAY_AFTER: Duration = Duration::from_secs(1);
/// Questions about open files under way at once, when the stream is back.
const QUESTIONS: usize = 16;

/// Changes that were dealt with but for the kernel.
struct Unacked {
    sequence: Sequence,
    number: u64,
    until: Instant,
}

/// Follows the stream until the file system stops.
pub(super) async fn follow(vfs: Arc<Vfs>, mut watch: Watch) {
    let mut progress = vfs.notices.progress();
    let mut unacked: VecDeque<Unacked> = VecDeque::new();
    let mut away_at = Some(Instant::now() + AWAY_AFTER);
    loop {
        let told = *progress.borrow_and_update();
        let now = Instant::now();
        while let Some(first) = unacked.pop_front_if(|first| first.number <= told || first.until <= now) {
            watch.ack_sequence(first.sequence);
        }
        let ack_at = unacked.front().map(|first| first.until);
        tokio::select! {
            () = vfs.stopping.cancelled() => return,
            event = watch.next() => match event {
                Event::Lost => {
                    unacked.clear();
                    away_at = Some(Instant::now() + AWAY_AFTER);
                    vfs.lost().await;
                }
                Event::Back { same_session } => {
                    away_at = None;
                    vfs.back(same_session);
                }
                Event::Changes(changes) => {
                    let number = vfs.changed(&changes.list).await;
                    unacked.push_back(Unacked {
                        sequence: changes.sequence,
                        number,
                        until: Instant::now() + KERNEL_MAX,
                    });
                }
            },
            _ = progress.changed(), if ack_at.is_some() => {}
            () = at(ack_at), if ack_at.is_some() => {}
            () = at(away_at), if away_at.is_some() => {
                away_at = None;
                vfs.reach.set(State::Away);
                tracing::warn!("the master is away: what is remembered answers");
            }
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

impl Vfs {
    async fn lost(&self) {
        self.reach.set(State::Unsure);
        let all = self.cache.lost();
        tracing::info!(
            count = all.len(),
            "the change stream is lost: the kernel drops what it cached"
        );
        self.notices.send(all).await;
    }

    fn back(self: &Arc<Self>, same_session: bool) {
        self.cache.back();
        self.reach.set(State::Watching);
        if !same_session {
            tracing::warn!("the session is a new one: locks and removed files that were open are gone");
            self.cache.new_session();
        }
        let open = self.cache.open_inodes();
        self.control.keep(open.iter().copied());
        let vfs = self.clone();
        tokio::spawn(async move { vfs.look_again(open).await });
    }

    /// Open files may have changed while nobody told us, or been removed.
    async fn look_again(&self, open: Vec<InodeId>) {
        let questions = futures::stream::iter(open).for_each_concurrent(QUESTIONS, |inode| async move {
            match self.fresh(super::Caller::default(), inode.0).await {
                Ok((metadata, _)) => {
                    self.cache.peek(inode.0, |node| node.held |= metadata.nlink == 0);
                    if let Some(content) = self.cache.peek(inode.0, |node| node.content.clone()).flatten() {
                        content.changed(&metadata);
                    }
                }
                Err(error) => tracing::debug!(inode = inode.0, %error, "an open file cannot be looked at"),
            }
        });
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = questions => {}
        }
    }

    /// Deals with changes but for the kernel; returns the number of the notice that tells it the last of them.
    async fn changed(self: &Arc<Self>, changes: &[Change]) -> u64 {
        let Effects {
            invalidate,
            release,
            recall,
            freed,
            renew,
        } = self.cache.apply(changes);
        self.orphans.add(release);
        self.control.keep(renew);
        for inode in freed {
            self.waits.wake(inode);
        }
        for inode in recall {
            self.recall(inode);
        }
        self.tell(invalidate).await
    }

    async fn tell(&self, invalidate: Vec<Invalidate>) -> u64 {
        if invalidate.is_empty() {
            return 0;
        }
        // A name in a directory that is being changed here: the kernel would take it when that is done, and that may
        // be when this is acknowledged.
        let blocked = invalidate.iter().any(|notice| match notice {
            Invalidate::Entry { parent, .. } => self.cache.is_changing(*parent),
            Invalidate::Inode { .. } => false,
        });
        let number = self.notices.send(invalidate).await;
        if blocked { 0 } else { number }
    }

    /// Gives an append turn back; nobody waits for it here.
    fn recall(self: &Arc<Self>, inode: InodeId) {
        let content = self.cache.peek(inode.0, |node| node.content.clone()).flatten();
        let vfs = self.clone();
        tokio::spawn(async move {
            let given = match content {
                Some(content) => content.recall().await,
                None => vfs.own().append_done(inode).await,
            };
            if let Err(error) = given {
                tracing::warn!(inode = inode.0, %error, "an append turn was not given back in order");
            }
        });
    }
}
