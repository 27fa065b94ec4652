//! Chunks get other members: copied in the background first if they are large, then taken in by the next version.
//!
//! The survey says what should be copied and how urgent it is; here the most urgent is begun, as many at once as the
//! servers have room for, spread over sources and targets. A copy whose reason has gone meanwhile is not begun, and one
//! that was made in vain is deleted as any stale replica is.

use super::Steward;
use super::change::Reason;
use crate::plan::lanes::Lanes;
use crate::plan::order::{Answer, Kind, Order};
use crate::plan::reconfigure::DIFFERENCE_BYTES_MAX;
use crate::plan::repair::{Move, Replica, Urgency};
use crate::store::records::Chunk;
use dfs_proto::{ChunkHandle, NodeId, Result, Version};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// A copy makes at least so many bytes a second, or is given up.
const COPY_BYTES_A_SECOND_MIN: u64 = 1 << 20;
/// Jobs looked at for one that can begin: if so many cannot, the servers are busy or full.
const LOOKED_AT_MAX: usize = 256;

/// Copies that wait, and those under way.
#[derive(Debug, Default)]
pub(super) struct Copies {
    table: Mutex<Table>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Table {
    waiting: BTreeMap<(Urgency, ChunkHandle), Move>,
    /// Chunks with a copy under way.
    joining: BTreeSet<ChunkHandle>,
    lanes: Lanes,
}

impl Copies {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic while held")
    }

    /// Chunks to be copied, as found on the way: what is urgent does not wait for a round's end.
    pub(super) fn add(&self, jobs: &[(ChunkHandle, Move)]) {
        if jobs.is_empty() {
            return;
        }
        let mut table = self.table();
        for (chunk, job) in jobs {
            table.waiting.insert((job.urgency, *chunk), *job);
        }
        drop(table);
        self.wake.notify_one();
    }

    /// All chunks to be copied, as a whole round found them; what waited before has its reason no more.
    pub(super) fn replace(&self, jobs: &[(ChunkHandle, Move)]) {
        let mut table = self.table();
        let joining = table.joining.clone();
        table.waiting = jobs
            .iter()
            .filter(|(chunk, _)| !joining.contains(chunk))
            .map(|(chunk, job)| ((job.urgency, *chunk), *job))
            .collect();
        drop(table);
        self.wake.notify_one();
    }

    /// Copies that have not begun.
    pub(super) fn waiting(&self) -> usize {
        self.table().waiting.len()
    }

    /// Copies under way.
    pub(super) fn under_way(&self) -> usize {
        self.table().joining.len()
    }

    /// True while the chunk is being copied.
    pub(super) fn is_joining(&self, chunk: ChunkHandle) -> bool {
        self.table().joining.contains(&chunk)
    }
}

/// A copy that can begin.
struct Begun {
    chunk: ChunkHandle,
    job: Move,
    /// Best first.
    from: Vec<NodeId>,
    to: NodeId,
}

/// Begins copies for ever.
pub(super) async fn rounds(steward: Arc<Steward>) {
    loop {
        while let Some(begun) = next(&steward).await {
            let steward = steward.clone();
            tokio::spawn(async move {
                if let Err(error) = steward.bring_in(&begun).await {
                    tracing::warn!(chunk = %begun.chunk, %error, "no new member");
                }
                steward.finished(&begun);
            });
        }
        steward.copies.wake.notified().await;
    }
}

/// The most urgent copy that can begin now.
async fn next(steward: &Arc<Steward>) -> Option<Begun> {
    // The table is never held while the soft facts are asked: the survey asks the other way round. Only this task begins
    // copies, so the lanes do not fill up meanwhile.
    let (waiting, lanes): (Vec<(ChunkHandle, Move)>, Lanes) = {
        let table = steward.copies.table();
        let jobs = table.waiting.iter().take(LOOKED_AT_MAX);
        (
            jobs.map(|((_, chunk), job)| (*chunk, *job)).collect(),
            table.lanes.clone(),
        )
    };
    for (chunk, job) in waiting {
        let Ok(record) = steward.desk.chunk(chunk).await else {
            return None;
        };
        let Some(record) = record.filter(|r| steward.is_wanted(r, &job)) else {
            steward.copies.table().waiting.remove(&(job.urgency, chunk));
            continue;
        };
        let Some((from, to)) = steward.lane(chunk, &record, &job, &lanes) else {
            continue;
        };
        let mut table = steward.copies.table();
        table.waiting.remove(&(job.urgency, chunk));
        if table.joining.insert(chunk) {
            table.lanes.begin(from[0], to);
            return Some(Begun { chunk, job, from, to });
        }
    }
    None
}

impl Steward {
    /// Servers that could not take a copy a moment ago.
    pub(super) fn shunned(&self, now: Instant) -> Vec<NodeId> {
        let mut shunned = self.shunned.lock().expect("no panic while held");
        shunned.retain(|_, until| *until > now);
        shunned.keys().copied().collect()
    }

