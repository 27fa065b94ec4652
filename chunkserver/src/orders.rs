//! Carries out the master's orders: those for one chunk in the order they came, those for different chunks side by side.
//!
//! Each chunk with work has a *lane*. A newer version does not wait behind an older one: it cancels what runs, which
//! stops at its next wait for another server (never in the middle of a change on disk) and is answered as stale.
//! Every order but `Activated` is answered exactly once, on the stream it came by; if that stream is gone, the answer
//! is too, and the master has already begun anew.

use crate::copy::Copy;
use crate::report::{Done, Order, Outcome, Report, SyncTask, Task};
use crate::rpc::master::Reports;
use crate::server::Server;
use crate::sync::Sync;
use dfs_proto::capability::Member;
use dfs_proto::{ChunkHandle, Code, Error, Result, Version};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Chunks with work at once; the master asks again for what is refused.
const LANES_MAX: usize = 8_192;
/// Jobs that wait in one lane: a chunk rarely has more than two.
const WAITING_PER_LANE_MAX: usize = 16;
/// Syncs that move data at once. Waiting for a source takes no place here: two servers that are each other's source
/// would wait for ever.
const PULLS_MAX: usize = 16;
/// Background copies at once: what the master begins for one server, and room. Each holds a few mebibytes.
const COPIES_MAX: usize = 8;

/// The lanes.
#[derive(Debug)]
pub(crate) struct Orders {
    server: Arc<Server>,
    lanes: Mutex<BTreeMap<ChunkHandle, Lane>>,
    pulls: Semaphore,
    copies: Semaphore,
}

#[derive(Debug)]
struct Lane {
    running: Running,
    waiting: VecDeque<Job>,
}

#[derive(Clone, Debug)]
struct Running {
    version: Version,
    /// A background copy gives way to everything.
    background: bool,
    cancel: CancellationToken,
}

/// What a lane does next.
#[derive(Debug)]
enum Job {
    /// An order of session `session`, to be answered by `reports`.
    Order {
        order: Box<Order>,
        session: u64,
        reports: Reports,
    },
    /// The comparison of session `session` found a newer proposal.
    Promise { session: u64, version: Version },
}

impl Job {
    fn version(&self) -> Version {
        match self {
            Job::Order { order, .. } => order.version,
            Job::Promise { version, .. } => *version,
        }
    }

    fn is_copy(&self) -> bool {
        matches!(self, Job::Order { order, .. } if matches!(order.task, Task::Copy { .. }))
    }

    fn running(&self) -> Running {
        Running {
            version: self.version(),
            background: self.is_copy(),
            cancel: CancellationToken::new(),
        }
    }
}

impl Orders {
    /// Of `server`.
    pub(crate) fn new(server: Arc<Server>) -> Arc<Orders> {
        Arc::new(Orders {
            server,
            lanes: Mutex::default(),
            pulls: Semaphore::new(PULLS_MAX),
            copies: Semaphore::new(COPIES_MAX),
        })
    }

    /// Takes an order that came in session `session`; the answer goes to `reports`.
    pub(crate) fn take(self: &Arc<Self>, order: Order, session: u64, reports: Reports) {
        let chunk = order.chunk;
        let order = Box::new(order);
        self.enqueue(
            chunk,
            Job::Order {
                order,
                session,
                reports,
            },
        );
    }

