//! Who was told about which inode, and the streams on which mounts hear of what others changed.
//!
//! In order, for a change: the committer commits a group, [`Watch::publish`]es what its commands did before it answers any of
//! them, and so every session that was told about an inode has the event in its queue; whoever waits for the change then
//! [`Watch::settle`]s it: it waits until the other sessions have acknowledged, or for [`ACK_WITHIN`]. A session that was
//! too slow once is not waited for until it has caught up; one that stays behind loses its stream, and with it
//! whatever it keeps.
//!
//! A reader registers ([`Watch::told`]) while it holds the guard under which it reads: a commit comes before its reading, or
//! its events are published after the registration. With one mount alone nothing is gathered and nobody waits.
//!
//! All of it is soft. A session's entries outlive its stream: they say who may have an inode open (see
//! [`Watch::holders_of`]). After a restart of the master all mounts may hold everything, for as long as a lease.

mod line;
mod registry;
#[cfg(test)]
mod tests;

use crate::command::{Attributes, Kind};
use crate::state::Effect;
use dfs_proto::limits::Timings;
use dfs_proto::{ClientId, InodeId};
use dfs_stdx::Clock;
use dfs_stdx::clock::Instant;
use line::Line;
pub use line::Message;
use registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Inodes a session may be told about: about 20 MiB of the master's memory.
pub const TOLD_MAX: usize = 262_144;
/// A change waits no longer for those who must hear of it. Not divided: it is people and schedulers that it is about.
pub const ACK_WITHIN: Duration = Duration::from_millis(100);
/// Changes whose acknowledgements may be asked for: more than can wait for their answers at once.
const UNSETTLED_MAX: usize = 8_192;
/// Inodes of an ended session that are forgotten at once, in about a millisecond.
const FORGET_AT_ONCE: usize = 4_096;

/// What a session is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Attributes, extended attributes or bytes of an inode.
    Changed(Attributes),
    /// A name in a directory.
    Name {
        /// The directory.
        parent: InodeId,
        /// The name in it.
        name: Vec<u8>,
        /// What it names now.
        now: Option<(InodeId, Kind)>,
    },
    /// The last name is gone.
    Unlinked {
        /// The inode.
        inode: InodeId,
        /// Its attributes, if it is held; else it is gone.
        held: Option<Attributes>,
    },
    /// Give the append turn back.
    Recall(InodeId),
    /// A lock that was waited for may be free.
    LockFreed(InodeId),
    /// No more is told about these.
    Forgotten(Vec<InodeId>),
}

/// Commands that are applied and published together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    number: u64,
    /// Notes are to be gathered.
    pub used: bool,
}

/// What came of one command, gathered before its group was committed.
#[derive(Clone, Debug)]
pub struct Note {
    /// Its place in the log.
    pub index: u64,
    /// The session that asked for it.
    pub by: Option<ClientId>,
    /// Inodes whose attributes its reply tells.
    pub told: Vec<InodeId>,
    /// `None`: they were not gathered, because nobody else was there.
    pub effects: Option<Vec<Effect>>,
}

/// A mount's session.
#[derive(Debug, Default)]
struct Session {
    line: Option<Line>,
    /// The number of its last stream.
    last: u64,
    /// The group of commands in which it began.
    begun: u64,
}

/// One that has not acknowledged yet.
#[derive(Debug)]
struct Awaited {
    client: ClientId,
    stream: u64,
    sequence: u64,
    acked: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Tables {
    sessions: BTreeMap<ClientId, Session>,
    registry: Registry,
    /// Numbers streams, over all sessions.
    streams: u64,
    /// By index of the command.
    unsettled: BTreeMap<u64, Vec<Awaited>>,
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    started: Instant,
    lease: Duration,
    lag_max: Duration,
    tables: Mutex<Tables>,
    /// How many mounts there are, and one of them: what the committer looks at.
    mounts: AtomicUsize,
    one_mount: AtomicU64,
    /// Counts groups of commands.
    group: AtomicU64,
    /// Size of `unsettled`.
    waiting: AtomicUsize,
}

impl Watch {
    /// At the master's start.
    #[must_use]
    pub fn new(timings: &Timings, now: Instant) -> Watch {
        Watch::with_bound(timings, now, TOLD_MAX)
    }

