//! What an operator asks.

use super::{Door, Served, convert, within};
use crate::desk::Desk;
use crate::live::Tables;
use crate::live::servers::{Server, State};
use crate::plan::order::Kind;
use crate::state;
use crate::steward::{Counts, Queues};
use crate::store::records::Chunk;
use dfs_proto::capability::Operations;
use dfs_proto::{ChunkHandle, ClientId, Code, Error, InodeId, NodeId, Version, pb};
use dfs_stdx::clock::Instant;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::{Request, Response};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Door);

#[tonic::async_trait]
impl pb::admin_server::Admin for Service {
    async fn status(&self, request: Request<pb::StatusRequest>) -> Served<pb::StatusReply> {
        let (desk, recent) = (&self.0.desk, request.get_ref().recent);
        let call = async {
            let (applied, counters) = desk.read_indexed(state::counters).await?;
            let counts = match recent {
                true => self.0.steward.counts(),
                false => self.0.steward.fresh_counts().await,
            };
            let now = desk.now();
            let live = desk.live.lock();
            let servers = || live.servers.iter().filter(|(_, s)| !s.removed);
            let in_state = |state| {
                let number = servers()
                    .filter(|(n, _)| live.servers.state(*n, now) == state)
                    .count();
                u32::try_from(number).unwrap_or(u32::MAX)
            };
            let (capacity, free) = servers()
                .map(|(_, s)| s.space())
                .fold((0, 0), |(c, f), (a, b)| (c + a, f + b));
            Ok(pb::StatusReply {
                cluster: desk.cluster.0.to_vec().into(),
                version: env!("CARGO_PKG_VERSION").into(),
                uptime_ms: milliseconds(now.saturating_duration_since(desk.started)),
                addr: self.0.addr.clone(),
                role: "leader".into(),
                term: desk.ground.term(),
                applied_index: applied,
                files: counters.files,
                directories: counters.directories,
                chunks: Some(chunk_counts(&counts)),
                alive: in_state(State::Alive),
                suspect: in_state(State::Suspect),
                dead: in_state(State::Dead),
                capacity_bytes: capacity,
                used_bytes: capacity - free.min(capacity),
                free_bytes: free,
                parameters: Some(parameters(desk)),
                queues: Some(queues(desk, &live, (self.0.steward.queues(), counts.one_copy()))),
            })
        };
        within(desk.timings.call_deadline, call).await
    }

    async fn nodes(&self, _: Request<pb::NodesRequest>) -> Served<pb::NodesReply> {
        let now = self.0.desk.now();
        let live = self.0.desk.live.lock();
        let nodes = live
            .servers
            .iter()
            .filter(|(_, s)| !s.removed)
            .map(|(n, s)| node(&live, n, s, now))
            .collect();
        Ok(Response::new(pb::NodesReply { nodes }))
    }

    async fn chunks(&self, request: Request<pb::ChunksRequest>) -> Served<pb::ChunksReply> {
        let asked = request.into_inner();
        let desk = &self.0.desk;
        let call = async move {
            let caller = convert::caller(asked.caller)?;
            let (inode, offset) = (InodeId(asked.inode), asked.offset);
            let location = desk
                .read(move |read| state::locate(read, Some(&caller), inode, offset, u64::MAX))
                .await??;
            let is_full = location.extents.len() == state::EXTENTS_MAX;
            let end = location.extents.last().map_or(0, |e| e.offset + e.span);
            let chunk = |e: &state::Located| {
                let shown = show(desk, e.handle, &e.chunk);
                pb::ChunkState {
                    offset: e.offset,
                    span_bytes: e.span,
                    ..shown
                }
            };
            Ok(pb::ChunksReply {
                chunks: location.extents.iter().map(chunk).collect(),
                next_offset: if is_full { end } else { 0 },
            })
        };
        within(desk.timings.call_deadline, call).await
    }

    async fn explain_chunk(
        &self,
        request: Request<pb::ExplainChunkRequest>,
    ) -> Served<pb::ExplainChunkReply> {
        let (desk, chunk) = (&self.0.desk, ChunkHandle(request.into_inner().chunk));
        let call = async {
            let explained = self.0.steward.explain_chunk(chunk).await?;
            let explained =
                explained.ok_or_else(|| Error::new(Code::NotFound, "no chunk has this handle"))?;
            let (record, account) = (&explained.record, &explained.account);
            let shown = pb::ChunkState {
                offset: record.offset,
                capability: None,
                ..show(desk, chunk, record)
            };
            Ok(pb::ExplainChunkReply {
                chunk: Some(shown),
                health: account.health.name().into(),
                good: u32::try_from(account.good.len()).unwrap_or(u32::MAX),
                why: account.why.clone(),
                waits_for: account.waits_for.clone(),
                inode: record.inode,
                paths: explained.paths.into_iter().map(Into::into).collect(),
            })
        };
        within(desk.timings.call_deadline, call).await
    }

