//! Reading: from the layers above what they have, the rest from the cluster; and running ahead of who reads on.

use super::send::{SMALL_FILE_BYTES, class_of};
use super::state::{Fetching, State};
use super::{Content, Opening};
use bytes::Bytes;
use dfs_client::{Code, Error, Result};
use dfs_proto::limits::PACKET_BYTES_MAX;
use futures::future::try_join_all;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

const PACKET: u64 = PACKET_BYTES_MAX as u64;

/// A range that is being put together.
#[derive(Debug)]
struct Assembly {
    pieces: Vec<(u64, Bytes)>,
    /// What is missing, in order.
    gaps: Vec<Range<u64>>,
}

impl Assembly {
    fn new(range: Range<u64>) -> Assembly {
        let gaps = if range.is_empty() { Vec::new() } else { vec![range] };
        Assembly {
            pieces: Vec::new(),
            gaps,
        }
    }

    fn is_complete(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Takes what is missing from these bytes.
    fn cover(&mut self, offset: u64, length: usize, slice: impl Fn(Range<usize>) -> Bytes) {
        let end = offset + length as u64;
        let Assembly { pieces, gaps } = self;
        if !gaps.iter().any(|gap| gap.start < end && offset < gap.end) {
            return;
        }
        let mut left = Vec::with_capacity(gaps.len() + 1);
        for gap in gaps.drain(..) {
            let (from, to) = (gap.start.max(offset), gap.end.min(end));
            if from >= to {
                left.push(gap);
                continue;
            }
            let index = |p: u64| usize::try_from(p - offset).expect("a buffer is addressable");
            pieces.push((from, slice(index(from)..index(to))));
            left.extend(
                [gap.start..from, to..gap.end]
                    .into_iter()
                    .filter(|g| !g.is_empty()),
            );
        }
        *gaps = left;
    }

    fn cover_bytes(&mut self, offset: u64, bytes: &Bytes) {
        self.cover(offset, bytes.len(), |range| bytes.slice(range));
    }

    fn into_pieces(mut self) -> Vec<Bytes> {
        self.pieces.sort_unstable_by_key(|(offset, _)| *offset);
        self.pieces.into_iter().map(|(_, bytes)| bytes).collect()
    }
}

/// Takes a fetch off the list when it ends, however it does.
struct Guard<'a> {
    content: &'a Content,
    id: u64,
}

impl Guard<'_> {
    /// Takes it off; true if what came may be kept.
    fn end(&self, state: &mut State) -> bool {
        let at = state.fetches.iter().position(|f| f.id == self.id);
        at.is_some_and(|at| !state.fetches.swap_remove(at).spoiled)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.end(&mut self.content.state());
    }
}

#[expect(clippy::missing_errors_doc, reason = "the cluster's, for all")]
impl Content {
    /// Up to `length` bytes from `offset`, fewer only at the end of the file, in pieces one behind the other.
    /// Own writes are seen without being sent. Does not wait if the cache has all.
    pub async fn read(self: &Arc<Self>, opening: &Opening, offset: u64, length: usize) -> Result<Vec<Bytes>> {
        let range = offset..offset.saturating_add(length as u64);
        if let Some((complete, read, size)) = self.look(range.clone()) {
            self.run_ahead(opening, read, size);
            if complete.is_complete() {
                return Ok(complete.into_pieces());
            }
        }
        self.read_range(range).await.map(Assembly::into_pieces)
    }

    /// One buffer with what a range holds; fewer bytes only at the end of the file.
    pub(super) async fn read_joined(&self, range: Range<u64>) -> Result<Bytes> {
        let mut pieces = self.read_range(range).await?.into_pieces();
        if pieces.len() <= 1 {
            return Ok(pieces.pop().unwrap_or_default());
        }
        Ok(pieces.concat().into())
    }

    async fn read_range(&self, range: Range<u64>) -> Result<Assembly> {
        loop {
            let Some((assembly, _, size)) = self.look(range.clone()) else {
                // What changes the file as a whole holds the right to send.
                drop(self.sending.lock().await);
                continue;
            };
            return self.complete(assembly, size).await;
        }
    }

