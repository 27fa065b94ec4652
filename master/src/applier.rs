//! From a command to its answer: log, transaction, state, store, in this order and by one task.
//!
//! [`Applier::start`] opens log and store, builds a store that cannot be used anew, and applies what the log has and the
//! store has not (applier/open.rs). Then one task gathers proposals into groups, makes each group durable in the log,
//! applies it as one transaction, commits that as one batch, and only then wakes the waiters
//! (applier/committer.rs). Another makes checkpoints and dumps beside it and has the log cut (applier/checkpoint.rs).
//!
//! What fails here ends the process: a log or store that failed once is not asked again. [`Handle::failed`] says why.
//! A full disk is no failure: commands that take space are refused, those that free it go on.

mod checkpoint;
mod committer;
mod open;
mod settler;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use dfs_proto::ids::ClusterId;
use dfs_proto::world::World;
use dfs_proto::{Code, Error, Result};
use dfs_stdx::disk::{DiskMeter, Lock, MeteredDisk};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::command::{Command, Outcome};
use crate::live::watch::Watch;
use crate::log::{self, Payload};
use crate::store::{Ground, View};
use committer::{Committer, Progress, Request};

/// Proposals that may wait: beyond it callers wait for room.
const PROPOSALS_MAX: usize = 1024;

/// What holds the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewKind {
    /// sled, in the data directory.
    Sled {
        /// Bytes that sled may use for its cache.
        cache_bytes: u64,
    },
    /// A map in memory, for simulation: every start loads the newest dump and replays the log.
    Memory,
}

/// How the applier works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The master's folder: log, dumps and store are in it.
    pub data_dir: PathBuf,
    /// What holds the state.
    pub view: ViewKind,
    /// Commands between two checkpoints.
    pub checkpoint_every: u64,
    /// Bytes of log after which a dump is due (or as many as the last dump has, if those are more).
    pub dump_log_bytes: u64,
    /// Size at which a log segment is followed by the next, in bytes.
    pub segment_bytes: u64,
    /// With less free space on the log's disk, in bytes, commands that take space are refused.
    pub low_space_bytes: u64,
    /// Go on with what can be read of a damaged log, once: what was acknowledged after the damage is lost.
    pub recover_from_dump: bool,
}

impl Options {
    /// The defaults for a folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            view: ViewKind::Sled {
                cache_bytes: 256 << 20,
            },
            checkpoint_every: 10_000,
            dump_log_bytes: 64 << 20,
            segment_bytes: log::SEGMENT_BYTES,
            low_space_bytes: 64 << 20,
            recover_from_dump: false,
        }
    }
}

/// The running tasks. To be stopped, or dropped with the process.
#[derive(Debug)]
pub struct Applier {
    handle: Handle,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _lock: Box<dyn Lock>,
}

impl Applier {
    /// Opens what is in the data directory, or begins a new log of the cluster `born` where nothing is.
    ///
    /// # Errors
    /// `Unavailable` with a message for a person: what is wrong and how to recover. `Busy`: another master has the folder.
    pub async fn start(options: Options, world: &World, born: ClusterId) -> Result<Applier> {
        let (disk, opening) = (world.disk.clone(), options.clone());
        let log_meter = Arc::new(DiskMeter::default());
        let log_disk = MeteredDisk::new(disk.clone(), log_meter.clone(), world.clock.clone());
        let opened = move || open::open(&opening, &disk, Arc::new(log_disk), born);
        let opened = world.pool.run(opened).await?;
        let ground = Arc::new(opened.ground);
        let stop = CancellationToken::new();
        let failure = Failure {
            stop: stop.clone(),
            why: Arc::new(watch::Sender::new(None)),
        };
        let (proposals, queue) = mpsc::channel(PROPOSALS_MAX);
        let progress = watch::Sender::new(Progress::of(&opened.log, ground.applied()));
        let handle = Handle {
            cluster: opened.log.cluster(),
            term: opened.log.term(),
            proposals: proposals.clone(),
            ground: ground.clone(),
            watch: Arc::default(),
            failure: failure.clone(),
            log_meter,
            progress: progress.subscribe(),
        };
        let checkpoints = checkpoint::Checkpoints {
            ground: ground.clone(),
            disk: world.disk.clone(),
            pool: world.pool.clone(),
            progress: progress.subscribe(),
            proposals,
            dumps: opened.dumps,
            failure: failure.clone(),
            options: options.clone(),
            cluster: opened.log.cluster(),
        };
        let settles = settler::run(
            ground.clone(),
            world.pool.clone(),
            progress.subscribe(),
            failure.clone(),
        );
        let committer = Committer {
            log: opened.log,
            ground,
            watch: handle.watch.clone(),
            low_space_bytes: options.low_space_bytes,
        };
        let commits = committer::run(committer, world.pool.clone(), (queue, progress), failure);
        let mut tasks = vec![tokio::spawn(commits), tokio::spawn(checkpoints.run())];
        if options.view != ViewKind::Memory {
            tasks.push(tokio::spawn(settles));
        }
        Ok(Applier {
            handle,
            stop,
            tasks,
            _lock: opened.lock,
        })
    }

