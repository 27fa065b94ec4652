//! What changes a file as a whole: cutting and growing it, punching and zeroing, copying.
//!
//! Whoever does one of these holds the right to send: all that was written before has landed, or is dropped where it
//! does not matter any more; what is written meanwhile stays dirty, and comes after. Reads that miss the cache wait.

use super::Content;
use super::dirty::Which;
use super::send::Sending;
use super::state::State;
use bytes::Bytes;
use dfs_client::{Code, Error, Metadata, Result, SetAttributes, Time};
use dfs_proto::limits::{FILE_BYTES_MAX, PACKET_BYTES_MAX};
use futures::stream::{StreamExt as _, TryStreamExt as _, iter};
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;

const PACKET: u64 = PACKET_BYTES_MAX as u64;
/// Copied by one call: it has to end within a deadline.
const COPY_BYTES_MAX: u64 = 64 << 20;
/// Pieces of a copy that are read at the same time.
const COPY_PIECES: usize = 4;

/// While it lives, reads that would ask the cluster wait.
struct Changing<'a> {
    content: &'a Content,
    _sending: Sending<'a>,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut state = self.content.state();
        state.changing = false;
        state.spoil(0..u64::MAX);
        drop(state);
        self.content.handle.forget();
    }
}

#[expect(clippy::missing_errors_doc, reason = "the cluster's, for all")]
impl Content {
    /// Sets the size, and what else is in `set`, in one call, in the mount's own name (`set.size` must be there).
    pub async fn truncate(self: &Arc<Self>, set: SetAttributes) -> Result<Metadata> {
        let size = set
            .size
            .filter(|size| *size <= FILE_BYTES_MAX)
            .ok_or_else(|| Error::from(Code::TooLarge))?;
        let sending = self.sending.lock().await;
        self.resize(sending, size, set).await
    }

    async fn resize(&self, sending: Sending<'_>, size: u64, set: SetAttributes) -> Result<Metadata> {
        self.land_holding(&sending).await;
        let changing = self.begin(sending, |content, state| {
            content.drop_dirty(state, size..u64::MAX);
            content.shared.clean().remove(content.inode().0, size..u64::MAX);
            state.cut(size);
        });
        let resized = match self.handle.resize(set.clone()).await {
            Ok(metadata) => Ok(metadata),
            // Whether it was done is not known; what the file is now is.
            Err(error) => Err((error, self.handle.attributes().await.ok())),
        };
        let mut state = self.state();
        let known = match &resized {
            Ok(metadata) => Some(metadata),
            Err((_, metadata)) => metadata.as_ref(),
        };
        if let Some(metadata) = known {
            state.learn(metadata);
        }
        if let (Ok(metadata), true) = (&resized, state.uncommitted.written_ns.is_some()) {
            // What is still dirty was written before, and its commit must not turn the time back.
            let set_ns = match set.mtime {
                Some(Time::At(ns)) => ns,
                Some(Time::Now) | None => metadata.mtime_ns,
            };
            state.uncommitted.written_ns = state.uncommitted.written_ns.max(Some(set_ns));
        }
        drop(state);
        drop(changing);
        resized.map_err(|(error, _)| error)
    }

    /// Begins to change the file; all that was sent has landed.
    fn begin<'a>(&'a self, sending: Sending<'a>, cut: impl FnOnce(&Content, &mut State)) -> Changing<'a> {
        let mut state = self.state();
        state.changing = true;
        state.spoil(0..u64::MAX);
        cut(self, &mut state);
        drop(state);
        Changing {
            content: self,
            _sending: sending,
        }
    }

    fn drop_dirty(&self, state: &mut State, range: Range<u64>) {
        let before = state.dirty.bytes();
        state.dirty.remove(range, &self.shared.pool);
        self.shared.budget.give(before - state.dirty.bytes());
    }

    /// fallocate(2): the size grows to the range's end, unless `keep_size`. There must be room for it in the cluster
    /// now; it is not set aside.
    pub async fn allocate(self: &Arc<Self>, offset: u64, length: u64, keep_size: bool) -> Result<()> {
        let end = end_of(offset, length)?;
        let goal = u64::from(self.state().known.goal.max(1));
        let space = self.shared.inodes.statfs().await?;
        if length.saturating_mul(goal) > space.free_bytes {
            return Err(Code::NoSpace.into());
        }
        match keep_size {
            true => Ok(()),
            false => self.grow(end).await,
        }
    }

    async fn grow(&self, end: u64) -> Result<()> {
        let sending = self.sending.lock().await;
        if self.state().size >= end {
            return Ok(());
        }
        let set = SetAttributes {
            size: Some(end),
            ..SetAttributes::default()
        };
        self.resize(sending, end, set).await.map(drop)
    }

