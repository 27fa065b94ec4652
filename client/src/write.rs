//! Writing: a file's bytes are cut into packets and given to one [`lane`] for each chunk.
//!
//! Checksums are made here, once, at the moment of the write. Lanes stream on their own: the next chunk's begins while
//! the last one's acknowledgements are awaited. A sequential writer leaves a full chunk behind: its lane is told to
//! finish (synced, if the file is to be durable when closed), and gives its grant back.

mod ends;
mod lane;
mod recover;
mod tell;
mod wait;
mod window;

use crate::cache::Locations;
use crate::convert::{self, Grant};
use crate::engine::Core;
use crate::file::Opened;
use crate::meter::Meter;
use crate::plan::packets;
use crate::types::{Caller, Metadata};
use bytes::Bytes;
use dfs_proto::checksum::of_pieces;
use dfs_proto::{ChunkHandle, Code, Error, InodeId, Result, Version, WriterId};
use lane::{Command, Lane, Progress, Wanted};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
pub use wait::Delivery;
use wait::{Sent, ended, wait_acked};
use window::{Packet, Window};

/// Packets that wait for a lane that is not ready for them: enough to keep it busy.
const QUEUE_PACKETS: usize = 8;
/// Chunks written to at the same time by one handle; the least recently used lane makes room.
const LANES_MAX: usize = 8;
/// Full chunks that may be on their way to stable storage behind a sequential writer.
const FINISHING_MAX: usize = 2;

/// The writing side of an open file.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    chunk_bytes: u64,
    /// How long the file will be, if the application said so.
    expected: u64,
    /// Something was given since the last settle.
    touched: AtomicBool,
    /// Held while commands are given, so that they reach each lane in the order of their tickets.
    state: tokio::sync::Mutex<State>,
}

/// What the lanes of one file share.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Arc<Core>,
    inode: InodeId,
    caller: Caller,
    meter: Arc<Meter>,
    sync_on_close: bool,
    /// Where the readers of the same handle look for chunks.
    locations: Arc<Locations>,
    /// The time of the last write, as its owner says; 0: the time of the commit.
    written_ns: AtomicI64,
    /// Someone tells the handle of other clients' changes, and wants its own told exactly.
    informed: bool,
    /// Lengths the master has learnt from this handle.
    growths: AtomicU64,
    /// The file as the newest commit left it.
    committed: Mutex<Option<Metadata>>,
    /// A failure that was not reported yet.
    problem: Mutex<Option<Error>>,
}

#[derive(Debug, Default)]
struct State {
    lanes: BTreeMap<u64, Open>,
    /// Lanes that were told to finish, and those that ended without making their bytes durable.
    left: BTreeMap<u64, watch::Receiver<Progress>>,
    tickets: u64,
    /// The end of what was written through this handle.
    end: u64,
    /// Came with the file's creation.
    first: Option<Grant>,
    /// Lengths the master had learnt when that was last asked.
    growths_seen: u64,
}

#[derive(Debug)]
struct Open {
    commands: mpsc::Sender<Command>,
    progress: watch::Receiver<Progress>,
    last_ticket: u64,
}

/// Bytes to be written.
#[derive(Debug)]
struct Given {
    offset: u64,
    data: Bytes,
    /// If they were made as the bytes came.
    checksums: Option<Vec<u32>>,
    sync: bool,
}

impl Given {
    fn at(offset: u64, data: Bytes) -> Given {
        Given {
            offset,
            data,
            checksums: None,
            sync: false,
        }
    }
}

impl Shared {
    /// What the master is told of the time of the last write.
    fn mtime_ns(&self) -> i64 {
        match self.written_ns.load(Ordering::Relaxed) {
            0 => self.core.mtime_ns(),
            given => given,
        }
    }

    /// Keeps the first failure until someone asks.
    fn fail(&self, error: Error) {
        if error.code == Code::NotFound {
            // The file was removed while it was written: a program's own doing.
            tracing::debug!(inode = %self.inode, %error, "a write to a file that was removed");
        } else {
            tracing::warn!(inode = %self.inode, %error, "a write failed");
        }
        self.problem
            .lock()
            .expect("no panic while held")
            .get_or_insert(error);
    }

    /// What the master answered to a commit.
    fn note_committed(&self, answer: Option<Metadata>) {
        let mut newest = self.committed.lock().expect("no panic while held");
        if let Some(answer) = answer.filter(|a| newest.as_ref().is_none_or(|n| n.change < a.change)) {
            *newest = Some(answer);
        }
    }

    fn report(&self) -> Result<()> {
        self.problem
            .lock()
            .expect("no panic while held")
            .take()
            .map_or(Ok(()), Err)
    }
}

