//! Deleting for good: chunks nothing refers to, after their grace time; and, slowly, replicas nobody knows.

use super::Steward;
use crate::command::ForgetChunk;
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

/// Chunks judged in one round, besides those that wait for someone.
const ROUND_CHUNKS: usize = 1_024;
/// Commands under way at once.
const FORGOTTEN_AT_ONCE: usize = 64;

/// What a round of collection remembers for the next one.
#[derive(Debug, Default)]
struct Collection {
    /// Who has confirmed that it has no replica.
    clean: BTreeMap<ChunkHandle, BTreeSet<NodeId>>,
    /// Chunks that wait for a server to return.
    waiting: usize,
}

/// Rounds for ever.
pub(super) async fn rounds(steward: Arc<Steward>) {
    let mut collection = Collection::default();
    let desk = steward.desk.clone();
    loop {
        match round(&steward, &mut collection).await {
            Ok(ROUND_CHUNKS..) => continue, // There is more to do at once.
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "a round of collection failed"),
        }
        tokio::select! {
            biased;
            () = steward.wake_collect.notified() => tokio::time::sleep(desk.timings.heartbeat_every).await,
            () = tokio::time::sleep(desk.timings.heartbeat_every * 2) => {}
        }
    }
}

/// Deletes what may be deleted now. Returns how many chunks were forgotten.
async fn round(steward: &Arc<Steward>, collection: &mut Collection) -> Result<usize> {
    let desk = &steward.desk;
    let grace = desk.timings.collect_grace;
    let before = desk
        .wall_ns()
        .saturating_sub(i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX));
    let max = ROUND_CHUNKS + collection.waiting;
    let (applied, due) = desk.read_indexed(move |read| due(read, before, max)).await?;
    let (reply, mut answers) = mpsc::channel(8 * ROUND_CHUNKS);
    let mut asked = 0_usize;
    let mut forget = Vec::new();
    collection.waiting = 0;
    for (chunk, record) in due {
        let clean = collection.clean.entry(chunk).or_default();
        match collect::unreferenced(
            &view(steward, chunk, &record, clean),
            desk.wall_ns(),
            grace,
            applied,
        ) {
            Verdict::Wait => collection.waiting += 1,
            Verdict::Forget => forget.push(chunk),
            Verdict::Delete(nodes, version) => {
                for node in nodes {
                    let room = asked < 8 * ROUND_CHUNKS;
                    asked += usize::from(room && desk.order(node, chunk, Order::Delete { version }, &reply));
                }
            }
        }
    }
    drop(reply);
    let deleted = gather(steward, collection, asked, &mut answers).await;
    let forgotten = forget.len();
    for some in forget.chunks(FORGOTTEN_AT_ONCE) {
        let all = some
            .iter()
            .map(|chunk| async move { (*chunk, desk.propose(ForgetChunk { chunk: chunk.0 }).await) });
        for (chunk, result) in futures::future::join_all(all).await {
            collection.clean.remove(&chunk);
            if let Err(error) = result {
                tracing::warn!(%chunk, %error, "a collected chunk could not be forgotten");
            }
        }
    }
    // Those whose replicas are gone now can be forgotten at once. Refused deletions are asked for again later.
    Ok(if deleted > 0 { ROUND_CHUNKS } else { forgotten })
}

fn due(read: &dyn crate::store::Read, before_ns: i64, max: usize) -> Vec<(ChunkHandle, Chunk)> {
    state::unreferenced_before(read, before_ns, max)
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

/// Notes who has deleted; returns how many did.
async fn gather(
    steward: &Arc<Steward>,
    collection: &mut Collection,
    asked: usize,
    answers: &mut mpsc::Receiver<Answered>,
) -> usize {
    let mut deleted = 0;
    let until = steward.desk.now() + steward.desk.timings.ack_deadline;
    for _ in 0..asked {
        let Ok(Some(answered)) = tokio::time::timeout_at(until, answers.recv()).await else {
            break;
        };
        if steward.deleted(&answered) {
            deleted += 1;
            collection
                .clean
                .entry(answered.chunk)
                .or_default()
                .insert(answered.node);
        }
    }
    deleted
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
