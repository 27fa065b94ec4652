//! The bytes of files as the master knows them: which slot has which chunk, how long it is, and the file's size.

use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::{ChunkHandle, Code, Error, InodeId, Result, Version};

use super::access::{self, Access};
use super::context::Context;
use super::lookup::attributes_of;
use super::{attributes, chunks, slots, tables};
use crate::command::{Allocate, Changed, CommitLength, Committed, PunchHole, Reply, Slot};
use crate::store::keys;
use crate::store::records::{Chunk, Extent, Inode};

/// A writer's clock may run ahead of the master's by so much; what is told to be later is not believed. An hour.
const CLOCK_AHEAD_MAX_NS: i64 = 3_600_000_000_000;

pub(super) fn allocate(ctx: &mut Context<'_, '_>, asked: &Allocate) -> Result<Reply> {
    let id = InodeId(asked.inode);
    let asker = (!asked.by_handle).then_some(&ctx.caller);
    let (slot, chunk) = slots::writable_slot(ctx.txn, asker, id, asked.offset)?;
    if let Some(chunk) = chunk
        && asked.instead_of == slot.chunk
        && may_be_given_up(ctx, &chunk)
    {
        let mut inode = tables::known_inode(ctx.txn, id);
        let extent = Extent {
            span: slot.span,
            chunk: slot.chunk,
        };
        free(ctx, id, &mut inode, (slot.offset, extent));
        tables::save_inode(ctx.txn, id, &inode);
        return fill(ctx, slot, &asked.members).map(Reply::Allocated);
    }
    slot_with_chunk(ctx, id, asked.offset, &asked.members).map(Reply::Allocated)
}

/// Only its allocator has ever had a grant for it, and nothing was ever committed (protocol section 3, rule 1).
fn may_be_given_up(ctx: &Context<'_, '_>, chunk: &Chunk) -> bool {
    chunk.allocator().is_some() && chunk.allocator() == ctx.client && !chunk.frozen
}

/// The slot that holds `offset`, with its chunk or a new one.
pub(super) fn slot_with_chunk(
    ctx: &mut Context<'_, '_>,
    id: InodeId,
    offset: u64,
    members: &[u32],
) -> Result<Slot> {
    let (slot, chunk) = slots::slot_at(ctx.txn, id, offset)?;
    match chunk {
        Some(_) => Ok(slot),
        None => fill(ctx, slot, members),
    }
}

/// A new chunk for an empty slot, wherever it lies.
pub(super) fn fill(ctx: &mut Context<'_, '_>, mut slot: Slot, members: &[u32]) -> Result<Slot> {
    let id = InodeId(slot.inode);
    slot.chunk = chunks::create(ctx, &slot, members)?.0;
    let extent = Extent {
        span: slot.span,
        chunk: slot.chunk,
    };
    tables::save(ctx.txn, keys::extent(id, slot.offset), &extent);
    tables::edit_inode(ctx.txn, id, |inode| inode.chunks += 1);
    Ok(slot)
}

/// Takes the chunk out of its slot. The caller saves the inode.
fn free(ctx: &mut Context<'_, '_>, id: InodeId, inode: &mut Inode, at: (u64, Extent)) {
    let (offset, extent) = at;
    ctx.txn.remove(keys::extent(id, offset));
    let length = chunks::release(ctx, extent.handle());
    inode.chunks -= 1;
    inode.allocated_bytes -= length;
}

/// Frees all slots that begin at `size` or behind it. The caller saves the inode.
pub(super) fn free_from(ctx: &mut Context<'_, '_>, id: InodeId, inode: &mut Inode, size: u64) {
    let gone: Vec<_> = slots::extents_from(ctx.txn, id, size)
        .filter(|(offset, _)| *offset >= size)
        .collect();
    for at in gone {
        free(ctx, id, inode, at);
    }
}

/// Frees the last slots of a file that is being removed, and saves the inode.
pub(super) fn free_last(ctx: &mut Context<'_, '_>, id: InodeId, inode: &mut Inode, max: usize) {
    let all: Vec<_> = slots::extents_from(ctx.txn, id, 0).collect();
    for at in all.into_iter().rev().take(max) {
        inode.size = inode.size.min(at.0);
        free(ctx, id, inode, at);
    }
    tables::save_inode(ctx.txn, id, inode);
}

/// Sets a file's size; the caller saves the inode. What lies behind a smaller size is freed; the chunk that holds the
/// end, if bytes of it go, gets a proposal that cuts it: its handle and version are returned.
pub(super) fn set_size(
    ctx: &mut Context<'_, '_>,
    id: InodeId,
    inode: &mut Inode,
    size: u64,
) -> Result<Option<(ChunkHandle, Version)>> {
    if size > FILE_BYTES_MAX {
        return Err(Code::TooLarge.into());
    }
    let mut truncating = None;
    if size <= inode.size {
        // Also at an equal size: a chunk behind the end may hold bytes that were acknowledged and not committed yet.
        free_from(ctx, id, inode, size);
    }
    if size < inode.size
        && let (slot, Some(_)) = slots::slot_at(ctx.txn, id, size)?
        && slot.offset < size
    {
        let handle = ChunkHandle(slot.chunk);
        let version = chunks::propose_truncation(ctx, handle, size - slot.offset)?;
        truncating = Some((handle, version));
    }
    inode.size = size;
    Ok(truncating)
}