impl Writer {
    pub(crate) fn new(
        file: &Opened,
        chunk_bytes: u64,
        first: Option<Grant>,
        locations: Arc<Locations>,
    ) -> Writer {
        Writer {
            shared: Arc::new(Shared {
                core: file.core.clone(),
                inode: file.inode,
                caller: file.caller.clone(),
                meter: file.meter.clone(),
                sync_on_close: file.sync_on_close,
                locations,
                written_ns: AtomicI64::new(0),
                informed: file.options.informed,
                growths: AtomicU64::new(0),
                committed: Mutex::default(),
                problem: Mutex::default(),
            }),
            chunk_bytes,
            expected: file.options.expected_len,
            touched: AtomicBool::new(false),
            state: tokio::sync::Mutex::new(State {
                first,
                ..State::default()
            }),
        }
    }

    /// Gives the bytes to their lanes; returns when they have room.
    pub(crate) async fn queue(&self, offset: u64, data: Bytes) -> Result<()> {
        let mut state = self.state.lock().await;
        self.queue_locked(&mut state, Given::at(offset, data))
            .await
            .map(drop)
    }

    /// As [`Writer::queue`], and tells how to wait for it. With `sync` the last packet makes its chunk durable.
    pub(crate) async fn send(&self, offset: u64, data: Bytes, sync: bool) -> Result<Delivery> {
        let mut state = self.state.lock().await;
        let given = Given {
            sync,
            ..Given::at(offset, data)
        };
        let sent = self.queue_locked(&mut state, given).await?;
        Ok(Delivery { sent })
    }

    /// The last write was made then.
    pub(crate) fn written_at(&self, ns: i64) {
        self.shared.written_ns.store(ns, Ordering::Relaxed);
    }

    /// The file as the newest commit left it, once.
    pub(crate) fn committed(&self) -> Option<Metadata> {
        self.shared.committed.lock().expect("no panic while held").take()
    }

    /// The failure that was not reported yet: someone else reports it.
    pub(crate) fn take_problem(&self) -> Option<Error> {
        self.shared.report().err()
    }

    /// As [`Writer::queue`], with checksums that were made as the bytes came.
    pub(crate) async fn queue_packet(&self, offset: u64, data: Bytes, checksums: Vec<u32>) -> Result<()> {
        let mut state = self.state.lock().await;
        let given = Given {
            checksums: Some(checksums),
            ..Given::at(offset, data)
        };
        self.queue_locked(&mut state, given).await.map(drop)
    }

