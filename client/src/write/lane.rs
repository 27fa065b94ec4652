//! One chunk being written: a task that streams packets to the head and keeps the master's record of the length.
//!
//! ```text
//! grant -> open at the head -> packets, window of a few unacknowledged -> acks -> ... -> finish -> last commit
//!             ^                                   |
//!             +---- a newer grant <--- failure ---+      (see recover.rs)
//! ```
//! All waiting is in [`Lane::converse`]'s `select`; what it leads to is in the `on_` functions, which never wait.
//! While a sync is asked for, no further packets are taken: what the acknowledgement says is durable is then exactly
//! what was written before.

use super::Shared;
use super::window::{Packet, Window};
use crate::convert::data::{self, Acked, FromServer, Heard, PacketHeader};
use crate::convert::{Commit, Grant};
use crate::servers::Stream;
use bytes::Bytes;
use dfs_proto::{Code, Error, Result, Version, WriterId};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// What the handle asks of a lane. Tickets rise with every command.
#[derive(Debug)]
pub(super) enum Command {
    /// Write this.
    Packet(u64, Packet),
    /// Make all before durable.
    Sync(u64),
    /// Tell the master the length that all before led to.
    Settle(u64),
    /// Nothing comes any more; with `true` all is made durable first.
    Finish(bool),
}

/// How far a lane is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Every member has all packets up to this ticket.
    pub(super) acked: u64,
    /// The master knows the length they led to.
    pub(super) settled: u64,
    /// They are on stable storage.
    pub(super) synced: u64,
    /// Tickets whose bytes went with a power cut.
    pub(super) lost: Vec<u64>,
    /// The version of the oldest write that is not durable.
    pub(super) unsynced: Option<Version>,
    /// The task has ended.
    pub(super) ended: Option<Result<()>>,
}

/// The task's state.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    /// Where the chunk begins in the file.
    pub(super) slot: u64,
    pub(super) writer: WriterId,
    pub(super) grant: Grant,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) window: Window,
    /// The chunk's length that all members have.
    pub(super) length: u64,
    /// The length the master knows.
    pub(super) recorded: u64,
    /// The length the master was told by this lane; a change of members tells it, too, and nobody hears the answer.
    pub(super) told: u64,
    /// The length the master knows to be durable through this lane.
    pub(super) durable: u64,
    /// Written since the master was last told: it stamps the time of change then.
    pub(super) touched: bool,
    pub(super) unsynced: Option<Version>,
    /// Tickets that wait for the master.
    pub(super) wanted: Wanted,
    /// `Some(sync)`: the lane ends when all is acknowledged.
    pub(super) finish: Option<bool>,
    /// When a byte last moved, or began to wait.
    pub(super) moved: Instant,
    pub(super) last_commit: Instant,
    /// Failures since a byte last moved.
    pub(super) failures: u32,
    /// Nothing was written for a while: the lane ends, and the next write begins another.
    pub(super) idle: bool,
    /// The master refused: no other member can help.
    pub(super) refused: Option<Error>,
    /// A stream was opened before: the chunk's members may know this writer.
    pub(super) begun: bool,
    /// The head said something on the present stream.
    pub(super) heard: bool,
}

#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) sync: u64,
    pub(super) settle: u64,
}

pub(super) type Committing = BoxFuture<'static, (Commit, Wanted, Result<()>)>;

impl Lane {
    /// The task's whole life.
    pub(super) async fn run(mut self) {
        let ended = self.live().await;
        self.shared
            .core
            .master
            .writing()
            .end(self.grant.capability.chunk.0);
        if let Err(error) = &ended {
            self.shared.fail(error.clone());
        }
        let unsynced = self.unsynced;
        self.progress.send_modify(|p| {
            p.unsynced = unsynced;
            p.ended = Some(ended);
        });
    }

