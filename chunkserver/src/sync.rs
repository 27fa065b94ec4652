//! Makes a replica ready for the version it has promised: the same bytes as the version's source, durable.
//!
//! The **source** becomes ready as it is: a lost one goes back to its last fsync, blocks that a crash tore are taken
//! from another member of its kind where they verify there and accepted as found where not, a truncation cuts it. Only
//! then does it answer tables and pulls of the version; so everyone waits for it, and nobody pulls what it will change.
//!
//! Every **other** member fetches the source's table, pulls the blocks that differ, each verified, and installs them
//! ([`Install`]): a whole replica at once, so that it stays whole at every instant, any other in place. A block that
//! has rotted at the source is taken from another member if it has the very bytes.
//!
//! Cancelled, it stops at its next wait for another server, never within a change of the replica.

use crate::orders::cancelled;
use crate::peers::{BLOCKS_PER_PULL, Claims, PulledBlock, Run};
use crate::report::{Outcome, SyncTask};
use crate::server::Server;
use crate::store::{How, Install, Kind, Replica, State, Target};
use dfs_proto::capability::Member;
use dfs_proto::limits::BLOCK_BYTES;
use dfs_proto::span::block_length;
use dfs_proto::{ChunkHandle, Code, Error, Result, Version};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// First and longest wait before a source that is not ready is asked again.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Shortest deadline of a call to another server, whatever the test profile says: a mebibyte has to pass.
const CALL_DEADLINE_MIN: Duration = Duration::from_secs(1);

/// One order to sync, being carried out.
pub(crate) struct Sync<'a> {
    pub(crate) server: &'a Server,
    pub(crate) chunk: ChunkHandle,
    pub(crate) version: Version,
    pub(crate) task: SyncTask,
    pub(crate) cancel: &'a CancellationToken,
    /// Places for syncs that move data.
    pub(crate) places: &'a Semaphore,
}

