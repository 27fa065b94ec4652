//! What mounts ask beside everyone else: files removed while open, locks, turns to append, holes.

use super::{Answer, Gate, unexpected};
use crate::command::{self, Caller, Change, Command, Lock, PunchHole, Reply, RequestId};
use crate::live::dying::Mark;
use crate::live::turns::Asked;
use crate::live::watch::Event;
use crate::state::{self, Owner};
use dfs_proto::{ClientId, Code, Error, InodeId, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// A question for the turn waits so long for it, undivided: then the asker says again that it is there.
const TURN_AWAITED: Duration = Duration::from_secs(1);

/// The sessions that keep an inode, should it lose its last name.
pub(super) struct Keepers {
    all: BTreeSet<ClientId>,
    mark: Mark,
}

/// What the command is told of them.
pub(super) fn told(keepers: Option<&Keepers>) -> (Vec<u64>, Option<u64>) {
    let all = keepers.map_or_else(Vec::new, |k| k.all.iter().map(|c| c.0).collect());
    (all, Some(keepers.map_or(0, |k| k.mark.inode().0)))
}

impl Gate {
    /// Who keeps the inode behind a name; `None`: there is none that can be kept.
    pub(super) async fn keepers(
        &self,
        client: ClientId,
        (parent, name): (u64, &[u8]),
        keep: bool,
    ) -> Result<Option<Keepers>> {
        let name = name.to_vec();
        let dying = self
            .desk
            .read(move |read| state::dying(read, InodeId(parent), &name))
            .await?;
        let Some(inode) = dying else {
            return Ok(None);
        };
        let mark = self.desk.live.dying.mark(inode);
        let mut all = self.desk.live.watch.holders_of(inode, self.desk.now());
        all.remove(&client);
        if keep {
            all.insert(client);
        }
        Ok(Some(Keepers { all, mark }))
    }

    pub(super) async fn unlink(
        &self,
        id: RequestId,
        caller: Caller,
        mut unlink: command::Unlink,
        keep: bool,
    ) -> Result<Answer> {
        let place = (unlink.parent, unlink.name.as_slice());
        let keepers = self.keepers(ClientId(id.client), place, keep).await?;
        (unlink.holders, unlink.dying) = told(keepers.as_ref());
        self.change_kept(id, caller, unlink, keepers).await
    }

    pub(super) async fn rename(
        &self,
        id: RequestId,
        caller: Caller,
        mut rename: command::Rename,
        keep: bool,
    ) -> Result<Answer> {
        if rename.exchange || rename.no_replace {
            return self.change(id, caller, rename.into()).await;
        }
        let place = (rename.new_parent, rename.new_name.as_slice());
        let keepers = self.keepers(ClientId(id.client), place, keep).await?;
        (rename.holders, rename.dying) = told(keepers.as_ref());
        self.change_kept(id, caller, rename, keepers).await
    }

    /// A change that may take an inode's last name; when it is applied, the inode may be told about again.
    pub(super) async fn change_kept(
        &self,
        id: RequestId,
        caller: Caller,
        change: impl Into<Change>,
        keepers: Option<Keepers>,
    ) -> Result<Answer> {
        let mark = keepers.map(|k| k.mark);
        let command = Command::from_client(self.desk.wall_ns(), id, caller, change);
        match self.desk.log_then(command, || drop(mark)).await? {
            Reply::Done(done) => Ok(Answer::Done(done.touched)),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes or gives back a lock. One that cannot be taken is not logged: whoever waits asks often.
    pub(super) async fn lock(&self, id: RequestId, caller: Caller, lock: Lock, wait: bool) -> Result<Answer> {
        let client = ClientId(id.client);
        let (inode, owner) = (InodeId(lock.inode), (client, lock.owner));
        let now = self.desk.now();
        let waiting = {
            let waiters = &mut self.desk.live.lock().waiters;
            if wait {
                // Before looking: what is given back from now on is told.
                waiters.wait(owner, lock, now);
            }
            waiters.of_fcntl(now)
        };
        let (asked_before, conflict, is_ring) = self
            .desk
            .read(move |read| {
                let known = state::stored_outcome(read, &id)?.is_some();
                let conflict = state::lock_conflict(read, client, &lock)?;
                let ring = conflict.is_some()
                    && wait
                    && !lock.flock
                    && state::would_deadlock(read, owner, &lock, &waiting);
                Ok::<_, Error>((known, conflict, ring))
            })
            .await??;
        if conflict.is_none() || asked_before {
            let Reply::Locked(locked) = self.log(id, caller, lock).await? else {
                return Err(Error::new(Code::Internal, "a lock was answered otherwise"));
            };
            if locked.freed {
                self.tell_waiters(inode);
            }
            return Ok(self.locked(owner, &lock, locked.conflict));
        }
        if is_ring {
            self.desk.live.lock().waiters.stop(owner, inode, lock.flock);
            return Ok(Answer::Locked(conflict, true));
        }
        Ok(self.locked(owner, &lock, conflict))
    }

    /// Who has what it wanted does not wait any more.
    fn locked(&self, owner: Owner, lock: &Lock, conflict: Option<command::LockRange>) -> Answer {
        if conflict.is_none() {
            let waiters = &mut self.desk.live.lock().waiters;
            waiters.stop(owner, InodeId(lock.inode), lock.flock);
        }
        Answer::Locked(conflict, false)
    }

    fn tell_waiters(&self, inode: InodeId) {
        let waiting: BTreeSet<ClientId> = self.desk.live.lock().waiters.of(inode);
        for client in waiting {
            self.desk.live.watch.tell(client, Event::LockFreed(inode));
        }
    }

    /// Frees the chunks of a range; the last one only if nobody else may be writing it.
    pub(super) async fn punch_hole(
        &self,
        id: RequestId,
        caller: Caller,
        mut hole: PunchHole,
    ) -> Result<Answer> {
        let (inode, last) = (
            InodeId(hole.inode),
            hole.offset.saturating_add(hole.length).saturating_sub(1),
        );
        let located = self
            .desk
            .read(move |read| state::locate(read, None, inode, last, 1))
            .await??;
        let client = ClientId(id.client);
        hole.tail = {
            let live = self.desk.live.lock();
            located
                .extents
                .iter()
                .all(|e| live.grants.is_only(e.handle, client))
        };
        self.change(id, caller, hole.into()).await
    }

    /// Asks for the turn to append to a file, and waits a moment for it. True: the session has it.
    ///
    /// # Errors
    /// `SessionExpired`.
    pub async fn append_turn(&self, client: ClientId, inode: InodeId) -> Result<bool> {
        self.heard(client)?;
        if self.old_turns_may_stand() {
            return Ok(false);
        }
        let deadline = self.desk.now() + TURN_AWAITED;
        let mut moved = self.desk.live.turns_moved();
        loop {
            moved.mark_unchanged();
            let asked = self.desk.live.lock().turns.ask(inode, client, self.desk.now());
            match asked {
                Asked::Yours => return Ok(true),
                Asked::Recall(holder) => self.desk.live.watch.tell(holder, Event::Recall(inode)),
                Asked::Wait => {}
            }
            if tokio::time::timeout_at(deadline, moved.changed()).await.is_err() {
                return Ok(false);
            }
        }
    }

    /// The session has committed what it appended, and gives the turn back.
    pub fn append_done(&self, client: ClientId, inode: InodeId) {
        let now = self.desk.now();
        self.desk.live.lock().turns.done(inode, client, now);
        self.desk.live.notify_turns();
    }

    /// A mount that has not opened its stream again since this master began may believe in a turn that it got from the
    /// one before; without a stream it stops believing within the time a session is held for live.
    fn old_turns_may_stand(&self) -> bool {
        let fence = self.desk.started + self.desk.timings.session_master;
        self.desk.now() < fence && self.desk.live.watch.is_any_away()
    }

    pub(super) fn committed(reply: Reply) -> Result<Answer> {
        match reply {
            Reply::Committed(committed) => Ok(Answer::Committed(committed)),
            other => Err(unexpected(&other)),
        }
    }
}
