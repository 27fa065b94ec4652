//! What the session with the master allows: may replicas be served, which keys are good, which versions are active.
//!
//! Set by the session, asked by reads and writes. Section 5 of the protocol: a session is live for a time after the
//! *sending* of the last heartbeat that was answered; a chunk is served only after it was compared in this session.

use dfs_proto::capability::Keys;
use dfs_proto::limits::Parameters;
use dfs_proto::{ChunkHandle, NodeId, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::Instant;

/// The session's word, shared by everyone who answers for replicas.
#[derive(Debug, Default)]
pub struct Fence {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    node: NodeId,
    /// Counts sessions, so that what was asked for in an old one cannot count for a new one.
    session: u64,
    live_until: Option<Instant>,
    /// Every replica that was there when the session began has been compared.
    all_compared: bool,
    compared: BTreeSet<ChunkHandle>,
    /// Versions the master said are active; a capability says it too.
    active: BTreeMap<ChunkHandle, Version>,
    keys: Arc<Keys>,
    parameters: Parameters,
    first_new: Option<ChunkHandle>,
}

impl Fence {
    /// No session yet: nothing is served but as detached, and no key is known.
    #[must_use]
    pub fn new() -> Arc<Fence> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the fence is held")
    }

    /// A session began: every replica has to be compared again. Returns the session's number.
    pub fn begin(&self, node: NodeId) -> u64 {
        let mut state = self.state();
        state.session += 1;
        state.node = node;
        state.all_compared = false;
        state.compared.clear();
        state.session
    }

    /// This server's number; 0 before the first session.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.state().node
    }

    /// Names this server before the first session, from its identity file.
    pub fn set_node(&self, node: NodeId) {
        self.state().node = node;
    }

    /// The session is live until then.
    pub fn extend(&self, until: Instant) {
        let mut state = self.state();
        state.live_until = state.live_until.max(Some(until));
    }

    /// The session has ended: its peer said so, or we gave it up.
    pub fn end(&self) {
        let mut state = self.state();
        state.session += 1;
        state.live_until = None;
        state.all_compared = false;
        state.compared.clear();
    }

    /// True while the session is live.
    #[must_use]
    pub fn is_live(&self, now: Instant) -> bool {
        self.state().live_until.is_some_and(|until| now < until)
    }

    /// This chunk was compared (or born) in this session.
    pub fn mark_compared(&self, chunk: ChunkHandle) {
        let mut state = self.state();
        if !state.all_compared {
            state.compared.insert(chunk);
        }
    }

    /// As [`Fence::mark_compared`], unless session `session` is over.
    pub fn mark_compared_in(&self, session: u64, chunk: ChunkHandle) {
        let mut state = self.state();
        if state.session == session && !state.all_compared {
            state.compared.insert(chunk);
        }
    }

    /// Every chunk was compared.
    pub fn mark_all_compared(&self) {
        let mut state = self.state();
        state.all_compared = true;
        state.compared.clear();
    }

    /// True if the chunk was compared in this session.
    #[must_use]
    pub fn is_compared(&self, chunk: ChunkHandle) -> bool {
        let state = self.state();
        state.all_compared || state.compared.contains(&chunk)
    }

    /// The master, or a capability it signed, says that this version is active.
    pub fn note_active(&self, chunk: ChunkHandle, version: Version) {
        let mut state = self.state();
        let known = state.active.entry(chunk).or_default();
        *known = version.max(*known);
    }

    /// The newest version known to be active; 0 if none is.
    #[must_use]
    pub fn active(&self, chunk: ChunkHandle) -> Version {
        self.state().active.get(&chunk).copied().unwrap_or_default()
    }

    /// Forgets a chunk that is gone.
    pub fn forget(&self, chunk: ChunkHandle) {
        self.state().active.remove(&chunk);
    }

    /// Chunks from this one on were made after the newest session was asked for; it only rises.
    pub fn set_first_new(&self, chunk: ChunkHandle) {
        let mut state = self.state();
        state.first_new = state.first_new.max(Some(chunk));
    }

    /// True if the chunk was made in this session. A replica of an older one that is not there may have been there and
    /// gone with the power; or its members may have gone on without this server while it had no session: in both cases
    /// a late packet number 1 must not create it, empty and readable.
    #[must_use]
    pub fn is_new(&self, chunk: ChunkHandle) -> bool {
        self.state().first_new.is_none_or(|first| chunk >= first)
    }

    /// The keys capabilities are checked with.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        self.state().keys.clone()
    }

    /// The cluster's parameters; the defaults before the first session.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.state().parameters
    }

    /// Notes what the master said at registration.
    pub fn set_parameters(&self, parameters: Parameters) {
        self.state().parameters = parameters;
    }

    /// Replaces them.
    pub fn set_keys(&self, keys: Keys) {
        self.state().keys = Arc::new(keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_session_is_live_until_its_deadline_and_compares_anew() {
        let fence = Fence::new();
        let now = Instant::now();
        assert!(!fence.is_live(now));
        fence.begin(NodeId(3));
        fence.extend(now + Duration::from_secs(4));
        fence.mark_compared(ChunkHandle(1));
        assert!(fence.is_live(now) && !fence.is_live(now + Duration::from_secs(4)));
        assert!(fence.is_compared(ChunkHandle(1)) && !fence.is_compared(ChunkHandle(2)));
        fence.mark_all_compared();
        assert!(fence.is_compared(ChunkHandle(2)));
        fence.end();
        assert!(!fence.is_live(now) && !fence.is_compared(ChunkHandle(1)));
    }

    #[test]
    fn what_an_old_session_compared_does_not_count() {
        let fence = Fence::new();
        let old = fence.begin(NodeId(3));
        fence.end();
        fence.mark_compared_in(old, ChunkHandle(1));
        let new = fence.begin(NodeId(3));
        fence.mark_compared_in(old, ChunkHandle(1));
        assert!(!fence.is_compared(ChunkHandle(1)));
        fence.mark_compared_in(new, ChunkHandle(1));
        assert!(fence.is_compared(ChunkHandle(1)));
    }

    #[test]
    fn a_chunk_is_new_if_it_was_made_after_the_newest_registration() {
        let fence = Fence::new();
        fence.set_first_new(ChunkHandle(7));
        fence.set_first_new(ChunkHandle(3));
        assert!(fence.is_new(ChunkHandle(7)) && !fence.is_new(ChunkHandle(6)));
        fence.set_first_new(ChunkHandle(9));
        assert!(
            !fence.is_new(ChunkHandle(7)),
            "its members may have gone on without us"
        );
    }

    #[test]
    fn an_active_version_only_rises() {
        let fence = Fence::new();
        fence.note_active(ChunkHandle(1), Version(3));
        fence.note_active(ChunkHandle(1), Version(2));
        assert_eq!(fence.active(ChunkHandle(1)), Version(3));
        assert_eq!(fence.active(ChunkHandle(2)), Version(0));
    }
}
