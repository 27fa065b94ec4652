//! Chunks: born, proposed, activated, referred to, collected (protocol sections 3 and 4).
//!
//! Two indexes follow the records: chunks with an unfinished proposal (while something refers to them), and chunks that
//! nothing refers to, by time.

use dfs_proto::limits::GOAL_MAX;
use dfs_proto::{ChunkHandle, Code, Error, InodeId, NodeId, Result, Version};

use super::context::Context;
use super::{files, tables};
use crate::command::{
    Activate, Activated, CommitLength, Done, ForgetChunk, Freeze, Propose, Proposed, Reply, Slot,
};
use crate::store::records::{Chunk, Configuration, Proposal};
use crate::store::{Read, keys};

fn check_members(read: &dyn Read, members: &[u32]) -> Result<()> {
    let distinct: std::collections::BTreeSet<_> = members.iter().collect();
    if members.is_empty() || distinct.len() != members.len() || members.len() > GOAL_MAX as usize {
        return Err(Error::new(
            Code::InvalidArgument,
            "members are one to eight different servers",
        ));
    }
    for node in members.iter().map(|n| NodeId(*n)) {
        if tables::server(read, node).is_none_or(|s| s.removed) {
            return Err(Error::new(Code::Unavailable, format!("there is no server {node}")).on_node(node));
        }
    }
    Ok(())
}

/// A chunk for an empty slot: version 1 is active at once, and the client it is made for alone gets grants.
pub(super) fn create(ctx: &mut Context<'_, '_>, slot: &Slot, members: &[u32]) -> Result<ChunkHandle> {
    let client = ctx
        .client
        .ok_or_else(|| Error::new(Code::InvalidArgument, "a chunk is made for a client"))?;
    check_members(ctx.txn, members)?;
    let file = tables::known_inode(ctx.txn, InodeId(slot.inode));
    let goal = match file.goal {
        0 => tables::parameters(ctx.txn).goal,
        chosen => chosen,
    };
    if members.len() < goal.min(2) as usize {
        return Err(Error::new(Code::NoSpace, "too few servers for a new chunk"));
    }
    let mut handle = 0;
    tables::count(ctx.txn, |c| {
        handle = c.next_chunk;
        c.next_chunk += 1;
        c.chunks += 1;
    });
    let chunk = Chunk {
        inode: slot.inode,
        offset: slot.offset,
        references: 1,
        birth: ctx.index,
        goal,
        active: Configuration {
            version: Version::FIRST.0,
            members: members.to_vec(),
            ..Configuration::default()
        },
        allocated_for: client.0,
        ..Chunk::default()
    };
    tables::save_chunk(ctx.txn, ChunkHandle(handle), &chunk);
    Ok(ChunkHandle(handle))
}

/// One extent less refers to it. Returns its length, bytes.
pub(super) fn release(ctx: &mut Context<'_, '_>, handle: ChunkHandle) -> u64 {
    let mut chunk = tables::known_chunk(ctx.txn, handle);
    chunk.references -= 1;
    if chunk.references == 0 {
        chunk.unreferenced_ns = ctx.now_ns;
        ctx.txn.put(keys::collect(ctx.now_ns, handle), []);
        // The proposal stays in the record (replicas may have promised it), but nobody finishes it.
        ctx.txn.remove(keys::proposal(handle));
        tables::count(ctx.txn, |c| c.unreferenced += 1);
    }
    tables::save_chunk(ctx.txn, handle, &chunk);
    chunk.active.length
}

/// A chunk of some file.
fn referenced(read: &dyn Read, handle: ChunkHandle) -> Result<Chunk> {
    tables::chunk(read, handle)
        .filter(|c| c.references > 0)
        .ok_or_else(|| {
            Error::new(Code::NotFound, "no file has this chunk").on_chunk(handle, Version::default())
        })
}

