//! One task a chunk that is changing: propose, carry the proposal to its activation, or propose the next one.

use super::Steward;
use crate::command::{Activate, Freeze, Propose, Reply};
use crate::desk::{Answered, Desk, Keyring};
use crate::plan::members::{self, Ask, Word};
use crate::plan::order::{Answer, Kind, Order};
use crate::plan::placement::{self, Wish};
use crate::plan::reconfigure::{Blocked, Change, Proposal, Step, Supersede};
use crate::plan::repair::Replica;
use crate::state;
use crate::store::records::Chunk;
use dfs_proto::capability::{Key, Keys};
use dfs_proto::{ChunkHandle, NodeId, Result, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Answers that may wait for one change: one adopt and one ready of each member, and room.
const ANSWERS_MAX: usize = 64;
/// Bytes a second a member is expected to sync at, at the very least.
const SYNC_BYTES_A_SECOND_MIN: u64 = 8 << 20;
/// A member that could not do what it was told so many times goes.
const UNWELL_MAX: u32 = 3;
/// After so many attempts words are forgotten: whoever failed then may be well by now.
const ATTEMPTS_REMEMBERED: u32 = 8;

/// How far a change is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Under way.
    Going,
    /// Waiting for someone to return.
    Blocked(String),
    /// Done, or given up: look at the record.
    Over,
}

/// Why a chunk changes, and what is known of its members.
#[derive(Clone, Debug, Default)]
pub(super) struct Reason {
    /// Who should go.
    pub(super) words: BTreeMap<NodeId, Word>,
    /// Who should come; it has been copied.
    pub(super) joiner: Option<NodeId>,
    /// Who goes when the joiner is there, and stays if it does not come.
    pub(super) instead_of: Option<NodeId>,
    /// Only if this is the active version still.
    pub(super) base: Option<Version>,
    /// For the log.
    pub(super) why: &'static str,
}

/// Changes under way, and how far each is.
#[derive(Debug, Default)]
pub(super) struct Changes(Mutex<BTreeMap<ChunkHandle, watch::Receiver<Progress>>>);

impl Changes {
    pub(super) fn count(&self) -> usize {
        self.0.lock().expect("no panic while held").len()
    }

    pub(super) fn is_under_way(&self, chunk: ChunkHandle) -> bool {
        self.0.lock().expect("no panic while held").contains_key(&chunk)
    }

    /// What the change under way waits for.
    pub(super) fn blocked(&self, chunk: ChunkHandle) -> Option<String> {
        let running = self.0.lock().expect("no panic while held");
        match &*running.get(&chunk)?.borrow() {
            Progress::Blocked(why) => Some(why.clone()),
            Progress::Going | Progress::Over => None,
        }
    }
}

enum Carried {
    Active,
    Gone,
    Frozen(NodeId, Version),
    Next(Supersede),
}

impl Steward {
    /// Starts a change, or joins the one under way, whose progress can be watched. What is said of members while they
    /// change is not counted: every adopt breaks links and streams.
    pub(super) fn change(self: &Arc<Self>, chunk: ChunkHandle, reason: Reason) -> watch::Receiver<Progress> {
        let mut running = self.changes.0.lock().expect("no panic while held");
        if let Some(known) = running.get(&chunk) {
            return known.clone();
        }
        let (sender, receiver) = watch::channel(Progress::Going);
        running.insert(chunk, receiver.clone());
        drop(running);
        let steward = self.clone();
        tokio::spawn(async move {
            if let Err(error) = steward.drive(chunk, reason, &sender).await {
                tracing::warn!(%chunk, %error, "a change of configuration was given up");
            }
            steward
                .changes
                .0
                .lock()
                .expect("no panic while held")
                .remove(&chunk);
            sender.send_replace(Progress::Over);
            steward.wake();
        });
        receiver
    }