    /// What is here of a range, the part of it within the file, and the file's size. `None`: the file is being changed
    /// and something is missing.
    fn look(&self, range: Range<u64>) -> Option<(Assembly, Range<u64>, u64)> {
        let state = self.state();
        let range = range.start..range.end.min(state.size).max(range.start);
        let mut assembly = Assembly::new(range.clone());
        state.dirty.visit(range.clone(), |offset, bytes| {
            assembly.cover(offset, bytes.len(), |part| Bytes::copy_from_slice(&bytes[part]));
        });
        for flight in state.flying.iter().rev() {
            if assembly.is_complete() {
                break;
            }
            assembly.cover_bytes(flight.offset, &flight.bytes);
        }
        if !assembly.is_complete() {
            self.shared
                .clean()
                .visit(self.inode().0, range.clone(), |offset, bytes| {
                    assembly.cover_bytes(offset, &bytes);
                });
        }
        if state.changing && !assembly.is_complete() {
            return None;
        }
        Some((assembly, range, state.size))
    }

    /// Waits for those who are reading what is missing, and reads the rest.
    async fn complete(&self, mut assembly: Assembly, size: u64) -> Result<Assembly> {
        for (start, mut result) in self.under_way(&assembly.gaps) {
            // One that was given up, or failed, is as if it had not been there.
            if let Ok(done) = result.wait_for(Option::is_some).await
                && let Some(Ok(bytes)) = done.as_ref()
            {
                assembly.cover_bytes(start, bytes);
            }
        }
        if assembly.is_complete() {
            return Ok(assembly);
        }
        let wanted = match size <= SMALL_FILE_BYTES {
            true => std::iter::once(0..size).collect(),
            false => assembly.gaps.clone(),
        };
        let fetches = wanted.into_iter().flat_map(packets).map(|range| async move {
            let bytes = self.fetch(range.clone()).await?;
            Ok::<_, Error>((range.start, bytes))
        });
        for (start, bytes) in try_join_all(fetches).await? {
            assembly.cover_bytes(start, &bytes);
        }
        match assembly.is_complete() {
            true => Ok(assembly),
            false => Err(Error::new(Code::Internal, "a read came back short")),
        }
    }

    /// Reads of these ranges that are under way and will be right.
    fn under_way(&self, gaps: &[Range<u64>]) -> Vec<(u64, watch::Receiver<Option<Result<Bytes>>>)> {
        let state = self.state();
        let touches = |f: &&Fetching| {
            let r = &f.range;
            !f.spoiled && gaps.iter().any(|g| g.start < r.end && r.start < g.end)
        };
        let found = state.fetches.iter().filter(touches);
        found.map(|f| (f.range.start, f.result.clone())).collect()
    }

    /// Reads a range from the cluster, for everyone who wants it, and keeps it.
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        let (done, result) = watch::channel(None);
        let guard = {
            let mut state = self.state();
            let id = state.next_id();
            state.fetches.push(Fetching {
                id,
                range: range.clone(),
                spoiled: false,
                result,
            });
            Guard { content: self, id }
        };
        let read = self
            .handle
            .read_within(range.start, range.end - range.start)
            .await;
        {
            let mut state = self.state();
            if guard.end(&mut state)
                && let Ok(bytes) = &read
            {
                let class = class_of(state.size);
                self.shared
                    .clean()
                    .insert(self.inode().0, range.start, bytes.clone(), class);
            }
        }
        done.send_replace(Some(read.clone()));
        read
    }

    /// Begins to read what this handle will want next.
    fn run_ahead(self: &Arc<Self>, opening: &Opening, read: Range<u64>, size: u64) {
        if read.is_empty() || size <= SMALL_FILE_BYTES {
            return;
        }
        let limits = &self.shared.limits;
        let ahead_max = limits.readahead_bytes.min(limits.cache_bytes / 2);
        let mut pattern = opening.pattern.lock().expect("no panic while held");
        for range in pattern.observe(read, size, ahead_max) {
            for part in packets(range) {
                if !self.prefetch(part.clone()) {
                    pattern.reached(part.start);
                    return;
                }
            }
        }
    }

    /// False if too many are under way.
    fn prefetch(self: &Arc<Self>, range: Range<u64>) -> bool {
        let gaps = match self.look(range) {
            Some((assembly, ..)) => assembly.gaps,
            None => return false,
        };
        for gap in gaps {
            if !self.under_way(std::slice::from_ref(&gap)).is_empty() {
                continue;
            }
            let Ok(permit) = self.shared.ahead.clone().try_acquire_owned() else {
                return false;
            };
            let content = self.clone();
            tokio::spawn(async move {
                // Who wants it and does not find it asks again.
                let _ = content.fetch(gap).await;
                drop(permit);
            });
        }
        true
    }
}

/// A range cut at multiples of a packet.
fn packets(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let cuts = range.start / PACKET..range.end.div_ceil(PACKET);
    cuts.map(move |n| range.start.max(n * PACKET)..range.end.min((n + 1) * PACKET))
}
