//! Questions about the bytes of files and about chunks: slots, extents, pages of chunks, the two indexes of the steward.

use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::{ChunkHandle, Code, Error, InodeId, Result};

use super::access::{self, Access};
use super::{goals, tables};
use crate::command::{Caller, Slot};
use crate::store::records::{Chunk, Extent};
use crate::store::{Read, keys};

/// Extents in one answer.
pub const EXTENTS_MAX: usize = 64;

/// A part of a file that has a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// How far the chunk may grow, bytes.
    pub span: u64,
    /// Its name.
    pub handle: ChunkHandle,
    /// Its record.
    pub chunk: Chunk,
}

/// A file's size and the extents of a range: in order, gaps are holes, at most [`EXTENTS_MAX`].
#[derive(Clone, Debug, PartialEq)]
pub struct Location {
    /// The file's, bytes.
    pub size: u64,
    /// Those that have a byte in common with the range.
    pub extents: Vec<Located>,
}

/// Where the bytes of a range are. Its owner may always ask, and one who has opened the file (`None`): opening is
/// [`super::check_access`]'s question.
///
/// # Errors
/// `NotFound`, `IsADirectory`, `InvalidArgument` (no regular file), `PermissionDenied`.
pub fn locate(
    read: &dyn Read,
    caller: Option<&Caller>,
    inode: InodeId,
    offset: u64,
    length: u64,
) -> Result<Location> {
    let file = tables::file(read, inode)?;
    if let Some(caller) = caller {
        access::require_bytes(caller, &file, Access::READ)?;
    }
    let extents = extents_from(read, inode, offset)
        .take_while(|(start, _)| *start < offset.saturating_add(length))
        .take(EXTENTS_MAX)
        .map(|(offset, extent)| Located {
            offset,
            span: extent.span,
            handle: extent.handle(),
            chunk: goals::with_goal(read, tables::known_chunk(read, extent.handle())),
        })
        .collect();
    Ok(Location {
        size: file.size,
        extents,
    })
}

/// The slot of a file that holds `offset`, and its chunk if it has one: what a grant is about. `None` asks who has opened
/// the file for writing.
///
/// # Errors
/// `NotFound`, `IsADirectory`, `InvalidArgument` (no regular file), `PermissionDenied` (no right to write), `TooLarge`,
/// `NotSupported` (the chunks of records lie in the slot's way).
pub fn writable_slot(
    read: &dyn Read,
    caller: Option<&Caller>,
    inode: InodeId,
    offset: u64,
) -> Result<(Slot, Option<Chunk>)> {
    let file = tables::file(read, inode)?;
    if let Some(caller) = caller {
        access::require_bytes(caller, &file, Access::WRITE)?;
    }
    slot_at(read, inode, offset)
}

pub(super) fn slot_at(read: &dyn Read, inode: InodeId, offset: u64) -> Result<(Slot, Option<Chunk>)> {
    if offset >= FILE_BYTES_MAX {
        return Err(Code::TooLarge.into());
    }
    if let Some((start, extent)) = extents_from(read, inode, offset).next()
        && start <= offset
    {
        let slot = Slot {
            inode: inode.0,
            offset: start,
            span: extent.span,
            chunk: extent.chunk,
        };
        return Ok((slot, Some(tables::known_chunk(read, extent.handle()))));
    }
    let span = tables::parameters(read).chunk_bytes;
    let slot = Slot {
        inode: inode.0,
        offset: offset - offset % span,
        span,
        chunk: 0,
    };
    let behind = extents_from(read, inode, slot.offset).next();
    if behind.is_some_and(|(start, _)| start < slot.offset + span) {
        return Err(Error::new(
            Code::NotSupported,
            "records were appended to the file: its chunks leave no room for a plain write there",
        ));
    }
    Ok((slot, None))
}

/// Extents in order, from the one that holds `offset` or the first one behind it.
pub(super) fn extents_from(
    read: &dyn Read,
    inode: InodeId,
    offset: u64,
) -> impl Iterator<Item = (u64, Extent)> {
    let prefix = keys::under(keys::EXTENT, inode.0);
    let end = crate::store::after_prefix(&prefix);
    // Nothing before the first byte holds it.
    let before = (offset > 0).then(|| read.last(&prefix, &keys::extent(inode, offset.saturating_add(1))));
    let start = match before.flatten() {
        Some((key, value)) if holds(&key, &value, offset) => key,
        Some(_) | None => keys::extent(inode, offset),
    };
    read.scan(&start, &end)
        .map(|(key, value)| (keys::last_number(&key), tables::decode(&value)))
}

fn holds(key: &[u8], value: &[u8], offset: u64) -> bool {
    let extent: Extent = tables::decode(value);
    offset < keys::last_number(key) + extent.span
}

/// Chunks in order of their handles, behind `after`, at most `max`: the steward's way through all of them.
#[must_use]
pub fn chunks_after(read: &dyn Read, after: ChunkHandle, max: usize) -> Vec<(ChunkHandle, Chunk)> {
    let from = keys::chunk(ChunkHandle(after.0.saturating_add(1)));
    let mut chunks: Vec<_> = read
        .scan(&from, &[keys::CHUNK + 1])
        .take(max)
        .map(|(key, value)| (ChunkHandle(keys::last_number(&key)), tables::decode(&value)))
        .collect();
    goals::with_goals(read, &mut chunks);
    chunks
}

/// Chunks with an unfinished proposal, behind `after`, at most `max`.
#[must_use]
pub fn proposals_after(read: &dyn Read, after: ChunkHandle, max: usize) -> Vec<ChunkHandle> {
    read.scan(
        &keys::proposal(ChunkHandle(after.0.saturating_add(1))),
        &[keys::PROPOSAL + 1],
    )
    .take(max)
    .map(|(key, _)| ChunkHandle(keys::last_number(&key)))
    .collect()
}

/// Chunks that nothing refers to since before `before_ns`, oldest first, behind one that was named before, at most `max`,
/// each with its time.
#[must_use]
pub fn unreferenced_before(
    read: &dyn Read,
    after: Option<(i64, ChunkHandle)>,
    before_ns: i64,
    max: usize,
) -> Vec<(i64, ChunkHandle)> {
    let start = after.map_or_else(
        || keys::single(keys::COLLECT),
        |(since_ns, chunk)| keys::collect(since_ns, ChunkHandle(chunk.0.saturating_add(1))),
    );
    read.scan(&start, &keys::collect(before_ns, ChunkHandle(0)))
        .take(max)
        .map(|(key, _)| keys::collect_parts(&key))
        .collect()
}
