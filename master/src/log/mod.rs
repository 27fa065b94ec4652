//! The order: commands one after another, durable before anyone hears of them.
//!
//! A [`Log`] is a folder of segments, each a file of records, and a mark (mark.rs). In this order: a group of commands is
//! encoded, written at the end of the last segment, and synced; then it is in the log, and only then may it be
//! applied and answered. A segment that is full is followed by a new one, itself synced with its folder before use.
//! A segment whose records are all in durable checkpoints is removed.
//!
//! Opening cuts a torn write off the end and refuses anything else that is wrong (scan.rs): a record that was synced
//! and is gone was acknowledged, so going on without it is a decision for a person ([`salvage`]).
//!
//! A write or sync that failed is never tried again: the kernel may have dropped the pages and call the next sync a
//! success. The log is then closed for good and the process must end; the next start writes the tail anew.
//! Only a full disk, noticed before the sync, is survived: the half-written group is cut off and refused.
//!
//! Records carry a term and an index, and "appended" is a place apart from "applied", so that a log with peers can
//! take this one's place. What a command means is not known here.

pub mod format;
mod mark;
mod open;
mod scan;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dfs_proto::ids::ClusterId;
use dfs_stdx::disk::{self, Disk, File};

use format::{Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use mark::Mark;
pub use open::{exists, salvage, set_aside};

/// Segment size at which the next one is begun, in bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Space taken ahead of the end of the log, in bytes: what frees space can still be logged when all else is full.
pub const RESERVE_BYTES: u64 = 4 << 20;

/// What a log does not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk fails. Of an open log: it is closed for good.
    #[error("the log cannot be read or written: {0}")]
    Disk(#[from] disk::Error),
    /// The disk is full; nothing was appended and the log goes on.
    #[error("the log's disk is full: {0}")]
    Full(#[source] disk::Error),
    /// A record that was synced is gone or changed.
    #[error(
        "the log is damaged: {} at byte {offset}: {what}. Nothing was changed. Put an intact copy of the file in its \
         place, or start once with --recover-from-dump: that keeps the damaged log aside and goes on with everything \
         before the damage; what was acknowledged after it is then lost",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// An earlier write or sync failed.
    #[error("the log is closed since {0}")]
    Closed(String),
}

/// Result of the log.
pub type Result<T> = std::result::Result<T, Error>;

/// A command to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Version of the encoding.
    pub version: u8,
    /// The command, at most [`format::PAYLOAD_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term it was appended in.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
    /// The command.
    pub payload: Payload,
}

impl Entry {
    fn of(record: &Record<'_>) -> Entry {
        let payload = Payload {
            version: record.version,
            bytes: record.payload.to_vec(),
        };
        Entry {
            term: record.term,
            index: record.index,
            payload,
        }
    }
}

/// Where a log is and how it is laid out.
#[derive(Clone, Debug)]
pub struct Place {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The log's folder.
    pub folder: PathBuf,
    /// Size at which a segment is followed by the next; [`SEGMENT_BYTES`] but in tests.
    pub segment_bytes: u64,
}

impl Place {
    fn segment(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:020}.log"))
    }
}

/// A log that can be appended to.
#[derive(Debug)]
pub struct Log {
    place: Place,
    cluster: ClusterId,
    /// Of the records appended from now on: one more than that of any before.
    term: u64,
    /// Bytes of each segment, by the index of its first record. Never empty; the last one is being written.
    segments: BTreeMap<u64, u64>,
    /// The last segment.
    file: Arc<dyn File>,
    /// Up to where space is taken in the last segment.
    reserved: u64,
    /// Index of the record that comes next.
    next: u64,
    mark: Mark,
    written_bytes: u64,
    /// Why nothing may be written any more.
    closed: Option<String>,
    buffer: Vec<u8>,
}

