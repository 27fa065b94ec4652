//! Reading: which bytes are where, asked of the best replica, verified, and asked of the next one when anything fails.
//!
//! 1. [`Reader::read`] bounds the range by the file's end and cuts it at chunk and request edges.
//! 2. Each part is asked of one replica; after the time in which nearly all good reads end, of a second one (a hedge).
//!    The first good answer wins. An answer is good if its bytes fit their checksums and the replica holds no less
//!    than what was committed.
//! 3. A replica that has lost the master marks its answer *detached*: it counts only if every other member then says
//!    that it has promised nothing newer.
//! 4. When all replicas failed, the master is asked where the chunk is now, until the deadline: a reconfiguration may
//!    be under way.
//!
//! Zeros come from holes that the master names, below the size it names. Bytes that a power cut of all replicas took
//! from the middle of a file are no hole: asking for them ends in `Lost`.

use crate::cache::{Locations, Window};
use crate::convert::Extent;
use crate::convert::data::{self, ReadAnswer};
use crate::engine::Core;
use crate::meter::Meter;
use crate::plan::{Part, parts};
use bytes::Bytes;
use dfs_proto::capability::Member;
use dfs_proto::checksum::verify_pieces;
use dfs_proto::limits::PACKET_BYTES_MAX;
use dfs_proto::{Code, Error, Result, Version};
use futures::stream::{FuturesOrdered, FuturesUnordered, StreamExt as _};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

mod follow;
mod pieces;
pub use follow::Follow;
use pieces::{join, zeros};

/// An answer about the file's end is good for so long when nobody was writing.
const END_TRUSTED: Duration = Duration::from_millis(100);
/// Parts of one call that are asked at the same time.
const PARTS_MAX: usize = 8;
/// A replica that has not answered by then is not waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long other members have to say what they promised.
const PROMISED_DEADLINE: Duration = Duration::from_secs(1);

/// The reading side of an open file.
#[derive(Debug)]
pub(crate) struct Reader {
    core: Arc<Core>,
    pub(crate) locations: Arc<Locations>,
    meter: Arc<Meter>,
}

/// Bytes of one chunk that are wanted.
#[derive(Clone, Copy, Debug)]
struct Want {
    in_chunk: u64,
    length: u64,
}

impl Reader {
    pub(crate) fn new(core: Arc<Core>, locations: Arc<Locations>, meter: Arc<Meter>) -> Reader {
        Reader {
            core,
            locations,
            meter,
        }
    }

