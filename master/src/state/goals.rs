//! How many replicas a chunk is to have: what its file says now, else its cluster. A chunk's record has the goal it was
//! born with; a file of a million chunks gets another goal by one command, and whoever asks sees it at once.

use super::tables;
use crate::store::Read;
use crate::store::records::{Chunk, Inode};
use dfs_proto::{ChunkHandle, InodeId};

/// Of the chunks of a file.
fn of(read: &dyn Read, file: &Inode) -> u32 {
    match file.goal {
        0 => tables::parameters(read).goal,
        chosen => chosen,
    }
}

/// The record with the goal that counts.
pub(super) fn with_goal(read: &dyn Read, chunk: Chunk) -> Chunk {
    let owner = chunk.owner().and_then(|inode| tables::inode(read, inode).ok());
    match owner {
        Some(file) => Chunk {
            goal: of(read, &file),
            ..chunk
        },
        None => chunk,
    }
}

/// As [`with_goal`], for many records: chunks of one file often follow each other.
pub(super) fn with_goals(read: &dyn Read, chunks: &mut [(ChunkHandle, Chunk)]) {
    let mut last: Option<(InodeId, u32)> = None;
    for (_, chunk) in chunks {
        let Some(owner) = chunk.owner() else { continue };
        let known = last.filter(|(inode, _)| *inode == owner);
        let found = || {
            tables::inode(read, owner)
                .ok()
                .map(|file| (owner, of(read, &file)))
        };
        if let Some((inode, goal)) = known.or_else(found) {
            chunk.goal = goal;
            last = Some((inode, goal));
        }
    }
}

/// A chunk's record, with the goal that counts.
#[must_use]
pub fn chunk(read: &dyn Read, handle: ChunkHandle) -> Option<Chunk> {
    tables::chunk(read, handle).map(|chunk| with_goal(read, chunk))
}
