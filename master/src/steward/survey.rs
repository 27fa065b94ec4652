//! The round through all chunks: what each needs, and how many are well.
//!
//! Pages of records are judged with the soft facts of the moment. A round is made when something was reported, at most
//! every quarter of a heartbeat, and takes at most a tenth of the time.

use super::Steward;
use super::change::Reason;
use crate::desk::Desk;
use crate::live::Tables;
use crate::plan::Session;
use crate::plan::domains::{Domains, Service, Standing};
use crate::plan::members::Word;
use crate::plan::order::{Kind, Order};
use crate::plan::placement;
use crate::plan::repair::{self, Holder, Move, Need, Patience};
use crate::state;
use crate::store::records::Chunk;
use dfs_proto::limits::Timings;
use dfs_proto::{ChunkHandle, NodeId, Result, Version};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Records judged at once, while the soft facts are held.
const PAGE_CHUNKS: usize = 256;

/// How chunks are, counted once each by their worst trouble; `stale`, `misplaced` and `orphan` count replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rounds made since the start.
    pub round: u64,
    /// Chunks some file has.
    pub chunks: u64,
    /// As many good members as wanted.
    pub ok: u64,
    /// Fewer good members than wanted.
    pub under_goal: u64,
    /// More members than wanted.
    pub over_goal: u64,
    /// No good member is connected.
    pub missing: u64,
    /// A member's replica is broken or has a bad block.
    pub corrupt: u64,
    /// Replicas outside of the active configuration.
    pub stale: u64,
    /// Replicas that share a host though there are others.
    pub misplaced: u64,
    /// Replicas of chunks nobody knows.
    pub orphan: u64,
    /// Chunks nothing refers to.
    pub collecting: u64,
    /// Chunks some file has, by their goal and their good copies.
    pub copies: BTreeMap<(usize, usize), u64>,
}

impl Counts {
    /// Chunks with one good copy left of more that are wanted.
    #[must_use]
    pub fn one_copy(&self) -> u64 {
        let left = self
            .copies
            .iter()
            .filter(|((goal, copies), _)| *goal > 1 && *copies == 1);
        left.map(|(_, chunks)| chunks).sum()
    }
}

/// Rounds for ever.
pub(super) async fn rounds(steward: Arc<Steward>) {
    let desk = steward.desk.clone();
    let (shortest, longest) = (desk.timings.heartbeat_every / 4, desk.timings.heartbeat_every);
    let mut sessions = desk.live.changes();
    loop {
        sessions.borrow_and_update();
        let begun = desk.now();
        match round(&steward).await {
            Ok(counts) => {
                steward.counts.send_replace(counts);
            }
            Err(error) => tracing::error!(%error, "a round through the chunks failed"),
        }
        let took = desk.now().saturating_duration_since(begun);
        tokio::time::sleep(shortest.max(took * 9).min(Duration::from_secs(60))).await;
        tokio::select! {
            biased;
            () = steward.wake.notified() => {}
            _ = sessions.changed() => {}
            () = tokio::time::sleep(longest) => {}
        }
    }
}

async fn round(steward: &Arc<Steward>) -> Result<Counts> {
    let mut counts = Counts {
        round: steward.counts().round + 1,
        orphan: steward.counts().orphan,
        ..Counts::default()
    };
    let mut after = ChunkHandle(0);
    let mut copies: Vec<(ChunkHandle, Move)> = Vec::new();
    loop {
        let page = steward
            .desk
            .read(move |read| state::chunks_after(read, after, PAGE_CHUNKS))
            .await?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        let needs = judge_page(steward, &page, &mut counts);
        let found = copies.len();
        for (chunk, need) in needs {
            match need {
                Need::Copy(job) => copies.push((chunk, job)),
                other => carry_out(steward, chunk, other).await,
            }
        }
        steward.copies.add(&copies[found..]);
        if page.len() < PAGE_CHUNKS {
            break;
        }
        tokio::task::yield_now().await;
    }
    steward.copies.replace(&copies);
    Ok(counts)
}

