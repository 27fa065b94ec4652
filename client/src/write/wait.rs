//! Waiting for lanes: for packets to arrive, for a lane to end.

use super::lane::Progress;
use dfs_proto::{Code, Error, Result};
use tokio::sync::watch;

/// One packet's way to be waited for.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) ticket: u64,
}

/// Bytes on their way: can be waited for.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(super) sent: Vec<Sent>,
}

impl Delivery {
    /// Returns when every member has the bytes.
    ///
    /// # Errors
    /// As [`Handle::write_at`](crate::Handle::write_at).
    pub async fn arrived(&self) -> Result<()> {
        wait_acked(self.sent.clone()).await
    }
}

/// Waits until every member has these.
pub(super) async fn wait_acked(sent: Vec<Sent>) -> Result<()> {
    for Sent { mut progress, ticket } in sent {
        let lost = {
            let done = progress
                .wait_for(|p| p.acked >= ticket || p.ended.is_some())
                .await;
            let done = done.map_err(|_| stopped())?;
            if done.acked < ticket {
                done.ended.clone().unwrap_or(Ok(()))?;
            }
            done.lost.contains(&ticket)
        };
        if lost {
            return Err(Error::new(
                Code::Lost,
                "all replicas lost power before this was acknowledged",
            ));
        }
    }
    Ok(())
}

/// Waits until a lane has ended, well or not.
pub(super) async fn waits_for_end(progress: &mut watch::Receiver<Progress>) {
    // A task that is gone has ended, too.
    let _ = progress.wait_for(|p| p.ended.is_some()).await;
}

pub(super) async fn ended(progress: &mut watch::Receiver<Progress>) -> Result<()> {
    let end = progress
        .wait_for(|p| p.ended.is_some())
        .await
        .map_err(|_| stopped())?;
    end.ended.clone().unwrap_or(Ok(()))
}

/// The runtime is shutting down.
pub(super) fn stopped() -> Error {
    Error::new(Code::Unavailable, "the client is stopping")
}
