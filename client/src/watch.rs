//! The change stream: what others changed, told at once, so that a mount may keep what it was told.
//!
//! The master remembers what it told this client about and sends each later change of it that *another* session made.
//! It answers that other session when this one has acknowledged (or after a tenth of a second), so what is acknowledged must
//! have been dealt with: kept answers dropped or replaced.
//!
//! For a cache over it:
//! * Keep only what was asked for after [`Event::Back`]; at [`Event::Lost`] drop everything.
//! * An event may overtake the answer to a call that was under way: of what an event named while a call was under way,
//!   keep nothing from that call's answer but attributes with a `change` that is no less than the event's.
//! * Changes this client makes itself are not told to it: its own replies say what they did.
//!
//! The stream has a connection of its own and comes back by itself. A server that is silent for too long counts as gone:
//! then, and not later, what was kept is void.

use crate::client::Client;
use crate::convert::watch::{Line, Said, Told};
use crate::master::Master;
use crate::types::{Changes, Event, Sequence};
use dfs_proto::net::Dial;
use dfs_proto::{ClientId, Code, Error, InodeId, Result};
use dfs_stdx::{Clock, Rng};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Events that may wait for the consumer; more wait at the master.
const EVENTS_MAX: usize = 64;
/// Inodes in one message.
const INODES_MAX: usize = 4_096;
/// So many forgotten inodes are told at once; fewer wait for the next sign of life.
const FORGET_AT: usize = 1_024;
/// Inodes that may wait to be told: beyond it the master's own bound does the forgetting.
const WISHES_MAX: usize = 262_144;
/// Longest wait for a master to welcome us.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// First and longest wait before the stream is opened again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// The events of one client, in order. Dropped, it ends the stream; a session opened as a mount's soon ends with it.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<Event>,
    control: WatchControl,
}

/// Says which inodes are of interest; clones share the stream.
#[derive(Clone, Debug)]
pub struct WatchControl {
    wishes: Arc<Wishes>,
}

impl Client {
    /// Opens the change stream. One a client, whose session must be a mount's (see
    /// [`Settings::mount`](crate::Settings::mount)); within a runtime.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let core = &self.inodes.core;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let wishes = Arc::new(Wishes::default());
        let watcher = Watcher {
            master: core.master.clone(),
            dial: core.master.dial(),
            clock: core.clock.clone(),
            rng: core.rng.clone(),
            events: sender,
            wishes: wishes.clone(),
            streams: 0,
            last: None,
            silent: None,
        };
        tokio::spawn(watcher.run());
        Watch {
            events,
            control: WatchControl { wishes },
        }
    }
}

impl Watch {
    /// The next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The task that feeds us ends only with the runtime.
            None => std::future::pending().await,
        }
    }

    /// These changes, and all before them, were dealt with: whoever made them may be answered.
    pub fn ack(&self, changes: &Changes) {
        self.ack_sequence(changes.sequence);
    }

    /// As [`Watch::ack`], by sequence.
    pub fn ack_sequence(&self, sequence: Sequence) {
        let mut asked = self.control.wishes.lock();
        asked.acked = asked.acked.max(Some(sequence));
        drop(asked);
        self.control.wishes.wake.notify_one();
    }

    /// For whoever forgets.
    #[must_use]
    pub fn control(&self) -> WatchControl {
        self.control.clone()
    }
}

impl WatchControl {
    /// Nothing is kept of these any more. Told in batches; [`Change::Forgotten`](crate::Change::Forgotten) answers, and
    /// what was learnt of them in the meantime must be dropped then.
    pub fn forget(&self, inodes: impl IntoIterator<Item = InodeId>) {
        let mut asked = self.wishes.lock();
        for inode in inodes {
            asked.keep.remove(&inode);
            if asked.forget.len() < WISHES_MAX {
                asked.forget.insert(inode);
            }
        }
        let full = asked.forget.len() >= FORGET_AT;
        drop(asked);
        if full {
            self.wishes.wake.notify_one();
        }
    }

    /// These are open here: after [`Event::Back`] the master is told so, for it may have been restarted.
    pub fn keep(&self, inodes: impl IntoIterator<Item = InodeId>) {
        let mut asked = self.wishes.lock();
        for inode in inodes {
            asked.forget.remove(&inode);
            if asked.keep.len() < WISHES_MAX {
                asked.keep.insert(inode);
            }
        }
        drop(asked);
        self.wishes.wake.notify_one();
    }
}

