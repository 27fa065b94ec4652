//! The task of one chunk's stream: it waits ([`Actor::next`]), decides by the machine, and acts.
//!
//! One batch of packets is applied at a time, in order, on the pool; packets that come meanwhile are the next batch.
//! When anything fails with bytes uncommitted, the stream is left: every feeder is told why, the master hears of it,
//! and the chunk takes no more packets at this version.

use super::forward::{Event, Link, Onward, Target};
use super::gate::{Gate, Seen};
use super::write::{Effect, FLIGHT_MAX, Heading, Late, Write};
use super::{Control, Incoming, Opening, Progress};
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
    progress: watch::Sender<Progress>,
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
    clients: BTreeMap<WriterId, watch::Sender<Progress>>,
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
            None => None,
        };
        let head = opening.place == 0;
        let tail = opening.place + 1 == opening.capability.members.len();
        let (length, writers) = table.map_or((0, Vec::new()), |t| (t.length, t.writers));
        let now = ground.world.clock.now();
        let actor = Actor {
            timings: ground.fence.parameters().timings(),
            write: Write::new(head, tail, length, writers.iter().map(|w| (w.writer, w.sequence))),
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
                Woken::Incoming(incoming) => self.on_incoming(incoming).await,
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

    fn wake_at(&self) -> Instant {
        let idle = self.active_at + self.timings.idle_before_close;
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

    // --- what came ---

    async fn on_control(&mut self, control: Control) -> Life {
        self.active_at = self.ground.world.clock.now();
        match control {
            Control::WriteOpen { writer, reply } => {
                let (progress, seen) = watch::channel(Progress {
                    upto: self.write.committed_sequence(writer),
                    length: self.write.committed_length(),
                    end: None,
                });
                let answer = if self.is_head() {
                    self.clients.insert(writer, progress);
                    Ok(seen)
                } else {
                    Err(Error::new(Code::InvalidArgument, "writes go to the head").on_node(self.mine()))
                };
                // If the asker has gone, its connection's end says so soon.
                let _ = reply.send(answer);
                self.show();
                Life::On
            }
            Control::WriterGone { writer } => {
                // The same writer may be back on another connection: then this end is not its.
                if self.clients.get(&writer).is_some_and(watch::Sender::is_closed) {
                    self.clients.remove(&writer);
                    self.show();
                }
                Life::On
            }
            Control::ChainOpen {
                incarnation,
                first,
                fresh,
                reply,
            } => {
                let _ = reply.send(self.accept_upstream(incarnation, first, fresh));
                Life::On
            }
            Control::UpstreamGone { incarnation } => self.on_upstream_end(incarnation).await,
            Control::Drain { why, done } => {
                self.end_feeders(&why);
                self.settle().await;
                self.gate.leave(why);
                let _ = done.send(());
                Life::Over
            }
        }
    }

    fn accept_upstream(
        &mut self,
        incarnation: u64,
        first: u64,
        fresh: bool,
    ) -> Result<watch::Receiver<Progress>> {
        let absent = self.replica.is_none();
        let refused = |code: Code, why: &str| {
            let error = Error::new(code, why).on_chunk(self.chunk(), self.version());
            Err(error.on_node(self.mine()))
        };
        if self.is_head() {
            return refused(Code::InvalidArgument, "a head has nobody above it");
        }
        if !self.write.is_quiet() {
            return refused(Code::Unavailable, "the last stream left bytes uncommitted");
        }
        let born = first == 1 && self.version() == Version::FIRST;
        if absent != fresh || fresh && !born || first == 0 {
            return refused(
                Code::Unavailable,
                "there is no replica to go on with, or one where there must be none",
            );
        }
        self.write.restart(first);
        self.fresh = fresh;
        self.link = None;
        let (progress, seen) = watch::channel(Progress::default());
        self.upstream = Some(Upstream {
            incarnation,
            progress,
        });
        Ok(seen)
    }

    fn is_upstream(&self, incarnation: u64) -> bool {
        self.upstream
            .as_ref()
            .is_some_and(|u| u.incarnation == incarnation)
    }

    async fn on_upstream_end(&mut self, incarnation: u64) -> Life {
        if !self.is_upstream(incarnation) {
            return Life::On;
        }
        self.upstream = None;
        if self.write.is_quiet() {
            self.link = None;
            return Life::On;
        }
        let above = self.opening.capability.members[self.opening.place - 1].node;
        self.leave(Error::new(Code::Unavailable, "the link from above broke").on_node(above))
            .await
    }

    async fn on_incoming(&mut self, incoming: Incoming) -> Life {
        let now = self.ground.world.clock.now();
        self.active_at = now;
        match incoming {
            Incoming::Client { packet, sync } => {
                if !self.clients.contains_key(&packet.writer) {
                    return Life::On;
                }
                let effect = self.write.from_client(heading(&packet, sync), now);
                match effect {
                    Some(Effect::Take { number, data }) => {
                        return self.take(number, packet, sync, data).await;
                    }
                    other => self.effects.extend(other),
                }
                self.act()
            }
            Incoming::Chain {
                incarnation,
                number,
                packet,
                sync,
                committed,
            } => {
                if !self.is_upstream(incarnation) {
                    return Life::On;
                }
                self.write.committed_above(committed, &mut self.effects);
                self.act();
                match self.write.from_above(number, heading(&packet, sync), now) {
                    Effect::Take { number, data } => self.take(number, packet, sync, data).await,
                    Effect::Gap | Effect::Ack { .. } | Effect::AckUp(_) | Effect::Committed(_) => {
                        let why = format!("packet {number} is not the next one");
                        self.leave(Error::new(Code::Unavailable, why).on_node(self.mine()))
                            .await
                    }
                }
            }
            Incoming::Committed { incarnation, number } => {
                if self.is_upstream(incarnation) {
                    self.write.committed_above(number, &mut self.effects);
                }
                self.act()
            }
            Incoming::Closed { incarnation } => self.on_upstream_end(incarnation).await,
        }
    }

    /// Forwards the packet and queues it for the disk, at the same time.
    async fn take(&mut self, number: u64, mut packet: Packet, sync: bool, data: bool) -> Life {
        if !data {
            packet.data = bytes::Bytes::new();
            packet.checksums = Vec::new();
        }
        if self.opening.place + 1 < self.opening.capability.members.len() {
            let link = self.link.take().unwrap_or_else(|| self.open_link(number));
            let sent = link.send(Onward {
                number,
                packet: packet.clone(),
                sync,
            });
            self.link = Some(link);
            if !sent {
                let below = self.opening.capability.members[self.opening.place + 1].node;
                return self
                    .leave(Error::new(Code::Unavailable, "the link below has ended").on_node(below))
                    .await;
            }
        }
        self.queue.push_back(Job { number, packet, sync });
        self.show();
        Life::On
    }

    fn open_link(&self, first: u64) -> Link {
        let target = Target {
            member: self.opening.capability.members[self.opening.place + 1].clone(),
            pass: self.opening.pass.clone(),
            // One a link, so that the end of an old link is never taken for that of a new one.
            incarnation: self.ground.world.rng.u64(),
            first,
            fresh: self.fresh && first == 1,
        };
        Link::open(&self.ground, target, FLIGHT_MAX + 1)
    }

    async fn on_broken_link(&mut self, error: Error) -> Life {
        self.link = None;
        if self.write.is_quiet() {
            return Life::On;
        }
        self.leave(error).await
    }

    // --- the disk ---

    /// Starts the next batch, if none is under way.
    fn start_work(&mut self) {
        if self.applying.is_some() || self.queue.is_empty() {
            return;
        }
        let mut packets = Vec::with_capacity(self.queue.len());
        let (mut number, mut sync) = (0, false);
        while let Some(job) = self.queue.pop_front() {
            number = job.number;
            sync = job.sync;
            packets.push(job.packet);
            if sync {
                break;
            }
        }
        let (store, replica) = (self.ground.store.clone(), self.replica.clone());
        let (chunk, version) = (self.chunk(), self.version());
        let members = self.opening.capability.members.iter().map(|m| m.node).collect();
        let work = move || -> store::Result<Arc<Replica>> {
            let replica = match replica {
                Some(replica) => replica,
                None => store.create(chunk, version, version, members)?,
            };
            replica.apply(&packets)?;
            if sync {
                replica.sync()?;
            }
            Ok(replica)
        };
        if self.replica.is_none() {
            self.ground.fence.mark_compared(chunk);
        }
        self.dirty = !sync;
        self.work(number, work);
    }

    fn work(&mut self, number: u64, work: impl FnOnce() -> store::Result<Arc<Replica>> + Send + 'static) {
        let pool = self.ground.world.pool.clone();
        self.applying = Some(Box::pin(async move {
            let outcome = pool.run(work).await;
            Applied { number, outcome }
        }));
    }

    async fn on_applied(&mut self, applied: Applied) -> Life {
        match applied.outcome {
            Ok(replica) => {
                self.replica = Some(replica);
                self.write.applied(applied.number, &mut self.effects);
                self.act()
            }
            Err(error) => {
                self.complain(&error);
                let code = if matches!(error, store::Error::Stale(_)) {
                    Code::Stale
                } else {
                    Code::Unavailable
                };
                self.leave(Error::new(code, error.to_string()).on_node(self.mine()))
                    .await
            }
        }
    }

    /// Waits for the batch under way and drops the queue: after it nothing is applied any more.
    async fn settle(&mut self) {
        self.queue.clear();
        if let Some(applying) = self.applying.take() {
            let applied = applying.await;
            if applied.outcome.is_ok() {
                self.write.applied(applied.number, &mut self.effects);
            }
        }
        // Acknowledgements that were on their way count; nobody is told of new ones.
        self.effects.clear();
        self.show();
    }

    // --- what follows ---

    fn act(&mut self) -> Life {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Ack {
                    writer,
                    sequence,
                    length,
                } => {
                    if let Some(client) = self.clients.get(&writer) {
                        client.send_modify(|p| (p.upto, p.length) = (p.upto.max(sequence), length));
                    }
                }
                Effect::AckUp(number) => {
                    if let Some(upstream) = &self.upstream {
                        upstream.progress.send_modify(|p| p.upto = number);
                    }
                }
                Effect::Committed(number) => {
                    if let Some(link) = &self.link {
                        link.committed(number);
                    }
                }
                Effect::Take { .. } | Effect::Gap => unreachable!("answered where the packet came in"),
            }
        }
        self.show();
        Life::On
    }

    fn end_feeders(&mut self, why: &Error) {
        let ends = self
            .clients
            .values()
            .chain(self.upstream.iter().map(|u| &u.progress));
        ends.for_each(|p| p.send_modify(|p| p.end = Some(why.clone())));
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

    /// Tells the master of a failed disk or a rotten block.
    fn complain(&self, error: &store::Error) {
        let message = error.to_string();
        match (error, &self.replica) {
            (store::Error::Fenced, Some(replica)) => self.ground.complain(Trouble::DiskFailed {
                disk: replica.home().id,
                message,
            }),
            (store::Error::Corrupt { .. }, _) => self.ground.complain(Trouble::BadBlock {
                chunk: self.chunk(),
                version: self.version(),
                message,
            }),
            _ => tracing::warn!(chunk = %self.chunk(), message, "packets not applied"),
        }
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
        let idle = now >= self.active_at + self.timings.idle_before_close;
        let due = self.dirty && now >= self.synced_at + self.timings.background_fsync;
        if self.applying.is_some() || !(idle || due) {
            return Life::On;
        }
        self.tidy(idle && self.write.is_quiet());
        let unused = self.clients.is_empty() && self.upstream.is_none() && self.write.is_quiet();
        if !(idle && unused) {
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

    /// Puts the replica on stable storage; a quiet one loses its open mark.
    fn tidy(&mut self, close: bool) {
        let now = self.ground.world.clock.now();
        (self.synced_at, self.active_at) = (now, if close { now } else { self.active_at });
        let Some(replica) = self.replica.clone().filter(|r| r.state().open) else {
            return;
        };
        self.dirty = false;
        self.work(0, move || {
            replica.sync()?;
            if close {
                replica.close()?;
            }
            Ok(replica)
        });
    }
}

fn heading(packet: &Packet, sync: bool) -> Heading {
    Heading {
        writer: packet.writer,
        sequence: packet.sequence,
        offset: packet.offset,
        length: packet.data.len() as u64,
        sync,
    }
}