    fn with_bound(timings: &Timings, now: Instant, told_max: usize) -> Watch {
        Watch {
            started: now,
            lease: timings.client_lease,
            lag_max: timings.session_master,
            tables: Mutex::new(Tables {
                sessions: BTreeMap::new(),
                registry: Registry::new(told_max),
                streams: 0,
                unsettled: BTreeMap::new(),
            }),
            mounts: AtomicUsize::new(0),
            one_mount: AtomicU64::new(0),
            group: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("no panic while the watchers are held")
    }

    /// Sessions that are mounts.
    #[must_use]
    pub fn mounts(&self) -> usize {
        self.mounts.load(Ordering::Relaxed)
    }

    /// A mount's session begins, or is known from before a restart.
    pub fn begin(&self, client: ClientId) {
        let mut tables = self.lock();
        let begun = self.group.load(Ordering::SeqCst);
        tables.sessions.entry(client).or_insert(Session {
            line: None,
            last: 0,
            begun,
        });
        self.count(&tables);
    }

    /// A session has ended.
    pub fn end(&self, client: ClientId) {
        if !self.is_used() {
            return;
        }
        {
            let mut tables = self.lock();
            tables.sessions.remove(&client);
            self.count(&tables);
        }
        // Piece by piece: nothing is committed while the tables are held.
        while !self.lock().registry.end(client, FORGET_AT_ONCE) {}
    }

    fn count(&self, tables: &Tables) {
        let one = tables
            .sessions
            .first_key_value()
            .map_or(0, |(client, _)| client.0);
        self.one_mount.store(one, Ordering::SeqCst);
        self.mounts.store(tables.sessions.len(), Ordering::SeqCst);
    }

    /// True if there is any mount.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.mounts.load(Ordering::SeqCst) > 0
    }

    /// True if a mount other than this session is there.
    #[must_use]
    pub fn has_others(&self, than: Option<ClientId>) -> bool {
        match self.mounts.load(Ordering::SeqCst) {
            0 => false,
            1 => than.map(|c| c.0) != Some(self.one_mount.load(Ordering::SeqCst)),
            _ => true,
        }
    }

    /// A session is told about these: from now on it hears of their changes. Call it under the guard of the reading.
    pub fn told(&self, client: ClientId, inodes: impl IntoIterator<Item = InodeId>) {
        if self.is_used() {
            self.lock().told(client, inodes);
        }
    }

    /// The session keeps nothing of these any more.
    pub fn forget(&self, client: ClientId, inodes: &[InodeId]) {
        let mut tables = self.lock();
        for inode in inodes {
            tables.registry.remove(client, *inode);
        }
        tables.send(client, vec![Event::Forgotten(inodes.to_vec())]);
    }

    /// Tells one session something, if it has a stream.
    pub fn tell(&self, client: ClientId, event: Event) {
        self.tell_all(client, vec![event]);
    }

    /// As [`Watch::tell`], all in one message.
    pub fn tell_all(&self, client: ClientId, events: Vec<Event>) {
        if self.is_used() {
            self.lock().send(client, events);
        }
    }

    /// Sessions of mounts that may have the inode open.
    #[must_use]
    pub fn holders_of(&self, inode: InodeId, now: Instant) -> BTreeSet<ClientId> {
        if !self.is_used() {
            return BTreeSet::new();
        }
        let tables = self.lock();
        if now < self.started + self.lease {
            return tables.sessions.keys().copied().collect();
        }
        let told = tables.registry.sessions(inode);
        told.filter(|client| tables.sessions.contains_key(client))
            .collect()
    }

    /// A stream begins; an older one of the session is over. Returns its number and its messages, `None` if this is no
    /// mount's session.
    #[must_use]
    pub fn attach(&self, client: ClientId) -> Option<(u64, mpsc::Receiver<Message>)> {
        let mut tables = self.lock();
        let number = tables.streams + 1;
        let session = tables.sessions.get_mut(&client)?;
        let (line, messages) = Line::new(number);
        session.line = Some(line);
        session.last = number;
        tables.streams = number;
        Some((number, messages))
    }

    /// The stream is over. False: it was before.
    pub fn detach(&self, client: ClientId, stream: u64) -> bool {
        self.lock().cut(client, stream)
    }

    /// True if the session is known, and this was its last stream, and is over.
    #[must_use]
    pub fn is_away_since(&self, client: ClientId, stream: u64) -> bool {
        let tables = self.lock();
        let session = tables.sessions.get(&client);
        session.is_some_and(|s| s.line.is_none() && s.last == stream)
    }

    /// True if any mount's session has no stream.
    #[must_use]
    pub fn is_any_away(&self) -> bool {
        self.is_used() && self.lock().sessions.values().any(|s| s.line.is_none())
    }

    /// The session has dealt with everything up to this. False: the stream is not the session's any more.
    pub fn ack(&self, client: ClientId, stream: u64, sequence: u64) -> bool {
        let mut tables = self.lock();
        let line = tables.line(client, stream);
        line.map(|line| line.ack(sequence)).is_some()
    }

    /// Looks after a stream from time to time. False: it is over, or has been behind for too long and is over now.
    pub fn keeps_up(&self, client: ClientId, stream: u64, now: Instant) -> bool {
        let mut tables = self.lock();
        let Some(line) = tables.line(client, stream) else {
            return false;
        };
        if line.behind_for(now) < self.lag_max {
            return true;
        }
        tables.cut(client, stream);
        false
    }

    /// A group of commands is about to be applied.
    #[must_use]
    pub fn group(&self) -> Group {
        let number = self.group.fetch_add(1, Ordering::SeqCst) + 1;
        let used = self.is_used();
        Group { number, used }
    }