    /// True if the reason for a copy is still there.
    fn is_wanted(&self, record: &Chunk, job: &Move) -> bool {
        let members: Vec<NodeId> = record.members().collect();
        if record.references == 0 || record.frozen || job.to.is_some_and(|to| members.contains(&to)) {
            return false;
        }
        let connected = members
            .iter()
            .filter(|n| self.desk.session(**n).is_connected())
            .count();
        match job.instead_of {
            Some(leaves) => members.contains(&leaves),
            None => connected < usize::try_from(record.goal).unwrap_or(usize::MAX),
        }
    }

    /// From whom and where to it can be copied now.
    fn lane(
        &self,
        chunk: ChunkHandle,
        record: &Chunk,
        job: &Move,
        lanes: &Lanes,
    ) -> Option<(Vec<NodeId>, NodeId)> {
        let connected: Vec<NodeId> = record
            .members()
            .filter(|n| self.desk.session(*n).is_connected())
            .collect();
        let from = lanes.sources(&connected, job.urgency);
        from.first()?;
        let now = self.desk.now();
        let shunned = self.shunned(now);
        let may = |n: &NodeId| lanes.may_receive(*n, job.urgency);
        let asked = job
            .to
            .filter(|n| !shunned.contains(n) && self.desk.session(*n).is_connected());
        let to = match asked {
            Some(node) => may(&node).then_some(node),
            None => {
                let candidates = self.desk.live.lock().servers.candidates(now);
                let busy = candidates.iter().map(|c| c.node).filter(|n| !may(n)).collect();
                self.target(chunk, record, job.instead_of, busy)
            }
        };
        to.map(|to| (from, to))
    }

    fn finished(&self, begun: &Begun) {
        let mut table = self.copies.table();
        table.joining.remove(&begun.chunk);
        table.lanes.end(begun.from[0], begun.to);
        drop(table);
        self.copies.wake.notify_one();
        self.wake();
    }

    /// One attempt; the next round makes another.
    async fn bring_in(self: &Arc<Self>, begun: &Begun) -> Result<()> {
        let (chunk, to) = (begun.chunk, begun.to);
        let Some(record) = self.desk.chunk(chunk).await? else {
            return Ok(());
        };
        if record.active.length > DIFFERENCE_BYTES_MAX && !self.copy(begun, &record).await {
            let until = self.desk.now() + self.desk.timings.suspect_after;
            self.shunned
                .lock()
                .expect("no panic while held")
                .insert(to, until);
            return Ok(());
        }
        let record = self.desk.chunk(chunk).await?;
        if !record.is_some_and(|r| self.is_wanted(&r, &begun.job)) {
            tracing::info!(%chunk, node = %to, "a copy is not needed any more");
            return Ok(());
        }
        let reason = Reason {
            joiner: Some(to),
            instead_of: begun.job.instead_of,
            why: why(begun.job.urgency),
            ..Reason::default()
        };
        let mut progress = self.change(chunk, reason);
        // One that waits for someone to return takes no place from the others.
        while *progress.borrow_and_update() == super::Progress::Going {
            if progress.changed().await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// True if the whole chunk is there.
    async fn copy(&self, begun: &Begun, record: &Chunk) -> bool {
        let (chunk, to, bytes) = (begun.chunk, begun.to, record.active.length);
        let order = Order::Copy {
            version: Version(record.active.version),
            from: begun.from.clone(),
        };
        let (reply, mut answers) = mpsc::channel(1);
        tracing::info!(%chunk, node = %to, from = %begun.from[0], bytes, urgency = ?begun.job.urgency, "a copy begins");
        if !self.desk.order(to, chunk, order, &reply) {
            return false;
        }
        drop(reply);
        let limit =
            self.desk.timings.ack_deadline + Duration::from_secs(10 + bytes / COPY_BYTES_A_SECOND_MIN);
        let answer = tokio::time::timeout(limit, answers.recv()).await;
        self.note_base(chunk, to, bytes);
        match answer {
            Ok(Some(answered)) => match answered.answer {
                Answer::Copied => true,
                Answer::Failed(error) => {
                    tracing::warn!(%chunk, node = %to, %error, "a copy failed");
                    false
                }
                Answer::Adopted(_) | Answer::Ready(_) | Answer::Deleted => false,
            },
            Ok(None) | Err(_) => false,
        }
    }

    /// A copy left a file there, whatever came of it: it is known from now on, so that it is used or deleted.
    fn note_base(&self, chunk: ChunkHandle, node: NodeId, length: u64) {
        let mut live = self.desk.live.lock();
        if live.replicas.get(chunk, node).is_none() {
            let base = Replica {
                promised: Version(0),
                synced: Version(0),
                length,
                kind: Kind::Intact,
                restarted: false,
            };
            live.replicas.put(chunk, node, base);
        }
    }
}

fn why(urgency: Urgency) -> &'static str {
    match urgency {
        Urgency::OneLeft => "one member is left",
        Urgency::Under { .. } => "it is under its goal",
        Urgency::Leaving => "a member is to leave",
        Urgency::Misplaced => "members share a failure domain",
        Urgency::Uneven => "a server is fuller than the others",
    }
}
