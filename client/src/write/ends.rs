//! Where writes end: flush, settle, sync, close, and the pauses that truncation needs.

use super::lane::{Command, Progress};
use super::wait::{Sent, ended, stopped, wait_acked, waits_for_end};
use super::{LANES_MAX, State, Writer};
use crate::convert::{self, Commit, Grant};
use dfs_proto::Result;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

impl Writer {
    /// Waits until every member has all that was given before.
    pub(crate) async fn flush(&self) -> Result<()> {
        let sent: Vec<Sent> = {
            let state = self.state.lock().await;
            let open = state.lanes.values().map(|o| Sent {
                progress: o.progress.clone(),
                ticket: o.last_ticket,
            });
            let left = state.left.values().map(|p| Sent {
                progress: p.clone(),
                ticket: u64::MAX,
            });
            open.chain(left).collect()
        };
        let all = wait_acked(sent).await;
        self.shared.report().and(all)
    }

    /// Waits until every member has all, and the master knows the lengths; true if it has learnt of some.
    pub(crate) async fn settle(&self) -> Result<bool> {
        if !self.touched.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        let mut state = self.state.lock().await;
        let mut waits = Vec::new();
        let tickets = self.command_all(&mut state, Command::Settle).await;
        for (mut progress, ticket) in tickets {
            waits.push(async move {
                progress
                    .wait_for(|p| p.settled >= ticket || p.ended.is_some())
                    .await
                    .map(drop)
            });
        }
        for mut left in state.left.values().cloned() {
            waits_for_end(&mut left).await;
        }
        for wait in waits {
            // A task that is gone has said why in the file's problem.
            let _ = wait.await;
        }
        state.left.retain(|_, p| p.borrow().unsynced.is_some());
        let growths = self.shared.growths.load(Ordering::Relaxed);
        let news = std::mem::replace(&mut state.growths_seen, growths) != growths;
        self.shared.report().map(|()| news)
    }

    /// Makes all that was given before durable on every member, lengths included.
    pub(crate) async fn sync(&self) -> Result<()> {
        let left: Vec<u64> = {
            let mut state = self.state.lock().await;
            let open = self.command_all(&mut state, Command::Sync).await;
            let left = state.left.keys().copied().collect();
            drop(state);
            wait_synced(open).await?;
            left
        };
        // Only now: a lane that makes room for one of these leaves nothing behind that is not durable.
        for some in left.chunks(LANES_MAX) {
            let reopened = self.sync_left(&mut *self.state.lock().await, some).await?;
            wait_synced(reopened).await?;
        }
        self.shared.report()
    }

    /// Tells lanes, new ones where need be, to make durable what these chunks' last lanes did not.
    async fn sync_left(
        &self,
        state: &mut State,
        slots: &[u64],
    ) -> Result<Vec<(watch::Receiver<Progress>, u64)>> {
        let mut given = Vec::new();
        for slot in slots {
            let open = match self.is_unsynced(state, *slot).await? {
                true => Some(self.lane(state, *slot).await?.commands.clone()),
                // Written again meanwhile: that lane has taken over what was not durable.
                false => state.lanes.get(slot).map(|open| open.commands.clone()),
            };
            let Some(commands) = open else { continue };
            state.tickets += 1;
            let _ = commands.send(Command::Sync(state.tickets)).await;
            given.push((state.lanes[slot].progress.clone(), state.tickets));
        }
        Ok(given)
    }

    /// True if the chunk's last lane has ended and left something that is not durable.
    async fn is_unsynced(&self, state: &State, slot: u64) -> Result<bool> {
        let Some(mut left) = state.left.get(&slot).cloned() else {
            return Ok(false);
        };
        ended(&mut left).await?;
        let unsynced = left.borrow().unsynced;
        Ok(unsynced.is_some())
    }

    /// Gives each lane a command with a new ticket. A lane that has ended by itself joins those that were left: what it
    /// wrote may not be durable yet.
    async fn command_all(
        &self,
        state: &mut State,
        command: fn(u64) -> Command,
    ) -> Vec<(watch::Receiver<Progress>, u64)> {
        let (mut given, mut gone) = (Vec::new(), Vec::new());
        for (slot, open) in &mut state.lanes {
            state.tickets += 1;
            match open.commands.send(command(state.tickets)).await {
                Ok(()) => given.push((open.progress.clone(), state.tickets)),
                Err(_) => gone.push(*slot),
            }
        }
        for slot in gone {
            let open = state.lanes.remove(&slot).expect("just seen");
            state.left.insert(slot, open.progress);
        }
        given
    }

    /// Ends all lanes: acknowledged, durable if wanted, lengths known to the master.
    pub(crate) async fn close(&self, sync: bool) -> Result<()> {
        let mut state = self.state.lock().await;
        self.finish_all(&mut state, sync).await;
        let left: Vec<u64> = state.left.keys().copied().collect();
        for some in left.chunks(LANES_MAX).filter(|_| sync) {
            let reopened = self.sync_left(&mut state, some).await;
            reopened.or_else(|e| self.shared.report().and(Err(e)))?;
            self.finish_all(&mut state, true).await;
        }
        state.left.clear();
        if let Some(unused) = state.first.take() {
            self.give_back(&unused).await;
        }
        self.shared.report()
    }

    /// Ends all open lanes, and waits until they have.
    async fn finish_all(&self, state: &mut State, sync: bool) {
        let slots: Vec<u64> = state.lanes.keys().copied().collect();
        for slot in slots {
            self.finish(state, slot, sync).await;
        }
        for left in state.left.values_mut() {
            waits_for_end(left).await;
        }
    }

    /// A chunk that was made for this handle and never written: the master may take it back.
    async fn give_back(&self, grant: &Grant) {
        let commit = Commit {
            inode: self.shared.inode,
            chunk: grant.capability.chunk,
            version: grant.capability.version,
            length: 0,
            durable: false,
            mtime_ns: None,
            close: true,
        };
        let given = self
            .shared
            .core
            .master
            .change(&self.shared.caller, convert::commit_length(commit))
            .await;
        if let Err(error) = given {
            tracing::debug!(%error, "an unused grant was not taken back");
        }
    }

    /// As [`Writer::pause`], and gives back what came with the file's creation and was not used.
    pub(crate) async fn rest(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        self.finish_all(&mut state, false).await;
        if let Some(unused) = state.first.take() {
            self.give_back(&unused).await;
        }
        self.shared.report()
    }

    /// The grant that came with the file's creation, if no write has used it.
    pub(crate) fn take_first(&self) -> Option<Grant> {
        self.state.try_lock().ok()?.first.take()
    }

    /// Ends all lanes without making anything durable, and remembers what is not.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.finish_all(&mut *self.state.lock().await, false).await;
        self.shared.report()
    }

    /// Forgets what lies beyond the new end; all lanes must have ended.
    pub(crate) async fn cut(&self, size: u64) {
        let mut state = self.state.lock().await;
        state.end = size;
        state.left.retain(|slot, _| *slot < size);
        // Its chunk may have gone from the file: its members would take bytes that nobody finds again.
        state.first = None;
    }
}

/// Waits until the lanes have made durable what they were told to, or have ended.
async fn wait_synced(told: Vec<(watch::Receiver<Progress>, u64)>) -> Result<()> {
    for (mut progress, ticket) in told {
        let done = progress
            .wait_for(|p| p.synced >= ticket || p.ended.is_some())
            .await;
        done.map_err(|_| stopped())?.ended.clone().unwrap_or(Ok(()))?;
    }
    Ok(())
}
