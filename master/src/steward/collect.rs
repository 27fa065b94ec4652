//! Deleting for good: chunks nothing refers to, after their grace time; and, slowly, replicas nobody knows.

use super::Steward;
use crate::command::ForgetChunks;
use crate::desk::Answered;
use crate::plan::collect::{self, Holder, UNKNOWN_KEPT, UNKNOWN_PER_MILLE_AN_HOUR, Unreferenced, Verdict};
use crate::plan::order::{Answer, Order};
use crate::state;
use crate::store::records::Chunk;
use dfs_proto::{ChunkHandle, NodeId, Result};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Chunks judged in one round.
const ROUND_CHUNKS: usize = 256;
/// The shortest pause between two rounds.
const PAUSE: Duration = Duration::from_millis(1);

/// What a round of collection remembers for the next one.
#[derive(Debug, Default)]
struct Collection {
    /// Who has confirmed that it has no replica.
    clean: BTreeMap<ChunkHandle, BTreeSet<NodeId>>,
    /// The chunk that was judged last, with the time since when nothing refers to it.
    after: Option<(i64, ChunkHandle)>,
}

/// Rounds for ever: from the oldest chunk to the youngest that is due, a few at a time, with a pause as long as each few took.
pub(super) async fn rounds(steward: Arc<Steward>) {
    let mut collection = Collection::default();
    let desk = steward.desk.clone();
    loop {
        let begun = desk.now();
        match round(&steward, &mut collection).await {
            Ok(true) => {
                tokio::time::sleep(desk.now().saturating_duration_since(begun).max(PAUSE)).await;
                continue;
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "a round of collection failed"),
        }
        collection.after = None;
        tokio::select! {
            biased;
            () = steward.wake_collect.notified() => tokio::time::sleep(desk.timings.heartbeat_every).await,
            () = tokio::time::sleep(desk.timings.heartbeat_every * 2) => {}
        }
    }
}

/// Deletes what may be deleted now, of a few chunks. False: those were the last that are due.
async fn round(steward: &Arc<Steward>, collection: &mut Collection) -> Result<bool> {
    let desk = &steward.desk;
    let grace = desk.timings.collect_grace;
    let before = desk
        .wall_ns()
        .saturating_sub(i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX));
    let after = collection.after;
    let (applied, due) = desk.read_indexed(move |read| due(read, after, before)).await?;
    let Some((last, record)) = due.last() else {
        return Ok(false);
    };
    collection.after = Some((record.unreferenced_ns, *last));
    let (reply, mut answers) = mpsc::channel(8 * ROUND_CHUNKS);
    let mut asked = 0_usize;
    for (chunk, verdict) in judge(steward, collection, &due, applied) {
        if let Verdict::Delete(nodes, version) = verdict {
            for node in nodes {
                let room = asked < 8 * ROUND_CHUNKS;
                asked += usize::from(room && desk.order(node, chunk, Order::Delete { version }, &reply));
            }
        }
    }
    drop(reply);
    gather(steward, collection, asked, &mut answers).await;
    let chunks: Vec<u64> = judge(steward, collection, &due, applied)
        .into_iter()
        .filter(|(_, verdict)| *verdict == Verdict::Forget)
        .map(|(chunk, _)| chunk.0)
        .collect();
    if !chunks.is_empty() {
        for chunk in &chunks {
            collection.clean.remove(&ChunkHandle(*chunk));
        }
        desk.propose(ForgetChunks { chunks }).await?;
    }
    Ok(due.len() == ROUND_CHUNKS)
}

fn judge(
    steward: &Steward,
    collection: &Collection,
    due: &[(ChunkHandle, Chunk)],
    applied: u64,
) -> Vec<(ChunkHandle, Verdict)> {
    let (now_ns, grace) = (steward.desk.wall_ns(), steward.desk.timings.collect_grace);
    let nobody = BTreeSet::new();
    let verdict = |(chunk, record): &(ChunkHandle, Chunk)| {
        let clean = collection.clean.get(chunk).unwrap_or(&nobody);
        let view = view(steward, *chunk, record, clean);
        (*chunk, collect::unreferenced(&view, now_ns, grace, applied))
    };
    due.iter().map(verdict).collect()
}

fn due(
    read: &dyn crate::store::Read,
    after: Option<(i64, ChunkHandle)>,
    before_ns: i64,
) -> Vec<(ChunkHandle, Chunk)> {
    state::unreferenced_before(read, after, before_ns, ROUND_CHUNKS)
        .into_iter()
        .filter_map(|(_, chunk)| state::chunk(read, chunk).map(|record| (chunk, record)))
        .collect()
}

