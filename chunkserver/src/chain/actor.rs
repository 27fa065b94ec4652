//! The task of one chunk's stream: it waits ([`Actor::next`]), decides by the machine, and acts.
//!
//! One batch of packets is applied at a time, in order, on the pool; packets that come meanwhile are the next batch.
//! When anything fails with bytes uncommitted, the stream is left: every feeder is told why, the master hears of it,
//! and the chunk takes no more packets at this version.

mod disk;
mod feeders;
mod records;

use super::forward::{Event, Link};
use super::gate::{Gate, Seen};
use super::write::{Effect, Late, Write};
use super::{Control, Incoming, Opening, Progress, Tell};
use crate::ground::Ground;
use crate::report::Trouble;
use crate::store::{self, Packet, Replica};
use dfs_proto::limits::Timings;
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Result, Version, WriterId};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

type Applying = Pin<Box<dyn Future<Output = Applied> + Send>>;
type Queues = (mpsc::Receiver<Control>, mpsc::Receiver<Incoming>);

/// What came of work on the pool.
struct Applied {
    /// Everything up to it is applied; 0: it was no packet.
    number: u64,
    outcome: store::Result<Arc<Replica>>,
}

struct Job {
    number: u64,
    packet: Packet,
    sync: bool,
}

struct Upstream {
    incarnation: u64,
    feeder: Feeder,
}

/// Whoever feeds the stream, as one who has to be told how far it is.
struct Feeder {
    progress: watch::Sender<Progress>,
    tell: Tell,
}

impl Feeder {
    /// Tells it at once, or wakes it: its newest packet that is committed, and where that begins.
    fn tell(&self, (upto, offset): (u64, u64), length: u64, sealed: bool) {
        let now = {
            let before = self.progress.borrow();
            let (upto, offset) = match upto >= before.upto {
                true => (upto, offset),
                false => (before.upto, before.offset),
            };
            Progress {
                upto,
                offset,
                length,
                sealed: before.sealed || sealed,
                end: before.end.clone(),
            }
        };
        let told = (self.tell.0)(&now);
        self.progress.send_if_modified(|p| {
            *p = now;
            !told
        });
    }

    /// The stream has ended for it.
    fn end(&self, why: &Error) {
        self.progress.send_modify(|p| p.end = Some(why.clone()));
    }
}

/// What the task woke up for.
enum Woken {
    Control(Control),
    Applied(Applied),
    Link(Event),
    Incoming(Incoming),
    Time,
    /// Nobody can reach the task any more.
    Orphaned,
}

/// Whether the task goes on.
enum Life {
    On,
    Over,
}

struct Actor {
    ground: Ground,
    opening: Opening,
    gate: Arc<Gate>,
    timings: Timings,
    write: Write,
    replica: Option<Arc<Replica>>,
    queue: VecDeque<Job>,
    applying: Option<Applying>,
    link: Option<Link>,
    clients: BTreeMap<WriterId, Feeder>,
    upstream: Option<Upstream>,
    /// There was no replica before packet number 1 of this stream.
    fresh: bool,
    /// Bytes were applied since the replica was last put on stable storage.
    dirty: bool,
    synced_at: Instant,
    active_at: Instant,
    effects: Vec<Effect>,
}

/// Starts the chunk's task.
pub(super) fn start(ground: Ground, opening: Opening, gate: Arc<Gate>, queues: Queues) {
    tokio::spawn(async move {
        let chunk = opening.capability.chunk;
        let (chains, mut queues) = (ground.chains.clone(), queues);
        match Actor::prepare(ground, opening, gate).await {
            Ok(mut actor) => actor.run(&mut queues).await,
            Err(error) => refuse_all(&mut queues.0, &error),
        }
        drop(queues);
        chains.ended(chunk);
    });
}

/// The task cannot start: whoever asked hears why.
fn refuse_all(controls: &mut mpsc::Receiver<Control>, error: &Error) {
    controls.close();
    while let Ok(control) = controls.try_recv() {
        match control {
            // An asker that has gone needs no answer.
            Control::WriteOpen { reply, .. } | Control::ChainOpen { reply, .. } => {
                drop(reply.send(Err(error.clone())))
            }
            Control::Drain { done, .. } => drop(done.send(())),
            Control::WriterGone { .. } | Control::UpstreamGone { .. } => {}
        }
    }
}

