//! Who may write which chunk just now, and which chunks a writer has left without a word.
//!
//! A grant fences nothing (a version does); it tells when a chunk is at rest. A grant that runs out, or whose client's
//! session ends, leaves its chunk abandoned: its bytes may be more than were committed. After a restart of the master the
//! chunkservers' reports of streams stand for grants it has forgotten.

use dfs_proto::{ChunkHandle, ClientId, NodeId, Version};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A replica that was written of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Who reported it.
    pub node: NodeId,
    /// The version written at.
    pub version: Version,
    /// Bytes it has.
    pub length: u64,
    /// When it was reported first.
    pub since: Instant,
}

/// Grants by chunk and by client.
#[derive(Debug)]
pub struct Grants {
    lease: Duration,
    by_chunk: BTreeMap<ChunkHandle, BTreeMap<ClientId, Instant>>,
    by_client: BTreeMap<ClientId, BTreeSet<ChunkHandle>>,
    abandoned: BTreeSet<ChunkHandle>,
    open: BTreeMap<ChunkHandle, Open>,
    /// Grants that have ended so far.
    ended: u64,
}

/// Stands for a writer whose grant a restarted master has forgotten.
const FORGOTTEN: ClientId = ClientId(0);

impl Grants {
    pub(super) fn new(lease: Duration) -> Grants {
        Grants {
            lease,
            by_chunk: BTreeMap::new(),
            by_client: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            open: BTreeMap::new(),
            ended: 0,
        }
    }

