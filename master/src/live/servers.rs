//! Chunkservers: where they are, how their sessions stand, how full they are.
//!
//! A session is live for `session_master` after the last answer to it; a chunkserver holds itself for live for less,
//! counted from the sending of what was answered. A session that its peer ended is over at once. After a restart of the
//! master nobody is known to be away until `session_master` has passed.

use crate::plan::Session;
use crate::plan::domains::Service;
use crate::plan::order::Order;
use crate::plan::placement::Candidate;
use crate::store::records;
use dfs_proto::capability::Member;
use dfs_proto::limits::Timings;
use dfs_proto::{ChunkHandle, NodeId};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// Orders that may wait for one chunkserver's stream.
pub const ORDERS_MAX: usize = 4_096;

/// An order on its way.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// Its answer carries it.
    pub id: u64,
    /// What it is about.
    pub chunk: ChunkHandle,
    /// The order.
    pub order: Order,
}

/// A data directory as last reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// 16 bytes.
    pub id: Vec<u8>,
    /// Where.
    pub path: String,
    /// Its size, bytes.
    pub capacity_bytes: u64,
    /// What may still be written, bytes.
    pub free_bytes: u64,
    /// It takes nothing more.
    pub failed: bool,
}

/// What a server has done since its process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Reads answered.
    pub reads: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Packets taken.
    pub packets: u64,
    /// Bytes of them.
    pub packet_bytes: u64,
    /// Bytes pulled from other servers.
    pub copied_bytes: u64,
    /// Calls of fdatasync.
    pub syncs: u64,
    /// Chunks with orders under way, now.
    pub orders: u64,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    incarnation: u64,
    orders: mpsc::Sender<Ordered>,
    compared: bool,
    /// The applied index when its inventory began: chunks born later are not missed in it.
    from_index: u64,
}

/// A registered chunkserver.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub place: Member,
    /// 16 bytes.
    pub identity: Vec<u8>,
    /// It never comes back.
    pub removed: bool,
    /// What an operator wants of it.
    pub service: Service,
    /// As last reported.
    pub disks: Vec<Disk>,
    /// Replicas it has, as last reported.
    pub chunks: u64,
    /// Disks that failed for good, from the hard state.
    failed_disks: BTreeSet<Vec<u8>>,
    /// What it has done since it started, as last reported.
    pub activity: Activity,
    connection: Option<Connection>,
    /// When the current state, connected or not, began.
    since: Instant,
    last_answer: Instant,
    /// Without a connection: from then on it cannot hold itself for live.
    over_at: Instant,
    /// Replicas placed here of late, halved with every heartbeat.
    recent: u64,
}

impl Server {
    /// Bytes of its disks, and how many are free.
    #[must_use]
    pub fn space(&self) -> (u64, u64) {
        let good = self
            .disks
            .iter()
            .filter(|d| !d.failed && !self.failed_disks.contains(&d.id));
        good.fold((0, 0), |(capacity, free), d| {
            (capacity + d.capacity_bytes, free + d.free_bytes)
        })
    }
}

/// How an operator sees a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Connected.
    Alive,
    /// Not heard of for a while.
    Suspect,
    /// Away for long.
    Dead,
}

/// All registered chunkservers.
#[derive(Debug)]
pub struct Servers {
    timings: Timings,
    started: Instant,
    next: u64,
    known: BTreeMap<NodeId, Server>,
}

impl Servers {
    pub(super) fn new(timings: Timings, now: Instant) -> Servers {
        Servers {
            timings,
            started: now,
            next: 1,
            known: BTreeMap::new(),
        }
    }

