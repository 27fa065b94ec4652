//! Where records go (protocol section 6): into the last chunk of a file, and when that is full into a new one behind it.
//!
//! A full chunk's extent ends where its bytes end, so that nothing lies between the last record of one chunk and the
//! first one of the next. The next chunk is asked for by naming the full one: whoever asks second gets the same.

use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::{ChunkHandle, Code, Error, InodeId, Result, Version};

use super::access::{self, Access};
use super::context::Context;
use super::{attributes, chunks, files, tables};
use crate::command::{Caller, NextChunk, Reply, Slot};
use crate::store::records::{Chunk, Extent, Inode};
use crate::store::{Read, keys};

/// Where the next record of a file goes, if that needs no change: its last chunk, unless that is the full one. `None`: a
/// new chunk is needed. No caller: one who has opened the file for writing asks.
///
/// # Errors
/// `NotFound`, `IsADirectory`, `InvalidArgument` (no regular file), `PermissionDenied`, `NotSupported` (the file ends in a
/// hole that its last chunk may still grow into).
pub fn record_slot(
    read: &dyn Read,
    caller: Option<&Caller>,
    inode: InodeId,
    full: ChunkHandle,
) -> Result<Option<Slot>> {
    let file = tables::file(read, inode)?;
    if let Some(caller) = caller {
        access::require_bytes(caller, &file, Access::WRITE)?;
    }
    let Some((offset, extent)) = last_extent(read, inode).filter(|(_, e)| e.handle() != full) else {
        return Ok(None);
    };
    let chunk = tables::known_chunk(read, extent.handle());
    if chunk.active.length >= extent.span {
        return Ok(None);
    }
    if file.size > offset + chunk.active.length {
        return Err(Error::new(
            Code::NotSupported,
            "the file ends in a hole: records would come before its end",
        ));
    }
    Ok(Some(Slot {
        inode: inode.0,
        offset,
        span: extent.span,
        chunk: extent.chunk,
    }))
}

pub(super) fn last_extent(read: &dyn Read, inode: InodeId) -> Option<(u64, Extent)> {
    let prefix = keys::under(keys::EXTENT, inode.0);
    let (key, value) = read.last(&prefix, &keys::extent(inode, 2 * FILE_BYTES_MAX))?;
    Some((keys::last_number(&key), tables::decode(&value)))
}

pub(super) fn next_chunk(ctx: &mut Context<'_, '_>, asked: &NextChunk) -> Result<Reply> {
    let (id, full) = (InodeId(asked.inode), ChunkHandle(asked.full));
    let asker = (!asked.by_handle).then_some(&ctx.caller);
    if let Some(slot) = record_slot(ctx.txn, asker, id, full)? {
        return Ok(Reply::Allocated(slot));
    }
    let mut inode = tables::known_inode(ctx.txn, id);
    if let Some((offset, extent)) = last_extent(ctx.txn, id).filter(|(_, e)| e.handle() == full) {
        end_extent(ctx, &mut inode, (offset, extent), asked)?;
    }
    let offset = end_of_extents(ctx.txn, id).max(inode.size);
    if offset >= FILE_BYTES_MAX {
        return Err(Code::TooLarge.into());
    }
    attributes::bytes_changed(ctx, &mut inode);
    tables::save_inode(ctx.txn, id, &inode);
    let slot = Slot {
        inode: id.0,
        offset,
        span: tables::parameters(ctx.txn).chunk_bytes,
        chunk: 0,
    };
    files::fill(ctx, slot, &asked.members).map(Reply::Allocated)
}

fn end_of_extents(read: &dyn Read, inode: InodeId) -> u64 {
    last_extent(read, inode).map_or(0, |(offset, extent)| offset + extent.span)
}

/// The full chunk's length is final: its extent ends there.
fn end_extent(
    ctx: &mut Context<'_, '_>,
    inode: &mut Inode,
    (offset, extent): (u64, Extent),
    asked: &NextChunk,
) -> Result<()> {
    let handle = extent.handle();
    let mut chunk = tables::known_chunk(ctx.txn, handle);
    chunks::require_thawed(handle, &chunk)?;
    require_final(handle, &chunk, extent.span, asked)?;
    let grown = asked.length - chunk.active.length;
    chunk.active.length = asked.length;
    chunk.active.durable_length = asked.length;
    chunk.allocated_for = 0;
    chunk.lost_end = 0;
    tables::save_chunk(ctx.txn, handle, &chunk);
    let ended = Extent {
        span: asked.length,
        ..extent
    };
    tables::save(ctx.txn, keys::extent(InodeId(asked.inode), offset), &ended);
    inode.allocated_bytes += grown;
    inode.size = inode.size.max(offset + asked.length);
    Ok(())
}

/// The seal is on stable storage of all members: so what an older version said of the length is still right, unless
/// the chunk was cut since.
fn require_final(handle: ChunkHandle, chunk: &Chunk, span: u64, asked: &NextChunk) -> Result<()> {
    let active = Version(chunk.active.version);
    let refuse = |code, why: &str| Err(Error::new(code, why).on_chunk(handle, active));
    if chunk.is_truncating() {
        return refuse(Code::Busy, "the chunk is being cut");
    }
    if Version(asked.version) < active && asked.length != chunk.active.length {
        return refuse(Code::Stale, "the chunk has a newer version, and another length");
    }
    if Version(asked.version) > active || asked.length > span || asked.length == 0 {
        return refuse(Code::InvalidArgument, "no grant allows such a length");
    }
    if asked.length < chunk.active.length {
        return refuse(Code::InvalidArgument, "the chunk is longer than that");
    }
    Ok(())
}
