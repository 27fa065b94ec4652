//! Reading a replica: every touched block, or for small reads every touched part of it, is verified before a byte of it
//! leaves.

use super::core::{Body, Core, View};
use super::error::{Error, Result};
use super::file::Replica;
use super::fine;
use bytes::Bytes;
use dfs_proto::checksum::crc;
use dfs_proto::limits::BLOCK_BYTES;
use dfs_proto::span::{block_length, blocks_of, pieces};
use dfs_stdx::buffers;
use dfs_stdx::disk::File;
use std::ops::Range;

/// Bytes that are copied out of the buffer of their whole blocks.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// Verified bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The bytes: fewer than asked for at the replica's end.
    pub bytes: Bytes,
    /// CRC-32 of each of their pieces.
    pub checksums: Vec<u32>,
    /// The replica's length when they were read.
    pub length: u64,
}

/// A block for a puller; `bytes` is `None` if it fails its checksum here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledBlock {
    /// Its number.
    pub block: u32,
    /// Its CRC-32 by the table.
    pub crc: u32,
    /// Its bytes, verified.
    pub bytes: Option<Bytes>,
}

/// How the bytes of a whole-block range came out.
enum Verified {
    Good(Read),
    Bad(u32),
}

impl Replica {
    /// Reads `range` (clipped at the length) and verifies it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] names the block; the disk's.
    pub fn read(&self, range: Range<u64>) -> Result<Read> {
        let view = self.change_view()?;
        if let Verified::Good(read) = read_verified(&view, &range, read_all)? {
            return Ok(read);
        }
        // It may have been changed while it was read: look again while nothing changes.
        self.change(|core| {
            let view = core.snapshot()?;
            match read_verified(&view, &range, read_all)? {
                Verified::Good(read) => Ok(read),
                Verified::Bad(block) => Err(Error::Corrupt {
                    chunk: core.slot.handle,
                    block,
                }),
            }
        })
    }

    /// As [`Replica::read`], without waiting for a disk or a lock: `None` if it would, or if anything is amiss.
    #[must_use]
    pub fn try_read(&self, range: Range<u64>) -> Option<Read> {
        let view = self.view();
        if view.removed || view.home.is_failed() || view.body.is_none() {
            return None;
        }
        let mut waits = false;
        let read = |file: &dyn File, buffer: &mut [u8], at: u64| match file.try_read_at(buffer, at)? {
            Some(read) => Ok(read),
            None => {
                waits = true;
                Ok(0)
            }
        };
        match read_verified(&view, &range, read) {
            Ok(Verified::Good(read)) if !waits => Some(read),
            Ok(_) | Err(_) => None,
        }
    }

    /// Blocks `first..first + count` as far as there are any, each verified.
    ///
    /// # Errors
    /// The disk's.
    pub fn read_blocks(&self, first: u32, count: u32) -> Result<Vec<PulledBlock>> {
        self.change(|core| {
            let view = core.snapshot()?;
            let body = view.body.as_ref().expect("a snapshot is loaded");
            let end = blocks_of(view.slot.length).min(u64::from(first) + u64::from(count));
            (u64::from(first)..end)
                .map(|block| {
                    let bytes = block_bytes(body, view.slot.length, block)?;
                    let expected = body.crcs[index(block)];
                    core.rotten |= crc(&bytes) != expected;
                    Ok(PulledBlock {
                        block: number(block),
                        crc: expected,
                        bytes: (crc(&bytes) == expected).then(|| Bytes::from(bytes)),
                    })
                })
                .collect()
        })
    }

    /// Reads everything; the blocks that fail their checksum.
    ///
    /// # Errors
    /// The disk's.
    pub fn bad_blocks(&self) -> Result<Vec<u32>> {
        let length = self.change(|core| {
            core.settle_slots()?;
            core.load()?;
            Ok(core.slot.length)
        })?;
        let mut bad = Vec::new();
        for block in 0..blocks_of(length) {
            // One lock a block: a scrub does not hold up a writer.
            let good = self.change(|core| {
                let body = core.load()?;
                let good =
                    block >= blocks_of(core.slot.length) || block_verifies(&body, core.slot.length, block)?;
                core.rotten |= !good;
                Ok(good)
            })?;
            if !good {
                bad.push(number(block));
            }
        }
        Ok(bad)
    }