    /// FALLOC_FL_ZERO_RANGE: the range reads as zeros; the size grows to its end, unless `keep_size`.
    pub async fn zero(self: &Arc<Self>, offset: u64, length: u64, keep_size: bool) -> Result<()> {
        let end = end_of(offset, length)?;
        if !keep_size {
            self.grow(end).await?;
        }
        self.punch(offset, length).await
    }

    /// FALLOC_FL_PUNCH_HOLE: the range reads as zeros, the size stays.
    pub async fn punch(self: &Arc<Self>, offset: u64, length: u64) -> Result<()> {
        let end = end_of(offset, length)?;
        let sending = self.sending.lock().await;
        // All of it: the size may rest on bytes that are punched.
        let upto = self.state().writes;
        self.send_holding(&sending, Which::UpTo(upto)).await;
        self.land_holding(&sending).await;
        let size = self.state().size;
        let range = offset..end.min(size);
        if range.is_empty() {
            return Ok(());
        }
        let now = (Instant::now(), self.shared.inodes.now_ns());
        let changing = self.begin(sending, |content, state| {
            content.shared.clean().remove(content.inode().0, range.clone());
            state.note_write(range.clone(), now);
        });
        self.shared.note(self);
        let punched = self.punch_chunks(range, size, now.1).await;
        let mut state = self.state();
        match &punched {
            Ok(metadata) => state.learn(metadata),
            Err(error) => tracing::warn!(inode = %self.inode(), %error, "a hole was not punched"),
        }
        drop(state);
        drop(changing);
        punched.map(drop)
    }

    /// Zeros where a chunk is part of the range, then nothing where all of it is.
    async fn punch_chunks(&self, range: Range<u64>, size: u64, now_ns: i64) -> Result<Metadata> {
        self.handle.written_at(now_ns);
        self.handle.rest().await?;
        let span = self.handle.chunk_bytes();
        // Nothing lies behind the end: the last chunk may go whole.
        let to_end = range.end == size;
        let end = if to_end {
            size.next_multiple_of(span)
        } else {
            range.end
        };
        let mut edges = Vec::new();
        for (offset, length) in self.handle.chunks_in(range.clone()).await? {
            let whole = range.start <= offset && offset + span <= end;
            if !whole {
                edges.push(range.start.max(offset)..end.min(offset + length));
            }
        }
        self.write_zeros(edges).await?;
        let inodes = &self.shared.inodes;
        inodes
            .punch_hole(self.inode(), range.start, end - range.start, Some(now_ns))
            .await
    }

    async fn write_zeros(&self, ranges: Vec<Range<u64>>) -> Result<()> {
        let mut deliveries = Vec::new();
        for piece in ranges.into_iter().flat_map(pieces) {
            deliveries.push(self.handle.send_at(piece.start, zeros(&piece)).await?);
        }
        for delivery in deliveries {
            delivery.arrived().await?;
        }
        self.handle.rest().await
    }

    /// Copies a range of `from` (which may be this file, if the ranges do not overlap) to `to_offset`; returns how much
    /// was copied: less at the end of `from`, or of a very long range.
    pub async fn copy(
        self: &Arc<Self>,
        from: &Arc<Content>,
        from_offset: u64,
        to_offset: u64,
        length: u64,
    ) -> Result<u64> {
        let size = from.state().size;
        let length = length.min(COPY_BYTES_MAX).min(size.saturating_sub(from_offset));
        end_of(to_offset, length)?;
        let apart = from_offset + length <= to_offset || to_offset + length <= from_offset;
        if self.inode() == from.inode() && !apart {
            return Err(Error::new(Code::InvalidArgument, "the ranges overlap"));
        }
        let mut read = iter(pieces(from_offset..from_offset + length))
            .map(|piece| async move { Ok::<_, Error>((piece.start, from.read_joined(piece).await?)) })
            .buffered(COPY_PIECES);
        let mut copied = 0;
        while let Some((offset, bytes)) = read.try_next().await? {
            if bytes.is_empty() {
                break;
            }
            self.room(bytes.len()).await?;
            self.put(Some(to_offset + (offset - from_offset)), &bytes);
            copied += bytes.len() as u64;
        }
        Ok(copied)
    }
}

fn end_of(offset: u64, length: u64) -> Result<u64> {
    offset
        .checked_add(length)
        .filter(|end| *end <= FILE_BYTES_MAX)
        .ok_or_else(|| Code::TooLarge.into())
}

/// A range in pieces of a packet.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range
        .step_by(PACKET_BYTES_MAX)
        .map(move |start| start..end.min(start + PACKET))
}

fn zeros(range: &Range<u64>) -> Bytes {
    static ZEROS: [u8; PACKET_BYTES_MAX] = [0; PACKET_BYTES_MAX];
    let length = usize::try_from(range.end - range.start).expect("at most a packet");
    Bytes::from_static(&ZEROS[..length])
}
