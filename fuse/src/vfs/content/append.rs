//! Appending under the file's turn: one mount appends at a time, and knows the end while it does.

use super::{Content, Opening};
use dfs_client::{Code, Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The master waits a moment itself before it says "not yet".
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// The turn is asked for no longer than a call may take.
const TURN_DEADLINE: Duration = Duration::from_secs(30);

#[expect(clippy::missing_errors_doc, reason = "the cluster's, for all")]
impl Content {
    /// Appends if this mount has the turn and there is room; `None`: use [`Content::append`].
    pub fn try_append(self: &Arc<Self>, opening: &Opening, data: &[u8]) -> Option<Result<u64>> {
        let _one = self.appending.try_lock().ok()?;
        let end = {
            let state = self.state();
            state.turn.then_some(state.size)?
        };
        if let Err(error) = self.may_write(opening, end, data) {
            return Some(Err(error));
        }
        if !self.shared.budget.try_take(data.len() as u64) {
            return None;
        }
        Some(Ok(self.put(None, data)))
    }

    /// Writes at the end of the file, under the append turn; returns the offset.
    pub async fn append(self: &Arc<Self>, opening: &Opening, data: &[u8]) -> Result<u64> {
        let _one = self.appending.lock().await;
        self.take_turn().await?;
        let end = self.state().size;
        self.may_write(opening, end, data)?;
        self.room(data.len()).await?;
        Ok(self.put(None, data))
    }

    async fn take_turn(&self) -> Result<()> {
        let deadline = Instant::now() + TURN_DEADLINE;
        loop {
            if self.state().turn {
                return Ok(());
            }
            let turn = self.shared.inodes.append_turn(self.inode()).await?;
            if turn.yours {
                self.changed(&turn.metadata);
                let mut state = self.state();
                state.learn(&turn.metadata);
                state.turn = true;
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::new(Code::TimedOut, "another mount goes on appending"));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// The append turn is wanted elsewhere: all appended bytes are sent and committed, then the turn is given back.
    pub async fn recall(self: &Arc<Self>) -> Result<()> {
        let _one = self.appending.lock().await;
        self.state().turn = false;
        let settled = self.settle().await;
        self.shared.inodes.append_done(self.inode()).await?;
        settled
    }
}