    async fn drive(
        self: &Arc<Self>,
        chunk: ChunkHandle,
        mut reason: Reason,
        progress: &watch::Sender<Progress>,
    ) -> Result<()> {
        let mut needed: Vec<NodeId> = Vec::new();
        let mut unwell: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut attempt = 0_u32;
        let mut first: Option<Version> = None;
        loop {
            let Some(record) = self.desk.chunk(chunk).await? else {
                return Ok(());
            };
            let active = Version(record.active.version);
            let moved_on = reason.base.is_some_and(|b| b != active) || first.is_some_and(|f| f != active);
            if record.references == 0 || record.frozen || moved_on {
                return Ok(());
            }
            first = Some(active);
            let Some((members, based)) = self.choose(chunk, &record, &reason, &needed) else {
                progress.send_replace(Progress::Blocked(
                    "none of the chunk's active members is connected".into(),
                ));
                self.someone_returns().await;
                continue;
            };
            let propose = Propose {
                chunk: chunk.0,
                base: record.newest().0,
                members: members.iter().map(|n| n.0).collect(),
            };
            let Reply::Proposed(proposed) = self.desk.propose(propose).await? else {
                return Ok(());
            };
            if !proposed.accepted {
                continue;
            }
            tracing::info!(%chunk, version = proposed.newest, ?members, reason.why, "proposed");
            match self.carry(chunk, based, progress).await? {
                Carried::Active | Carried::Gone => return Ok(()),
                // Frozen, the chunk is left alone by the next turn.
                Carried::Frozen(node, promised) => self.freeze(chunk, node, promised).await?,
                Carried::Next(next) => {
                    tracing::info!(%chunk, version = proposed.newest, next.why, without = ?next.without, "superseded");
                    for node in next.unwell {
                        let times = unwell.entry(node).or_insert(0_u32);
                        *times += 1;
                        if *times >= UNWELL_MAX {
                            reason.words.insert(node, Word::Itself);
                        }
                    }
                    reason.words.extend(next.without);
                    needed.extend(next.with);
                }
            }
            attempt += 1;
            if attempt.is_multiple_of(ATTEMPTS_REMEMBERED) {
                reason.words.clear();
                needed.clear();
                unwell.clear();
            }
            if attempt > 2 {
                let pause = Duration::from_millis(20) * 2_u32.saturating_pow(attempt.min(9));
                tokio::time::sleep(pause.min(self.desk.timings.ack_deadline)).await;
            }
        }
    }

    /// The members of the next version, and who of them may pull everything. `None`: nobody is there.
    fn choose(
        &self,
        chunk: ChunkHandle,
        record: &Chunk,
        reason: &Reason,
        needed: &[NodeId],
    ) -> Option<(Vec<NodeId>, BTreeSet<NodeId>)> {
        let active: Vec<NodeId> = record.members().collect();
        let spare = (!reason.words.is_empty())
            .then(|| self.spare(chunk, record))
            .flatten();
        let joiners: Vec<NodeId> = reason.joiner.into_iter().collect();
        let now = self.desk.now();
        let live = self.desk.live.lock();
        let mut suspects = reason.words.clone();
        if let (Some(joiner), Some(leaver)) = (reason.joiner, reason.instead_of)
            && live.servers.session(joiner, now).is_connected()
            && !suspects.contains_key(&joiner)
        {
            suspects.entry(leaver).or_insert(Word::Itself);
        }
        let ask = Ask {
            active: &active,
            goal: usize::try_from(record.goal).unwrap_or(usize::MAX),
            suspects,
            needed,
            joiners: &joiners,
            spare,
        };
        let members = members::choose(&ask, &|n| live.servers.session(n, now)).ok()?;
        let based = members.iter().copied().filter(|n| !active.contains(n)).collect();
        Some((members, based))
    }

    /// A server that could join this chunk now.
    pub(super) fn spare(&self, chunk: ChunkHandle, record: &Chunk) -> Option<NodeId> {
        self.target(chunk, record, None, BTreeSet::new())
    }

    /// A server that could join this chunk now, and is none of `avoid`; in the place of `instead_of`.
    pub(super) fn target(
        &self,
        chunk: ChunkHandle,
        record: &Chunk,
        instead_of: Option<NodeId>,
        mut avoid: BTreeSet<NodeId>,
    ) -> Option<NodeId> {
        let now = self.desk.now();
        let mut live = self.desk.live.lock();
        avoid.extend(record.members());
        avoid.extend(self.shunned(now));
        let present = live
            .servers
            .places(record.members().filter(|n| Some(*n) != instead_of))
            .into_iter()
            .map(|m| (m.host, m.rack))
            .collect();
        let wish = Wish {
            count: 1,
            present,
            avoid,
            chunk_bytes: self.desk.parameters.chunk_bytes,
            chance: self.desk.rng.u64() ^ chunk.0,
            ..Wish::default()
        };
        let chosen = placement::place(&live.servers.candidates(now), &wish);
        live.servers.placed(&chosen);
        chosen.first().copied()
    }