    /// Grants that have ended so far: while it stays the same, nobody who was writing has committed a last length.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// Chunks that somebody may write now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_chunk.len()
    }

    /// Gives or renews a grant.
    pub fn give(&mut self, chunk: ChunkHandle, client: ClientId, now: Instant) {
        self.by_chunk
            .entry(chunk)
            .or_default()
            .insert(client, now + self.lease);
        self.by_client.entry(client).or_default().insert(chunk);
        self.abandoned.remove(&chunk);
    }

    /// The writer gives it back: it has committed what it wrote.
    pub fn release(&mut self, chunk: ChunkHandle, client: ClientId) {
        self.ended += 1;
        for who in [client, FORGOTTEN] {
            if let Some(writers) = self.by_chunk.get_mut(&chunk) {
                writers.remove(&who);
                if writers.is_empty() {
                    self.by_chunk.remove(&chunk);
                }
            }
            if let Some(chunks) = self.by_client.get_mut(&who) {
                chunks.remove(&chunk);
                if chunks.is_empty() {
                    self.by_client.remove(&who);
                }
            }
        }
    }

    /// The client's session has ended: what it was writing is abandoned.
    pub fn end_client(&mut self, client: ClientId) {
        for chunk in self.by_client.get(&client).cloned().unwrap_or_default() {
            self.release(chunk, client);
            self.abandoned.insert(chunk);
        }
    }

    /// Ends grants that have run out; their chunks are abandoned.
    pub fn expire(&mut self, now: Instant) {
        let over: Vec<(ChunkHandle, ClientId)> = self
            .by_chunk
            .iter()
            .flat_map(|(chunk, writers)| {
                writers
                    .iter()
                    .map(move |(client, until)| (*chunk, *client, *until))
            })
            .filter(|(_, _, until)| *until <= now)
            .map(|(chunk, client, _)| (chunk, client))
            .collect();
        for (chunk, client) in over {
            self.release(chunk, client);
            self.abandoned.insert(chunk);
        }
    }

    /// True if someone may be writing.
    #[must_use]
    pub fn is_writing(&self, chunk: ChunkHandle) -> bool {
        self.by_chunk.contains_key(&chunk)
    }

    /// True if this client may be writing it.
    #[must_use]
    pub fn has(&self, chunk: ChunkHandle, client: ClientId) -> bool {
        self.by_chunk.get(&chunk).is_some_and(|w| w.contains_key(&client))
    }

    /// True if nobody but this client may be writing it.
    #[must_use]
    pub fn is_only(&self, chunk: ChunkHandle, client: ClientId) -> bool {
        self.by_chunk
            .get(&chunk)
            .is_none_or(|writers| writers.keys().all(|w| *w == client))
    }

    /// Chunks this client may be writing.
    #[must_use]
    pub fn of_client(&self, client: ClientId) -> Vec<ChunkHandle> {
        self.by_client
            .get(&client)
            .map_or_else(Vec::new, |c| c.iter().copied().collect())
    }

    /// True if a writer went away without giving its grant back, and nobody else writes.
    #[must_use]
    pub fn is_abandoned(&self, chunk: ChunkHandle) -> bool {
        self.abandoned.contains(&chunk) && !self.is_writing(chunk)
    }

    /// True if the replicas may hold acknowledged bytes behind the `committed` ones of this version: somebody writes, has
    /// gone without a word, or a replica reports more. Nothing behind such a length is a hole.
    #[must_use]
    pub fn may_have_more(&self, chunk: ChunkHandle, version: Version, committed: u64) -> bool {
        let more = |open: Open| open.version == version && open.length > committed;
        self.is_writing(chunk) || self.abandoned.contains(&chunk) || self.open(chunk).is_some_and(more)
    }

    /// Chunks whose writers went away.
    #[must_use]
    pub fn abandoned(&self) -> Vec<ChunkHandle> {
        self.abandoned
            .iter()
            .filter(|c| !self.is_writing(**c))
            .copied()
            .collect()
    }

    /// The chunk is at rest: what was written is committed, or it is gone.
    pub fn settle(&mut self, chunk: ChunkHandle) {
        self.abandoned.remove(&chunk);
        self.open.remove(&chunk);
    }

    /// A chunkserver reports a replica that is being written, or was a moment ago. A stream without a grant stands for
    /// one that was forgotten.
    pub fn reported(&mut self, chunk: ChunkHandle, open: Open, streaming: bool, now: Instant) {
        let known = self.open.entry(chunk).or_insert(open);
        if (open.version, open.length) >= (known.version, known.length) {
            *known = Open {
                since: known.since,
                ..open
            };
        }
        let forgotten = self.has(chunk, FORGOTTEN);
        if streaming && (forgotten || !self.is_writing(chunk)) {
            self.give(chunk, FORGOTTEN, now);
        }
    }

    /// The longest replica reported as written of late.
    #[must_use]
    pub fn open(&self, chunk: ChunkHandle) -> Option<Open> {
        self.open.get(&chunk).copied()
    }

    /// Chunks reported as written of late, behind `after`, at most `max`.
    #[must_use]
    pub fn open_after(&self, after: ChunkHandle, max: usize) -> Vec<ChunkHandle> {
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.open.range(behind).take(max).map(|(c, _)| *c).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: ChunkHandle = ChunkHandle(1);
    const ANN: ClientId = ClientId(5);
    const BOB: ClientId = ClientId(6);
    const LEASE: Duration = Duration::from_secs(60);

    fn report(length: u64) -> Open {
        Open {
            node: NodeId(1),
            version: Version(1),
            length,
            since: Instant::now(),
        }
    }

    #[test]
    fn a_grant_that_runs_out_leaves_its_chunk_abandoned() {
        let (mut g, t) = (Grants::new(LEASE), Instant::now());
        g.give(X, ANN, t);
        g.give(X, ANN, t + LEASE / 2);
        g.expire(t + LEASE);
        assert!(g.is_writing(X), "it was renewed");
        g.expire(t + LEASE * 2);
        assert!(!g.is_writing(X) && g.is_abandoned(X));
        assert_eq!(g.abandoned(), [X]);
        g.settle(X);
        assert!(!g.is_abandoned(X));
    }

    #[test]
    fn a_grant_given_back_leaves_nothing() {
        let (mut g, t) = (Grants::new(LEASE), Instant::now());
        g.give(X, ANN, t);
        g.release(X, ANN);
        g.expire(t + LEASE * 2);
        assert!(!g.is_writing(X) && !g.is_abandoned(X));
    }

    #[test]
    fn a_client_that_ends_abandons_what_nobody_else_writes() {
        let (mut g, t) = (Grants::new(LEASE), Instant::now());
        g.give(X, ANN, t);
        g.give(X, BOB, t);
        g.end_client(ANN);
        assert!(!g.is_abandoned(X), "Bob writes");
        g.end_client(BOB);
        assert!(g.is_abandoned(X));
    }

    #[test]
    fn a_stream_stands_for_a_forgotten_grant() {
        let (mut g, t) = (Grants::new(LEASE), Instant::now());
        g.reported(X, report(10), true, t);
        assert!(g.is_writing(X));
        g.reported(X, report(20), false, t);
        assert_eq!(g.open(X).map(|o| o.length), Some(20));
        g.expire(t + LEASE);
        assert!(g.is_abandoned(X));
    }

    #[test]
    fn a_writer_that_gives_back_ends_the_forgotten_grant_too() {
        let (mut g, t) = (Grants::new(LEASE), Instant::now());
        g.reported(X, report(10), true, t);
        g.give(X, ANN, t);
        g.release(X, ANN);
        assert!(!g.is_writing(X));
    }

    #[test]
    fn behind_the_length_of_an_abandoned_chunk_is_no_hole_until_it_is_settled() {
        let (mut g, t) = (Grants::new(LEASE), Instant::now());
        assert!(!g.may_have_more(X, Version(1), 0));
        g.give(X, ANN, t);
        assert!(g.may_have_more(X, Version(1), 0), "she writes");
        g.end_client(ANN);
        assert!(g.may_have_more(X, Version(1), 0), "nobody knows what she left");
        g.reported(X, report(20), false, t);
        g.settle(X);
        assert!(!g.may_have_more(X, Version(1), 0));
        g.reported(X, report(20), false, t);
        assert!(g.may_have_more(X, Version(1), 19), "a replica has more");
        assert!(!g.may_have_more(X, Version(1), 20));
        assert!(
            !g.may_have_more(X, Version(2), 19),
            "a change of members has committed it"
        );
    }
}
