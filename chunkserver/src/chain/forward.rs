//! The link to the next member: one stream of packets down, acknowledgements up.
//!
//! It has no task of its own: the chunk's task gives it packets, which leave at once if the connection takes them, and
//! drives the rest by [`Link::event`]. Packets follow the opening without waiting for its answer; a member that refuses
//! ends the stream with the reason. The connection comes from [`super::links`] and goes back there after an orderly
//! end. One that was used before may turn out dead: if it fails before anything was heard on it, the other side has
//! closed it and will read no more of it, so that all is sent again on a new one.

use super::links::{Links, Wire, hear};
use crate::ground::Ground;
use crate::peers::Pass;
use crate::peers::chain::{self, Heard, Up};
use crate::store::Packet;
use bytes::Bytes;
use dfs_proto::capability::Member;
use dfs_proto::net::Dial;
use dfs_proto::{Code, Error, NodeId};
use dfs_stdx::Clock;
use dfs_stdx::clock::Instant;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a commit waits for a packet that could carry it.
const COMMITTED_AFTER: Duration = Duration::from_millis(1);
/// How long an orderly end waits for its answer.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// A packet on its way down.
#[derive(Clone, Debug)]
pub(super) struct Onward {
    pub(super) number: u64,
    pub(super) packet: Packet,
    pub(super) sync: bool,
}

/// What the link tells.
#[derive(Debug)]
pub(super) enum Event {
    /// Applied below, up to this number.
    Acked(u64),
    /// The link has ended.
    Broken(Error),
}

/// How a link is opened.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) member: Member,
    pub(super) pass: Pass,
    pub(super) incarnation: u64,
    pub(super) first: u64,
    pub(super) fresh: bool,
}

enum State {
    Dialling(BoxFuture<'static, io::Result<Wire>>),
    Open(Wire),
    Over,
}

/// The link. Dropped, it ends in order after what was given to it.
pub(super) struct Link {
    line: Option<Line>,
}

struct Line {
    dial: Arc<dyn Dial>,
    links: Arc<Links>,
    clock: Clock,
    target: Target,
    state: State,
    /// Given and not sent.
    queue: VecDeque<Onward>,
    /// Sent on a connection that was used before, while nothing was heard on it.
    unsure: Vec<Onward>,
    /// Packets up to this number are sent, or will be.
    given: u64,
    /// And acknowledged.
    acked: u64,
    committed: u64,
    /// What the member was told is committed.
    told: u64,
    /// When it is told without a packet.
    tell_at: Option<Instant>,
}

impl Link {
    /// Opens a link; what fails is told by [`Link::event`].
    pub(super) fn open(ground: &Ground, target: Target) -> Link {
        let before = target.first.saturating_sub(1);
        let clock = ground.world.clock.clone();
        let kept = ground.chains.links.take(&target.member.addr, clock.now());
        let mut line = Line {
            dial: ground.world.dial.clone(),
            links: ground.chains.links.clone(),
            clock,
            target,
            state: State::Over,
            queue: VecDeque::new(),
            unsure: Vec::new(),
            given: before,
            acked: before,
            committed: before,
            told: before,
            tell_at: None,
        };
        match kept {
            Some(wire) => line.opened(wire),
            None => line.dial(),
        }
        Link { line: Some(line) }
    }

    /// Takes a packet; the stream's window bounds how many.
    pub(super) fn give(&mut self, onward: Onward) {
        let line = self.line();
        line.given = onward.number;
        line.queue.push_back(onward);
    }

    /// Sends what was given, as far as that can be done without waiting.
    pub(super) fn push(&mut self) {
        let line = self.line();
        line.fill();
        if let State::Open(wire) = &mut line.state {
            // What fails here fails again in `event`.
            let _ = wire.writer.try_flush();
            line.fill();
        }
    }

    /// Tells what is committed, with the next packet or soon.
    pub(super) fn committed(&mut self, number: u64) {
        let line = self.line();
        line.committed = number;
        if number > line.told && line.tell_at.is_none() {
            line.tell_at = Some(line.clock.now() + COMMITTED_AFTER);
        }
    }

    /// What the link has to tell next. Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        self.line().event().await
    }

    fn line(&mut self) -> &mut Line {
        self.line.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let line = self.line.take().filter(|l| !matches!(l.state, State::Over));
        if let (Some(line), Ok(runtime)) = (line, tokio::runtime::Handle::try_current()) {
            runtime.spawn(line.end());
        }
    }
}

impl Line {
    fn dial(&mut self) {
        let (dial, addr) = (self.dial.clone(), self.target.member.addr.clone());
        self.state = State::Dialling(Box::pin(async move { Wire::open(&*dial, &addr).await }));
    }

    /// The stream begins on this connection.
    fn opened(&mut self, mut wire: Wire) {
        let Target {
            pass,
            incarnation,
            first,
            fresh,
            ..
        } = self.target.clone();
        let open = chain::open(wire.number, pass, incarnation, (first, fresh));
        wire.writer.put(&open, Bytes::new());
        self.state = State::Open(wire);
    }

