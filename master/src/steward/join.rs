//! A chunk gets another member: copied in the background first if it is large, then taken in by the next version.

use super::Steward;
use super::change::Reason;
use crate::plan::order::{Answer, Order};
use crate::plan::reconfigure::DIFFERENCE_BYTES_MAX;
use dfs_proto::{ChunkHandle, NodeId, Result, Version};
use dfs_stdx::clock::Instant;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A copy makes at least so many bytes a second, or is given up.
const COPY_BYTES_A_SECOND_MIN: u64 = 1 << 20;

impl Steward {
    /// Brings a new member in, in the background; one attempt, the next round makes another.
    pub(super) fn join(self: &Arc<Self>, chunk: ChunkHandle, wanted: Option<NodeId>) {
        if !self.joining.lock().expect("no panic while held").insert(chunk) {
            return;
        }
        let Ok(permit) = self.copies.clone().try_acquire_owned() else {
            self.joining.lock().expect("no panic while held").remove(&chunk);
            return;
        };
        let steward = self.clone();
        tokio::spawn(async move {
            if let Err(error) = steward.bring_in(chunk, wanted).await {
                tracing::warn!(%chunk, %error, "no new member");
            }
            steward
                .joining
                .lock()
                .expect("no panic while held")
                .remove(&chunk);
            drop(permit);
            steward.wake();
        });
    }

    pub(super) fn is_joining(&self, chunk: ChunkHandle) -> bool {
        self.joining.lock().expect("no panic while held").contains(&chunk)
    }

    /// Servers that could not take a copy a moment ago.
    pub(super) fn shunned(&self, now: Instant) -> Vec<NodeId> {
        let mut shunned = self.shunned.lock().expect("no panic while held");
        shunned.retain(|_, until| *until > now);
        shunned.keys().copied().collect()
    }

    /// True if something was tried.
    async fn bring_in(self: &Arc<Self>, chunk: ChunkHandle, wanted: Option<NodeId>) -> Result<bool> {
        let Some(record) = self.desk.chunk(chunk).await? else {
            return Ok(false);
        };
        let shunned = self.shunned(self.desk.now());
        let Some(node) = wanted
            .filter(|n| !shunned.contains(n))
            .or_else(|| self.spare(chunk, &record))
        else {
            return Ok(false);
        };
        if record.active.length > DIFFERENCE_BYTES_MAX {
            let from: Vec<NodeId> = record
                .members()
                .filter(|n| self.desk.session(*n).is_connected())
                .collect();
            let order = Order::Copy {
                version: Version(record.active.version),
                from,
            };
            if !self.copy(chunk, node, order, record.active.length).await {
                let until = self.desk.now() + self.desk.timings.dead_after;
                self.shunned
                    .lock()
                    .expect("no panic while held")
                    .insert(node, until);
                return Ok(true);
            }
        }
        let reason = Reason {
            joiner: Some(node),
            why: "it is under its goal",
            ..Reason::default()
        };
        let mut progress = self.change(chunk, reason);
        while *progress.borrow_and_update() != super::Progress::Over {
            if progress.changed().await.is_err() {
                break;
            }
        }
        Ok(true)
    }

    async fn copy(&self, chunk: ChunkHandle, node: NodeId, order: Order, bytes: u64) -> bool {
        let (reply, mut answers) = mpsc::channel(1);
        tracing::info!(%chunk, %node, bytes, "a copy begins");
        if !self.desk.order(node, chunk, order, &reply) {
            return false;
        }
        drop(reply);
        let limit = self.desk.timings.ack_deadline + Duration::from_secs(1 + bytes / COPY_BYTES_A_SECOND_MIN);
        match tokio::time::timeout(limit, answers.recv()).await {
            Ok(Some(answered)) => match answered.answer {
                Answer::Copied => true,
                Answer::Failed(error) => {
                    tracing::warn!(%chunk, %node, %error, "a copy failed");
                    false
                }
                Answer::Adopted(_) | Answer::Ready(_) | Answer::Deleted => false,
            },
            Ok(None) | Err(_) => false,
        }
    }
}