    async fn explain_node(&self, request: Request<pb::ExplainNodeRequest>) -> Served<pb::ExplainNodeReply> {
        let (desk, id) = (&self.0.desk, NodeId(request.into_inner().node));
        let call = async {
            let explained = self.0.steward.explain_node(id).await?;
            let now = desk.now();
            let live = desk.live.lock();
            let server = live.servers.get(id).filter(|s| !s.removed);
            let server =
                server.ok_or_else(|| Error::new(Code::NotFound, "no chunkserver has this number"))?;
            let burden = explained.burden;
            Ok(pb::ExplainNodeReply {
                node: Some(node(&live, id, server, now)),
                chunks: burden.chunks,
                only_here: burden.only_here,
                only_here_bytes: burden.only_here_bytes,
                one_other: burden.one_other,
                writing: burden.writing,
                why: standing(&live, id, server, now),
                paths: explained.paths.into_iter().map(Into::into).collect(),
            })
        };
        within(desk.timings.call_deadline, call).await
    }
}

/// Why a server stands as it does.
fn standing(live: &Tables, node: NodeId, server: &Server, now: Instant) -> Vec<String> {
    let mut why = Vec::new();
    let silent = live.servers.silent_for(node, now);
    if !live.servers.session(node, now).is_connected() {
        why.push(format!(
            "it has no session; it was last heard of {} s ago",
            silent.as_secs()
        ));
    } else if !live.servers.is_compared(node) {
        why.push("it has come a moment ago: its replicas are being compared".into());
    }
    for disk in server
        .disks
        .iter()
        .filter(|d| d.failed || live.servers.has_failed(node, &d.id))
    {
        why.push(format!(
            "its disk {} has failed: nothing on it counts any more",
            disk.path
        ));
    }
    why
}

/// The parameters with the cluster's id.
pub(super) fn parameters(desk: &Desk) -> pb::Parameters {
    pb::Parameters {
        cluster: desk.cluster.0.to_vec().into(),
        ..desk.parameters.into()
    }
}

fn chunk_counts(c: &Counts) -> pb::ChunkCounts {
    pb::ChunkCounts {
        chunks: c.chunks,
        ok: c.ok,
        under_goal: c.under_goal,
        over_goal: c.over_goal,
        missing: c.missing,
        corrupt: c.corrupt,
        stale: c.stale,
        misplaced: c.misplaced,
        orphan: c.orphan,
        collecting: c.collecting,
    }
}

fn queues(desk: &Desk, live: &Tables, (steward, one_copy): (Queues, u64)) -> pb::Queues {
    pb::Queues {
        proposals: desk.ground.waiting() as u64,
        changes: steward.changes as u64,
        joining: steward.joining as u64,
        copies: steward.copies as u64,
        orders: desk.orders_waiting() as u64,
        sessions: live.clients.count() as u64,
        mounts: desk.live.watch.mounts() as u64,
        writing: live.grants.count() as u64,
        one_copy,
    }
}

fn node(live: &Tables, node: NodeId, server: &Server, now: Instant) -> pb::Node {
    let (capacity, free) = server.space();
    let state = match live.servers.state(node, now) {
        State::Alive => "alive",
        State::Suspect => "suspect",
        State::Dead => "dead",
    };
    let disk = |d: &crate::live::servers::Disk| pb::NodeDisk {
        path: d.path.clone(),
        state: if d.failed { "failed" } else { "ok" }.into(),
        capacity_bytes: d.capacity_bytes,
        free_bytes: d.free_bytes,
    };
    pb::Node {
        node: node.0,
        addr: server.place.addr.clone(),
        host: server.place.host.clone(),
        rack: server.place.rack.clone(),
        state: state.into(),
        heartbeat_age_ms: milliseconds(live.servers.silent_for(node, now)),
        chunks: server.chunks.max(live.replicas.count(node) as u64),
        capacity_bytes: capacity,
        used_bytes: capacity - free.min(capacity),
        free_bytes: free,
        disks: server.disks.iter().map(disk).collect(),
        activity: Some(convert::activity(server.activity)),
    }
}

fn show(desk: &Desk, chunk: ChunkHandle, record: &Chunk) -> pb::ChunkState {
    let capability = desk.capability(chunk, record, Operations::READ, ClientId(0));
    let signed = desk.signing_key().sign(&capability);
    let now = desk.now();
    let live = desk.live.lock();
    let members: BTreeSet<NodeId> = record.members().collect();
    let replica = |(node, r): (NodeId, crate::plan::repair::Replica)| pb::KnownReplica {
        node: node.0,
        connected: live.servers.session(node, now).is_connected(),
        promised: r.promised.0,
        synced: r.synced.0,
        stale: !members.contains(&node) || r.synced < Version(record.active.version),
        broken: r.kind == Kind::Broken,
        place: live.servers.places([node]).pop().map(Into::into),
    };
    pb::ChunkState {
        offset: 0,
        span_bytes: 0,
        chunk: chunk.0,
        version: record.active.version,
        goal: record.goal,
        length: record.active.length,
        writing: live.grants.is_writing(chunk),
        changing: record.proposed.is_some(),
        members: capability.members.into_iter().map(Into::into).collect(),
        replicas: live.replicas.of(chunk).map(replica).collect(),
        capability: Some(signed),
        lost_end: record.lost_end,
    }
}

fn milliseconds(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