    async fn carry(
        &self,
        chunk: ChunkHandle,
        based: BTreeSet<NodeId>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Carried> {
        let Some(proposal) = self.proposal(chunk, based).await? else {
            return Ok(Carried::Gone);
        };
        let members = proposal.members.clone();
        let mut change = Change::new(proposal);
        let (reply, mut answers) = mpsc::channel(ANSWERS_MAX);
        let mut sessions = self.desk.live.changes();
        let tick = (self.desk.timings.session_master / 20).max(Duration::from_millis(5));
        let mut deadline = self.desk.now() + self.desk.timings.ack_deadline;
        let (mut was_syncing, mut blocked) = (false, false);
        loop {
            sessions.borrow_and_update();
            for step in self.step(&mut change) {
                match step {
                    Step::Send(node, order) => {
                        self.desk.order(node, chunk, order, &reply);
                    }
                    Step::Activate { length, loss } => {
                        return self
                            .activate(chunk, change.version(), &members, (length, loss))
                            .await;
                    }
                    Step::Supersede(next) => return Ok(Carried::Next(next)),
                    Step::Freeze(node, promised) => return Ok(Carried::Frozen(node, promised)),
                    Step::Blocked(why) => {
                        blocked = true;
                        progress.send_replace(Progress::Blocked(explain(&why)));
                    }
                }
            }
            if change.is_syncing() && !was_syncing {
                was_syncing = true;
                blocked = false;
                progress.send_replace(Progress::Going);
                let seconds = change.length() / SYNC_BYTES_A_SECOND_MIN;
                deadline = self.desk.now() + self.desk.timings.ack_deadline + Duration::from_secs(seconds);
            }
            tokio::select! {
                biased;
                Some(answered) = answers.recv() => self.take(&mut change, answered),
                _ = sessions.changed() => {}
                () = tokio::time::sleep(if blocked { tick * 4 } else { tick }) => {
                    if blocked && self.is_unreferenced(chunk).await? {
                        return Ok(Carried::Gone);
                    }
                    if !blocked && self.desk.now() >= deadline {
                        change.deadline_passed();
                        self.expel(chunk, &change);
                    }
                }
            }
        }
    }

    /// Ends the sessions of leaving members that hold up a version: they do not do what they are told, though they show
    /// signs of life. In its next session a server is compared before it serves.
    fn expel(&self, chunk: ChunkHandle, change: &Change) {
        let now = self.desk.now();
        let mut live = self.desk.live.lock();
        let silent = change.held_up_by(&|node| live.servers.session(node, now));
        for (node, session) in &silent {
            tracing::warn!(%chunk, %node, version = %change.version(), "it does not promise: its session is ended");
            live.servers.disconnect(*node, *session, false, now);
        }
        drop(live);
        if !silent.is_empty() {
            self.desk.live.notify();
        }
    }

    fn step(&self, change: &mut Change) -> Vec<Step> {
        let now = self.desk.now();
        let live = self.desk.live.lock();
        change.step(&|node| live.servers.session(node, now))
    }

    /// Counts an answer, and notes what it tells of the replica.
    fn take(&self, change: &mut Change, answered: Answered) {
        let Answered { node, chunk, answer } = answered;
        let mut live = self.desk.live.lock();
        match &answer {
            Answer::Adopted(a) if !a.absent => {
                let replica = Replica {
                    promised: a.promised,
                    synced: a.synced,
                    length: a.length,
                    kind: a.kind,
                    restarted: a.restarted,
                };
                live.replicas.put(chunk, node, replica);
            }
            Answer::Failed(error) => tracing::warn!(%chunk, %node, %error, "an order failed"),
            Answer::Adopted(_) | Answer::Ready(_) | Answer::Copied | Answer::Deleted => {}
        }
        drop(live);
        change.answered(node, answer);
    }

    async fn is_unreferenced(&self, chunk: ChunkHandle) -> Result<bool> {
        Ok(self.desk.chunk(chunk).await?.is_none_or(|c| c.references == 0))
    }

    /// What was just logged, as the plan wants it.
    async fn proposal(&self, chunk: ChunkHandle, based: BTreeSet<NodeId>) -> Result<Option<Proposal>> {
        let Some(record) = self.desk.chunk(chunk).await? else {
            return Ok(None);
        };
        let Some(proposed) = record.proposed else {
            return Ok(None);
        };
        let nodes = |numbers: &[u32]| numbers.iter().map(|n| NodeId(*n)).collect::<Vec<_>>();
        let ailing = self.ailing.lock().expect("no panic while held");
        let members = nodes(&proposed.members);
        Ok(Some(Proposal {
            version: Version(proposed.version),
            ailing: members
                .iter()
                .copied()
                .filter(|n| ailing.contains(&(chunk, *n)))
                .collect(),
            members,
            truncate: proposed.truncate,
            active: Version(record.active.version),
            active_members: nodes(&record.active.members),
            length: record.active.length,
            durable_length: record.active.durable_length,
            holders: nodes(&proposed.holders).into_iter().collect(),
            based,
        }))
    }

    async fn activate(
        &self,
        chunk: ChunkHandle,
        version: Version,
        members: &[NodeId],
        (length, loss): (u64, Version),
    ) -> Result<Carried> {
        let activate = Activate {
            chunk: chunk.0,
            version: version.0,
            length,
            loss: loss.0,
        };
        let reply = match self.desk.propose(activate).await {
            Ok(reply) => reply,
            Err(error) => {
                // A truncation may have proposed a newer version meanwhile: that one is driven next.
                tracing::info!(%chunk, %version, %error, "not activated");
                return Ok(Carried::Next(Supersede {
                    why: "a newer proposal",
                    ..Supersede::default()
                }));
            }
        };
        if let Reply::Activated(a) = reply {
            if a.lost_bytes > 0 {
                tracing::error!(%chunk, %version, bytes = a.lost_bytes, "fsynced bytes are lost: no replica has them");
            } else if a.shrunk_bytes > 0 {
                tracing::warn!(%chunk, %version, bytes = a.shrunk_bytes, "bytes that were never fsynced went with the power");
            }
        }
        tracing::info!(%chunk, %version, ?members, length, %loss, "active");
        let whole = Replica {
            promised: version,
            synced: version,
            length,
            kind: Kind::Intact,
            restarted: false,
        };
        let mut live = self.desk.live.lock();
        for node in members {
            live.replicas.put(chunk, *node, whole);
        }
        live.grants.settle(chunk);
        drop(live);
        for node in members {
            self.ailing
                .lock()
                .expect("no panic while held")
                .remove(&(chunk, *node));
            self.desk.tell(*node, chunk, Order::Activated { version });
        }
        Ok(Carried::Active)
    }

    /// The replica knows more than the master: leave the chunk alone. Not if it only knows more than whoever judged it:
    /// a proposal may have been logged since, by a truncation or a change. A promise comes after its proposal, so what
    /// is read here is new enough.
    pub(super) async fn freeze(&self, chunk: ChunkHandle, node: NodeId, promised: Version) -> Result<()> {
        let record = self.desk.chunk(chunk).await?;
        if record.is_none_or(|r| r.frozen || promised <= r.newest()) {
            return Ok(());
        }
        tracing::error!(
            %chunk, %node, %promised,
            "a replica has promised a version that was never proposed: was the master restored from a backup? The chunk is frozen"
        );
        self.desk.propose(Freeze { chunk: chunk.0 }).await.map(|_| ())
    }

    /// Waits until a session changes, or a little.
    async fn someone_returns(&self) {
        let mut sessions = self.desk.live.changes();
        let _ = tokio::time::timeout(self.desk.timings.heartbeat_every, sessions.changed()).await;
    }
}

fn explain(blocked: &Blocked) -> String {
    match blocked {
        Blocked::Holders(nodes) => {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            format!(
                "waiting for chunkservers {}: they may hold what the others do not",
                nodes.join(", ")
            )
        }
        Blocked::NoCopy => {
            "every chunkserver that could hold the chunk has answered, and none has its bytes".into()
        }
    }
}

/// Takes the keys from the hard state.
///
/// # Errors
/// If the store cannot be read.
pub async fn load_keys(desk: &Desk) -> Result<()> {
    let stored = desk.read(state::signing_keys).await?;
    let key = |k: &crate::store::records::Key| {
        Some(Key {
            id: k.id,
            secret: k.secret[..].try_into().ok()?,
        })
    };
    let keys = Keys(stored.keys.iter().filter_map(key).collect());
    desk.set_keys(Keyring {
        keys,
        rotated_ns: stored.rotated_ns,
    });
    Ok(())
}