fn view(steward: &Steward, chunk: ChunkHandle, record: &Chunk, clean: &BTreeSet<NodeId>) -> Unreferenced {
    let now = steward.desk.now();
    let live = steward.desk.live.lock();
    let proposed = record.proposed.iter().flat_map(|p| &p.holders);
    let hard = record.active.members.iter().chain(proposed).map(|n| NodeId(*n));
    let reported = live.replicas.of(chunk).map(|(n, _)| n);
    let standing = |node: NodeId| {
        let gone = live.servers.get(node).is_none_or(|s| s.removed);
        let holder = if clean.contains(&node) || gone {
            Holder::Clean
        } else if live.servers.is_compared(node) && live.servers.session(node, now).is_connected() {
            Holder::Connected
        } else {
            Holder::Away
        };
        (node, holder)
    };
    Unreferenced {
        since_ns: record.unreferenced_ns,
        birth: record.birth,
        newest: record.newest(),
        frozen: record.frozen,
        holders: hard.chain(reported).map(standing).collect(),
    }
}

/// Notes who has deleted.
async fn gather(
    steward: &Arc<Steward>,
    collection: &mut Collection,
    asked: usize,
    answers: &mut mpsc::Receiver<Answered>,
) {
    let until = steward.desk.now() + steward.desk.timings.ack_deadline;
    for _ in 0..asked {
        let Ok(Some(answered)) = tokio::time::timeout_at(until, answers.recv()).await else {
            break;
        };
        if steward.deleted(&answered) {
            collection
                .clean
                .entry(answered.chunk)
                .or_default()
                .insert(answered.node);
        }
    }
}

impl Steward {
    /// Notes the answer to a deletion. True if the replica is gone.
    pub(super) fn deleted(&self, answered: &Answered) -> bool {
        let Answered { node, chunk, answer } = answered;
        match answer {
            Answer::Deleted => {
                self.desk.live.lock().replicas.remove(*chunk, *node);
                true
            }
            Answer::Failed(error) => {
                tracing::info!(%chunk, %node, %error, "a replica was not deleted");
                false
            }
            Answer::Adopted(_) | Answer::Ready(_) | Answer::Copied => false,
        }
    }
}

/// Rounds through reported replicas of chunks that the master does not know, for ever.
pub(super) async fn unknown_rounds(steward: Arc<Steward>) {
    let desk = steward.desk.clone();
    let divisor = desk.parameters.time_divisor.max(1);
    let every = Duration::from_secs(60) / divisor;
    let mut since: BTreeMap<(ChunkHandle, NodeId), Instant> = BTreeMap::new();
    let mut allowance = 0_f64;
    loop {
        tokio::time::sleep(every).await;
        match unknown(&steward, &mut since).await {
            Ok((candidates, chunks)) => {
                let an_hour = (chunks.max(100) * UNKNOWN_PER_MILLE_AN_HOUR) as f64 / 1000.0;
                allowance = (allowance + an_hour / 60.0).min(an_hour);
                delete_unknown(&steward, candidates, &mut allowance);
            }
            Err(error) => tracing::error!(%error, "a round through unknown replicas failed"),
        }
    }
}

/// Replicas unknown for long enough, and how many chunks there are.
async fn unknown(
    steward: &Arc<Steward>,
    since: &mut BTreeMap<(ChunkHandle, NodeId), Instant>,
) -> Result<(Vec<(ChunkHandle, NodeId)>, u64)> {
    let desk = &steward.desk;
    let reported = desk.live.lock().replicas.unknown();
    let (still, counters) = desk
        .read(move |read| {
            let still: Vec<_> = reported
                .into_iter()
                .filter(|(c, _)| state::chunk(read, *c).is_none())
                .collect();
            (still, state::counters(read))
        })
        .await?;
    let now = desk.now();
    let kept = UNKNOWN_KEPT / desk.parameters.time_divisor.max(1);
    since.retain(|key, _| still.contains(key));
    for key in &still {
        since.entry(*key).or_insert(now);
    }
    let count = still.len() as u64;
    steward.counts.send_modify(|c| c.orphan = count);
    let old = |(chunk, node): &(ChunkHandle, NodeId)| {
        let seen = now.saturating_duration_since(since[&(*chunk, *node)]);
        collect::unknown(*chunk, counters.next_chunk, seen, kept)
    };
    Ok((still.into_iter().filter(old).collect(), counters.chunks))
}

fn delete_unknown(steward: &Arc<Steward>, candidates: Vec<(ChunkHandle, NodeId)>, allowance: &mut f64) {
    for (chunk, node) in candidates {
        if *allowance < 1.0 {
            return;
        }
        let Some(replica) = steward.desk.live.lock().replicas.get(chunk, node) else {
            continue;
        };
        *allowance -= 1.0;
        tracing::warn!(%chunk, %node, "a replica of an unknown chunk is deleted");
        let (reply, mut answers) = mpsc::channel(1);
        steward.desk.order(
            node,
            chunk,
            Order::Delete {
                version: replica.promised,
            },
            &reply,
        );
        let steward = steward.clone();
        tokio::spawn(async move {
            drop(reply);
            let limit = steward.desk.timings.dead_after;
            if let Ok(Some(answered)) = tokio::time::timeout(limit, answers.recv()).await {
                steward.deleted(&answered);
            }
        });
    }
}
