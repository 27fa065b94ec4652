//! Applying packets: the only way a client's bytes enter a replica.
//!
//! A batch is applied in groups, each one change of the header: the intents of its packets, then data and table, then
//! the header with length and writers, which names the next group's intents too. A packet beyond the length needs no
//! intent: what lies at or beyond the header's length is nobody's, and the last block's CRC is in the header itself,
//! so that the table is written for full blocks only.
//!
//! A part of a block that is overwritten changes the block's CRC by what the bytes change (CRCs are linear), whatever
//! else the block holds: so a new checksum never hides old rot, and the rest of the block need not be read. A block
//! that did not fit its CRC before does not fit the new one either, until it is healed or overwritten as a whole.

use super::core::{Body, Core};
use super::error::{Error, Result};
use super::file::Replica;
use super::format::{INTENTS_MAX, TABLE_AT, Writer, note_writer};
use super::read::{index, number};
use bytes::Bytes;
use dfs_proto::WriterId;
use dfs_proto::checksum::{combine, crc, crc_of_zeros};
use dfs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};
use dfs_proto::span::{Piece, block_length, blocks_of, pieces};
use std::ops::Range;
use std::sync::Arc;

/// Appended bytes after which their writeback is asked for: pacing keeps an fsync short.
const WRITEBACK_BYTES: u64 = 4 * 1024 * 1024;

/// What one packet changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who wrote it.
    pub writer: WriterId,
    /// The writer's sequence.
    pub sequence: u64,
    /// Where in the chunk, bytes.
    pub offset: u64,
    /// The bytes; may be none (an fsync).
    pub data: Bytes,
    /// CRC-32 of each piece of them, already checked.
    pub checksums: Vec<u32>,
}

impl Packet {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// CRCs that a packet gives to blocks, before they are in the table.
type NewCrcs = Vec<(u64, u32)>;

impl Replica {
    /// Applies packets in order, to the page cache. After an error nothing, or only packets before the one that
    /// failed, is applied: none of the batch may be acknowledged.
    ///
    /// # Errors
    /// [`Error::OutOfStream`], [`Error::Full`], [`Error::Corrupt`] if the file was cut off; the disk's.
    pub fn apply(&self, packets: &[Packet]) -> Result<()> {
        self.change(|core| {
            if core.restarted {
                return Err(Error::OutOfStream);
            }
            if packets.iter().any(|p| p.end() > CHUNK_BYTES_MAX) {
                return Err(Error::Refused("a packet beyond the largest chunk".into()));
            }
            core.mark_open()?;
            core.apply(packets)
        })
    }
}

impl Core {
    fn apply(&mut self, packets: &[Packet]) -> Result<()> {
        self.settle_slots()?;
        self.slot.durable = false;
        let before = self.slot.length;
        let (mut rest, mut owed) = (packets, false);
        while !rest.is_empty() {
            let (group, more) = rest.split_at(group(rest, self.slot.length));
            self.announce(overwritten(group, self.slot.length), owed)?;
            self.apply_group(group)?;
            (rest, owed) = (more, true);
        }
        if owed {
            self.write_slot().inspect_err(|_| self.restarted = true)?;
        }
        self.pace(before);
        Ok(())
    }

    /// Names in the header what is about to be overwritten. `owed`: the header does not tell of the last group yet.
    fn announce(&mut self, intents: Vec<Range<u64>>, owed: bool) -> Result<()> {
        if intents.is_empty() {
            return Ok(());
        }
        if owed && intents.iter().any(|i| self.is_unconfirmed(i)) {
            self.write_slot()?;
        }
        for intent in &intents {
            self.confirm(intent.start, intent.end)?;
        }
        self.slot.overwrote = true;
        self.slot.durable = false;
        self.slot.intents = intents;
        self.write_slot()
    }

