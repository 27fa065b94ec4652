//! The steward: what the master does of its own accord, and what a client may wait for.
//!
//! [`change`] carries a chunk's next configuration from proposal to activation, one task a chunk. The rounds look for
//! work at their own pace: [`survey`] goes through all chunks and starts changes, copies and deletions, [`collect`] deletes
//! what nothing refers to, the clock ends sessions and grants that have run out and rotates keys. Reports only note
//! facts and wake them.

mod change;
mod collect;
mod explain;
mod join;
mod survey;
mod trash;

use crate::command::{EndClient, RotateKey};
use crate::desk::Desk;
use crate::live::watch::Event;
use crate::plan::members::Word;
use crate::state;
pub use change::load_keys;
use change::{Changes, Progress, Reason};
use dfs_proto::{ChunkHandle, ClientId, Code, Error, NodeId, Result, Version};
use dfs_stdx::clock::Instant;
pub use explain::{ChunkAccount, NodeAccount};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
pub use survey::Counts;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

/// Changes under way that no client waits for.
const BACKGROUND_CHANGES_MAX: usize = 64;
/// A client waits no longer than this for holders to return; then it is told, and may try another way.
const HOLDERS_AWAITED: Duration = Duration::from_secs(10);
/// A client waits no longer than this for a change: its own deadline is near.
const CHANGE_AWAITED: Duration = Duration::from_secs(25);

/// How much is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Chunks whose next configuration is being brought about.
    pub changes: usize,
    /// Chunks that get a new member.
    pub joining: usize,
    /// Chunks that wait for a new member.
    pub copies: usize,
    /// Replicas with a bad block.
    pub ailing: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Steward {
    desk: Arc<Desk>,
    changes: Changes,
    background: Arc<Semaphore>,
    copies: join::Copies,
    /// Servers that could not take a copy, until when they are not asked again.
    shunned: Mutex<BTreeMap<NodeId, Instant>>,
    /// Replicas with a bad block.
    ailing: Mutex<BTreeSet<(ChunkHandle, NodeId)>>,
    counts: watch::Sender<Counts>,
    wake: Notify,
    wake_collect: Notify,
    wake_trash: Notify,
}

impl Steward {
    /// Over this state; [`Steward::rounds`] must run.
    #[must_use]
    pub fn new(desk: Arc<Desk>) -> Arc<Steward> {
        Arc::new(Steward {
            desk,
            changes: Changes::default(),
            background: Arc::new(Semaphore::new(BACKGROUND_CHANGES_MAX)),
            copies: join::Copies::default(),
            shunned: Mutex::default(),
            ailing: Mutex::default(),
            counts: watch::Sender::new(Counts::default()),
            wake: Notify::new(),
            wake_collect: Notify::new(),
            wake_trash: Notify::new(),
        })
    }

    /// Runs all rounds until dropped.
    pub async fn rounds(self: Arc<Self>) {
        let mut rounds = JoinSet::new();
        rounds.spawn(survey::rounds(self.clone()));
        rounds.spawn(join::rounds(self.clone()));
        rounds.spawn(collect::rounds(self.clone()));
        rounds.spawn(collect::unknown_rounds(self.clone()));
        rounds.spawn(trash::rounds(self.clone()));
        rounds.spawn(Self::clock(self.clone()));
        while rounds.join_next().await.is_some() {}
    }

    /// Something was reported: look at it soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Something was removed: what it held may be collected soon.
    pub fn wake_collect(&self) {
        self.wake_collect.notify_one();
    }

    /// Something in the trash may be due.
    pub fn wake_trash(&self) {
        self.wake_trash.notify_one();
    }