impl Sync<'_> {
    /// Ready, with length, digest and loss.
    ///
    /// # Errors
    /// `Stale` if more is promised or a newer order came; `NotYet` if the version is not promised; `Unavailable` if
    /// this source has lost power since the master looked, or the source cannot be reached; the store's.
    pub(crate) async fn run(self) -> Result<Outcome> {
        let replica = self
            .server
            .replica(self.chunk)
            .ok_or_else(|| self.error(Code::NotYet, "no replica"))?;
        let state = replica.state();
        if state.promised != self.version {
            let code = if state.promised > self.version {
                Code::Stale
            } else {
                Code::NotYet
            };
            return Err(self.error(code, "another version is promised"));
        }
        if state.synced < self.version {
            if self.task.source == self.server.node() {
                self.become_source(&replica).await?;
            } else {
                self.follow(&replica).await?;
            }
        }
        let table = self.on_disk(&replica, |r| r.table()).await?;
        Ok(Outcome::Ready {
            length: table.length,
            digest: table.digest(),
            loss: table.loss,
        })
    }

    /// What this replica holds, settled and cut, is the version.
    async fn become_source(&self, replica: &Arc<Replica>) -> Result<()> {
        let state = replica.state();
        if state.synced == Version(0) && self.task.truncate == Some(0) {
            return self.begin_empty(replica).await;
        }
        let as_told = match state.kind {
            Kind::Intact => !self.task.source_lost,
            Kind::Lost => self.task.source_lost,
            Kind::Broken => false,
        };
        if !as_told {
            return Err(self.error(
                Code::Unavailable,
                "the source is not what it was when it answered",
            ));
        }
        self.hold(replica, &[]);
        for block in self.on_disk(replica, |r| r.torn_blocks()).await? {
            self.settle(replica, block).await?;
        }
        let loss = if self.task.source_lost {
            self.version
        } else {
            state.loss
        };
        let (version, truncate) = (self.version, self.task.truncate);
        self.on_disk(replica, move |r| r.set_ready(version, loss, truncate))
            .await
    }

    /// Nothing was ever kept of the chunk, here or elsewhere: it begins anew, whatever a copy left behind here.
    async fn begin_empty(&self, replica: &Arc<Replica>) -> Result<()> {
        let loss = if self.task.source_lost {
            self.version
        } else {
            replica.state().loss
        };
        let target = Claims::default().target(Some(self.version), loss);
        let begin = move |r: &Arc<Replica>| Install::begin(r, target, How::InPlace)?.commit();
        self.on_disk(replica, begin).await
    }

    /// A torn block becomes what another member has there, or stays as it is found.
    async fn settle(&self, replica: &Arc<Replica>, block: u32) -> Result<()> {
        let length = block_length(u64::from(block), replica.state().length);
        let found = self.elsewhere(block, |b| b.bytes.len() as u64 >= length).await?;
        match found {
            Some(found) => {
                let bytes = found
                    .bytes
                    .slice(..usize::try_from(length).expect("a block is small"));
                self.on_disk(replica, move |r| r.settle(block, &bytes)).await
            }
            None => {
                tracing::warn!(chunk = %self.chunk, block, "a torn block is accepted as found");
                self.on_disk(replica, move |r| r.accept(block)).await
            }
        }
    }

    /// A block from another member of the source's kind, if it verifies and suits.
    async fn elsewhere(
        &self,
        block: u32,
        suits: impl Fn(&PulledBlock) -> bool,
    ) -> Result<Option<PulledBlock>> {
        let me = self.server.node();
        let run = Run {
            first: block,
            count: 1,
        };
        for other in self.task.others.iter().filter(|m| m.node != me) {
            let pull = self
                .server
                .peers
                .pull(other, &self.task.pass, run.of_adopted(), self.deadline());
            match self.wait(pull).await {
                Ok(pulled) => {
                    if let Some(found) = pulled.blocks.into_iter().find(|b| b.block == block && suits(b)) {
                        return Ok(Some(found));
                    }
                }
                Err(error) if self.cancel.is_cancelled() => return Err(error),
                Err(error) => {
                    tracing::debug!(chunk = %self.chunk, block, %error, "another member does not give this block");
                }
            }
        }
        Ok(None)
    }

    /// Becomes what the source is.
    async fn follow(&self, replica: &Arc<Replica>) -> Result<()> {
        let source = self.source()?;
        let claims = self.claims(source).await?;
        let _place = self.wait(async { Ok(self.places.acquire().await) }).await?;
        let state = replica.state();
        let whole = self.was_whole(&state);
        let how = if whole { How::Staged } else { How::InPlace };
        let target = self.target(&claims);
        let mut install = self
            .on_disk(replica, move |r| Install::begin(r, target, how))
            .await?;
        self.hold(replica, install.needed());
        for run in runs(install.needed()) {
            let blocks = self.fetch(source, run, &claims).await?;
            let bytes = blocks.iter().map(|b| b.bytes.len() as u64).sum();
            self.server.ground.meters.synced_bytes.add(bytes);
            install = self.server.put(install, blocks).await?;
        }
        self.server.commit(install).await?;
        let digest = self.on_disk(replica, |r| r.digest()).await?;
        if digest == claims.digest {
            return Ok(());
        }
        Err(self.error(Code::Internal, "what was pulled is not what the source claimed"))
    }

    /// A stale replica was not: a copy may have changed its blocks without its table.
    fn was_whole(&self, state: &State) -> bool {
        let active = self.server.ground.fence.active(self.chunk).max(Version::FIRST);
        state.kind == Kind::Intact && state.synced >= active
    }

    /// What sync brings waits for activation; of a replica that did not serve before, everything does.
    fn hold(&self, replica: &Replica, changing: &[u32]) {
        let state = replica.state();
        let served = self.was_whole(&state) && !state.restarted;
        let block = |b: &u32| u64::from(*b) * BLOCK_BYTES..(u64::from(*b) + 1) * BLOCK_BYTES;
        let held = if served {
            changing.iter().map(block).collect()
        } else {
            std::iter::once(0..u64::MAX).collect()
        };
        self.server
            .ground
            .chains
            .gate_or_new(self.chunk)
            .hold(self.version, held);
    }

    fn target(&self, claims: &Claims) -> Target {
        let loss = if self.task.source_lost {
            self.version
        } else {
            claims.loss
        };
        claims.target(Some(self.version), loss)
    }

    fn source(&self) -> Result<&Member> {
        let source = self.task.others.iter().find(|m| m.node == self.task.source);
        source.ok_or_else(|| {
            self.error(
                Code::InvalidArgument,
                "the order does not say where the source is",
            )
        })
    }

    /// The source's table, once it is ready.
    async fn claims(&self, source: &Member) -> Result<Claims> {
        let mut wait = ASK_AGAIN.0;
        let give_up = self.server.ground.world.clock.now() + self.deadline() * 2;
        loop {
            let asked = self.server.peers.table(source, &self.task.pass, self.deadline());
            match self.wait(asked).await {
                Err(error)
                    if error.code == Code::NotYet && self.server.ground.world.clock.now() < give_up => {}
                answer => return answer,
            }
            self.wait(async {
                tokio::time::sleep(wait).await;
                Ok(())
            })
            .await?;
            wait = (wait * 2).min(ASK_AGAIN.1);
        }
    }

    /// A run's blocks as the source claims them; what has rotted there comes from the others.
    async fn fetch(&self, source: &Member, run: Run, claims: &Claims) -> Result<Vec<PulledBlock>> {
        let pull = self
            .server
            .peers
            .pull(source, &self.task.pass, run.of_ready(), self.deadline());
        let pulled = self.wait(pull).await?;
        let mut blocks: Vec<PulledBlock> = pulled.blocks.into_iter().filter(|b| claims.fit(b)).collect();
        for missing in run.first..run.first + run.count {
            if blocks.iter().any(|b| b.block == missing) {
                continue;
            }
            let Some(block) = self.elsewhere(missing, |b| claims.fit(b)).await? else {
                let error = self.error(
                    Code::Corrupt,
                    &format!("block {missing} is bad wherever it should be"),
                );
                return Err(error.on_node(source.node));
            };
            blocks.push(block);
        }
        Ok(blocks)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        replica: &Arc<Replica>,
        work: impl FnOnce(&Arc<Replica>) -> crate::store::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.server.ground.on_disk(replica, work).await
    }

    fn error(&self, code: Code, message: &str) -> Error {
        Error::new(code, message)
            .on_chunk(self.chunk, self.version)
            .on_node(self.server.node())
    }

    fn deadline(&self) -> Duration {
        self.server.timings().ack_deadline.max(CALL_DEADLINE_MIN)
    }

    /// Waits for another server, unless a newer order comes first.
    async fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled(self.chunk, self.version)),
            result = work => result,
        }
    }
}

/// The blocks as runs of neighbours, each short enough for one call.
pub(crate) fn runs(blocks: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &block in blocks {
        match runs.last_mut() {
            Some(run) if run.first + run.count == block && run.count < BLOCKS_PER_PULL => run.count += 1,
            _ => runs.push(Run {
                first: block,
                count: 1,
            }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_hold_each_block_once_and_keep_the_limit(blocks in proptest::collection::btree_set(0u32..100, 0..80)) {
            let blocks: Vec<u32> = blocks.into_iter().collect();
            let runs = runs(&blocks);
            prop_assert!(runs.iter().all(|r| (1..=BLOCKS_PER_PULL).contains(&r.count)));
            let listed: Vec<u32> = runs.iter().flat_map(|r| r.first..r.first + r.count).collect();
            prop_assert_eq!(listed, blocks);
        }

        #[test]
        fn neighbours_travel_together(first in 0u32..50, count in 1u32..40) {
            let blocks: Vec<u32> = (first..first + count).collect();
            prop_assert_eq!(runs(&blocks).len() as u32, count.div_ceil(BLOCKS_PER_PULL));
        }
    }
}
