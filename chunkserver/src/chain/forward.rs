//! The link to the next member: one stream of packets down, acknowledgements up.
//!
//! Packets follow the opening without waiting for its answer; a member that refuses ends the stream with the reason.

use crate::ground::Ground;
use crate::peers::Pass;
use crate::peers::chain::{self, Heard, Up};
use crate::store::Packet;
use bytes::Bytes;
use dfs_proto::capability::Member;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Dial};
use dfs_proto::{Code, Error, NodeId};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

/// How long a commit waits for a packet that could carry it.
const COMMITTED_AFTER: Duration = Duration::from_millis(1);
/// How long an orderly end waits for its answer.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// A packet on its way down.
#[derive(Debug)]
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

/// The link. Dropped, it ends in order after what was given to it.
#[derive(Debug)]
pub(super) struct Link {
    packets: mpsc::Sender<Onward>,
    events: mpsc::Receiver<Event>,
    committed: watch::Sender<u64>,
}

impl Link {
    /// Opens a link with room for `room` packets; what fails is told by [`Link::event`].
    pub(super) fn open(ground: &Ground, target: Target, room: usize) -> Link {
        let (packets, queue) = mpsc::channel(room);
        let (tell, events) = mpsc::channel(room);
        let (committed, known) = watch::channel(target.first.saturating_sub(1));
        let dial = ground.world.dial.clone();
        tokio::spawn(async move {
            let node = target.member.node;
            let error = run(dial, target, queue, known, &tell).await;
            // Nobody listens any more once the link was dropped.
            let _ = tell.send(Event::Broken(named(error, node))).await;
        });
        Link {
            packets,
            events,
            committed,
        }
    }

    /// Sends a packet. False if there is no room, which a bounded window rules out, or the link has ended.
    pub(super) fn send(&self, onward: Onward) -> bool {
        self.packets.try_send(onward).is_ok()
    }

    /// Tells what is committed, with the next packet or soon.
    pub(super) fn committed(&self, number: u64) {
        self.committed.send_replace(number);
    }

    /// What the link has to tell next.
    pub(super) async fn event(&mut self) -> Event {
        let ended = || Event::Broken(Error::new(Code::Unavailable, "the link has ended"));
        self.events.recv().await.unwrap_or_else(ended)
    }
}

type Reader = FrameReader<ReadHalf<BoxStream>>;
type Writer = FrameWriter<WriteHalf<BoxStream>>;

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

async fn run(
    dial: Arc<dyn Dial>,
    target: Target,
    queue: mpsc::Receiver<Onward>,
    known: watch::Receiver<u64>,
    tell: &mpsc::Sender<Event>,
) -> Error {
    let stream = match dial.dial(&target.member.addr).await {
        Ok(stream) => stream,
        Err(error) => return broken(&error),
    };
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
    tokio::select! {
        error = listen(&mut reader, tell) => error,
        sent = send(&mut writer, target, queue, known) => match sent {
            Err(error) => broken(&error),
            Ok(()) => match tokio::time::timeout(CLOSE_DEADLINE, listen(&mut reader, tell)).await {
                Ok(error) => error,
                Err(_) => Error::new(Code::TimedOut, "the link does not close"),
            },
        },
    }
}

/// Hears acknowledgements until the stream ends.
async fn listen(reader: &mut Reader, tell: &mpsc::Sender<Event>) -> Error {
    loop {
        let reply: Up = match reader.next().await {
            Ok(Some((reply, _))) => reply,
            Ok(None) => return Error::new(Code::Unavailable, "link closed"),
            Err(error) => return broken(&error),
        };
        match chain::heard(reply) {
            Err(error) => return error,
            Ok(Heard::Acked(number)) => {
                if tell.send(Event::Acked(number)).await.is_err() {
                    return Error::new(Code::Unavailable, "the stream has ended");
                }
            }
            Ok(Heard::Opened) => {}
            Ok(Heard::Closed) => return Error::new(Code::Unavailable, "link closed"),
        }
    }
}

/// Opens the stream, sends what is queued and what is committed, and ends it in order when the queue does.
async fn send(
    writer: &mut Writer,
    target: Target,
    mut queue: mpsc::Receiver<Onward>,
    mut known: watch::Receiver<u64>,
) -> io::Result<()> {
    writer.send_preamble().await?;
    let open = chain::open(target.pass, target.incarnation, target.first, target.fresh);
    writer.send(&open, Bytes::new()).await?;
    loop {
        let onward = tokio::select! {
            biased;
            onward = queue.recv() => onward,
            Ok(()) = known.changed() => {
                match tokio::time::timeout(COMMITTED_AFTER, queue.recv()).await {
                    Ok(onward) => onward,
                    Err(_) => {
                        send_committed(writer, &mut known).await?;
                        continue;
                    }
                }
            }
        };
        let Some(onward) = onward else { break };
        let committed = *known.borrow_and_update();
        let Onward { number, packet, sync } = onward;
        let (head, data) = chain::packet(number, packet, sync, committed);
        writer.send(&head, data).await?;
    }
    send_committed(writer, &mut known).await?;
    writer.send(&chain::close(), Bytes::new()).await
}

async fn send_committed(writer: &mut Writer, known: &mut watch::Receiver<u64>) -> io::Result<()> {
    let committed = *known.borrow_and_update();
    writer.send(&chain::committed(committed), Bytes::new()).await
}
