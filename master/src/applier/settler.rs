//! Moves commits from memory into sled beside everything else: as soon as there are many, or none came for a while.

use std::sync::Arc;
use std::time::Duration;

use dfs_stdx::blocking::Pool;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Failure;
use super::committer::Progress;
use crate::store::{self, Ground};

/// Keys from which on a settling is due: enough that keys written over and over are settled once, few enough that sled, which
/// lets nobody read while it takes a batch, is free again within milliseconds.
const KEYS_DUE: usize = 4_096;
/// Keys at which commits wait for it.
const KEYS_MAX: usize = 4 * KEYS_DUE;
/// What is committed is settled so much later at the latest.
const AGE_MAX: Duration = Duration::from_secs(1);

/// Runs until it is stopped or the store fails.
pub(super) async fn run(
    ground: Arc<Ground>,
    pool: Pool,
    mut progress: watch::Receiver<Progress>,
    failure: Failure,
) {
    let mut settled = ground.applied();
    loop {
        tokio::select! {
            biased;
            () = failure.stop.cancelled() => return,
            moved = progress.wait_for(|now| now.applied > settled) => {
                if moved.is_err() {
                    return;
                }
            }
        }
        let many = progress.wait_for(|_| ground.unsettled() >= KEYS_DUE);
        tokio::select! {
            biased;
            () = failure.stop.cancelled() => return,
            // Many, or old enough.
            _ = timeout(AGE_MAX, many) => {}
        }
        settled = ground.applied();
        let taken = ground.clone();
        if let Err(error) = pool.run(move || taken.settle()).await {
            return failure.fail(error.to_string());
        }
    }
}

/// Settles in place if commits have run far ahead.
pub(super) fn settle_if_due(ground: &Ground) -> store::Result<()> {
    if ground.unsettled() < KEYS_MAX {
        return Ok(());
    }
    ground.settle()
}