pub(super) fn commit_length(ctx: &mut Context<'_, '_>, commit: &CommitLength) -> Result<Reply> {
    let id = InodeId(commit.inode);
    let mut inode = tables::file(ctx.txn, id)?;
    if !commit.by_handle {
        access::require_bytes(&ctx.caller, &inode, Access::WRITE)?;
    }
    let before = inode.clone();
    if commit.chunk != 0 {
        let (end, more) = chunks::commit_length(ctx, commit)?;
        if commit.unused && commit.length == 0 {
            take_back(ctx, id, &mut inode, ChunkHandle(commit.chunk));
        }
        // A chunk without bytes says nothing about where the file ends.
        let end = if commit.length > 0 { end } else { 0 };
        inode.size = inode.size.max(end);
        inode.allocated_bytes += more;
    }
    if let Some(mtime_ns) = commit.mtime_ns {
        written(ctx, &mut inode, mtime_ns);
    }
    if inode != before {
        attributes::drop_privileges(&ctx.caller, &mut inode);
        inode.change += 1;
        tables::save_inode(ctx.txn, id, &inode);
    }
    Ok(Reply::Committed(Committed {
        size: inode.size,
        attributes: Some(attributes_of(ctx.txn, id, &inode)),
    }))
}

/// A chunk that only its allocator could write to, and did not: until it has a length, nobody else gets a grant for it.
fn take_back(ctx: &mut Context<'_, '_>, id: InodeId, inode: &mut Inode, handle: ChunkHandle) {
    let chunk = tables::known_chunk(ctx.txn, handle);
    if !may_be_given_up(ctx, &chunk) || chunk.active.length > 0 {
        return;
    }
    let at = slots::extents_from(ctx.txn, id, chunk.offset).next();
    if let Some(at) = at.filter(|(_, extent)| extent.handle() == handle) {
        free(ctx, id, inode, at);
    }
}

/// Bytes were written then, by the writer's clock: it has told its programs so, and it stays so.
fn written(ctx: &Context<'_, '_>, inode: &mut Inode, mtime_ns: i64) {
    inode.mtime_ns = mtime_ns.min(ctx.now_ns.saturating_add(CLOCK_AHEAD_MAX_NS));
    inode.ctime_ns = inode.ctime_ns.max(inode.mtime_ns);
}

/// Frees the chunks of a range: those whose span lies in it, and with `tail` the last one if nothing of the file lies
/// behind the range (fallocate(2), FALLOC_FL_PUNCH_HOLE). The writer has made zeros of what is left in it.
pub(super) fn punch_hole(ctx: &mut Context<'_, '_>, hole: &PunchHole) -> Result<Reply> {
    let id = InodeId(hole.inode);
    let mut inode = tables::file(ctx.txn, id)?;
    if !hole.by_handle {
        access::require(&ctx.caller, &inode, Access::WRITE)?;
    }
    let end = hole.offset.saturating_add(hole.length);
    if hole.length == 0 {
        return Err(Error::new(Code::InvalidArgument, "a hole has a length"));
    }
    let gone: Vec<_> = slots::extents_from(ctx.txn, id, hole.offset)
        .take_while(|(start, _)| *start < end)
        .filter(|(start, extent)| {
            let whole = start + extent.span <= end || (hole.tail && inode.size <= end);
            *start >= hole.offset && whole
        })
        .collect();
    for at in gone {
        free(ctx, id, &mut inode, at);
    }
    attributes::bytes_changed(ctx, &mut inode);
    if let Some(mtime_ns) = hole.mtime_ns {
        written(ctx, &mut inode, mtime_ns);
    }
    tables::save_inode(ctx.txn, id, &inode);
    Ok(Reply::Changed(Changed {
        attributes: attributes_of(ctx.txn, id, &inode),
        ..Changed::default()
    }))
}

/// A chunk's length is another one after activation: its file follows. Returns false if committed bytes in the middle
/// of the file are gone, so that the size cannot tell.
pub(super) fn follow(ctx: &mut Context<'_, '_>, chunk: &Chunk, old: u64, kept: u64) -> bool {
    let id = InodeId(chunk.inode);
    let mut inode = tables::known_inode(ctx.txn, id);
    let length = chunk.active.length;
    inode.allocated_bytes = inode.allocated_bytes - old + length;
    let end = chunk.offset + length;
    let told = if length < kept {
        let was_last = inode.size == chunk.offset + kept;
        if was_last {
            inode.size = end;
        }
        was_last
    } else {
        true
    };
    if length < kept || end > inode.size {
        inode.size = inode.size.max(end);
        attributes::bytes_changed(ctx, &mut inode);
    }
    tables::save_inode(ctx.txn, id, &inode);
    told
}

/// Refuses a chunk that is not where the writer thinks.
pub(super) fn require_place(commit: &CommitLength, chunk: Option<Chunk>) -> Result<Chunk> {
    chunk
        .filter(|c| c.references > 0 && c.inode == commit.inode)
        .ok_or_else(|| {
            Error::new(Code::Stale, "the chunk is not part of the file any more")
                .on_chunk(ChunkHandle(commit.chunk), Version(commit.version))
        })
}
