//! What the operator's door answers.

use crate::types::Caller;
use crate::types::{Activity, Queues};
use crate::types::{
    ChunkAccount, ChunkCounts, ChunkState, KnownReplica, Node, NodeAccount, NodeDisk, Status,
};
use dfs_proto::capability::{Member, peek};
use dfs_proto::{ChunkHandle, ClusterId, Code, Error, InodeId, NodeId, Result, Version, pb};
use std::time::Duration;

pub(crate) fn status_request(recent: bool) -> pb::StatusRequest {
    pb::StatusRequest { recent }
}

pub(crate) fn nodes_request() -> pb::NodesRequest {
    pb::NodesRequest {}
}

pub(crate) fn chunks_request(caller: &Caller, inode: InodeId, offset: u64) -> pb::ChunksRequest {
    pb::ChunksRequest {
        caller: Some(caller.into()),
        inode: inode.0,
        offset,
    }
}

pub(crate) fn status(s: pb::StatusReply) -> Status {
    let parameters = s.parameters.unwrap_or_default();
    Status {
        cluster: ClusterId::from_slice(&s.cluster)
            .map(|c| c.to_string())
            .unwrap_or_default(),
        version: s.version,
        uptime: Duration::from_millis(s.uptime_ms),
        addr: s.addr,
        role: s.role,
        term: s.term,
        applied_index: s.applied_index,
        files: s.files,
        directories: s.directories,
        chunks: counts(s.chunks.unwrap_or_default()),
        alive: s.alive,
        suspect: s.suspect,
        dead: s.dead,
        capacity_bytes: s.capacity_bytes,
        used_bytes: s.used_bytes,
        free_bytes: s.free_bytes,
        chunk_bytes: parameters.chunk_bytes,
        goal: parameters.goal,
    }
}

fn counts(c: pb::ChunkCounts) -> ChunkCounts {
    ChunkCounts {
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

pub(crate) fn nodes(reply: pb::NodesReply) -> Vec<Node> {
    reply.nodes.into_iter().map(node).collect()
}

fn node(n: pb::Node) -> Node {
    let disk = |d: pb::NodeDisk| NodeDisk {
        path: d.path,
        state: d.state,
        capacity_bytes: d.capacity_bytes,
        free_bytes: d.free_bytes,
    };
    Node {
        node: NodeId(n.node),
        addr: n.addr,
        host: n.host,
        rack: n.rack,
        state: n.state,
        heartbeat_age_ms: n.heartbeat_age_ms,
        chunks: n.chunks,
        capacity_bytes: n.capacity_bytes,
        used_bytes: n.used_bytes,
        free_bytes: n.free_bytes,
        disks: n.disks.into_iter().map(disk).collect(),
        activity: activity(n.activity.unwrap_or_default()),
    }
}

pub(crate) fn explain_chunk_request(chunk: ChunkHandle) -> pb::ExplainChunkRequest {
    pb::ExplainChunkRequest { chunk: chunk.0 }
}

pub(crate) fn explain_node_request(node: NodeId) -> pb::ExplainNodeRequest {
    pb::ExplainNodeRequest { node: node.0 }
}

pub(crate) fn chunk_account(reply: pb::ExplainChunkReply) -> Result<ChunkAccount> {
    Ok(ChunkAccount {
        chunk: chunk(reply.chunk.unwrap_or_default())?,
        health: reply.health,
        good: reply.good,
        why: reply.why,
        waits_for: reply.waits_for,
        inode: InodeId(reply.inode),
        paths: reply.paths.into_iter().map(Into::into).collect(),
    })
}

pub(crate) fn node_account(reply: pb::ExplainNodeReply) -> NodeAccount {
    NodeAccount {
        node: node(reply.node.unwrap_or_default()),
        chunks: reply.chunks,
        only_here: reply.only_here,
        only_here_bytes: reply.only_here_bytes,
        one_other: reply.one_other,
        writing: reply.writing,
        why: reply.why,
        paths: reply.paths.into_iter().map(Into::into).collect(),
    }
}

fn activity(a: pb::Activity) -> Activity {
    Activity {
        reads: a.reads,
        read_bytes: a.read_bytes,
        packets: a.packets,
        packet_bytes: a.packet_bytes,
        copied_bytes: a.copied_bytes,
        syncs: a.syncs,
        orders: a.orders,
    }
}

pub(crate) fn queues(q: pb::Queues) -> Queues {
    Queues {
        proposals: q.proposals,
        changes: q.changes,
        joining: q.joining,
        copies: q.copies,
        orders: q.orders,
        sessions: q.sessions,
        mounts: q.mounts,
        writing: q.writing,
        one_copy: q.one_copy,
    }
}

/// The chunks of a page and where the next one begins (0: there is none).
pub(crate) fn chunks(reply: pb::ChunksReply) -> Result<(Vec<ChunkState>, u64)> {
    let all = reply.chunks.into_iter().map(chunk).collect::<Result<_>>()?;
    Ok((all, reply.next_offset))
}

fn chunk(c: pb::ChunkState) -> Result<ChunkState> {
    let token = c.capability.unwrap_or_default();
    if !token.capability.is_empty() && peek(&token)?.chunk.0 != c.chunk {
        return Err(Error::new(
            Code::Internal,
            "the master answered with another chunk's capability",
        ));
    }
    Ok(ChunkState {
        offset: c.offset,
        span_bytes: c.span_bytes,
        chunk: ChunkHandle(c.chunk),
        version: Version(c.version),
        goal: c.goal,
        length: c.length,
        writing: c.writing,
        changing: c.changing,
        members: c.members.into_iter().map(Into::into).collect(),
        replicas: c.replicas.into_iter().map(replica).collect(),
        lost_bytes: c.lost_end.saturating_sub(c.length),
        token,
    })
}

fn replica(r: pb::KnownReplica) -> KnownReplica {
    let place = r.place.map(Member::from).unwrap_or_default();
    KnownReplica {
        place: Member {
            node: NodeId(r.node),
            ..place
        },
        connected: r.connected,
        promised: Version(r.promised),
        synced: Version(r.synced),
        stale: r.stale,
        broken: r.broken,
    }
}
