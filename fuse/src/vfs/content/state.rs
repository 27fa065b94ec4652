//! What one mount knows of one file, under one lock that is never held across an await.

use super::buffer::Pool;
use super::dirty::Dirty;
use super::errors::Errors;
use bytes::Bytes;
use dfs_client::{Delivery, Metadata, Result};
use std::collections::VecDeque;
use std::ops::Range;
use tokio::sync::watch;
use tokio::time::Instant;

/// Bytes on their way to the members.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// `None`: its sender is still waiting for room, or was cancelled; only the last one can be so.
    pub(super) delivery: Option<Delivery>,
    /// What was written when it landed is what is there; else another mount may have written over it.
    pub(super) keep: bool,
}

impl Flight {
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes.len() as u64
    }
}

/// A range that is being read.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) id: u64,
    pub(super) range: Range<u64>,
    /// Something changed in the range meanwhile: what comes is of no use for later readers.
    pub(super) spoiled: bool,
    pub(super) result: watch::Receiver<Option<Result<Bytes>>>,
}

/// Writes of this mount that the master does not know of.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    /// Where the last of them ends.
    end: u64,
    /// Where the last of those ends that are being told now.
    telling: u64,
    /// The time of the last one.
    pub(super) written_ns: Option<i64>,
    /// When the oldest one came.
    pub(super) since: Option<Instant>,
    /// How many bytes.
    bytes: u64,
}

/// The state.
#[derive(Debug)]
pub(super) struct State {
    /// The newest the master has said.
    pub(super) known: Metadata,
    /// As this mount's programs see it.
    pub(super) size: u64,
    pub(super) dirty: Dirty,
    /// In the order in which they were sent.
    pub(super) flying: VecDeque<Flight>,
    pub(super) fetches: Vec<Fetching>,
    pub(super) errors: Errors,
    pub(super) uncommitted: Uncommitted,
    /// Writes so far: each has the next number.
    pub(super) writes: u64,
    /// All writes up to this number are committed.
    pub(super) committed: u64,
    /// All writes up to this number are on stable storage.
    pub(super) synced: u64,
    /// When the last write came.
    pub(super) last_write: Option<Instant>,
    /// Writes up to this number are to be sent though their segments are not full.
    pub(super) urged: u64,
    /// Open handles that may write.
    pub(super) writers: u32,
    /// The task that sends and lands in the background is there.
    pub(super) courier: bool,
    /// The file is being cut, punched or the like: what is read in the cluster now may be gone soon.
    pub(super) changing: bool,
    /// This mount may append.
    pub(super) turn: bool,
    /// Another mount may have cut chunks away that this one has grants for: what is written to them would be lost.
    pub(super) doubtful: bool,
    /// The background task knows of it.
    pub(super) noted: bool,
    ids: u64,
}

