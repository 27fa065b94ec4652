//! What a lane tells the master: lengths, and the time of the last write; when it is due, when someone waits for it, and
//! at the end.

use super::lane::{Committing, Lane, Wanted};
use crate::convert::{self, Commit};
use dfs_proto::{Code, Result, Retry};
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl Lane {
    /// What the master should be told now, on its way.
    pub(super) fn next_commit(&mut self) -> Option<Committing> {
        if self.finish.is_some() {
            return None;
        }
        let (synced, settled) = {
            let p = self.progress.borrow();
            (p.synced, p.settled)
        };
        if self.wanted.sync > synced && self.window.synced_ticket() >= self.wanted.sync {
            // Overwritten bytes move the times, and whoever keeps the old ones must hear of it.
            if self.length > self.durable || self.touched && self.shared.informed {
                return Some(self.commit(true));
            }
            self.publish_wanted(self.wanted.sync, settled);
        }
        if self.wanted.settle > settled && self.window.has_none_before(self.wanted.settle) {
            let untold = self.touched || self.length > self.told;
            if self.length > self.recorded || untold && self.shared.informed {
                return Some(self.commit(false));
            }
            self.publish_wanted(0, self.wanted.settle);
        }
        self.commit_due()
            .is_some_and(|due| due <= Instant::now())
            .then(|| self.commit(false))
    }

    /// When the master is to be told by itself. One answer for waiting and for acting: a time at which nothing is
    /// done would be waited for without end.
    pub(super) fn commit_due(&self) -> Option<Instant> {
        (self.touched && self.finish.is_none() && self.window.acked_ticket() > 0)
            .then(|| self.last_commit + self.shared.core.master.timings().commit_every)
    }

    fn commit(&mut self, durable: bool) -> Committing {
        self.last_commit = Instant::now();
        let wanted = Wanted {
            sync: if durable { self.wanted.sync } else { 0 },
            // A length that is due by its age may be told while what was wanted is still on its way.
            settle: if self.window.has_none_before(self.wanted.settle) {
                self.wanted.settle
            } else {
                0
            },
        };
        let (commit, shared) = (self.commit_of(durable, false), self.shared.clone());
        self.touched = false;
        Box::pin(async move {
            let result = shared
                .core
                .master
                .change(&shared.caller, convert::commit_length(commit))
                .await;
            let told = result.map(|answer| shared.note_committed(convert::committed(answer)));
            (commit, wanted, told)
        })
    }

    fn commit_of(&self, durable: bool, close: bool) -> Commit {
        Commit {
            inode: self.shared.inode,
            chunk: self.grant.capability.chunk,
            version: self.grant.capability.version,
            length: self.length,
            durable,
            mtime_ns: self.touched.then(|| self.shared.mtime_ns()),
            close,
        }
    }

    pub(super) fn on_committed(&mut self, commit: Commit, wanted: Wanted, result: Result<()>) -> Result<()> {
        match result {
            Ok(()) => {
                self.note_recorded(commit);
                self.publish_wanted(wanted.sync, wanted.settle);
                Ok(())
            }
            // Another version is active: the stream is about to end, or has to.
            Err(error) if error.code == Code::Stale => Err(error),
            Err(error) if self.is_awaited(&wanted) => {
                self.refused = Some(error.clone());
                Err(error)
            }
            Err(error) => {
                if error.code != Code::NotFound {
                    tracing::warn!(%error, "the master did not take a length");
                }
                self.touched = error.retry() != Retry::Never;
                Ok(())
            }
        }
    }

    fn is_awaited(&self, wanted: &Wanted) -> bool {
        let p = self.progress.borrow();
        wanted.sync > p.synced || wanted.settle > p.settled
    }

    fn note_recorded(&mut self, commit: Commit) {
        if commit.length > self.recorded {
            self.shared.growths.fetch_add(1, Ordering::Relaxed);
        }
        self.recorded = self.recorded.max(commit.length);
        self.told = self.told.max(commit.length);
        if commit.durable {
            self.durable = self.durable.max(commit.length);
        }
    }

    pub(super) fn publish_wanted(&self, synced: u64, settled: u64) {
        self.progress.send_modify(|p| {
            p.synced = p.synced.max(synced);
            p.settled = p.settled.max(settled);
        });
    }

    /// The last length, and the grant goes back.
    pub(super) async fn last_commit(&mut self) -> Result<()> {
        // A length is durable only if a sync of this lane covered it.
        let durable = self.finish == Some(true) && self.window.synced_ticket() > 0;
        let commit = self.commit_of(durable, true);
        let answer = self
            .shared
            .core
            .master
            .change(&self.shared.caller, convert::commit_length(commit))
            .await?;
        self.shared.note_committed(convert::committed(answer));
        self.note_recorded(commit);
        if durable {
            self.unsynced = None;
        }
        Ok(())
    }
}
