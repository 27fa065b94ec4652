//! What an operator asks.

use super::{Door, Served, convert, within};
use crate::desk::Desk;
use crate::live::Tables;
use crate::live::servers::{Server, State};
use crate::plan::order::Kind;
use crate::state;
use crate::steward::Counts;
use crate::store::records::Chunk;
use dfs_proto::capability::Operations;
use dfs_proto::{ChunkHandle, ClientId, InodeId, NodeId, Version, pb};
use dfs_stdx::clock::Instant;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::{Request, Response};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Door);

#[tonic::async_trait]
impl pb::admin_server::Admin for Service {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Served<pb::StatusReply> {
        let desk = &self.0.desk;
        let call = async {
            let (applied, counters) = desk.read_indexed(state::counters).await?;
            let counts = self.0.steward.fresh_counts().await;
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
    }
}

fn milliseconds(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