/// What is still to be said.
#[derive(Debug, Default)]
struct Wishes {
    asked: Mutex<Asked>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Asked {
    acked: Option<Sequence>,
    forget: BTreeSet<InodeId>,
    keep: BTreeSet<InodeId>,
}

impl Wishes {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("no panic while held")
    }
}

impl Asked {
    /// What to say now on this stream; a few forgotten inodes wait until it is time.
    fn next(&mut self, stream: u64, is_time: bool) -> Option<Said> {
        if let Some(acked) = self.acked.take_if(|a| a.stream <= stream)
            && acked.stream == stream
        {
            return Some(Said::Ack(acked.number));
        }
        if !self.keep.is_empty() {
            return Some(Said::Keep(take(&mut self.keep)));
        }
        if self.forget.len() >= FORGET_AT || (is_time && !self.forget.is_empty()) {
            return Some(Said::Forget(take(&mut self.forget)));
        }
        None
    }
}

fn take(from: &mut BTreeSet<InodeId>) -> Vec<InodeId> {
    let behind = from.iter().nth(INODES_MAX).copied();
    let rest = behind.map_or_else(BTreeSet::new, |first| from.split_off(&first));
    std::mem::replace(from, rest).into_iter().collect()
}

/// The task that keeps the stream.
struct Watcher {
    master: Master,
    dial: Arc<dyn Dial>,
    clock: Clock,
    rng: Rng,
    events: mpsc::Sender<Event>,
    wishes: Arc<Wishes>,
    /// Streams opened so far.
    streams: u64,
    /// The session of the last one.
    last: Option<ClientId>,
    /// A stream on which nothing came any more; kept until there is another.
    silent: Option<Line>,
}

/// A stream that was welcomed.
struct Open {
    line: Line,
    number: u64,
    alive_every: Duration,
    silent_after: Duration,
    /// Our next sign of life.
    alive_at: Instant,
    /// Without a word by then it is broken; does not count while the consumer is behind.
    silent_at: Instant,
    /// What the consumer has no room for yet.
    waiting: Option<Event>,
}

/// Why the task stops conversing.
enum Over {
    Dropped,
    Broken(Error),
}

impl From<Error> for Over {
    fn from(error: Error) -> Over {
        Over::Broken(error)
    }
}

impl Watcher {
    async fn run(mut self) {
        let mut wait = AGAIN.0;
        loop {
            let events = self.events.clone();
            let opened = tokio::select! {
                biased;
                () = events.closed() => return,
                opened = self.open() => opened,
            };
            match opened {
                Ok((open, back)) => {
                    wait = AGAIN.0;
                    if events.send(back).await.is_err() {
                        return;
                    }
                    match self.converse(open).await {
                        Over::Dropped => return,
                        Over::Broken(error) => tracing::warn!(%error, "the change stream is broken"),
                    }
                    if events.send(Event::Lost).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no change stream yet");
                    wait = wait.saturating_mul(2).min(AGAIN.1);
                }
            }
            tokio::select! {
                () = events.closed() => return,
                () = sleep(wait.mul_f64(self.rng.unit())) => {}
            }
        }
    }

    async fn open(&mut self) -> Result<(Open, Event)> {
        let late = |_| Error::new(Code::TimedOut, "the master does not open the change stream");
        let deadline = self.clock.now() + OPEN_DEADLINE;
        let (client, addr) = self.master.seat(deadline).await?;
        let opening = async {
            let mut line = Line::open(self.dial.clone(), &addr, client).await?;
            let told = line.next().await?;
            Ok((line, told))
        };
        let (line, alive_every, silent_after) = match timeout(OPEN_DEADLINE, opening).await.map_err(late) {
            Ok(Ok((
                line,
                Told::Welcome {
                    alive_every,
                    silent_after,
                },
            ))) => (line, alive_every, silent_after),
            Ok(Ok(_)) => return Err(Error::new(Code::Internal, "the master did not welcome us")),
            Ok(Err(error)) | Err(error) => {
                self.master.leave_seat(client, &addr, &error);
                return Err(error);
            }
        };
        self.streams += 1;
        self.silent = None;
        let same_session = self.last.replace(client).is_none_or(|last| last == client);
        if !same_session {
            self.wishes.lock().forget.clear();
        }
        let now = self.clock.now();
        let open = Open {
            line,
            number: self.streams,
            alive_every,
            silent_after,
            alive_at: now + alive_every,
            silent_at: now + silent_after,
            waiting: None,
        };
        Ok((open, Event::Back { same_session }))
    }