fn judge_page(
    steward: &Steward,
    page: &[(ChunkHandle, Chunk)],
    counts: &mut Counts,
) -> Vec<(ChunkHandle, Need)> {
    let timings = &steward.desk.timings;
    let patience = patience(timings);
    let now = steward.desk.now();
    let mut live = steward.desk.live.lock();
    let around = Around::of(&live, &steward.desk, now);
    let mut needs = Vec::new();
    for (chunk, record) in page {
        if record.references == 0 {
            counts.collecting += 1;
            continue;
        }
        let mut view = look(&mut live, (*chunk, record), timings.grant_lease, now);
        view.someone_away = around.someone_away;
        let bad_blocks = {
            let ailing = steward.ailing.lock().expect("no panic while held");
            let of_chunk = (*chunk, NodeId(0))..=(*chunk, NodeId(u32::MAX));
            ailing.range(of_chunk).count()
        };
        count(&live, &view, (bad_blocks, around.hosts), counts);
        if steward.is_changing(*chunk) || steward.copies.is_joining(*chunk) {
            continue;
        }
        let need = repair::judge(&view, &patience, &around.domains);
        if need != Need::Nothing {
            needs.push((*chunk, need));
        }
    }
    needs
}

/// How long things may stay as they are.
pub(super) fn patience(timings: &Timings) -> Patience {
    Patience {
        dead_ms: milliseconds(timings.dead_after),
        repair_ms: milliseconds(timings.repair_after),
        settle_ms: milliseconds(timings.heartbeat_every),
    }
}

/// What is the same for every chunk of a page.
pub(super) struct Around {
    /// See [`repair::Chunk::someone_away`].
    pub(super) someone_away: bool,
    /// Hosts that have a server.
    hosts: usize,
    pub(super) domains: Domains,
}

impl Around {
    pub(super) fn of(live: &Tables, desk: &Desk, now: Instant) -> Around {
        let waited = desk.timings.dead_after + desk.timings.repair_after;
        let room = placement::room(desk.parameters.chunk_bytes);
        let servers = || live.servers.iter().filter(|(_, s)| !s.removed);
        let hosts: BTreeSet<&str> = servers().map(|(_, s)| s.place.host.as_str()).collect();
        let is_awaited = |node: NodeId| {
            if live.servers.session(node, now).is_connected() {
                !live.servers.is_compared(node)
            } else {
                live.servers.standing_for(node, now) < waited
            }
        };
        let candidates = live.servers.candidates(now);
        let takers: BTreeSet<NodeId> = candidates
            .iter()
            .filter(|c| c.free_bytes >= room)
            .map(|c| c.node)
            .collect();
        let domains = Domains::new(servers().map(|(node, s)| {
            let standing = Standing {
                host: &s.place.host,
                rack: &s.place.rack,
                service: s.service,
                takes: takers.contains(&node),
                free_bytes: s.space().1,
            };
            (node, standing)
        }));
        Around {
            someone_away: servers().any(|(node, s)| s.service != Service::Maintenance && is_awaited(node)),
            hosts: hosts.len(),
            domains,
        }
    }
}

/// A chunk with everything known about it.
pub(super) fn look(
    live: &mut Tables,
    (chunk, record): (ChunkHandle, &Chunk),
    lease: Duration,
    now: Instant,
) -> repair::Chunk {
    let members: BTreeSet<NodeId> = record.members().collect();
    let holder = |node: NodeId| Holder {
        node,
        session: live.servers.session(node, now),
        for_ms: milliseconds(live.servers.standing_for(node, now)),
        compared: live.servers.would_have_reported(node, record.birth)
            || live.replicas.get(chunk, node).is_some(),
        replica: live.replicas.get(chunk, node),
    };
    let mut others: Vec<Holder> = live
        .replicas
        .of(chunk)
        .filter(|(n, _)| !members.contains(n))
        .filter(|(n, _)| live.servers.get(*n).is_some_and(|s| !s.removed))
        .map(|(n, _)| holder(n))
        .collect();
    others.sort_by_key(|h| std::cmp::Reverse(h.replica.map(|r| (r.synced, r.length))));
    let holders = record.members().map(holder).collect();
    let writing = live.grants.is_writing(chunk);
    repair::Chunk {
        goal: usize::try_from(record.goal).unwrap_or(usize::MAX),
        active: Version(record.active.version),
        newest: record.newest(),
        length: record.active.length,
        frozen: record.frozen,
        writing,
        abandoned: !writing && is_abandoned(live, chunk, record, lease, now),
        someone_away: false,
        members: holders,
        others,
    }
}

