//! Flush and fsync: everything is with the members, the master knows the length and the time of the last write.

use super::dirty::Which;
use super::{Content, Opening};
use dfs_client::Result;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What becomes of the grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grants {
    /// More is likely to be written.
    Keep,
    /// The last writer closes.
    GiveBack,
}

#[expect(clippy::missing_errors_doc, reason = "the cluster's, for all")]
impl Content {
    /// Returns when every member has all that was written before, and the master its length and time (close(2)).
    /// Of a file that has no other handle open for writing the grant goes back with it.
    pub async fn flush(self: &Arc<Self>, opening: &Opening) -> Result<()> {
        let grants = match self.state().writers {
            0 | 1 => Grants::GiveBack,
            _ => Grants::Keep,
        };
        // What fails is in the file's errors.
        let _ = self.commit(grants).await;
        let unused = self.state().writes == 0 && self.gift.swap(false, Ordering::Relaxed);
        if grants == Grants::GiveBack && unused {
            // A chunk without bytes is of no use, and nobody else may write to it.
            let content = self.clone();
            tokio::spawn(async move { content.handle.rest().await });
        }
        self.state().errors.report(&opening.told)
    }

    /// As [`Content::flush`] for nobody in particular: before times are set, a lock is released, others are told.
    /// Errors stay for the open handles.
    pub async fn settle(self: &Arc<Self>) -> Result<()> {
        self.commit(Grants::Keep).await
    }

    /// Returns when all that was written before is on stable storage everywhere (fsync(2)).
    pub async fn sync(self: &Arc<Self>, opening: &Opening) -> Result<()> {
        let wanted = self.state().writes;
        if self.state().synced < wanted {
            let _one = self.committing.lock().await;
            if self.state().synced < wanted {
                self.sync_all().await;
            }
        }
        self.state().errors.report(&opening.told)
    }

    /// What is synced is committed as well.
    async fn sync_all(self: &Arc<Self>) {
        let upto = self.state().begin_commit();
        self.send_synced(upto).await;
        let synced = self.handle.sync_all().await;
        self.land().await;
        let mut state = self.state();
        match synced {
            Ok(()) => {
                state.synced = state.synced.max(upto);
                state.committed(upto, self.handle.committed());
            }
            Err(error) => {
                state.not_committed(upto);
                state.errors.record(error);
            }
        }
    }

    async fn commit(&self, grants: Grants) -> Result<()> {
        if self.state().is_settled() {
            return Ok(());
        }
        let _one = self.committing.lock().await;
        if self.state().is_settled() {
            return Ok(());
        }
        let upto = self.state().begin_commit();
        self.send(Which::UpTo(upto)).await;
        let told = match grants {
            Grants::Keep => self.handle.commit().await,
            Grants::GiveBack => self.handle.rest().await,
        };
        self.land().await;
        let mut state = self.state();
        match told {
            Ok(()) => {
                state.committed(upto, self.handle.committed());
                Ok(())
            }
            Err(error) => {
                state.not_committed(upto);
                state.errors.record(error.clone());
                Err(error)
            }
        }
    }
}