impl Log {
    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The term of what is appended now: it counts the log's openings.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Index of the last record; 0 if there never was one.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Index of the first record that is still there (or comes next, if none is).
    #[must_use]
    pub fn first(&self) -> u64 {
        *self.segments.first_key_value().expect("a log has a segment").0
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    /// Bytes of log that were there when it was opened, and those appended since.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// What is free on the log's disk, in bytes.
    ///
    /// # Errors
    /// If the disk does not say.
    pub fn free_bytes(&self) -> Result<u64> {
        Ok(self.place.disk.space(&self.place.folder)?.free_bytes)
    }

    /// Appends the commands as one group and makes them durable. Returns the index of the first.
    ///
    /// # Errors
    /// [`Error::Full`]: none was appended. Anything else: some may have been, nobody knows, and the log is closed.
    pub fn append(&mut self, payloads: &[Payload]) -> Result<u64> {
        if let Some(why) = &self.closed {
            return Err(Error::Closed(why.clone()));
        }
        self.append_open(payloads).inspect_err(|error| match error {
            Error::Full(_) => {}
            Error::Disk(_) | Error::Damaged { .. } | Error::Closed(_) => {
                self.closed = Some(error.to_string())
            }
        })
    }

    fn append_open(&mut self, payloads: &[Payload]) -> Result<u64> {
        let first = self.next;
        self.encode(payloads);
        let end = self.length() + self.buffer.len() as u64;
        if end > self.place.segment_bytes && self.length() > SEGMENT_HEADER_BYTES as u64 {
            self.begin_segment()?;
        }
        self.write()?;
        self.file.sync_data()?;
        let length = self.length() + self.buffer.len() as u64;
        self.set_length(length);
        self.written_bytes += self.buffer.len() as u64;
        self.next += payloads.len() as u64;
        self.mark.note(self.last());
        Ok(first)
    }

    fn encode(&mut self, payloads: &[Payload]) {
        self.buffer.clear();
        for ((place, index), payload) in (0..).zip(self.next..).zip(payloads) {
            let Payload { version, bytes } = payload;
            let record = Record {
                term: self.term,
                index,
                place,
                version: *version,
                payload: bytes,
            };
            record.encode(self.cluster, &mut self.buffer);
        }
    }

    /// Writes the buffer at the end; takes it back if the disk has no room for all of it.
    fn write(&mut self) -> Result<()> {
        let start = self.length();
        self.reserve(start + self.buffer.len() as u64)?;
        match self.file.write_at(&self.buffer, start) {
            Ok(()) => Ok(()),
            Err(full) if full.is_full() => {
                self.file.set_length(start)?;
                // Durable before anyone hears "no": else a whole record of it could come back with the power.
                self.file.sync_data()?;
                Err(Error::Full(full))
            }
            Err(error) => Err(Error::Disk(error)),
        }
    }

    /// Takes space ahead, and a full disk calmly: what was taken before is there for this.
    fn reserve(&mut self, end: u64) -> Result<()> {
        if end + RESERVE_BYTES / 2 <= self.reserved {
            return Ok(());
        }
        let wanted = end + RESERVE_BYTES;
        match self.file.reserve(self.reserved, wanted - self.reserved) {
            Ok(()) => self.reserved = wanted,
            Err(error) if error.is_full() => {}
            Err(error) => return Err(Error::Disk(error)),
        }
        Ok(())
    }

    /// Goes on in a new segment. If the disk has no room for one, the last one grows.
    fn begin_segment(&mut self) -> Result<()> {
        let header = SegmentHeader {
            cluster: self.cluster,
            first: self.next,
            previous_term: self.term,
        };
        match open::make_segment(&self.place, header) {
            Ok(file) => {
                self.file = file;
                self.segments.insert(self.next, SEGMENT_HEADER_BYTES as u64);
                self.reserved = SEGMENT_HEADER_BYTES as u64;
                Ok(())
            }
            Err(Error::Full(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes segments that hold nothing but records up to `index`. Never the last one.
    ///
    /// # Errors
    /// If the disk fails. What is left is still a log.
    pub fn cut(&mut self, index: u64) -> Result<usize> {
        let firsts: Vec<u64> = self.segments.keys().copied().collect();
        let mut removed = 0;
        for pair in firsts.windows(2) {
            let [first, next] = pair else {
                unreachable!("windows of two")
            };
            if next - 1 > index {
                break;
            }
            // From the oldest on, each removal durable before the next: a hole is never left.
            self.place.disk.remove(&self.place.segment(*first))?;
            self.place.disk.sync_dir(&self.place.folder)?;
            self.segments.remove(first);
            removed += 1;
        }
        Ok(removed)
    }

    fn length(&self) -> u64 {
        *self.segments.last_key_value().expect("a log has a segment").1
    }

    fn set_length(&mut self, length: u64) {
        *self.segments.last_entry().expect("a log has a segment").get_mut() = length;
    }
}