    /// Up to `length` bytes from `offset`; fewer only at the end of the file.
    pub(crate) async fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        let deadline = self.core.master.deadline();
        let begun = self.core.clock.now();
        let end = offset.saturating_add(length as u64);
        let size = self.end_near(offset, end, deadline).await?;
        let mut pieces = Vec::new();
        let mut position = offset;
        while position < end.min(size) {
            let to = end.min(size).min(self.locations.window_end(position));
            let mut window = self.locations.window(position, None, deadline).await?;
            if window.size < to && !window.surmised {
                // Extents that are older than the size may be too long: the last one ends when records go on behind it.
                window = self.locations.window(position, Some(begun), deadline).await?;
            }
            self.read_window(&window, position..to, deadline, &mut pieces)
                .await?;
            position = to;
        }
        Ok(join(pieces))
    }

    /// As [`Reader::read`] for a caller who knows that the file reaches so far.
    pub(crate) async fn read_within(&self, offset: u64, length: u64) -> Result<Bytes> {
        let deadline = self.core.master.deadline();
        let end = offset.saturating_add(length);
        let mut pieces = Vec::new();
        let mut position = offset;
        while position < end {
            let to = end.min(self.locations.window_end(position));
            let window = self.locations.window(position, None, deadline).await?;
            self.read_window(&window, position..to, deadline, &mut pieces)
                .await?;
            position = to;
        }
        Ok(join(pieces))
    }

    /// Where chunks are in a range of the file: (offset, bytes that were committed), in order.
    pub(crate) async fn chunks(&self, range: std::ops::Range<u64>) -> Result<Vec<(u64, u64)>> {
        let deadline = self.core.master.deadline();
        let now = self.core.clock.now();
        let mut all = Vec::new();
        let mut position = range.start;
        while position < range.end {
            let window = self.locations.window(position, Some(now), deadline).await?;
            let ends_after = |e: &&Extent| e.offset + e.span_bytes > range.start && e.offset < range.end;
            all.extend(
                window
                    .extents
                    .iter()
                    .filter(ends_after)
                    .map(|e| (e.offset, e.capability.length)),
            );
            position = self.locations.window_end(position);
        }
        Ok(all)
    }

    /// The file's size now.
    pub(crate) async fn size(&self) -> Result<u64> {
        let deadline = self.core.master.deadline();
        self.end_as_of(0, self.core.clock.now(), deadline).await
    }

    /// The file's size, as exactly as a read of `offset..end` needs it.
    async fn end_near(&self, offset: u64, end: u64, deadline: Instant) -> Result<u64> {
        let window = self.locations.window(offset, None, deadline).await?;
        let now = self.core.clock.now();
        let trusted = !window.writing && now.saturating_duration_since(window.asked) < END_TRUSTED;
        if end <= window.size || trusted {
            return Ok(window.size);
        }
        self.end_as_of(offset, now, deadline).await
    }

    /// The size at some instant not before `then`; of a file that is being written its last chunk is asked too,
    /// since the master learns of its growth only now and then.
    async fn end_as_of(&self, offset: u64, then: Instant, deadline: Instant) -> Result<u64> {
        let mut window = self.locations.window(offset, Some(then), deadline).await?;
        if window.writing && window.size >= self.locations.window_end(offset) {
            let last = window.size;
            window = self.locations.window(last, Some(then), deadline).await?;
        }
        if !window.writing {
            return Ok(window.size);
        }
        match window.extents.last() {
            Some(extent) => Ok(window.size.max(self.live_end(extent, deadline).await)),
            None => Ok(window.size),
        }
    }

    /// Where the chunk's bytes end in the file, as the first member that answers knows it: the head knows best.
    /// 0 if none answers: then the master's word stands.
    async fn live_end(&self, extent: &Extent, deadline: Instant) -> u64 {
        let by = deadline.min(self.core.clock.now() + PROMISED_DEADLINE);
        let from = extent.capability.length.min(extent.span_bytes.saturating_sub(1));
        for member in &extent.capability.members {
            let ask = data::read(&extent.token, from, 1, true);
            let answer = self.core.servers.request(member, ask, by).await;
            if let Ok(read) = answer.and_then(|(from, payload)| data::read_answer(from, payload)) {
                return extent.offset + read.chunk_length.min(extent.span_bytes);
            }
        }
        0
    }

    /// Appends the bytes of a range inside one window.
    async fn read_window(
        &self,
        window: &Arc<Window>,
        range: std::ops::Range<u64>,
        deadline: Instant,
        into: &mut Vec<Bytes>,
    ) -> Result<()> {
        let edges: Vec<_> = window.extents.iter().map(|e| (e.offset, e.span_bytes)).collect();
        let mut todo: VecDeque<_> = parts(range.clone(), &edges, PACKET_BYTES_MAX as u64).into();
        let mut running = FuturesOrdered::new();
        let mut position = range.start;
        loop {
            while running.len() < PARTS_MAX {
                let Some(part) = todo.pop_front() else { break };
                let length = match part {
                    Part::Hole { length } | Part::Chunk { length, .. } => length,
                };
                running.push_back(self.read_part(position, length, deadline));
                position += length;
            }
            match running.next().await {
                Some(bytes) => into.push(bytes?),
                None => return Ok(()),
            }
        }
    }

    /// The bytes of a part, from wherever they are, until the deadline.
    async fn read_part(&self, offset: u64, length: u64, deadline: Instant) -> Result<Bytes> {
        let mut pieces = Vec::new();
        let mut done = 0;
        // One turn, unless the file's extents have changed since the part was cut.
        while done < length {
            let bytes = self.read_some(offset + done, length - done, deadline).await?;
            done += bytes.len() as u64;
            pieces.push(bytes);
        }
        Ok(join(pieces))
    }

    /// The first of these bytes, as far as one request goes; never none.
    async fn read_some(&self, offset: u64, length: u64, deadline: Instant) -> Result<Bytes> {
        let mut backoff = self.core.backoff(deadline);
        let mut lost = false;
        loop {
            let window = self.locations.window(offset, None, deadline).await?;
            let error = match window.extents.iter().find(|e| offset < e.offset + e.span_bytes) {
                Some(extent) if extent.offset <= offset => {
                    let in_chunk = offset - extent.offset;
                    let length = length
                        .min(extent.span_bytes - in_chunk)
                        .min(PACKET_BYTES_MAX as u64);
                    match self
                        .read_chunk(&window, extent, Want { in_chunk, length }, deadline)
                        .await
                    {
                        Ok(bytes) => return Ok(bytes),
                        // Final, unless they were written again since the master was last asked.
                        Err(error) if error.code == Code::Lost && lost => return Err(error),
                        Err(error) => {
                            lost = error.code == Code::Lost;
                            error
                        }
                    }
                }
                next if self.is_recent(&window) => {
                    return Ok(zeros(length.min(next.map_or(length, |e| e.offset - offset))));
                }
                _ => Error::new(
                    Code::Unavailable,
                    "the master cannot be asked whether this is still a hole",
                ),
            };
            self.locations.doubt(offset, &window);
            tracing::debug!(%error, "asking for the chunk's place again");
            backoff.wait().await.map_err(|_| error)?;
        }
    }

    /// What the master said of a hole may be believed.
    fn is_recent(&self, window: &Window) -> bool {
        self.locations.is_recent(window)
    }

    async fn read_chunk(
        &self,
        window: &Window,
        extent: &Extent,
        want: Want,
        deadline: Instant,
    ) -> Result<Bytes> {
        let beyond = want.in_chunk >= extent.capability.length;
        if beyond && !window.writing && self.is_recent(window) {
            return fill_up(Bytes::new(), extent, want);
        }
        let salt = extent.capability.chunk.0;
        let order = {
            let now = self.core.clock.now();
            self.core
                .experience()
                .order(&extent.capability.members, &self.core.here, salt, now)
        };
        let race = Race {
            reader: self,
            extent,
            want,
            deadline,
            left: order.into(),
            failures: Vec::new(),
        };
        fill_up(race.run().await?, extent, want)
    }

    /// One replica's answer, verified; short if the chunk ends before what is wanted.
    async fn ask(&self, extent: &Extent, member: &Member, want: Want, deadline: Instant) -> Result<Bytes> {
        let begun = self.core.clock.now();
        let by = deadline.min(begun + ANSWER_DEADLINE);
        let stale_ok = self.core.settings.stale_ok;
        let length = u32::try_from(want.length).expect("a part is at most a packet");
        let ask = data::read(&extent.token, want.in_chunk, length, stale_ok);
        let (from, payload) = self.core.servers.request(member, ask, by).await?;
        let answer = data::read_answer(from, payload).map_err(|e| at(e, extent, member))?;
        verify(&answer, extent, want).map_err(|e| at(e, extent, member))?;
        if answer.detached && !stale_ok {
            self.nobody_promised_more(extent, member, by).await?;
        } else {
            self.core.experience().good(member.node, begun.elapsed());
        }
        Ok(answer.bytes)
    }

    /// The rule for answers of a replica that has lost the master: every other member must say, after the bytes were
    /// read, that it has promised no newer version. Then none was active when they were read.
    async fn nobody_promised_more(&self, extent: &Extent, except: &Member, deadline: Instant) -> Result<()> {
        let by = deadline.min(self.core.clock.now() + PROMISED_DEADLINE);
        let others = extent.capability.members.iter().filter(|m| m.node != except.node);
        let mut asked: FuturesUnordered<_> = others
            .map(|m| async move {
                let answer = self
                    .core
                    .servers
                    .request(m, data::promised(&extent.token), by)
                    .await;
                (m, answer.and_then(|(from, _)| data::promised_answer(from)))
            })
            .collect();
        while let Some((member, promised)) = asked.next().await {
            let promised = promised.map_err(|e| {
                let why = format!("chunkserver {} has lost the master, and {e}", except.node);
                at(Error::new(Code::Unavailable, why), extent, except)
            })?;
            if promised > extent.capability.version {
                let why = format!("chunkserver {} has promised version {promised}", member.node);
                return Err(at(Error::new(Code::Stale, why), extent, member));
            }
        }
        Ok(())
    }
}