    /// Takes what the hard state says about a server.
    pub fn learn(&mut self, node: NodeId, record: &records::Server) {
        let over_at = self.started + self.timings.session_master;
        let server = self.known.entry(node).or_insert_with(|| Server {
            place: Member::default(),
            identity: Vec::new(),
            removed: false,
            service: Service::In,
            disks: Vec::new(),
            chunks: 0,
            failed_disks: BTreeSet::new(),
            activity: Activity::default(),
            connection: None,
            since: self.started,
            last_answer: self.started,
            over_at,
            recent: 0,
        });
        server.place = Member {
            node,
            addr: record.addr.clone(),
            host: record.host.clone(),
            rack: record.rack.clone(),
        };
        server.identity = record.identity.clone();
        server.removed = record.removed;
        server.failed_disks = record
            .disks
            .iter()
            .filter(|d| d.failed)
            .map(|d| d.id.clone())
            .collect();
    }

    /// All of them, in order of number.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Server)> {
        self.known.iter().map(|(n, s)| (*n, s))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Server> {
        self.known.get(&node)
    }

    /// Places of these servers; one that is not known (which cannot be) is only a number.
    #[must_use]
    pub fn places(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<Member> {
        let place = |node| match self.known.get(&node) {
            Some(server) => server.place.clone(),
            None => Member {
                node,
                ..Member::default()
            },
        };
        nodes.into_iter().map(place).collect()
    }

    /// True if a session of another process with this number is live.
    #[must_use]
    pub fn is_taken(&self, node: NodeId, incarnation: u64, now: Instant) -> bool {
        self.known.get(&node).is_some_and(|s| {
            let other = s
                .connection
                .as_ref()
                .is_some_and(|c| c.incarnation != incarnation);
            other && now < s.last_answer + self.timings.session_master
        })
    }

    /// A session begins; an older one of the same server is over. Returns its number and its orders.
    ///
    /// # Panics
    /// If the server was not learned before.
    pub fn connect(
        &mut self,
        node: NodeId,
        incarnation: u64,
        from_index: u64,
        now: Instant,
    ) -> (u64, mpsc::Receiver<Ordered>) {
        let number = self.next;
        self.next += 1;
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let server = self
            .known
            .get_mut(&node)
            .expect("a server registers before its session begins");
        server.connection = Some(Connection {
            number,
            incarnation,
            orders,
            compared: false,
            from_index,
        });
        (server.since, server.last_answer) = (now, now);
        (number, receiver)
    }

    /// A heartbeat arrived and is being answered. False: the session is over, do not answer it.
    pub fn heartbeat(&mut self, node: NodeId, number: u64, now: Instant) -> bool {
        let lease = self.timings.session_master;
        let Some(server) = self.known.get_mut(&node) else {
            return false;
        };
        let current = server.connection.as_ref().is_some_and(|c| c.number == number);
        if !current || now >= server.last_answer + lease {
            return false;
        }
        server.last_answer = now;
        server.recent /= 2;
        true
    }

    /// Takes what a heartbeat tells.
    pub fn report(&mut self, node: NodeId, disks: Vec<Disk>, chunks: u64) {
        if let Some(server) = self.known.get_mut(&node) {
            server.disks = disks;
            server.chunks = chunks;
        }
    }

    /// Takes what a heartbeat tells of its work.
    pub fn worked(&mut self, node: NodeId, activity: Activity) {
        if let Some(server) = self.known.get_mut(&node) {
            server.activity = activity;
        }
    }

    /// True if it is known that this disk failed for good.
    #[must_use]
    pub fn has_failed(&self, node: NodeId, disk: &[u8]) -> bool {
        self.known
            .get(&node)
            .is_some_and(|s| s.failed_disks.contains(disk))
    }

    /// Its inventory was compared from end to end.
    pub fn compared(&mut self, node: NodeId, number: u64) {
        let connection = self.known.get_mut(&node).and_then(|s| s.connection.as_mut());
        if let Some(c) = connection.filter(|c| c.number == number) {
            c.compared = true;
        }
    }

    /// The stream has ended. If it was the peer's doing its session is over; not if it was ours, or if heartbeats had
    /// stopped before: then the line may be cut and the peer still hold itself for live.
    pub fn disconnect(&mut self, node: NodeId, number: u64, by_peer: bool, now: Instant) {
        let (lease, overdue) = (self.timings.session_master, self.timings.heartbeat_every * 2);
        let Some(server) = self.known.get_mut(&node) else {
            return;
        };
        if server.connection.as_ref().is_some_and(|c| c.number == number) {
            let heard_lately = now < server.last_answer + overdue;
            server.over_at = if by_peer && heard_lately {
                now
            } else {
                server.last_answer + lease
            };
            server.connection = None;
            server.since = now;
        }
    }

    /// Ends sessions whose heartbeats have stopped; their streams close. True if there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let lease = self.timings.session_master;
        let mut any = false;
        for server in self.known.values_mut() {
            if server.connection.is_some() && now >= server.last_answer + lease {
                server.connection = None;
                (server.since, server.over_at) = (now, now);
                any = true;
            }
        }
        any
    }

