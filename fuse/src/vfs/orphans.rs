//! Removed files that the master holds for this mount are given back, in batches, when nobody has them open.

use super::{Vfs, lock};
use dfs_client::InodeId;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Inodes in one message.
const BATCH: usize = 4_096;
/// How long a batch gathers.
const GATHER: Duration = Duration::from_millis(20);
/// Wait after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Inodes to give back.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    waiting: Mutex<BTreeSet<InodeId>>,
    wake: Notify,
}

impl Orphans {
    pub(super) fn add(&self, inodes: impl IntoIterator<Item = InodeId>) {
        let mut waiting = lock(&self.waiting);
        waiting.extend(inodes);
        if !waiting.is_empty() {
            drop(waiting);
            self.wake.notify_one();
        }
    }

    fn batch(&self) -> Vec<InodeId> {
        let mut waiting = lock(&self.waiting);
        let batch: Vec<InodeId> = waiting.iter().take(BATCH).copied().collect();
        for inode in &batch {
            waiting.remove(inode);
        }
        batch
    }
}

/// The task that does it.
pub(super) async fn give_back(vfs: Arc<Vfs>) {
    loop {
        tokio::select! {
            () = vfs.stopping.cancelled() => return,
            () = vfs.orphans.wake.notified() => sleep(GATHER).await,
        }
        loop {
            let batch = vfs.orphans.batch();
            if batch.is_empty() {
                break;
            }
            if let Err(error) = vfs.own().release(&batch).await {
                tracing::debug!(%error, count = batch.len(), "removed files are not given back yet");
                vfs.orphans.add(batch);
                sleep(AGAIN).await;
                break;
            }
        }
    }
}