pub(super) fn require_thawed(handle: ChunkHandle, chunk: &Chunk) -> Result<()> {
    if chunk.frozen {
        let message = "the chunk is frozen: its replicas know more than the master";
        return Err(Error::new(Code::Unavailable, message).on_chunk(handle, chunk.newest()));
    }
    Ok(())
}

pub(super) fn propose(ctx: &mut Context<'_, '_>, asked: &Propose) -> Result<Reply> {
    let handle = ChunkHandle(asked.chunk);
    let chunk = referenced(ctx.txn, handle)?;
    let active = chunk.active.version;
    if Version(asked.base) != chunk.newest() {
        return Ok(Reply::Proposed(Proposed {
            accepted: false,
            newest: chunk.newest().0,
            active,
        }));
    }
    require_thawed(handle, &chunk)?;
    check_members(ctx.txn, &asked.members)?;
    if !asked.members.iter().any(|m| chunk.active.members.contains(m)) {
        return Err(Error::new(
            Code::InvalidArgument,
            "a proposal keeps a member of the active configuration",
        )
        .on_chunk(handle, chunk.newest()));
    }
    let newest = next_proposal(ctx, handle, chunk, (&asked.members, None));
    Ok(Reply::Proposed(Proposed {
        accepted: true,
        newest: newest.0,
        active,
    }))
}

/// Cuts a chunk to `keep` bytes by its next configuration: the members stay.
pub(super) fn propose_truncation(
    ctx: &mut Context<'_, '_>,
    handle: ChunkHandle,
    keep: u64,
) -> Result<Version> {
    let chunk = tables::known_chunk(ctx.txn, handle);
    require_thawed(handle, &chunk)?;
    let members = chunk
        .proposed
        .as_ref()
        .map_or(&chunk.active.members, |p| &p.members)
        .clone();
    Ok(next_proposal(ctx, handle, chunk, (&members, Some(keep))))
}

/// Supersedes an unfinished proposal, but never its truncation nor its holders.
fn next_proposal(
    ctx: &mut Context<'_, '_>,
    handle: ChunkHandle,
    mut chunk: Chunk,
    wanted: (&[u32], Option<u64>),
) -> Version {
    let (members, truncate) = wanted;
    let version = chunk.newest().next();
    let (mut holders, carried) = match chunk.proposed.take() {
        Some(old) => (old.holders, old.truncate),
        None => (chunk.active.members.clone(), None),
    };
    for member in members {
        if !holders.contains(member) {
            holders.push(*member);
        }
    }
    let truncate = match (carried, truncate) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    };
    assert!(members.iter().any(|m| chunk.active.members.contains(m)));
    assert!(version.0 > chunk.active.version);
    chunk.proposed = Some(Proposal {
        version: version.0,
        members: members.to_vec(),
        truncate,
        holders,
    });
    tables::save_chunk(ctx.txn, handle, &chunk);
    ctx.txn.put(keys::proposal(handle), []);
    version
}

pub(super) fn activate(ctx: &mut Context<'_, '_>, asked: &Activate) -> Result<Reply> {
    let handle = ChunkHandle(asked.chunk);
    let mut chunk = referenced(ctx.txn, handle)?;
    require_thawed(handle, &chunk)?;
    let newest = chunk.newest();
    let proposal = chunk
        .proposed
        .take()
        .filter(|p| p.version == asked.version)
        .ok_or_else(|| {
            Error::new(Code::Stale, "another proposal is the newest by now").on_chunk(handle, newest)
        })?;
    let longest = proposal.truncate.unwrap_or(span(ctx.txn, &chunk));
    if asked.length > longest || asked.loss > asked.version {
        return Err(
            Error::new(Code::InvalidArgument, "the source tells of what cannot be").on_chunk(handle, newest),
        );
    }
    let old = chunk.active;
    let kept = old.length.min(longest);
    let durable = old.durable_length.min(longest);
    chunk.active = Configuration {
        version: asked.version,
        members: proposal.members,
        length: asked.length,
        durable_length: durable.min(asked.length),
        loss: old.loss.max(asked.loss),
    };
    chunk.allocated_for = 0;
    chunk.lost_end = chunk.lost_end.min(longest);
    if !files::follow(ctx, &chunk, old.length, kept) {
        chunk.lost_end = chunk.lost_end.max(kept);
    }
    if chunk.lost_end <= asked.length {
        chunk.lost_end = 0;
    }
    tables::save_chunk(ctx.txn, handle, &chunk);
    ctx.txn.remove(keys::proposal(handle));
    Ok(Reply::Activated(Activated {
        shrunk_bytes: kept.saturating_sub(asked.length),
        lost_bytes: durable.saturating_sub(asked.length),
    }))
}