    /// How a server's session stands.
    #[must_use]
    pub fn session(&self, node: NodeId, now: Instant) -> Session {
        let Some(server) = self.known.get(&node) else {
            return Session::Ended;
        };
        match &server.connection {
            Some(c) if now < server.last_answer + self.timings.session_master => Session::Connected(c.number),
            None if now < server.over_at => Session::Doubtful,
            Some(_) | None => Session::Ended,
        }
    }

    /// How long the session has stood so.
    #[must_use]
    pub fn standing_for(&self, node: NodeId, now: Instant) -> Duration {
        self.known
            .get(&node)
            .map_or(Duration::MAX, |s| now.saturating_duration_since(s.since))
    }

    /// True if its inventory was compared completely in this session.
    #[must_use]
    pub fn is_compared(&self, node: NodeId) -> bool {
        self.known
            .get(&node)
            .and_then(|s| s.connection.as_ref())
            .is_some_and(|c| c.compared)
    }

    /// True if a chunk born at this index must be in the inventory of this session, if the server has it at all.
    #[must_use]
    pub fn would_have_reported(&self, node: NodeId, birth: u64) -> bool {
        let connection = self.known.get(&node).and_then(|s| s.connection.as_ref());
        connection.is_some_and(|c| c.compared && birth <= c.from_index)
    }

    /// Sends an order. False: it is not connected, or does not keep up.
    pub fn send(&self, node: NodeId, order: Ordered) -> bool {
        let connection = self.known.get(&node).and_then(|s| s.connection.as_ref());
        connection.is_some_and(|c| c.orders.try_send(order).is_ok())
    }

    /// As an operator sees it.
    #[must_use]
    pub fn state(&self, node: NodeId, now: Instant) -> State {
        let Some(server) = self.known.get(&node) else {
            return State::Dead;
        };
        let silent = now.saturating_duration_since(server.last_answer);
        if server.connection.is_some() && silent < self.timings.suspect_after {
            State::Alive
        } else if silent < self.timings.dead_after {
            State::Suspect
        } else {
            State::Dead
        }
    }

    /// Time since the last heartbeat (since the master's start if there was none).
    #[must_use]
    pub fn silent_for(&self, node: NodeId, now: Instant) -> Duration {
        self.known
            .get(&node)
            .map_or(Duration::MAX, |s| now.saturating_duration_since(s.last_answer))
    }

    /// Servers that may take a new replica.
    #[must_use]
    pub fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let overdue = self.timings.heartbeat_every * 3;
        self.known
            .iter()
            .filter(|(_, s)| s.connection.is_some() && !s.removed && s.service == Service::In)
            .filter(|(_, s)| now < s.last_answer + overdue)
            .map(|(node, s)| Candidate {
                node: *node,
                host: s.place.host.clone(),
                rack: s.place.rack.clone(),
                free_bytes: s.space().1,
                recent: s.recent,
            })
            .collect()
    }

    /// Notes that replicas were placed there.
    pub fn placed(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            if let Some(server) = self.known.get_mut(node) {
                server.recent += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