    /// A view with the file open.
    fn change_view(&self) -> Result<View> {
        let view = self.view();
        if view.body.is_some() && !view.removed {
            view.home.usable()?;
            return Ok(view);
        }
        self.change(Core::snapshot)
    }
}

impl Core {
    fn snapshot(&mut self) -> Result<View> {
        self.load()?;
        Ok(self.view())
    }
}

/// A block's place in the table.
pub(super) fn index(block: u64) -> usize {
    usize::try_from(block).expect("a chunk has few blocks")
}

/// A block's number on the wire.
pub(super) fn number(block: u64) -> u32 {
    u32::try_from(block).expect("a chunk has few blocks")
}

fn read_all(file: &dyn File, buffer: &mut [u8], at: u64) -> dfs_stdx::disk::Result<usize> {
    file.read_at(buffer, at)
}

/// Reads the whole blocks around `range`, verifies them, and cuts `range` out.
fn read_verified(
    view: &View,
    range: &Range<u64>,
    mut read: impl FnMut(&dyn File, &mut [u8], u64) -> dfs_stdx::disk::Result<usize>,
) -> Result<Verified> {
    let length = view.slot.length;
    let body = view.body.as_ref().expect("the caller loaded it");
    let (start, end) = (range.start.min(length), range.end.min(length));
    if start >= end {
        return Ok(Verified::Good(Read {
            bytes: Bytes::new(),
            checksums: Vec::new(),
            length,
        }));
    }
    let small = fine::block_of(&(start..end), length);
    if let Some(block) = small
        && let Some(read) = fine::read(body, (block, start..end, length), &mut read)?
    {
        return Ok(Verified::Good(read));
    }
    let first = start / BLOCK_BYTES * BLOCK_BYTES;
    let last = end.next_multiple_of(BLOCK_BYTES).min(length);
    let mut buffer = buffers::take(index(last - first));
    let got = read(&*body.file, &mut buffer, Core::data_at(first))?;
    // Cut off: what is missing is no zeros, and a block of real zeros is told by its place in the file.
    if got < buffer.len() {
        return Ok(Verified::Bad(number((first + got as u64) / BLOCK_BYTES)));
    }
    for piece in pieces(first, last - first) {
        let bytes = &buffer[piece.range()];
        let sum = small.map_or_else(|| crc(bytes), |block| body.fine.note(block, bytes));
        if sum != body.crcs[index(piece.block)] {
            return Ok(Verified::Bad(number(piece.block)));
        }
    }
    let wanted = index(start - first)..index(end - first);
    let bytes = match wanted.len() {
        // So that the buffer is free for the next read at once.
        small if small <= COPIED_BYTES_MAX => Bytes::copy_from_slice(&buffer[wanted]),
        _ => buffer.freeze().slice(wanted),
    };
    let checksums = pieces(start, end - start)
        .map(|p| {
            let whole = p.in_block == 0 && p.length == block_length(p.block, length);
            if whole {
                body.crcs[index(p.block)]
            } else {
                crc(&bytes[p.range()])
            }
        })
        .collect();
    Ok(Verified::Good(Read {
        bytes,
        checksums,
        length,
    }))
}

/// A block's bytes as they are found, unverified; shorter than they should be if the file is cut off.
pub(super) fn block_bytes(body: &Body, length: u64, block: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; index(block_length(block, length))];
    let read = body
        .file
        .read_at(&mut bytes, Core::data_at(block * BLOCK_BYTES))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// True if the block's bytes are all there and fit their CRC.
pub(super) fn block_verifies(body: &Body, length: u64, block: u64) -> Result<bool> {
    let bytes = block_bytes(body, length, block)?;
    Ok(bytes.len() as u64 == block_length(block, length) && crc(&bytes) == body.crcs[index(block)])
}