    /// The group is committed, and not answered yet.
    pub fn publish(&self, group: Group, notes: Vec<Note>) {
        if !self.is_used() {
            return;
        }
        let mut tables = self.lock();
        tables.cut_young(group, &notes);
        for note in notes {
            let awaited = tables.publish(note.by, note.effects.unwrap_or_default());
            if let Some(client) = note.by {
                tables.told(client, note.told);
            }
            if !awaited.is_empty() && note.by.is_some() {
                tables.unsettled.insert(note.index, awaited);
            }
        }
        // Of a caller that went away nobody settles the change.
        while tables.unsettled.len() > UNSETTLED_MAX {
            tables.unsettled.pop_first();
        }
        self.waiting.store(tables.unsettled.len(), Ordering::SeqCst);
    }

    /// Waits until everyone who must hear of this command has, or long enough.
    pub async fn settle(&self, index: u64, clock: &Clock) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let awaited = {
            let mut tables = self.lock();
            let awaited = tables.unsettled.remove(&index);
            self.waiting.store(tables.unsettled.len(), Ordering::SeqCst);
            awaited
        };
        let Some(mut awaited) = awaited else { return };
        let heard = async {
            while let Some(next) = awaited.last_mut() {
                // An error is the end of the stream: nothing is to be awaited from it.
                let _ = next.acked.wait_for(|acked| *acked >= next.sequence).await;
                awaited.pop();
            }
        };
        if tokio::time::timeout(ACK_WITHIN, heard).await.is_err() {
            let now = clock.now();
            let mut tables = self.lock();
            for late in awaited {
                if let Some(line) = tables.line(late.client, late.stream) {
                    line.note_late(late.sequence, now);
                }
            }
        }
    }
}

impl Tables {
    fn line(&mut self, client: ClientId, stream: u64) -> Option<&mut Line> {
        let line = self.sessions.get_mut(&client)?.line.as_mut()?;
        (line.number() == stream).then_some(line)
    }

    fn cut(&mut self, client: ClientId, stream: u64) -> bool {
        let is_its = self.line(client, stream).is_some();
        if is_its && let Some(session) = self.sessions.get_mut(&client) {
            session.line = None;
        }
        is_its
    }

    /// Sessions that began when it was decided already that nothing is gathered may have missed something.
    fn cut_young(&mut self, group: Group, notes: &[Note]) {
        for (client, session) in &mut self.sessions {
            let missed = |note: &Note| note.effects.is_none() && note.by != Some(*client);
            if session.begun >= group.number && (!group.used || notes.iter().any(missed)) {
                session.line = None;
            }
        }
    }

    fn told(&mut self, client: ClientId, inodes: impl IntoIterator<Item = InodeId>) {
        if !self.sessions.contains_key(&client) {
            return;
        }
        let registry = &mut self.registry;
        let forgotten: Vec<InodeId> = inodes
            .into_iter()
            .filter_map(|inode| registry.add(client, inode))
            .collect();
        if !forgotten.is_empty() {
            self.send(client, vec![Event::Forgotten(forgotten)]);
        }
    }

    /// Returns the number of the message; `None` if there is no stream, or it is cut because its queue is full.
    fn send(&mut self, client: ClientId, events: Vec<Event>) -> Option<u64> {
        let session = self.sessions.get_mut(&client)?;
        match session.line.as_mut()?.send(events) {
            Ok(sequence) => Some(sequence),
            Err(why) => {
                tracing::info!(%client, why, "a change stream is cut");
                session.line = None;
                None
            }
        }
    }

    /// Everyone else who was told about what a command changed hears of it. Returns those to wait for.
    fn publish(&mut self, by: Option<ClientId>, effects: Vec<Effect>) -> Vec<Awaited> {
        let mut events: BTreeMap<ClientId, Vec<Event>> = BTreeMap::new();
        for effect in effects {
            let mut others: BTreeSet<ClientId> = self.registry.sessions(effect.of()).collect();
            if let Effect::Unlinked(_, holders) = &effect {
                others.extend(holders);
            }
            for client in others.into_iter().filter(|c| Some(*c) != by) {
                events.entry(client).or_default().push(event(&effect));
            }
            if let Effect::Gone(inode) = effect {
                self.registry.gone(inode);
            }
        }
        let mut awaited = Vec::new();
        for (client, events) in events {
            let Some(sequence) = self.send(client, events) else {
                continue;
            };
            let line = self.sessions.get(&client).and_then(|s| s.line.as_ref());
            awaited.extend(line.filter(|line| !line.is_behind()).map(|line| Awaited {
                client,
                stream: line.number(),
                sequence,
                acked: line.acked(),
            }));
        }
        awaited
    }
}

fn event(effect: &Effect) -> Event {
    match effect {
        Effect::Name { parent, name, now } => Event::Name {
            parent: *parent,
            name: name.clone(),
            now: *now,
        },
        Effect::Changed(attributes) => Event::Changed(attributes.clone()),
        Effect::Unlinked(attributes, _) => Event::Unlinked {
            inode: InodeId(attributes.inode),
            held: Some(attributes.clone()),
        },
        Effect::Gone(inode) => Event::Unlinked {
            inode: *inode,
            held: None,
        },
    }
}
