//! The stream's work on the disk: one batch at a time, on the pool.

use super::{Actor, Applied, Life};
use crate::fence::Fence;
use crate::report::Trouble;
use crate::store::{self, Replica, Store};
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Version};
use std::sync::Arc;

/// Bytes that are written to the page cache in less time than a change of threads takes, roughly.
const BRIEF_BYTES_MAX: usize = 128 * 1024;

/// Creates the replica for packet number 1. A session that begins at this moment either sees it in its inventory, or
/// has raised what counts for new: then the chunk's members may have gone on without this server.
fn born(
    store: &Store,
    fence: &Fence,
    chunk: ChunkHandle,
    (version, members): (Version, Vec<NodeId>),
) -> store::Result<Arc<Replica>> {
    if !fence.is_new(chunk) {
        return Err(store::Error::OutOfStream);
    }
    let replica = store.create_unborn(chunk, version, members)?;
    if !fence.is_new(chunk) {
        store.discard(&replica)?;
        return Err(store::Error::OutOfStream);
    }
    Ok(replica)
}

impl Actor {
    /// Starts the next batch, if none is under way.
    pub(super) fn start_work(&mut self) {
        if self.applying.is_some() || self.queue.is_empty() {
            return;
        }
        let mut packets = Vec::with_capacity(self.queue.len());
        let (mut number, mut sync, mut bytes) = (0, false, 0);
        while let Some(job) = self.queue.pop_front() {
            number = job.number;
            sync = job.sync;
            bytes += job.packet.data.len();
            packets.push(job.packet);
            if sync {
                break;
            }
        }
        let (store, replica) = (self.ground.store.clone(), self.replica.clone());
        let waits = sync && !replica.as_ref().is_some_and(|r| r.is_in_memory());
        let (chunk, version, fence) = (self.chunk(), self.version(), self.ground.fence.clone());
        let members = self.opening.capability.members.iter().map(|m| m.node).collect();
        let work = move || -> store::Result<Arc<Replica>> {
            let replica = match replica {
                Some(replica) => replica,
                None => born(&store, &fence, chunk, (version, members))?,
            };
            replica.apply(&packets)?;
            if sync {
                replica.sync()?;
            }
            Ok(replica)
        };
        if self.replica.is_none() {
            self.ground.fence.mark_compared(chunk);
        }
        self.dirty = !sync;
        self.work(number, bytes <= BRIEF_BYTES_MAX && !waits, work);
    }

    fn work(
        &mut self,
        number: u64,
        brief: bool,
        work: impl FnOnce() -> store::Result<Arc<Replica>> + Send + 'static,
    ) {
        let (pool, meters) = (self.ground.world.pool.clone(), self.ground.meters.clone());
        let begun = self.ground.world.clock.now();
        self.applying = Some(Box::pin(async move {
            let outcome = match brief {
                true => pool.run_brief(work).await,
                false => pool.run(work).await,
            };
            if number > 0 {
                meters.applies.observe(begun.elapsed());
            }
            Applied { number, outcome }
        }));
    }

    pub(super) async fn on_applied(&mut self, applied: Applied) -> Life {
        match applied.outcome {
            Ok(replica) => {
                self.replica = Some(replica);
                self.write.applied(applied.number, &mut self.effects);
                self.act()
            }
            Err(error) => {
                self.complain(&error);
                let code = if matches!(error, store::Error::Stale(_)) {
                    Code::Stale
                } else {
                    Code::Unavailable
                };
                self.leave(Error::new(code, error.to_string()).on_node(self.mine()))
                    .await
            }
        }
    }

    /// Waits for the batch under way and drops the queue: after it nothing is applied any more.
    pub(super) async fn settle(&mut self) {
        self.queue.clear();
        if let Some(applying) = self.applying.take() {
            let applied = applying.await;
            if applied.outcome.is_ok() {
                self.write.applied(applied.number, &mut self.effects);
            }
        }
        // Acknowledgements that were on their way count; nobody is told of new ones.
        self.effects.clear();
        self.show();
    }

    /// Tells the master of a failed disk or a rotten block.
    fn complain(&self, error: &store::Error) {
        let message = error.to_string();
        match (error, &self.replica) {
            (store::Error::Fenced, Some(replica)) => self.ground.complain(Trouble::DiskFailed {
                disk: replica.home().id,
                message,
            }),
            (store::Error::Corrupt { .. }, _) => self.ground.complain(Trouble::BadBlock {
                chunk: self.chunk(),
                version: self.version(),
                message,
            }),
            _ => tracing::warn!(chunk = %self.chunk(), message, "packets not applied"),
        }
    }

    /// Puts the replica on stable storage; a quiet one loses its open mark.
    pub(super) fn tidy(&mut self, close: bool) {
        let now = self.ground.world.clock.now();
        (self.synced_at, self.active_at) = (now, if close { now } else { self.active_at });
        let Some(replica) = self.replica.clone().filter(|r| r.state().open) else {
            return;
        };
        self.dirty = false;
        self.work(0, replica.is_in_memory(), move || {
            replica.sync()?;
            if close {
                replica.close()?;
            }
            Ok(replica)
        });
    }
}