    /// Data, then table: what was applied becomes the replica's with the next header.
    fn apply_group(&mut self, group: &[Packet]) -> Result<()> {
        self.dirty = true;
        let mut changed = None;
        let applied = group.iter().try_for_each(|p| self.apply_one(p, &mut changed));
        let mut kept = self.put_table(changed);
        if !self.restarted {
            self.slot.intents.clear();
        }
        if applied.is_err() {
            // Packets before the one that failed are the replica's.
            kept = kept.and_then(|()| self.write_slot());
        }
        if kept.is_err() {
            self.restarted = true;
        }
        applied.and(kept)
    }

    /// Writes the CRCs of changed blocks, as far as they are full.
    fn put_table(&mut self, changed: Option<Range<u64>>) -> Result<()> {
        let full = self.slot.length / BLOCK_BYTES;
        let Some(changed) = changed.filter(|c| c.start < full) else {
            return Ok(());
        };
        let body = self.load()?;
        let crcs = &body.crcs[index(changed.start)..index(changed.end.min(full))];
        let kept = self.table_bytes(changed.start, crcs);
        Ok(body.file.write_at(&kept, TABLE_AT + changed.start * 4)?)
    }

    fn apply_one(&mut self, packet: &Packet, changed: &mut Option<Range<u64>>) -> Result<()> {
        let known = self.slot.writers.iter().find(|w| w.writer == packet.writer);
        if packet.data.is_empty() && known.is_some_and(|w| w.sequence >= packet.sequence) {
            // A repeated packet that only asks for an fsync.
            return Ok(());
        }
        if !packet.data.is_empty() {
            self.apply_data(packet, changed)?;
        }
        let newest = Writer {
            writer: packet.writer,
            sequence: packet.sequence,
            offset: u32::try_from(packet.offset).expect("a chunk is small"),
        };
        note_writer(&mut self.slot.writers, newest);
        Ok(())
    }

    fn apply_data(&mut self, packet: &Packet, changed: &mut Option<Range<u64>>) -> Result<()> {
        let length = self.slot.length;
        let body = self.load()?;
        let crcs = self.crcs_after(&body, packet)?;
        if packet.offset > length && body.file.length()? > Core::data_at(length) {
            // Bytes that never became the replica's lie where the gap has to read as zeros.
            body.file.set_length(Core::data_at(length))?;
        }
        let overwrites = packet.offset < length;
        if overwrites {
            // Holes get their space first: a full disk must not leave a block half old and half new.
            self.reserve_holes(&body, packet)?;
        }
        if let Err(error) = body.file.write_at(&packet.data, Core::data_at(packet.offset)) {
            // Blocks in the intents may be torn now, as after a crash.
            self.restarted |= overwrites;
            return Err(error.into());
        }
        self.slot.length = length.max(packet.end());
        drop(body);
        self.set_crcs(&crcs);
        for (block, _) in crcs {
            let so_far = changed.take().unwrap_or(block..block);
            *changed = Some(so_far.start.min(block)..so_far.end.max(block + 1));
        }
        Ok(())
    }

    /// Puts CRCs in the table in memory, as long as the length says, and the last block's in the header.
    pub(super) fn set_crcs(&mut self, crcs: &[(u64, u32)]) {
        let body = self.body.as_mut().expect("it was loaded to be changed");
        let table = Arc::make_mut(&mut body.crcs);
        table.resize(index(blocks_of(self.slot.length)), 0);
        for (block, crc) in crcs {
            table[index(*block)] = *crc;
        }
        let partial = !self.slot.length.is_multiple_of(BLOCK_BYTES);
        self.slot.tail_crc = table.last().copied().filter(|_| partial).unwrap_or_default();
    }