    /// The state of all chunks, at most a round old.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// What is under way now.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues {
            changes: self.changes.count(),
            joining: self.copies.under_way(),
            copies: self.copies.waiting(),
            ailing: self.ailing.lock().expect("no panic while held").len(),
        }
    }

    /// The state of all chunks as of a round that began after this call, if it ends soon.
    pub async fn fresh_counts(&self) -> Counts {
        let mut counts = self.counts.subscribe();
        // The round that is under way may have begun before; the one after it has not.
        let wanted = counts.borrow_and_update().round + 2;
        let both = async {
            while counts.borrow_and_update().round < wanted {
                self.wake();
                if counts.changed().await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(500), both).await;
        self.counts()
    }

    /// True while a chunk's next configuration is being brought about.
    #[must_use]
    pub fn is_changing(&self, chunk: ChunkHandle) -> bool {
        self.changes.is_under_way(chunk)
    }

    /// Brings a chunk beyond `base` without the suspects a client names. Returns when a newer version is active.
    /// An impatient asker is told at once that those who may hold the chunk's bytes are away.
    ///
    /// # Errors
    /// `Unavailable` while those who may hold its bytes are away; `TimedOut`.
    pub async fn reconfigure(
        self: &Arc<Self>,
        chunk: ChunkHandle,
        base: Version,
        suspects: &BTreeSet<NodeId>,
        (reason, patient): (&str, bool),
    ) -> Result<()> {
        let words = suspects.iter().map(|n| (*n, Word::Client)).collect();
        tracing::info!(%chunk, %base, ?suspects, reason, "a client asks for the next version");
        let reason = Reason {
            words,
            why: "a client asked",
            ..Reason::default()
        };
        self.beyond(chunk, base, reason, patient).await
    }

    /// Waits until this proposed version, or a newer one, is active.
    ///
    /// # Errors
    /// As [`Steward::reconfigure`].
    pub async fn finish(self: &Arc<Self>, chunk: ChunkHandle, version: Version) -> Result<()> {
        let base = Version(version.0.saturating_sub(1));
        let reason = Reason {
            why: "a truncation",
            ..Reason::default()
        };
        self.beyond(chunk, base, reason, true).await
    }

    /// A member could not reach another one, with bytes uncommitted. It is heard if both are members of that version.
    pub fn link_broken(
        self: &Arc<Self>,
        chunk: ChunkHandle,
        version: Version,
        (by, suspect): (NodeId, NodeId),
    ) {
        let steward = self.clone();
        tokio::spawn(async move {
            let Ok(Some(record)) = steward.desk.chunk(chunk).await else {
                return;
            };
            let is_member = |n: NodeId| record.members().any(|m| m == n);
            if Version(record.active.version) != version || !is_member(by) {
                return;
            }
            let words = if is_member(suspect) && suspect != by {
                BTreeMap::from([(suspect, Word::Member)])
            } else {
                BTreeMap::new()
            };
            let why = "a link of its chain broke";
            steward.change(
                chunk,
                Reason {
                    words,
                    base: Some(version),
                    why,
                    ..Reason::default()
                },
            );
        });
    }

    /// A replica has a bad block: the next version takes it from another member.
    pub fn bad_block(self: &Arc<Self>, chunk: ChunkHandle, node: NodeId) {
        self.ailing
            .lock()
            .expect("no panic while held")
            .insert((chunk, node));
        self.change(
            chunk,
            Reason {
                why: "a member has a bad block",
                ..Reason::default()
            },
        );
    }

    /// Ends a client session, and brings to rest what it was writing.
    ///
    /// # Errors
    /// The log's failure.
    pub async fn end_client(&self, client: ClientId) -> Result<()> {
        let locked = self
            .desk
            .read(move |read| state::locked_inodes(read, client))
            .await?;
        self.desk.propose(EndClient { client: client.0 }).await?;
        self.desk.live.watch.end(client);
        let mut live = self.desk.live.lock();
        live.clients.forget(client);
        live.grants.end_client(client);
        live.waiters.end_client(client);
        live.turns.end_client(client, self.desk.now());
        let waiting: Vec<_> = locked
            .into_iter()
            .flat_map(|inode| live.waiters.of(inode).into_iter().map(move |c| (c, inode)))
            .collect();
        drop(live);
        self.desk.live.notify_turns();
        for (client, inode) in waiting {
            self.desk.live.watch.tell(client, Event::LockFreed(inode));
        }
        self.wake();
        self.wake_collect();
        Ok(())
    }

    async fn beyond(
        self: &Arc<Self>,
        chunk: ChunkHandle,
        base: Version,
        reason: Reason,
        patient: bool,
    ) -> Result<()> {
        let deadline = self.desk.now() + CHANGE_AWAITED;
        let patience = self.desk.now() + HOLDERS_AWAITED.min(self.desk.timings.session_master * 2);
        let mut again = 0;
        loop {
            let Some(record) = self.desk.chunk(chunk).await? else {
                return Err(Error::new(Code::Stale, "the chunk is gone").on_chunk(chunk, base));
            };
            let active = Version(record.active.version);
            if record.frozen {
                let why = "the chunk is frozen: a replica has promised more than the master knows";
                return Err(Error::new(Code::Unavailable, why).on_chunk(chunk, active));
            }
            if active > base && !record.is_truncating() {
                return Ok(());
            }
            if record.references == 0 || base > record.newest() {
                let why = "no file has this chunk at such a version";
                return Err(Error::new(Code::Stale, why).on_chunk(chunk, active));
            }
            if again > 0 {
                tokio::time::sleep(Duration::from_millis(10) * again.min(20)).await;
            }
            again += 1;
            let mut progress = self.change(chunk, reason.clone());
            let until = if patient { patience } else { self.desk.now() };
            match wait(&mut progress, until, deadline).await {
                Waited::Over => {}
                Waited::Blocked(why) => {
                    return Err(Error::new(Code::Unavailable, why).on_chunk(chunk, active));
                }
                Waited::TooLong => {
                    let why = "the chunk's next version is not active yet";
                    return Err(Error::new(Code::TimedOut, why).on_chunk(chunk, active));
                }
            }
        }
    }

    /// Ends what has run out, and rotates keys.
    async fn clock(self: Arc<Self>) {
        let every = self.desk.timings.heartbeat_every / 4;
        loop {
            tokio::time::sleep(every).await;
            let now = self.desk.now();
            let (expired, ended) = {
                let mut live = self.desk.live.lock();
                live.grants.expire(now);
                (live.clients.expired(now), live.servers.expire(now))
            };
            if ended {
                self.desk.live.notify();
            }
            self.desk.tidy_orders();
            for client in expired {
                tracing::info!(%client, "a client session has expired");
                if let Err(error) = self.end_client(client).await {
                    tracing::warn!(%client, %error, "a client session could not be ended");
                }
            }
            if let Err(error) = self.rotate_keys().await {
                tracing::warn!(%error, "the keys could not be rotated");
            }
        }
    }

    /// A new key if there is none, or the newest is old.
    ///
    /// # Errors
    /// The log's failure.
    pub async fn rotate_keys(&self) -> Result<()> {
        let newest = {
            let ring = self.desk.keys();
            let ring = ring.borrow();
            ring.keys.0.first().map(|k| (k.id, ring.rotated_ns))
        };
        let life = i64::try_from(self.desk.timings.key_rotation.as_nanos()).unwrap_or(i64::MAX);
        let id = match newest {
            Some((_, rotated_ns)) if self.desk.wall_ns() < rotated_ns.saturating_add(life) => return Ok(()),
            Some((id, _)) => id + 1,
            None => 1,
        };
        let secret = self.desk.rng.secret::<32>().to_vec();
        self.desk.propose(RotateKey { id, secret }).await?;
        load_keys(&self.desk).await
    }
}

enum Waited {
    Over,
    Blocked(String),
    TooLong,
}

/// Until the change is over; blocked ones are given until `patience`, all until `deadline`.
async fn wait(progress: &mut watch::Receiver<Progress>, patience: Instant, deadline: Instant) -> Waited {
    loop {
        let blocked = match &*progress.borrow_and_update() {
            Progress::Over => return Waited::Over,
            Progress::Blocked(why) => Some(why.clone()),
            Progress::Going => None,
        };
        let until = if blocked.is_some() {
            patience.min(deadline)
        } else {
            deadline
        };
        match tokio::time::timeout_at(until, progress.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Waited::Over,
            Err(_) => return blocked.map_or(Waited::TooLong, Waited::Blocked),
        }
    }
}