    /// Promises what the comparison in session `session` asked for; then the chunk counts as compared.
    pub(crate) fn promise(self: &Arc<Self>, session: u64, chunk: ChunkHandle, version: Version) {
        self.enqueue(chunk, Job::Promise { session, version });
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<ChunkHandle, Lane>> {
        self.lanes.lock().expect("no panic while the lanes are held")
    }

    fn enqueue(self: &Arc<Self>, chunk: ChunkHandle, job: Job) {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get_mut(&chunk) {
            if lane.running.background || job.version() > lane.running.version {
                lane.running.cancel.cancel();
            }
            if lane.waiting.len() < WAITING_PER_LANE_MAX {
                lane.waiting.push_back(job);
            } else {
                drop(lanes);
                refuse(job);
            }
            return;
        }
        // A comparison's promises are bounded by the replicas there are, and nobody would ask again.
        let bounded = matches!(job, Job::Order { .. });
        if bounded && lanes.len() >= LANES_MAX {
            drop(lanes);
            refuse(job);
            return;
        }
        let running = job.running();
        let cancel = running.cancel.clone();
        let waiting = VecDeque::new();
        lanes.insert(chunk, Lane { running, waiting });
        self.server.ground.meters.orders.set(lanes.len());
        drop(lanes);
        tokio::spawn(self.clone().drain(chunk, job, cancel));
    }

    /// A lane's life: one job after the other until none waits.
    async fn drain(self: Arc<Self>, chunk: ChunkHandle, first: Job, cancel: CancellationToken) {
        let mut next = Some((first, cancel));
        while let Some((job, cancel)) = next {
            self.run(chunk, job, &cancel).await;
            next = self.next(chunk);
        }
    }

    fn next(&self, chunk: ChunkHandle) -> Option<(Job, CancellationToken)> {
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(&chunk)?;
        let Some(job) = lane.waiting.pop_front() else {
            lanes.remove(&chunk);
            self.server.ground.meters.orders.set(lanes.len());
            return None;
        };
        lane.running = job.running();
        if lane
            .waiting
            .iter()
            .any(|w| job.is_copy() || w.version() > job.version())
        {
            lane.running.cancel.cancel();
        }
        Some((job, lane.running.cancel.clone()))
    }

    async fn run(&self, chunk: ChunkHandle, job: Job, cancel: &CancellationToken) {
        match job {
            Job::Promise { session, version } => self.keep_promise(session, chunk, version).await,
            Job::Order {
                order,
                session,
                reports,
            } => {
                let id = order.id;
                let Some(result) = self.carry_out(*order, session, cancel).await.transpose() else {
                    return;
                };
                if let Err(error) = &result {
                    tracing::debug!(%chunk, id, %error, "an order failed");
                }
                // A stream that is gone needs no answer: its session's orders are void.
                let _ = reports.send(Report::Done(Done { id, chunk, result })).await;
            }
        }
    }

    async fn keep_promise(&self, session: u64, chunk: ChunkHandle, version: Version) {
        match self.server.promise(chunk, version, None).await {
            Ok(_) => self.server.ground.fence.mark_compared_in(session, chunk),
            Err(error) => {
                tracing::warn!(%chunk, %version, %error, "a promise is not durable: the chunk is not served")
            }
        }
    }

    /// `Ok(None)`: this kind of order has no answer.
    async fn carry_out(
        &self,
        order: Order,
        session: u64,
        cancel: &CancellationToken,
    ) -> Result<Option<Outcome>> {
        let (chunk, version) = (order.chunk, order.version);
        match order.task {
            Task::Adopt { members, active, .. } => {
                self.server.activated(chunk, active);
                self.adopt(chunk, version, &members, session).await.map(Some)
            }
            Task::Sync(task) => self.sync(chunk, version, task, cancel).await.map(Some),
            Task::Activated => {
                self.server.activated(chunk, version);
                Ok(None)
            }
            Task::Copy { from, pass } => {
                let _place = tokio::select! {
                    place = self.copies.acquire() => place,
                    () = cancel.cancelled() => return Err(cancelled(chunk, version)),
                };
                let copy = Copy {
                    server: &self.server,
                    chunk,
                    version,
                    from: &from,
                    pass: &pass,
                    cancel,
                };
                copy.run().await.map(Some)
            }
            Task::Delete => self
                .server
                .delete(chunk, version)
                .await
                .map(|()| Some(Outcome::Deleted)),
        }
    }

    async fn adopt(
        &self,
        chunk: ChunkHandle,
        version: Version,
        members: &[Member],
        session: u64,
    ) -> Result<Outcome> {
        let adopted = self.server.promise(chunk, version, Some(members)).await?;
        // The master has just told the newest proposal: nothing is left to compare.
        self.server.ground.fence.mark_compared_in(session, chunk);
        Ok(Outcome::Adopted(adopted))
    }

    async fn sync(
        &self,
        chunk: ChunkHandle,
        version: Version,
        task: SyncTask,
        cancel: &CancellationToken,
    ) -> Result<Outcome> {
        let sync = Sync {
            server: &self.server,
            chunk,
            version,
            task,
            cancel,
            places: &self.pulls,
        };
        sync.run().await
    }
}

/// The answer to what was overtaken by a newer version.
pub(crate) fn cancelled(chunk: ChunkHandle, version: Version) -> Error {
    Error::new(Code::Stale, "overtaken by a newer order").on_chunk(chunk, version)
}

fn refuse(job: Job) {
    if let Job::Order { order, reports, .. } = job {
        let busy = Error::new(Code::Busy, "too many orders at once");
        let done = Done {
            id: order.id,
            chunk: order.chunk,
            result: Err(busy),
        };
        tokio::spawn(async move {
            let _ = reports.send(Report::Done(done)).await;
        });
    }
}
