//! Copies a chunk in the background from an active member: the base of a joiner.
//!
//! Nobody takes the result for more than a start (it is not *synced* for any version): the reconfigure that follows
//! pulls what has changed since. The chunk may be written all the while, so each block is stored with the CRC it came
//! with, whatever the table said before. It is fsynced at the end, so that the reconfigure finds little to do.

use crate::orders::cancelled;
use crate::peers::{Claims, Pass, PulledBlock, Run};
use crate::report::Outcome;
use crate::server::Server;
use crate::store::{How, Install, Replica};
use crate::sync::runs;
use dfs_proto::capability::Member;
use dfs_proto::limits::BLOCK_BYTES;
use dfs_proto::{ChunkHandle, Code, Error, Result, Version};
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longest wait for a mebibyte of background data.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Mebibytes of one chunk on their way at once.
const PULLS_AT_ONCE: usize = 4;

/// One order to copy, being carried out.
pub(crate) struct Copy<'a> {
    pub(crate) server: &'a Server,
    pub(crate) chunk: ChunkHandle,
    /// The active version.
    pub(crate) version: Version,
    /// Its members.
    pub(crate) from: &'a [Member],
    pub(crate) pass: &'a Pass,
    pub(crate) cancel: &'a CancellationToken,
}

impl Copy<'_> {
    /// The copy's length, and the bytes that were moved for it.
    ///
    /// # Errors
    /// The last source's, when each was tried; `Stale` if a newer order came; the store's.
    pub(crate) async fn run(self) -> Result<Outcome> {
        let mut last = Error::new(Code::InvalidArgument, "an order to copy from nobody");
        for source in self.from {
            match self.copy(source).await {
                Err(error) if !self.cancel.is_cancelled() => last = error,
                result => return result,
            }
        }
        Err(last)
    }

    async fn copy(&self, source: &Member) -> Result<Outcome> {
        let claims = self
            .wait(self.server.peers.table(source, self.pass, CALL_DEADLINE))
            .await?;
        let replica = self.server.base(self.chunk).await?;
        let state = replica.state();
        if state.synced >= self.version {
            return Ok(Outcome::Copied {
                length: state.length,
                bytes: 0,
            });
        }
        let bytes = self.fill(&replica, source, &claims).await?;
        Ok(Outcome::Copied {
            length: claims.length,
            bytes,
        })
    }

    async fn fill(&self, replica: &Arc<Replica>, source: &Member, claims: &Claims) -> Result<u64> {
        let target = claims.target(None, claims.loss);
        let begin = |r: &Arc<Replica>| Install::begin(r, target, How::InPlace);
        let install = self.server.ground.on_disk(replica, begin).await?;
        let wanted: Vec<Run> = runs(install.needed());
        // What is on its way and what is being stored do not wait for each other.
        let (sender, fetched) = mpsc::channel(1);
        let (sent, stored) = tokio::join!(
            self.fetch_all(source, wanted, sender),
            self.store(install, fetched)
        );
        let (install, moved) = stored?;
        sent?;
        self.server.commit(install).await?;
        Ok(moved)
    }

    /// Fetches all runs in order, a few at once; ends early if nobody stores them.
    async fn fetch_all(
        &self,
        source: &Member,
        wanted: Vec<Run>,
        sender: mpsc::Sender<Vec<PulledBlock>>,
    ) -> Result<()> {
        let pulls = wanted.into_iter().map(|run| self.fetch(source, run));
        let mut pulls = futures::stream::iter(pulls).buffered(PULLS_AT_ONCE);
        while let Some(blocks) = pulls.next().await {
            if sender.send(blocks?).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Stores what comes; how many bytes it was.
    async fn store(
        &self,
        mut install: Install,
        mut fetched: mpsc::Receiver<Vec<PulledBlock>>,
    ) -> Result<(Install, u64)> {
        let mut moved = 0;
        while let Some(blocks) = fetched.recv().await {
            let bytes = blocks.iter().map(|b| b.bytes.len() as u64).sum::<u64>();
            self.server.ground.meters.copied_bytes.add(bytes);
            moved += bytes;
            install = self.server.put(install, blocks).await?;
        }
        Ok((install, moved))
    }

    /// A run's blocks; what has rotted at one member comes from another.
    async fn fetch(&self, source: &Member, run: Run) -> Result<Vec<PulledBlock>> {
        let mut pulled = self.pull(source, run).await?;
        for bad in pulled.bad {
            let run = Run { first: bad, count: 1 };
            let mut found = None;
            for other in self.from.iter().filter(|m| m.node != source.node) {
                found = self
                    .pull(other, run)
                    .await
                    .ok()
                    .and_then(|p| p.blocks.into_iter().next());
                if found.is_some() {
                    break;
                }
            }
            let missing = || Error::new(Code::Corrupt, format!("block {bad} is bad everywhere"));
            pulled.blocks.push(found.ok_or_else(missing)?);
        }
        Ok(pulled.blocks)
    }

    async fn pull(&self, from: &Member, run: Run) -> Result<crate::peers::Pulled> {
        let budget = self.server.ground.budget.take(u64::from(run.count) * BLOCK_BYTES);
        self.wait(async {
            budget.await;
            Ok(())
        })
        .await?;
        let run = run.of_ready_in_background();
        self.wait(self.server.peers.pull(from, self.pass, run, CALL_DEADLINE))
            .await
    }

    async fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled(self.chunk, self.version)),
            result = work => result,
        }
    }
}