fn state_of(replica: &Replica, version: Version) -> Result<()> {
    let state = replica.state();
    let error = |code: Code, why: &str| Err(Error::new(code, why).on_chunk(replica.handle(), state.promised));
    match state.promised.cmp(&version) {
        std::cmp::Ordering::Greater => error(Code::Stale, "a higher version is promised"),
        std::cmp::Ordering::Less => error(Code::NotYet, "this version is not promised yet"),
        std::cmp::Ordering::Equal if state.restarted || state.kind != store::Kind::Intact => {
            error(Code::Unavailable, "the replica is out of its version's stream")
        }
        std::cmp::Ordering::Equal if state.synced < version => {
            error(Code::NotYet, "the replica is not ready for this version")
        }
        std::cmp::Ordering::Equal => Ok(()),
    }
}

/// A replica that is not there is created by packet number 1 of version 1 only; and never one that may have been there
/// before: it would count for whole and lack what was acknowledged.
fn may_be_born(ground: &Ground, opening: &Opening) -> Result<()> {
    let c = &opening.capability;
    let broken = || ground.store.broken().contains(&c.chunk);
    if c.version == Version::FIRST && c.length == 0 && ground.fence.is_new(c.chunk) && !broken() {
        return Ok(());
    }
    let error = Error::new(
        Code::Unavailable,
        "the replica is not there, and the chunk is not new",
    );
    Err(error.on_chunk(c.chunk, c.version).on_node(ground.fence.node()))
}

impl Actor {
    async fn prepare(ground: Ground, opening: Opening, gate: Arc<Gate>) -> Result<Actor> {
        let (chunk, version) = (opening.capability.chunk, opening.capability.version);
        let mine = ground.fence.node();
        let replica = ground.store.get(chunk);
        let table = match replica.clone() {
            Some(replica) => {
                state_of(&replica, version).map_err(|e| e.on_node(mine))?;
                let table = ground.world.pool.run(move || replica.table()).await;
                Some(table.map_err(|e| Error::from(e).on_chunk(chunk, version).on_node(mine))?)
            }
            None if ground.store.promised(chunk) >= version => {
                return Err(Error::from(Code::Stale).on_chunk(chunk, version).on_node(mine));
            }
            None => {
                may_be_born(&ground, &opening)?;
                None
            }
        };
        let head = opening.place == 0;
        let tail = opening.place + 1 == opening.capability.members.len();
        let (length, writers) = table.map_or((0, Vec::new()), |t| (t.length, t.writers));
        let now = ground.world.clock.now();
        let actor = Actor {
            timings: ground.fence.parameters().timings(),
            write: Write::new(
                head,
                tail,
                length,
                writers
                    .iter()
                    .map(|w| (w.writer, w.sequence, u64::from(w.offset))),
            ),
            fresh: replica.is_none(),
            dirty: replica.as_ref().is_some_and(|r| r.state().open),
            synced_at: now,
            active_at: now,
            queue: VecDeque::new(),
            applying: None,
            link: None,
            clients: BTreeMap::new(),
            upstream: None,
            effects: Vec::new(),
            ground,
            opening,
            gate,
            replica,
        };
        actor.show();
        Ok(actor)
    }

    fn chunk(&self) -> ChunkHandle {
        self.opening.capability.chunk
    }

    fn version(&self) -> Version {
        self.opening.capability.version
    }

    fn mine(&self) -> NodeId {
        self.opening.capability.members[self.opening.place].node
    }

    fn is_head(&self) -> bool {
        self.opening.place == 0
    }

    /// Shows readers and reports how far the stream is.
    fn show(&self) {
        self.gate.set(Seen {
            version: self.version(),
            uncommitted: self.write.uncommitted().collect(),
            length: self.write.committed_length(),
            streaming: !self.clients.is_empty(),
            sealed: self.write.is_sealed(),
        });
    }

    async fn run(&mut self, queues: &mut Queues) {
        loop {
            self.start_work();
            let woken = self.next(queues).await;
            let life = match woken {
                Woken::Control(control) => self.on_control(control).await,
                Woken::Applied(applied) => self.on_applied(applied).await,
                Woken::Link(Event::Acked(number)) => {
                    self.write.acked_below(number, &mut self.effects);
                    self.act()
                }
                Woken::Link(Event::Broken(error)) => self.on_broken_link(error).await,
                Woken::Incoming(incoming) => self.on_burst(incoming, &mut queues.1).await,
                Woken::Time => self.on_time(queues).await,
                Woken::Orphaned => Life::Over,
            };
            if matches!(life, Life::Over) {
                // Whoever asked meanwhile gets no answer, and asks the next task.
                return;
            }
        }
    }

    async fn next(&mut self, (controls, incoming): &mut Queues) -> Woken {
        let wake = self.wake_at();
        let (applying, link) = (&mut self.applying, &mut self.link);
        tokio::select! {
            biased;
            control = controls.recv() => control.map_or(Woken::Orphaned, Woken::Control),
            applied = async { applying.as_mut().expect("guarded").await }, if applying.is_some() => {
                self.applying = None;
                Woken::Applied(applied)
            }
            event = async { link.as_mut().expect("guarded").event().await }, if link.is_some() => Woken::Link(event),
            Some(packet) = incoming.recv(), if self.write.has_room() => Woken::Incoming(packet),
            () = tokio::time::sleep_until(wake) => Woken::Time,
        }
    }