    /// Hands packets to the connection as far as it has room.
    fn fill(&mut self) {
        let State::Open(wire) = &mut self.state else {
            return;
        };
        while wire.writer.has_room()
            && let Some(onward) = self.queue.pop_front()
        {
            if wire.reused {
                self.unsure.push(onward.clone());
            }
            (self.told, self.tell_at) = (self.committed, None);
            let Onward { number, packet, sync } = onward;
            for (head, data) in chain::packet(number, packet, sync, self.committed) {
                wire.writer.put(&head, data);
            }
        }
    }

    /// Says what is committed, unless packets on their way say it.
    fn tell(&mut self) {
        if let State::Open(wire) = &mut self.state
            && wire.writer.has_room()
        {
            (self.told, self.tell_at) = (self.committed, None);
            wire.writer.put(&chain::committed(self.committed), Bytes::new());
        }
    }

    async fn event(&mut self) -> Event {
        loop {
            self.fill();
            let tell_at = self.tell_at;
            let heard = match &mut self.state {
                State::Over => return Event::Broken(Error::new(Code::Unavailable, "the link has ended")),
                State::Dialling(wire) => match wire.await {
                    Ok(wire) => {
                        self.opened(wire);
                        continue;
                    }
                    Err(error) => return self.failed(broken(&error)),
                },
                State::Open(wire) => {
                    let flushed = wire.writer.is_flushed();
                    let wake = tell_at.unwrap_or_else(|| self.clock.now() + CLOSE_DEADLINE);
                    tokio::select! {
                        biased;
                        heard = hear(&mut wire.reader, wire.number) => heard,
                        sent = wire.writer.flush(), if !flushed => match sent {
                            Ok(()) => continue,
                            Err(error) => Err(error),
                        },
                        () = tokio::time::sleep_until(wake), if flushed && tell_at.is_some() => {
                            self.tell();
                            continue;
                        }
                    }
                }
            };
            if let Some(event) = self.heard(heard) {
                return event;
            }
        }
    }

    fn heard(&mut self, heard: io::Result<Option<Up>>) -> Option<Event> {
        let closed = || Error::new(Code::Unavailable, "link closed");
        let reply = match heard {
            Ok(Some(reply)) => reply,
            Ok(None) if self.again() => return None,
            Err(error) if is_dead(&error) && self.again() => return None,
            Ok(None) => return Some(self.failed(closed())),
            Err(error) => return Some(self.failed(broken(&error))),
        };
        self.sure();
        match chain::heard(reply) {
            Err(error) => Some(self.failed(error)),
            Ok(Heard::Acked(number)) => {
                self.acked = number;
                Some(Event::Acked(number))
            }
            Ok(Heard::Opened) => None,
            Ok(Heard::Closed) => Some(self.failed(closed())),
        }
    }

    /// The connection is alive.
    fn sure(&mut self) {
        if let State::Open(wire) = &mut self.state {
            wire.reused = false;
            self.unsure.clear();
        }
    }

    /// Begins again on a new connection, if this one was used before and nothing was heard on it.
    fn again(&mut self) -> bool {
        let State::Open(wire) = &self.state else {
            return false;
        };
        if !wire.reused {
            return false;
        }
        let sent = std::mem::take(&mut self.unsure);
        for onward in sent.into_iter().rev() {
            self.queue.push_front(onward);
        }
        self.dial();
        true
    }

    fn failed(&mut self, error: Error) -> Event {
        self.state = State::Over;
        Event::Broken(named(error, self.target.member.node))
    }

    /// Sends what was given and ends the stream in order; the connection is kept for the next one.
    async fn end(mut self) {
        if let Ok(Some(wire)) = tokio::time::timeout(CLOSE_DEADLINE, self.close()).await {
            let now = self.clock.now();
            self.links.keep(&self.target.member.addr, wire, now);
        }
    }

    async fn close(&mut self) -> Option<Wire> {
        if let State::Dialling(wire) = &mut self.state {
            let wire = wire.await.ok()?;
            self.opened(wire);
        }
        loop {
            self.fill();
            let State::Open(wire) = &mut self.state else {
                return None;
            };
            if self.queue.is_empty() {
                break;
            }
            wire.writer.flush().await.ok()?;
        }
        let State::Open(mut wire) = std::mem::replace(&mut self.state, State::Over) else {
            return None;
        };
        if self.committed > self.told {
            let committed = chain::committed(self.committed);
            wire.writer.queue(&committed, Bytes::new()).await.ok()?;
        }
        let unanswered = self.acked >= self.given;
        wire.writer
            .send(&chain::close(unanswered), Bytes::new())
            .await
            .ok()?;
        if unanswered {
            return Some(wire);
        }
        loop {
            let reply = hear(&mut wire.reader, wire.number).await.ok()??;
            if matches!(chain::heard(reply).ok()?, Heard::Closed) {
                return Some(wire);
            }
        }
    }
}

/// The other side has closed the connection.
fn is_dead(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

/// A refusal keeps its code, whatever else happens to a link makes it unavailable; both name a node.
fn named(error: Error, node: NodeId) -> Error {
    let node = error.node.unwrap_or(node);
    let code = match error.code {
        Code::Stale | Code::NotYet | Code::PermissionDenied => error.code,
        _ => Code::Unavailable,
    };
    Error { code, ..error }.on_node(node)
}

fn broken(error: &io::Error) -> Error {
    Error::new(Code::Unavailable, format!("link broken: {error}"))
}