fn span(read: &dyn Read, chunk: &Chunk) -> u64 {
    tables::extent(read, InodeId(chunk.inode), chunk.offset)
        .expect("a chunk with an owner has its extent there")
        .span
}

/// A writer's word on a chunk's length. Returns the end in the file, and by how much the chunk grew, bytes.
pub(super) fn commit_length(ctx: &mut Context<'_, '_>, commit: &CommitLength) -> Result<(u64, u64)> {
    let handle = ChunkHandle(commit.chunk);
    let mut chunk = files::require_place(commit, tables::chunk(ctx.txn, handle))?;
    require_thawed(handle, &chunk)?;
    let active = Version(chunk.active.version);
    if Version(commit.version) < active {
        return Err(Error::new(Code::Stale, "the chunk has a newer version").on_chunk(handle, active));
    }
    if Version(commit.version) > active || commit.length > span(ctx.txn, &chunk) {
        return Err(
            Error::new(Code::InvalidArgument, "no grant allows such a length").on_chunk(handle, active)
        );
    }
    if chunk.is_truncating() {
        // The length told may be of bytes that are being cut off: the version after it will say.
        return Err(Error::new(Code::Busy, "the chunk is being truncated").on_chunk(handle, chunk.newest()));
    }
    if chunk
        .allocator()
        .is_some_and(|allocator| Some(allocator) != ctx.client)
    {
        return Err(
            Error::new(Code::PermissionDenied, "the chunk was made for another client")
                .on_chunk(handle, active),
        );
    }
    let before = chunk.clone();
    chunk.active.length = chunk.active.length.max(commit.length);
    if commit.durable {
        chunk.active.durable_length = chunk.active.durable_length.max(commit.length);
    }
    if commit.length > 0 {
        chunk.allocated_for = 0;
    }
    if chunk.lost_end <= chunk.active.length {
        chunk.lost_end = 0;
    }
    if chunk != before {
        tables::save_chunk(ctx.txn, handle, &chunk);
    }
    let grown = chunk.active.length - before.active.length;
    Ok((chunk.offset + commit.length, grown))
}

pub(super) fn freeze(ctx: &mut Context<'_, '_>, asked: &Freeze) -> Result<Reply> {
    let handle = ChunkHandle(asked.chunk);
    let mut chunk = tables::chunk(ctx.txn, handle).ok_or(Code::NotFound)?;
    chunk.frozen = true;
    tables::save_chunk(ctx.txn, handle, &chunk);
    Ok(Reply::Done(Done::default()))
}

pub(super) fn forget(ctx: &mut Context<'_, '_>, asked: &ForgetChunk) -> Result<Reply> {
    let handle = ChunkHandle(asked.chunk);
    let chunk = tables::chunk(ctx.txn, handle).ok_or(Code::NotFound)?;
    require_thawed(handle, &chunk)?;
    if chunk.references > 0 {
        return Err(
            Error::new(Code::InvalidArgument, "a file has this chunk").on_chunk(handle, chunk.newest())
        );
    }
    ctx.txn.remove(keys::chunk(handle));
    ctx.txn.remove(keys::collect(chunk.unreferenced_ns, handle));
    tables::count(ctx.txn, |c| {
        c.chunks -= 1;
        c.unreferenced -= 1;
    });
    Ok(Reply::Done(Done::default()))
}