    /// How the rest of the master uses it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Finishes the group in hand, makes a last checkpoint, and ends. Proposals that wait are answered `Unavailable`.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the applier ended badly");
            }
        }
    }
}

/// The first failure that ends the master.
#[derive(Clone, Debug)]
struct Failure {
    stop: CancellationToken,
    why: Arc<watch::Sender<Option<String>>>,
}

impl Failure {
    fn fail(&self, why: String) {
        tracing::error!(why, "the master cannot go on");
        self.why.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(why);
            }
            is_first
        });
        self.stop.cancel();
    }
}

/// Proposes commands and reads the state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    cluster: ClusterId,
    term: u64,
    proposals: mpsc::Sender<Request>,
    ground: Arc<Ground>,
    watch: Arc<OnceLock<Arc<Watch>>>,
    failure: Failure,
    log_meter: Arc<DiskMeter>,
    progress: watch::Receiver<Progress>,
}

impl Handle {
    /// From now on it hears of every change before that is answered. The first one only counts.
    pub fn watched_by(&self, watch: &Arc<Watch>) {
        let _ = self.watch.set(watch.clone());
    }

    /// The cluster of this log.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Counts the starts of this master, from 1 (restarts without a command in between share a number).
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Index of the last command that is visible to [`Handle::read`].
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.ground.applied()
    }

    /// Returns when a command behind `index` is visible; never if the master ends.
    pub async fn applied_beyond(&self, index: u64) {
        let mut progress = self.progress.clone();
        if progress.wait_for(|p| p.applied > index).await.is_err() {
            std::future::pending().await
        }
    }

    /// What the log does with its disk.
    #[must_use]
    pub fn log_meter(&self) -> &DiskMeter {
        &self.log_meter
    }

    /// Proposals that wait to be taken into a group.
    #[must_use]
    pub fn waiting(&self) -> usize {
        PROPOSALS_MAX - self.proposals.capacity()
    }

    /// Keys that are committed and not yet in the key-value store.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.ground.unsettled()
    }

    /// Makes the command durable, applies it, and returns its index and what it came to.
    /// A caller that goes away does not take its command back.
    ///
    /// # Errors
    /// `NoSpace`, `InvalidArgument`: nothing happened. `Unavailable`: the master ends, and nobody knows.
    pub async fn propose(&self, command: &Command) -> Result<(u64, Outcome)> {
        let payload = Payload {
            version: committer::COMMAND_VERSION,
            bytes: command.to_bytes(),
        };
        let bytes = payload.bytes.len();
        if bytes > log::format::PAYLOAD_BYTES_MAX {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("a command of {bytes} bytes is too long"),
            ));
        }
        let (reply, answer) = oneshot::channel();
        let takes_space = committer::takes_space(command);
        let request = Request::Propose {
            payload,
            takes_space,
            reply,
        };
        self.proposals.send(request).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// What `walk` makes of the state, in which every answered command is visible and none half. No commit happens
    /// while it walks: keep it to a page, and never wait in it.
    ///
    /// # Errors
    /// `Unavailable`: the store cannot be read, and the master ends.
    pub fn read<T>(&self, walk: impl FnOnce(&View<'_>) -> T) -> Result<T> {
        self.ground.read(walk).map_err(|error| {
            self.failure.fail(error.to_string());
            ending()
        })
    }

    /// Waits until the master cannot go on, and says why. The process should print it and end.
    pub async fn failed(&self) -> String {
        let mut why = self.failure.why.subscribe();
        let failed = why.wait_for(Option::is_some).await.map(|why| why.clone());
        failed
            .ok()
            .flatten()
            .expect("the sender lives as long as this handle")
    }
}

fn ending() -> Error {
    Error::new(
        Code::Unavailable,
        "the master is ending; whether the command took effect is not known",
    )
}
