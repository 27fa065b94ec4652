//! Checkpoints and dumps, beside the commits: what they cover, the log need not keep.
//!
//! A checkpoint makes the store durable as it is; it is due after so many commands. A dump is all of the state once
//! more, in a file of its own, from which a broken store is built anew; it is due when the log has grown by as much
//! as a dump costs. The log is cut below the checkpoint **and** below the older of the two dumps that are kept, so that
//! log and either dump give the state, whatever becomes of the store.

use std::sync::Arc;

use dfs_proto::ids::ClusterId;
use dfs_stdx::blocking::Pool;
use dfs_stdx::disk::Disk;
use tokio::sync::{mpsc, watch};

use super::committer::{Progress, Request};
use super::{Failure, Options, open};
use crate::store::dump::{self, Found, Header, Writer};
use crate::store::{self, Ground};

/// Entries are taken for a dump in pieces of so many bytes: commits wait no longer than one takes.
const PIECE_BYTES: usize = 64 * 1024;

/// The worker's parts.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pub(super) cluster: ClusterId,
    pub(super) ground: Arc<Ground>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pool: Pool,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) proposals: mpsc::Sender<Request>,
    /// Newest first.
    pub(super) dumps: Vec<Found>,
    pub(super) failure: Failure,
    pub(super) options: Options,
}

/// Why a dump was not made.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// The older dumps stay, the log is not cut, the next one is tried in its time.
    #[error(transparent)]
    Dump(#[from] dump::Error),
    /// The process ends.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Checkpoints {
    /// Runs until it is stopped; then makes a last checkpoint, so that the next start has little to replay.
    pub(super) async fn run(mut self) {
        let mut covered = self.ground.applied();
        let mut dumped_at_bytes = 0;
        loop {
            let due = covered + self.options.checkpoint_every;
            tokio::select! {
                biased;
                () = self.failure.stop.cancelled() => break,
                reached = self.progress.wait_for(|now| now.applied >= due) => {
                    if reached.is_err() {
                        break;
                    }
                }
            }
            let now = *self.progress.borrow();
            if let Err(error) = self.checkpoint(now, &mut dumped_at_bytes).await {
                return self.failure.fail(error.to_string());
            }
            covered = now.applied;
        }
        if let Err(error) = self.make_durable().await {
            self.failure.fail(error.to_string());
        }
    }

    async fn make_durable(&self) -> store::Result<Option<u64>> {
        let ground = self.ground.clone();
        let work = move || {
            ground.settle()?;
            ground.checkpointer().checkpoint()
        };
        self.pool.run(work).await
    }

    async fn checkpoint(&mut self, now: Progress, dumped_at_bytes: &mut u64) -> store::Result<()> {
        let durable = self.make_durable().await?;
        let last_bytes = self.dumps.first().map_or(0, |dump| dump.bytes);
        if now.logged_bytes - *dumped_at_bytes >= self.options.dump_log_bytes.max(last_bytes) {
            match self.dump(now.term).await {
                Ok(dumps) => {
                    self.dumps = dumps;
                    *dumped_at_bytes = now.logged_bytes;
                }
                Err(Failed::Dump(error)) => {
                    tracing::warn!(%error, "the log is kept, because no dump was made")
                }
                Err(Failed::Store(error)) => return Err(error),
            }
        }
        let older = self.dumps.get(1).map_or(0, |dump| dump.applied);
        let cut = Request::Cut(durable.unwrap_or(u64::MAX).min(older));
        tokio::select! {
            biased;
            // A committer that was stopped takes nothing more.
            () = self.failure.stop.cancelled() => {}
            _ = self.proposals.send(cut) => {}
        }
        Ok(())
    }

    /// Dumps the state as it is now; commits go on. Returns the dumps there are.
    async fn dump(&self, term: u64) -> Result<Vec<Found>, Failed> {
        let (ground, disk, cluster) = (self.ground.clone(), self.disk.clone(), self.cluster);
        let folder = open::dumps(&self.options);
        let begin = move || {
            Writer::begin(
                disk,
                &folder,
                Header {
                    cluster,
                    applied: ground.pin(),
                    term,
                },
            )
        };
        let mut writer = self.pool.run(begin).await?;
        loop {
            let ground = self.ground.clone();
            let is_last;
            (writer, is_last) = self.pool.run(move || piece(&ground, writer)).await?;
            if is_last {
                break;
            }
            tokio::task::yield_now().await;
        }
        let dumps = self.pool.run(move || writer.finish()).await?;
        tracing::info!(
            applied = dumps[0].applied,
            bytes = dumps[0].bytes,
            "dumped the state"
        );
        Ok(dumps)
    }
}

/// Moves a piece of the pinned entries into the dump; true behind the last.
fn piece(ground: &Ground, mut writer: Writer) -> Result<(Writer, bool), Failed> {
    let Some(entries) = ground.take(PIECE_BYTES)? else {
        return Ok((writer, true));
    };
    for (key, value) in entries {
        if let Err(error) = writer.add(&key, &value) {
            ground.unpin();
            return Err(Failed::Dump(error));
        }
    }
    Ok((writer, false))
}
