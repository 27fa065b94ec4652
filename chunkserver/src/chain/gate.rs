//! Which bytes of a chunk readers may see: committed ones. The gate outlives the stream: bytes that were uncommitted
//! when it ended, and bytes that a sync brought, stay shut until a later version is known to be active.

use dfs_proto::span::overlap;
use dfs_proto::{Error, Version};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// One chunk's gate.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Of the stream that `uncommitted` is about.
    version: Version,
    uncommitted: Vec<Range<u64>>,
    /// Committed length, while a stream knows it.
    length: Option<u64>,
    /// What a sync to `held_for` brought.
    held: Vec<Range<u64>>,
    held_for: Version,
    streaming: bool,
    /// All members have the seal.
    sealed: bool,
    /// Why the stream of `version` was left.
    left: Option<Error>,
}

/// What a stream knows about its chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) version: Version,
    pub(crate) uncommitted: Vec<Range<u64>>,
    pub(crate) length: u64,
    pub(crate) streaming: bool,
    pub(crate) sealed: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while a gate is held")
    }

    /// The stream's newest word.
    pub(super) fn set(&self, seen: Seen) {
        let mut state = self.state();
        state.version = seen.version;
        state.uncommitted = seen.uncommitted;
        state.length = Some(seen.length);
        state.streaming = seen.streaming;
        state.sealed = seen.sealed;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The stream ended with everything committed.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.length = None;
        state.streaming = false;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The stream was left: what is uncommitted stays so.
    pub(super) fn leave(&self, why: Error) {
        let mut state = self.state();
        state.left.get_or_insert(why);
        state.streaming = false;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Why the stream of this version was left, if it was.
    pub(super) fn left(&self, version: Version) -> Option<Error> {
        let state = self.state();
        state.left.clone().filter(|_| version <= state.version)
    }

    /// The version whose stream was left with bytes of which nobody here knows whether they are committed.
    pub(super) fn unresolved(&self) -> Option<Version> {
        let state = self.state();
        (state.left.is_some() && !state.uncommitted.is_empty()).then_some(state.version)
    }

    /// Bytes that a sync to `version` brought: shut until that version is active.
    /// What an earlier sync brought, to a version that never was active, stays shut too.
    pub(crate) fn hold(&self, version: Version, ranges: Vec<Range<u64>>) {
        let mut state = self.state();
        state.held.extend(ranges);
        state.held_for = version;
    }

    /// True if this process carried out the sync to `version`: then it holds what that brought.
    pub(crate) fn knows_what_came_with(&self, version: Version) -> bool {
        self.state().held_for >= version
    }

    /// This version is active: what older streams left uncommitted is decided by now.
    pub(crate) fn activated(&self, version: Version) {
        let mut state = self.state();
        if version >= state.held_for {
            state.held.clear();
        }
        if version > state.version {
            state.version = version;
            state.uncommitted.clear();
            state.left = None;
            state.length = None;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Committed length if a stream knows one, and whether it has writers.
    pub(crate) fn progress(&self) -> (Option<u64>, bool) {
        let state = self.state();
        (state.length, state.streaming)
    }

    /// True if all members have the seal: the chunk's length is final. `applied`: this replica has it, which says as
    /// much when no stream knows better.
    pub(crate) fn is_sealed(&self, applied: bool) -> bool {
        let state = self.state();
        if state.length.is_some() {
            state.sealed
        } else {
            applied
        }
    }

    /// Waits for changes until one is enough, or for `patience`.
    pub(crate) async fn changes(&self, is_enough: impl Fn() -> bool, patience: Duration) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if is_enough() {
                    return;
                }
                changed.await;
            }
        };
        // Whoever waits looks at what there is then.
        let _ = tokio::time::timeout(patience, wait).await;
    }

    /// The length that readers may see, if all of `range` below it is committed.
    pub(crate) fn readable(&self, range: &Range<u64>, length: u64) -> Option<u64> {
        let state = self.state();
        let length = state.length.unwrap_or(length).min(length);
        let range = range.start..range.end.min(length);
        let shut = state
            .uncommitted
            .iter()
            .chain(&state.held)
            .any(|u| overlap(u, &range));
        (!shut).then_some(length)
    }

    /// As [`Gate::readable`], but waits for a commit up to `patience`, also of what lies below `least`: the reader knows
    /// that so much is committed.
    pub(crate) async fn wait_readable(
        &self,
        range: &Range<u64>,
        (least, length): (u64, u64),
        patience: Duration,
    ) -> Option<u64> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(length) = self.readable(range, length).filter(|l| *l >= least) {
                    return length;
                }
                changed.await;
            }
        };
        tokio::time::timeout(patience, wait).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::Code;

    fn seen(uncommitted: Vec<Range<u64>>) -> Seen {
        Seen {
            version: Version(1),
            uncommitted,
            length: 100,
            streaming: true,
            sealed: false,
        }
    }

    #[test]
    fn committed_bytes_are_seen_and_uncommitted_ones_are_not() {
        let gate = Gate::default();
        gate.set(seen(vec![40..50, 100..200]));
        assert_eq!(gate.readable(&(0..40), 200), Some(100));
        assert_eq!(gate.readable(&(45..46), 200), None);
        assert_eq!(
            gate.readable(&(90..180), 200),
            Some(100),
            "the end is the committed one"
        );
    }

    #[test]
    fn what_a_left_stream_had_uncommitted_is_shut_until_a_later_version_is_active() {
        let gate = Gate::default();
        gate.set(seen(std::iter::once(40..50).collect()));
        gate.leave(Code::Unavailable.into());
        gate.activated(Version(1));
        assert!(gate.left(Version(1)).is_some() && gate.readable(&(40..41), 100).is_none());
        gate.activated(Version(2));
        assert!(gate.left(Version(2)).is_none() && gate.readable(&(40..41), 100).is_some());
    }

    #[test]
    fn what_a_sync_brought_is_shut_until_its_version_is_active() {
        let gate = Gate::default();
        gate.hold(Version(3), std::iter::once(0..10).collect());
        gate.activated(Version(2));
        assert_eq!(gate.readable(&(0..1), 100), None);
        gate.activated(Version(3));
        assert_eq!(gate.readable(&(0..1), 100), Some(100));
    }

    #[test]
    fn what_a_sync_brought_stays_shut_when_its_version_was_superseded() {
        let gate = Gate::default();
        gate.hold(Version(3), std::iter::once(0..10).collect());
        gate.hold(Version(4), vec![]);
        assert_eq!(gate.readable(&(0..1), 100), None);
        assert!(gate.knows_what_came_with(Version(4)) && !gate.knows_what_came_with(Version(5)));
        gate.activated(Version(4));
        assert_eq!(gate.readable(&(0..1), 100), Some(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_the_commit_but_not_for_ever() {
        let gate = std::sync::Arc::new(Gate::default());
        gate.set(seen(std::iter::once(40..50).collect()));
        let patience = Duration::from_millis(50);
        assert_eq!(gate.wait_readable(&(40..41), (0, 100), patience).await, None);
        assert_eq!(gate.wait_readable(&(0..1), (101, 200), patience).await, None);
        let waiter = {
            let gate = gate.clone();
            tokio::spawn(async move { gate.wait_readable(&(40..41), (100, 100), patience).await })
        };
        tokio::task::yield_now().await;
        gate.set(seen(vec![]));
        assert_eq!(waiter.await.unwrap(), Some(100));
    }
}