    /// Writes and waits until every member has the bytes.
    pub(crate) async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        let sent = self
            .queue_locked(&mut *self.state.lock().await, Given::at(offset, data))
            .await?;
        wait_acked(sent).await
    }

    /// Writes at the end and returns where that was; `end` is the file's as others know it.
    pub(crate) async fn append(&self, end: u64, data: Bytes) -> Result<u64> {
        let mut state = self.state.lock().await;
        let offset = end.max(state.end);
        let sent = self.queue_locked(&mut state, Given::at(offset, data)).await?;
        drop(state);
        wait_acked(sent).await?;
        Ok(offset)
    }

    /// The end of what was written, if anything was.
    pub(crate) async fn end(&self) -> u64 {
        self.state.lock().await.end
    }

    async fn queue_locked(&self, state: &mut State, given: Given) -> Result<Vec<Sent>> {
        let Given {
            offset,
            data,
            checksums,
            sync,
        } = given;
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= dfs_proto::limits::FILE_BYTES_MAX);
        let end = end.ok_or_else(|| Error::from(Code::TooLarge))?;
        let mut sent = Vec::new();
        self.touched.store(true, Ordering::Relaxed);
        for cut in packets(offset, data.len(), self.chunk_bytes) {
            let bytes = data.slice(cut.range.clone());
            let sums = match &checksums {
                Some(ready) if bytes.len() == data.len() => ready.clone(),
                _ => of_pieces(cut.in_chunk, &bytes),
            };
            let packet = Packet {
                offset: cut.in_chunk,
                data: bytes,
                checksums: sums,
                sync: sync && cut.range.end == data.len(),
            };
            let full = cut.in_chunk + packet.data.len() as u64 == self.chunk_bytes;
            sent.push(self.give(state, cut.slot, packet).await?);
            if full {
                self.leave(state, cut.slot).await;
            } else if cut.in_chunk >= self.chunk_bytes / 2 && self.expected > cut.slot + self.chunk_bytes {
                self.lane(state, cut.slot + self.chunk_bytes).await?;
            }
        }
        state.end = state.end.max(end);
        Ok(sent)
    }

    async fn give(&self, state: &mut State, slot: u64, packet: Packet) -> Result<Sent> {
        loop {
            let commands = self.lane(state, slot).await?.commands.clone();
            // Cancelled here, nothing was given; a lane that ended meanwhile is replaced.
            if let Ok(place) = commands.reserve_owned().await {
                state.tickets += 1;
                let ticket = state.tickets;
                place.send(Command::Packet(ticket, packet));
                let open = state.lanes.get_mut(&slot).expect("just found");
                open.last_ticket = ticket;
                return Ok(Sent {
                    progress: open.progress.clone(),
                    ticket,
                });
            }
        }
    }

    /// The lane of a chunk, begun if there is none.
    async fn lane<'a>(&self, state: &'a mut State, slot: u64) -> Result<&'a mut Open> {
        if state
            .lanes
            .get(&slot)
            .is_some_and(|open| open.commands.is_closed())
        {
            let open = state.lanes.remove(&slot).expect("just seen");
            state.left.insert(slot, open.progress);
        }
        if !state.lanes.contains_key(&slot) {
            if state.lanes.len() >= LANES_MAX {
                let oldest = state
                    .lanes
                    .iter()
                    .min_by_key(|(_, open)| open.last_ticket)
                    .map(|(slot, _)| *slot);
                self.finish(state, oldest.expect("there are some"), false).await;
            }
            let unsynced = self.settled_before(state, slot).await?;
            let open = self.begin(state, slot, unsynced).await?;
            state.lanes.insert(slot, open);
        }
        Ok(state.lanes.get_mut(&slot).expect("just made"))
    }

    /// Waits for the lane that wrote this chunk before, so that two never write it at once;
    /// the version of its oldest write that is not durable.
    async fn settled_before(&self, state: &mut State, slot: u64) -> Result<Option<Version>> {
        let Some(mut before) = state.left.get(&slot).cloned() else {
            return Ok(None);
        };
        let ended = ended(&mut before).await;
        if self.shared.informed {
            // Its owner reports what failed, and goes on.
            state.left.remove(&slot);
        }
        ended.or_else(|error| if self.shared.informed { Ok(()) } else { Err(error) })?;
        state.left.remove(&slot);
        let unsynced = before.borrow().unsynced;
        Ok(unsynced)
    }

    async fn begin(&self, state: &mut State, slot: u64, unsynced: Option<Version>) -> Result<Open> {
        let grant = match state.first.take_if(|g| g.file_offset == slot) {
            Some(grant) => grant,
            None => self.ask_grant(slot).await?,
        };
        self.shared.locations.granted(&grant);
        let (commands, receiver) = mpsc::channel(QUEUE_PACKETS);
        let (progress, watched) = watch::channel(Progress {
            unsynced,
            ..Progress::default()
        });
        let now = Instant::now();
        let lost = unsynced.is_some_and(|written_at| grant.capability.loss > written_at);
        if lost {
            self.shared.fail(Error::new(
                Code::Lost,
                "all replicas lost power before a chunk was synced",
            ));
        }
        let lane = Lane {
            shared: self.shared.clone(),
            slot,
            writer: WriterId::of_stream(self.shared.core.rng.u64()),
            recorded: grant.capability.length,
            told: grant.capability.length,
            grant,
            commands: receiver,
            progress,
            window: Window::default(),
            length: 0,
            durable: 0,
            touched: false,
            unsynced: unsynced.filter(|_| !lost),
            wanted: Wanted::default(),
            finish: None,
            moved: now,
            last_commit: now,
            failures: 0,
            idle: false,
            refused: None,
            begun: false,
            heard: false,
        };
        tokio::spawn(lane.run());
        Ok(Open {
            commands,
            progress: watched,
            last_ticket: state.tickets,
        })
    }

    async fn ask_grant(&self, slot: u64) -> Result<Grant> {
        let core = &self.shared.core;
        let avoid = core.experience().avoided(core.clock.now());
        let change = convert::grant(self.shared.inode, slot, ChunkHandle(0), &avoid);
        let grant = convert::granted(
            self.shared
                .core
                .master
                .change(&self.shared.caller, change)
                .await?,
        )?;
        if grant.file_offset != slot || grant.span_bytes < self.chunk_bytes {
            return Err(Error::new(
                Code::NotSupported,
                "the file's extents are not whole chunk slots",
            ));
        }
        Ok(grant)
    }

    /// A chunk is full: a sequential writer does not come back to it.
    async fn leave(&self, state: &mut State, slot: u64) {
        self.finish(state, slot, self.shared.sync_on_close).await;
        let mut behind: Vec<_> = state
            .left
            .values()
            .filter(|p| p.borrow().ended.is_none())
            .cloned()
            .collect();
        while behind.len() > FINISHING_MAX {
            // Its failure is kept in the file's problem.
            let _ = ended(&mut behind[0]).await;
            behind.remove(0);
        }
        state.left.retain(|_, p| {
            let p = p.borrow();
            p.ended.is_none() || p.unsynced.is_some()
        });
    }

    async fn finish(&self, state: &mut State, slot: u64, sync: bool) {
        if let Some(open) = state.lanes.remove(&slot) {
            // A lane that has ended by itself needs no word.
            let _ = open.commands.send(Command::Finish(sync)).await;
            state.left.insert(slot, open.progress);
        }
    }
}

#[cfg(test)]
mod tests;