/// A dead writer left more than was committed, or a chunk only it may write.
fn is_abandoned(
    live: &mut Tables,
    chunk: ChunkHandle,
    record: &Chunk,
    lease: Duration,
    now: Instant,
) -> bool {
    if record.allocator().is_some_and(|c| !live.clients.is_known(c)) {
        return true;
    }
    let version = Version(record.active.version);
    let open = live.grants.open(chunk);
    let more = open.filter(|o| o.version == version && o.length > record.active.length);
    let left = live.grants.is_abandoned(chunk);
    if more.is_none() && (left || open.is_some_and(|o| o.version < version)) {
        live.grants.settle(chunk);
    }
    more.is_some_and(|o| left || now.saturating_duration_since(o.since) > lease)
}

fn count(live: &Tables, chunk: &repair::Chunk, (bad_blocks, all_hosts): (usize, usize), counts: &mut Counts) {
    let broken = |h: &&Holder| h.replica.is_some_and(|r| r.kind == Kind::Broken);
    let good = chunk
        .members
        .iter()
        .filter(|m| m.session.is_connected() && !broken(m))
        .count();
    counts.chunks += 1;
    *counts.copies.entry((chunk.goal, good)).or_default() += 1;
    let place = if good == 0 {
        &mut counts.missing
    } else if bad_blocks > 0 || chunk.members.iter().any(|m| broken(&m)) {
        &mut counts.corrupt
    } else if good < chunk.goal {
        &mut counts.under_goal
    } else if chunk.members.len() > chunk.goal {
        &mut counts.over_goal
    } else {
        &mut counts.ok
    };
    *place += 1;
    counts.stale += chunk.others.len() as u64;
    let hosts: BTreeSet<&str> = chunk
        .members
        .iter()
        .filter_map(|m| live.servers.get(m.node))
        .map(|s| s.place.host.as_str())
        .collect();
    let possible = all_hosts.min(chunk.members.len());
    counts.misplaced += possible.saturating_sub(hosts.len()) as u64;
}

async fn carry_out(steward: &Arc<Steward>, chunk: ChunkHandle, need: Need) {
    match need {
        Need::Nothing | Need::Copy(_) => {}
        Need::Freeze(node, promised) => {
            if let Err(error) = steward.freeze(chunk, node, promised).await {
                tracing::error!(%chunk, %error, "a chunk could not be frozen");
            }
        }
        Need::Reconfigure { without, why } => {
            let Ok(permit) = steward.background.clone().try_acquire_owned() else {
                return;
            };
            let words = without.into_iter().map(|n| (n, Word::Itself)).collect();
            let mut progress = steward.change(
                chunk,
                Reason {
                    words,
                    why,
                    ..Reason::default()
                },
            );
            tokio::spawn(async move {
                // A change that waits for someone to return takes no place from the others.
                while *progress.borrow_and_update() == super::Progress::Going {
                    if progress.changed().await.is_err() {
                        break;
                    }
                }
                drop(permit);
            });
        }
        Need::Delete(nodes) => delete_stale(steward, chunk, nodes).await,
    }
}

/// Orders the deletion of stale replicas, by the version they were judged by.
async fn delete_stale(steward: &Arc<Steward>, chunk: ChunkHandle, nodes: Vec<NodeId>) {
    let Ok(Some(record)) = steward.desk.chunk(chunk).await else {
        return;
    };
    let members: BTreeSet<NodeId> = record.members().collect();
    if record.proposed.is_some() || record.references == 0 {
        return;
    }
    let version = Version(record.active.version);
    let (reply, mut answers) = mpsc::channel(nodes.len().max(1));
    for node in nodes.into_iter().filter(|n| !members.contains(n)) {
        if matches!(steward.desk.session(node), Session::Connected(_)) {
            tracing::info!(%chunk, %node, %version, "a stale replica is deleted");
            steward.desk.order(node, chunk, Order::Delete { version }, &reply);
        }
    }
    drop(reply);
    let steward = steward.clone();
    tokio::spawn(async move {
        let limit = steward.desk.timings.dead_after;
        while let Ok(Some(answered)) = tokio::time::timeout(limit, answers.recv()).await {
            steward.deleted(&answered);
        }
    });
}

pub(super) fn milliseconds(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