fn at(error: Error, extent: &Extent, member: &Member) -> Error {
    error
        .on_chunk(extent.capability.chunk, extent.capability.version)
        .on_node(member.node)
}

/// The bytes are those that were written there: checksums fit, and the replica is not shorter than what was committed.
fn verify(answer: &ReadAnswer, extent: &Extent, want: Want) -> Result<()> {
    let corrupt = |why: &str| Err(Error::new(Code::Corrupt, why));
    let got = answer.bytes.len() as u64;
    if got > want.length || !verify_pieces(want.in_chunk, &answer.bytes, &answer.checksums) {
        return corrupt("the bytes do not fit their checksums");
    }
    if answer.chunk_length < extent.capability.length {
        return corrupt("the replica is shorter than what was committed");
    }
    if got < want.length && want.in_chunk + got < answer.chunk_length {
        return corrupt("the answer is shorter than what was asked for");
    }
    Ok(())
}

/// One part's way through the replicas.
struct Race<'a> {
    reader: &'a Reader,
    extent: &'a Extent,
    want: Want,
    deadline: Instant,
    /// Members that were not asked yet, best first.
    left: VecDeque<usize>,
    failures: Vec<Error>,
}

impl Race<'_> {
    async fn run(mut self) -> Result<Bytes> {
        let core = &self.reader.core;
        let mut running = FuturesUnordered::new();
        let (reader, extent, want, deadline) = (self.reader, self.extent, self.want, self.deadline);
        let start = |number: usize| async move {
            let member = &extent.capability.members[number];
            (member.node, reader.ask(extent, member, want, deadline).await)
        };
        let Some(first) = self.left.pop_front() else {
            return self.all_failed();
        };
        running.push(start(first));
        let mut slow = vec![extent.capability.members[first].node];
        let mut hedge_at = core.clock.now() + core.experience().hedge_after();
        loop {
            tokio::select! {
                biased;
                Some((node, result)) = running.next() => match result {
                    Ok(bytes) => {
                        // Who was asked before and has not answered yet is slow.
                        for late in slow.iter().filter(|n| **n != node) {
                            core.experience().bad(*late, core.clock.now());
                        }
                        return Ok(bytes);
                    }
                    Err(error) => {
                        slow.retain(|n| *n != node);
                        self.failed(node, error);
                        if self.failures.last().is_some_and(|e| e.code == Code::Stale) {
                            return self.all_failed();
                        }
                        match self.left.pop_front() {
                            Some(next) => {
                                slow.push(extent.capability.members[next].node);
                                running.push(start(next));
                            }
                            None if running.is_empty() => return self.all_failed(),
                            None => {}
                        }
                    }
                },
                () = sleep_until(hedge_at), if !self.left.is_empty() => {
                    let next = self.left.pop_front().expect("the branch is guarded");
                    core.experience().hedged();
                    slow.push(extent.capability.members[next].node);
                    running.push(start(next));
                    hedge_at = core.clock.now() + core.experience().hedge_after();
                }
            }
        }
    }

    fn failed(&mut self, node: dfs_proto::NodeId, error: Error) {
        let core = &self.reader.core;
        // A chunk that was just made has no replicas yet, or this member has lost its own: it is as quick as any other.
        if error.code != Code::NotFound {
            core.experience().bad(node, core.clock.now());
            self.reader.meter.failover();
        }
        tracing::debug!(%node, %error, chunk = %self.extent.capability.chunk, "a replica failed a read");
        if error.code == Code::NotYet {
            // The head knows what is committed.
            self.left.make_contiguous().sort_unstable();
        }
        self.failures.push(error);
    }

    /// What is wrong, for a person: chunk, version, who was asked, what is awaited.
    ///
    /// Nothing is wrong if the chunk was made for a writer who has not written yet: then no member has a replica. What
    /// was acknowledged all of them would have.
    fn all_failed(self) -> Result<Bytes> {
        let capability = &self.extent.capability;
        let codes: Vec<Code> = self.failures.iter().map(|e| e.code).collect();
        let all = |code| !codes.is_empty() && codes.iter().all(|c| *c == code);
        let new = capability.version == Version(1) && capability.length == 0;
        if new && all(Code::NotFound) && codes.len() == capability.members.len() {
            return Ok(Bytes::new());
        }
        let code = if codes.contains(&Code::Stale) {
            Code::Stale
        } else if all(Code::Corrupt) {
            Code::Corrupt
        } else {
            Code::Unavailable
        };
        let tried: Vec<String> = self
            .failures
            .iter()
            .map(|e| format!("chunkserver {}: {e}", e.node.unwrap_or_default()))
            .collect();
        let (chunk, version) = (capability.chunk, capability.version);
        let message = format!(
            "chunk {chunk} version {version} cannot be read now ({}); waiting for one of its {} replicas to come back",
            tried.join("; "),
            capability.members.len(),
        );
        Err(Error::new(code, message).on_chunk(chunk, version))
    }
}

/// The chunk ends inside the range and the file does not: the rest is a hole, unless it is what a power cut took.
fn fill_up(bytes: Bytes, extent: &Extent, want: Want) -> Result<Bytes> {
    let got = bytes.len() as u64;
    if got == want.length {
        return Ok(bytes);
    }
    let from = want.in_chunk + got;
    if from < extent.lost_end {
        let why = format!(
            "bytes {from} to {} of the chunk went with a power cut of all replicas",
            extent.lost_end
        );
        return Err(Error::new(Code::Lost, why).on_chunk(extent.capability.chunk, extent.capability.version));
    }
    Ok(join(vec![bytes, zeros(want.length - got)]))
}

#[cfg(test)]
mod tests;