    /// Passes on what comes, and says what is to be said, until the stream breaks.
    async fn converse(&mut self, mut open: Open) -> Over {
        let over = loop {
            if let Err(over) = self.step(&mut open).await {
                break over;
            }
        };
        if matches!(&over, Over::Broken(error) if error.code == Code::TimedOut) {
            // To hang up would tell the master that this process is gone.
            self.silent = Some(open.line);
        }
        over
    }

    async fn step(&self, open: &mut Open) -> std::result::Result<(), Over> {
        loop {
            let said = self.wishes.lock().next(open.number, false);
            let Some(said) = said else { break };
            open.say(said).await?;
        }
        tokio::select! {
            biased;
            () = self.events.closed() => return Err(Over::Dropped),
            room = self.events.reserve(), if open.waiting.is_some() => {
                if let (Ok(room), Some(event)) = (room, open.waiting.take()) {
                    room.send(event);
                    open.silent_at = self.clock.now() + open.silent_after;
                }
            }
            told = open.line.next(), if open.waiting.is_none() => {
                open.silent_at = self.clock.now() + open.silent_after;
                open.waiting = open.event(told?)?;
            }
            () = self.wishes.wake.notified() => {}
            () = sleep_until(open.alive_at) => {
                open.alive_at = self.clock.now() + open.alive_every;
                let said = self.wishes.lock().next(open.number, true);
                open.say(said.unwrap_or(Said::Alive)).await?;
            }
            () = sleep_until(open.silent_at), if open.waiting.is_none() => {
                return Err(Error::new(Code::TimedOut, "the master is silent").into());
            }
        }
        Ok(())
    }
}

impl Open {
    /// A transport that takes nothing for so long is broken.
    async fn say(&self, said: Said) -> Result<()> {
        let late = |_| Error::new(Code::TimedOut, "the master does not read the change stream");
        let room = timeout(self.silent_after, self.line.room())
            .await
            .map_err(late)??;
        room.say(said);
        Ok(())
    }

    fn event(&self, told: Told) -> Result<Option<Event>> {
        match told {
            Told::Alive => Ok(None),
            Told::Changes(number, list) => Ok(Some(Event::Changes(Changes {
                sequence: Sequence {
                    stream: self.number,
                    number,
                },
                list,
            }))),
            Told::Welcome { .. } => Err(Error::new(Code::Internal, "the master welcomed us twice")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inodes(range: std::ops::Range<u64>) -> BTreeSet<InodeId> {
        range.map(InodeId).collect()
    }

    #[test]
    fn acknowledgements_of_an_older_stream_are_not_said() {
        let sequence = |stream, number| Some(Sequence { stream, number });
        let mut asked = Asked {
            acked: sequence(1, 9),
            ..Asked::default()
        };
        assert_eq!(asked.next(2, false), None);
        asked.acked = sequence(2, 3);
        assert_eq!(asked.next(2, false), Some(Said::Ack(3)));
        assert_eq!(asked.next(2, true), None, "it is said once");
    }

    #[test]
    fn what_is_forgotten_waits_for_company_or_its_time() {
        let mut asked = Asked {
            forget: inodes(0..3),
            ..Asked::default()
        };
        assert_eq!(asked.next(1, false), None);
        let Some(Said::Forget(few)) = asked.next(1, true) else {
            panic!("it is time")
        };
        assert_eq!(few.len(), 3);
        asked.forget = inodes(0..10_000);
        let mut said = BTreeSet::new();
        while let Some(Said::Forget(some)) = asked.next(1, true) {
            assert!(some.len() <= INODES_MAX);
            said.extend(some);
        }
        assert_eq!(said, inodes(0..10_000));
    }

    #[test]
    fn the_last_wish_for_an_inode_counts() {
        let control = WatchControl {
            wishes: Arc::default(),
        };
        control.forget([InodeId(1), InodeId(2)]);
        control.keep([InodeId(1)]);
        control.forget([InodeId(3)]);
        let mut asked = control.wishes.lock();
        assert_eq!(asked.next(1, true), Some(Said::Keep(vec![InodeId(1)])));
        assert_eq!(
            asked.next(1, true),
            Some(Said::Forget(vec![InodeId(2), InodeId(3)]))
        );
    }
}