    async fn live(&mut self) -> Result<()> {
        self.shared
            .core
            .master
            .writing()
            .begin(self.grant.capability.chunk.0);
        loop {
            match self.stream().await {
                Ok(()) => match self.last_commit().await {
                    Err(error) if error.code == Code::Stale => {
                        if self.finish == Some(false) && self.length <= self.recorded && !self.touched {
                            // Nothing is left to tell; a chunk that has gone from the file is not made anew for that.
                            return Ok(());
                        }
                        self.recover(error).await?;
                    }
                    other => return other,
                },
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// One stream: from opening to an orderly end, or to a failure.
    async fn stream(&mut self) -> Result<()> {
        let mut stream = self.open(false).await?;
        let mut ended = self.converse(&mut stream).await;
        let dead = |e: &Error| e.code == Code::Unavailable;
        if stream.reused && !self.heard && ended.as_ref().is_err_and(dead) {
            // The kept connection had been closed over there meanwhile: nobody has failed.
            stream = self.open(true).await?;
            ended = self.converse(&mut stream).await;
        }
        ended?;
        // All is acknowledged: how the stream ends matters only to whoever uses the connection next.
        let by = Instant::now() + self.shared.core.master.timings().ack_deadline / 3;
        if stream.send(&data::stream_close(), Bytes::new(), by).await.is_ok() {
            self.shared.core.servers.give_back(stream);
        }
        Ok(())
    }

    async fn converse(&mut self, stream: &mut Stream) -> Result<()> {
        let Stream {
            reader,
            writer,
            number,
            ..
        } = stream;
        let mut committing: Option<Committing> = None;
        loop {
            while let Some(next) = self.window.next_to_send(Instant::now()) {
                let (header, data) = split(next.sequence, next.packet);
                self.in_time(writer.queue(&data::packet(header), data)).await?;
            }
            if !writer.is_flushed() {
                self.in_time(writer.flush()).await?;
            }
            if committing.is_none() {
                committing = self.next_commit();
            }
            if self.finish.is_some() && self.window.is_empty() && committing.is_none() {
                return Ok(());
            }
            let wake = self.next_wake(committing.is_none());
            tokio::select! {
                biased;
                message = reader.next::<FromServer>() => match message {
                    Ok(Some((message, _))) if message.id == *number => self.on_message(message)?,
                    // Of the stream that the connection carried before.
                    Ok(Some(_)) => {}
                    Ok(None) => return Err(self.link(&"it closed the stream")),
                    Err(error) => return Err(self.link(&error)),
                },
                (commit, wanted, result) = async { committing.as_mut().expect("guarded").await }, if committing.is_some() => {
                    committing = None;
                    self.on_committed(commit, wanted, result)?;
                }
                command = self.commands.recv(), if self.takes_more() => {
                    self.on_command(command);
                    while self.takes_more() && let Ok(more) = self.commands.try_recv() {
                        self.on_command(Some(more));
                    }
                }
                () = sleep_until(wake) => self.on_time()?,
            }
        }
    }

    /// What is sent has to leave before the acknowledgement is due.
    async fn in_time(&self, sending: impl Future<Output = std::io::Result<()>>) -> Result<()> {
        match timeout(self.ack_deadline(), sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.link(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn takes_more(&self) -> bool {
        self.window.has_room() && self.finish.is_none() && !self.is_syncing()
    }

    fn on_message(&mut self, message: FromServer) -> Result<()> {
        self.heard = true;
        let Acked { sequence, length, .. } = match data::heard(message).map_err(|e| self.blame(e))? {
            Heard::Acked(acked) => acked,
            Heard::Opened(opened) => {
                self.length = self.length.max(opened.length);
                return Ok(());
            }
            Heard::Closed => return Err(self.link(&"it ended the stream")),
        };
        let now = Instant::now();
        self.length = length;
        if self.window.acknowledged(sequence, now) {
            self.shared.meter.stalled(now - self.moved);
            self.moved = now;
            self.failures = 0;
            self.unsynced = if self.window.synced_ticket() >= self.window.acked_ticket() {
                None
            } else {
                self.unsynced.or(Some(self.grant.capability.version))
            };
            self.publish();
        }
        Ok(())
    }

    pub(super) fn on_command(&mut self, command: Option<Command>) {
        if self.window.is_empty() {
            self.moved = Instant::now();
        }
        match command {
            Some(Command::Packet(ticket, packet)) if self.is_behind_a_loss(&packet) => self.refuse(ticket),
            Some(Command::Packet(ticket, packet)) => {
                self.touched = true;
                if packet.sync {
                    self.wanted.sync = ticket;
                }
                self.window.push(ticket, packet);
            }
            Some(Command::Sync(ticket)) => {
                self.wanted.sync = ticket;
                if self.unsynced.is_none() && self.window.is_empty() {
                    self.publish_wanted(ticket, 0);
                } else {
                    self.push_sync(ticket);
                }
            }
            Some(Command::Settle(ticket)) => self.wanted.settle = ticket,
            Some(Command::Finish(sync)) => self.finish_with(sync),
            // The handle was dropped: as if it had been closed.
            None => self.finish_with(self.shared.sync_on_close && !self.idle),
        }
    }

    /// True if the packet would leave a hole where a power cut took bytes: nobody could tell it from zeros any more.
    fn is_behind_a_loss(&self, packet: &Packet) -> bool {
        let end = self
            .length
            .max(self.grant.capability.length)
            .max(self.window.end());
        packet.offset > end && end < self.grant.lost_end
    }

    fn refuse(&mut self, ticket: u64) {
        let chunk = self.grant.capability.chunk;
        let message = format!(
            "bytes before this write went with a power cut of all replicas of chunk {chunk}: write those first, or truncate the file"
        );
        self.shared
            .fail(Error::new(Code::Lost, message).on_chunk(chunk, self.grant.capability.version));
        self.window.skip(ticket);
        self.progress.send_modify(|p| p.lost.push(ticket));
        self.publish();
    }

    fn finish_with(&mut self, sync: bool) {
        self.finish = Some(sync);
        let nothing = self.unsynced.is_none() && self.window.is_empty();
        if sync && !nothing {
            self.push_sync(u64::MAX);
        }
    }

    /// A packet without bytes: its acknowledgement means that all before it is on stable storage.
    fn push_sync(&mut self, ticket: u64) {
        let packet = Packet {
            offset: 0,
            data: Bytes::new(),
            checksums: Vec::new(),
            sync: true,
        };
        self.window.push(ticket, packet);
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.wanted.sync > self.progress.borrow().synced
    }

    pub(super) fn publish(&self) {
        let (acked, unsynced) = (self.window.acked_ticket(), self.unsynced);
        self.progress.send_modify(|p| {
            p.acked = acked;
            p.unsynced = unsynced;
        });
    }

    fn next_wake(&self, may_commit: bool) -> Instant {
        let timings = self.shared.core.master.timings();
        let ack = self.window.oldest_sent().map(|t| t + self.ack_deadline());
        let commit = self.commit_due().filter(|_| may_commit);
        let idle = (self.is_idle() && !self.idle).then(|| self.moved + timings.idle_before_close);
        let far = Instant::now() + Duration::from_secs(3600);
        [ack, commit, idle].into_iter().flatten().min().unwrap_or(far)
    }

    fn is_idle(&self) -> bool {
        self.window.is_empty() && self.finish.is_none() && !self.is_syncing()
    }

    fn on_time(&mut self) -> Result<()> {
        let now = Instant::now();
        if self
            .window
            .oldest_sent()
            .is_some_and(|t| t + self.ack_deadline() <= now)
        {
            return Err(self.silent());
        }
        let idle_at = self.moved + self.shared.core.master.timings().idle_before_close;
        if self.is_idle() && idle_at <= now && !self.idle {
            // What is on its way is still taken.
            self.idle = true;
            self.commands.close();
        }
        Ok(())
    }

    /// The chain's members have the deadline to find out which of them hangs; only then is it the client's turn.
    pub(super) fn ack_deadline(&self) -> Duration {
        self.shared.core.master.timings().ack_deadline * 5 / 4
    }

    fn silent(&self) -> Error {
        let (chunk, version) = (self.grant.capability.chunk, self.grant.capability.version);
        Error::new(Code::TimedOut, "no acknowledgement came in time").on_chunk(chunk, version)
    }

    /// The connection to the head failed.
    fn link(&self, why: &dyn std::fmt::Display) -> Error {
        self.blame(Error::new(
            Code::Unavailable,
            format!("the head's connection: {why}"),
        ))
    }

    /// Names chunk and version, and the head unless the error names a member itself.
    pub(super) fn blame(&self, error: Error) -> Error {
        let (chunk, version) = (self.grant.capability.chunk, self.grant.capability.version);
        let head = self.grant.capability.members.first().map(|m| m.node);
        Error {
            node: error.node.or(head),
            ..error
        }
        .on_chunk(chunk, version)
    }
}

fn split(sequence: u64, packet: Packet) -> (PacketHeader, Bytes) {
    let Packet {
        offset,
        data,
        checksums,
        sync,
    } = packet;
    (
        PacketHeader {
            sequence,
            offset,
            checksums,
            sync,
            more: false,
        },
        data,
    )
}