impl State {
    pub(super) fn new(metadata: &Metadata, chunk_bytes: u64) -> State {
        State {
            known: metadata.clone(),
            size: metadata.size,
            dirty: Dirty::new(chunk_bytes),
            flying: VecDeque::new(),
            fetches: Vec::new(),
            errors: Errors::default(),
            uncommitted: Uncommitted::default(),
            writes: 0,
            committed: 0,
            synced: 0,
            last_write: None,
            urged: 0,
            writers: 0,
            courier: false,
            changing: false,
            turn: false,
            doubtful: false,
            noted: false,
            ids: 0,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The id that the next flight or fetch is above.
    pub(super) fn last_id(&self) -> u64 {
        self.ids
    }

    /// Takes a write in; returns by how many bytes what is dirty has grown.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], now: (Instant, i64), pool: &Pool) -> u64 {
        let before = self.dirty.bytes();
        let number = self.note_write(offset..offset + data.len() as u64, now);
        self.dirty.write(offset, data, number, pool);
        self.dirty.bytes() - before
    }

    /// A range has other bytes from now on; the write's number.
    pub(super) fn note_write(&mut self, range: Range<u64>, (now, wall_ns): (Instant, i64)) -> u64 {
        self.writes += 1;
        self.uncommitted.end = self.uncommitted.end.max(range.end);
        self.uncommitted.bytes += range.end - range.start;
        self.uncommitted.written_ns = Some(wall_ns);
        self.uncommitted.since.get_or_insert(now);
        self.last_write = Some(now);
        self.size = self.size.max(range.end);
        self.spoil(range);
        self.writes
    }

    /// What is being read of this range is out of date when it comes.
    pub(super) fn spoil(&mut self, range: Range<u64>) {
        let touched = |f: &&mut Fetching| f.range.start < range.end && range.start < f.range.end;
        self.fetches
            .iter_mut()
            .filter(touched)
            .for_each(|f| f.spoiled = true);
    }

    /// The master's word, if it is not older than what is known.
    pub(super) fn learn(&mut self, metadata: &Metadata) {
        if metadata.change >= self.known.change {
            self.known = metadata.clone();
        }
        self.measure();
    }

    fn measure(&mut self) {
        self.size = self
            .known
            .size
            .max(self.uncommitted.end)
            .max(self.uncommitted.telling);
    }

    /// The master is about to be told of all writes so far; returns their number.
    pub(super) fn begin_commit(&mut self) -> u64 {
        let u = &mut self.uncommitted;
        u.telling = u.telling.max(std::mem::take(&mut u.end));
        self.writes
    }

    /// It was told of all up to this number.
    pub(super) fn committed(&mut self, upto: u64, answer: Option<Metadata>) {
        let answered = answer.is_some();
        if let Some(metadata) = answer.filter(|m| m.change >= self.known.change) {
            self.known = metadata;
        }
        // An answer has the writes in it, and maybe that someone cut the file after them.
        if !answered {
            self.known.size = self.known.size.max(self.uncommitted.telling);
        }
        self.uncommitted.telling = 0;
        if self.committed < upto {
            self.committed = upto;
            if let (false, Some(written_ns)) = (answered, self.uncommitted.written_ns) {
                self.known.mtime_ns = written_ns;
                self.known.ctime_ns = self.known.ctime_ns.max(written_ns);
            }
        }
        if self.writes == upto {
            self.uncommitted.written_ns = None;
            self.uncommitted.since = None;
            self.uncommitted.bytes = 0;
        }
        self.measure();
    }

    /// It was not told, and those writes are given up.
    pub(super) fn not_committed(&mut self, upto: u64) {
        self.uncommitted.telling = 0;
        self.committed = self.committed.max(upto);
        if self.writes == upto {
            self.uncommitted = Uncommitted::default();
        }
        self.measure();
    }

    /// The file is cut: of the own writes only those count that are dirty now.
    pub(super) fn cut(&mut self, size: u64) {
        self.uncommitted.telling = 0;
        self.uncommitted.end = self.dirty.end();
        self.known.size = size;
        self.measure();
    }

    /// Something is dirty that should be on its way.
    pub(super) fn has_urgent(&self) -> bool {
        self.urged > self.committed && self.dirty.first().is_some_and(|first| first <= self.urged)
    }

    /// All own writes are with the members, and the master knows of them.
    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.flying.is_empty() && self.committed == self.writes
    }

    /// Attributes with the own writes in them.
    pub(super) fn overlay(&self, metadata: &mut Metadata) {
        if self.known.change >= metadata.change {
            // Names and links are the caller's to know.
            *metadata = self.known.clone();
        }
        metadata.size = self.size;
        if let Some(written_ns) = self.uncommitted.written_ns {
            metadata.mtime_ns = written_ns;
            metadata.ctime_ns = metadata.ctime_ns.max(written_ns);
            let more = metadata.allocated_bytes + self.uncommitted.bytes;
            metadata.allocated_bytes = more.min(self.size).max(metadata.allocated_bytes);
        }
    }
}