    /// The CRC of every block the packet changes, also of the zeros between the length and its offset.
    fn crcs_after(&self, body: &Body, packet: &Packet) -> Result<NewCrcs> {
        let length = self.slot.length;
        let mut crcs = NewCrcs::new();
        if packet.offset > length {
            for gap in pieces(length, packet.offset - length) {
                let zeros = crc_of_zeros(gap.length);
                let before = if gap.in_block > 0 {
                    Some(body.crcs[index(gap.block)])
                } else {
                    None
                };
                crcs.push((gap.block, before.map_or(zeros, |b| combine(b, zeros, gap.length))));
            }
        }
        for (piece, sum) in pieces(packet.offset, packet.data.len() as u64).zip(&packet.checksums) {
            let filled = length.max(packet.offset);
            let held = block_length(piece.block, filled);
            let known = crcs.last().filter(|(b, _)| *b == piece.block).map(|(_, c)| *c);
            let new = if held <= piece.in_block {
                let before = known.or_else(|| body.crcs.get(index(piece.block)).copied());
                before
                    .filter(|_| held > 0)
                    .map_or(*sum, |b| combine(b, *sum, piece.length))
            } else if piece.in_block == 0 && piece.length >= held {
                *sum
            } else {
                self.merged(body, &piece, &packet.data, *sum)?
            };
            crcs.retain(|(b, _)| *b != piece.block);
            crcs.push((piece.block, new));
        }
        Ok(crcs)
    }

    /// The CRC of a block of which a part is overwritten: changed by what the bytes change.
    fn merged(&self, body: &Body, piece: &Piece, data: &[u8], sum: u32) -> Result<u32> {
        let held = block_length(piece.block, self.slot.length);
        let replaced = piece.length.min(held - piece.in_block);
        let mut old = vec![0; index(replaced)];
        let at = Core::data_at(piece.block * BLOCK_BYTES + piece.in_block);
        if body.file.read_at(&mut old, at)? < old.len() {
            return Err(Error::Corrupt {
                chunk: self.slot.handle,
                block: number(piece.block),
            });
        }
        let (over, beyond) = data[piece.range()].split_at(index(replaced));
        let new = if beyond.is_empty() { sum } else { crc(over) };
        let difference = combine(crc(&old) ^ new, 0, held - piece.in_block - replaced);
        let changed = body.crcs[index(piece.block)] ^ difference;
        Ok(match beyond {
            [] => changed,
            beyond => combine(changed, crc(beyond), beyond.len() as u64),
        })
    }

    fn reserve_holes(&self, body: &Body, packet: &Packet) -> Result<()> {
        let zeros = crc_of_zeros(BLOCK_BYTES);
        let hole = pieces(packet.offset, packet.data.len() as u64)
            .any(|p| body.crcs.get(index(p.block)) == Some(&zeros));
        if hole {
            body.file
                .reserve(Core::data_at(packet.offset), packet.data.len() as u64)?;
        }
        Ok(())
    }

    /// Asks that what was appended goes to the disk soon, so that an fsync finds little to do.
    fn pace(&self, before: u64) {
        let (from, to) = (before / WRITEBACK_BYTES, self.slot.length / WRITEBACK_BYTES);
        if let (true, Some(body)) = (to > from, &self.body) {
            let start = Core::data_at(from * WRITEBACK_BYTES);
            // Only a hint: if it fails, the fsync will say so.
            let _ = body.file.start_writeback(start, (to - from) * WRITEBACK_BYTES);
        }
    }
}

/// How many of the packets make a group: their intents fit the header one by one.
fn group(packets: &[Packet], length: u64) -> usize {
    let mut overwrites = 0;
    let fits = |p: &&Packet| {
        overwrites += usize::from(p.offset < length && !p.data.is_empty());
        overwrites <= INTENTS_MAX
    };
    packets.iter().take_while(fits).count()
}

/// The byte ranges below `length` that packets overwrite, in order, merged to at most [`INTENTS_MAX`].
fn overwritten(packets: &[Packet], length: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = packets
        .iter()
        .map(|p| p.offset..p.end().min(length))
        .filter(|r| r.start < r.end)
        .collect();
    ranges.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let full = merged.len() == INTENTS_MAX;
        match merged.last_mut() {
            Some(last) if range.start <= last.end || full => last.end = last.end.max(range.end),
            Some(_) | None => merged.push(range),
        }
    }
    merged
}