    /// Members below the next one may be the late ones: whoever is nearer notices first and tells which it is.
    fn deadline(&self) -> Duration {
        let below_next = self
            .opening
            .capability
            .members
            .len()
            .saturating_sub(self.opening.place + 2);
        let hops = u32::try_from(below_next).expect("few members");
        self.timings.ack_deadline + self.timings.ack_deadline / 8 * hops
    }

    /// Without packets for so long, the stream has nothing to do. One that nobody feeds any more is given up sooner:
    /// it holds files and connections, and a tree of small files leaves hundreds of them a second behind.
    fn idle_time(&self) -> Duration {
        match self.is_fed() {
            true => self.timings.idle_before_close,
            false => self.timings.idle_before_close / 10,
        }
    }

    /// Somebody may send more, or something sent is not decided.
    fn is_fed(&self) -> bool {
        !(self.clients.is_empty() && self.upstream.is_none() && self.write.is_quiet())
    }

    fn wake_at(&self) -> Instant {
        let idle = self.active_at + self.idle_time();
        let fsync = self.synced_at + self.timings.background_fsync;
        let quiet = match (self.applying.is_some(), self.dirty) {
            // Whatever is due waits for the batch under way.
            (true, _) => self.ground.world.clock.now() + self.timings.call_deadline,
            (false, true) => idle.min(fsync),
            (false, false) => idle,
        };
        self.write
            .late_at(self.deadline())
            .map_or(quiet, |late| late.min(quiet))
    }

    fn act(&mut self) -> Life {
        // First: whoever hears of an acknowledgement finds its bytes shut or committed.
        self.show();
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Ack { writer, length, .. } if writer == WriterId::SEAL => self.tell_sealed(length),
                Effect::Ack {
                    writer,
                    sequence,
                    offset,
                    length,
                } => {
                    if let Some(client) = self.clients.get(&writer) {
                        client.tell((sequence, offset), length, false);
                    }
                }
                Effect::AckUp(number) => {
                    if let Some(upstream) = &self.upstream {
                        upstream.feeder.tell((number, 0), 0, false);
                    }
                }
                Effect::Committed(number) => {
                    if let Some(link) = &mut self.link {
                        link.committed(number);
                    }
                }
                Effect::Take { .. } | Effect::Gap => unreachable!("answered where the packet came in"),
            }
        }
        Life::On
    }

    fn end_feeders(&mut self, why: &Error) {
        let ends = self
            .clients
            .values()
            .chain(self.upstream.iter().map(|u| &u.feeder));
        ends.for_each(|feeder| feeder.end(why));
        self.clients.clear();
        self.upstream = None;
        self.link = None;
    }

    /// Leaves the stream for good.
    async fn leave(&mut self, why: Error) -> Life {
        let why = Error {
            chunk: Some((self.chunk(), self.version())),
            ..why
        };
        self.end_feeders(&why);
        self.settle().await;
        if why.code != Code::Stale {
            self.ground.complain(Trouble::LinkBroken {
                chunk: self.chunk(),
                version: self.version(),
                suspect: why.node.unwrap_or_default(),
            });
        }
        self.gate.leave(why);
        Life::Over
    }

    async fn on_time(&mut self, (controls, incoming): &mut Queues) -> Life {
        let now = self.ground.world.clock.now();
        if let Some(late) = self.write.late(now, self.deadline()) {
            let suspect = match late {
                Late::Below => self.opening.capability.members[self.opening.place + 1].node,
                Late::Here => self.mine(),
            };
            return self
                .leave(Error::new(Code::Unavailable, "no acknowledgement in time").on_node(suspect))
                .await;
        }
        let idle = now >= self.active_at + self.idle_time();
        let due = self.dirty && now >= self.synced_at + self.timings.background_fsync;
        if self.applying.is_some() || !(idle || due) {
            return Life::On;
        }
        self.tidy(idle && self.write.is_quiet());
        if idle {
            // Bytes that await the head's word keep the stream: it is looked at again after as long, not at once.
            self.active_at = now;
        }
        if !idle || self.is_fed() {
            return Life::On;
        }
        if let Some(tidied) = self.applying.take() {
            let tidied = tidied.await;
            if tidied.outcome.is_err() {
                return self.on_applied(tidied).await;
            }
        }
        if controls.is_empty() && incoming.is_empty() {
            self.gate.close();
            return Life::Over;
        }
        Life::On
    }
}
