//! One chunk's life while it is written: packets from clients or from the member above are applied here and, at the
//! same time, forwarded to the member below; acknowledgements come back up when both are done.
//!
//! [`write`] decides (pure), [`actor`] does (one task a chunk), [`forward`] is the link below (its connections are kept
//! by [`links`]), [`gate`] what readers may see of all this. A stream belongs to one version: a promise of a higher one drains it.

mod actor;
mod forward;
pub(crate) mod gate;
mod links;
mod write;

use crate::ground::Ground;
use crate::peers::Pass;
use crate::store::Packet;
use dfs_proto::capability::Capability;
use dfs_proto::{ChunkHandle, Code, Error, Result, Version, WriterId};
use gate::Gate;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot, watch};

/// Packets received and not yet taken in by the chunk's task: small ones are applied several at a time.
const PACKETS_QUEUED_MAX: usize = 16;
/// Opens, ends and orders that wait for the chunk's task.
const CONTROLS_QUEUED_MAX: usize = 16;

/// A stream to be joined: what its capability says, and this server's place among the members.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) capability: Capability,
    pub(crate) pass: Pass,
    pub(crate) place: usize,
}

/// How far a stream has come, for whoever feeds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// A client's committed sequence, or the number acknowledged to the member above.
    pub(crate) upto: u64,
    /// Where the client's newest committed packet begins.
    pub(crate) offset: u64,
    /// Committed length of the chunk.
    pub(crate) length: u64,
    /// The chunk takes no more records.
    pub(crate) sealed: bool,
    /// The stream has ended with this.
    pub(crate) end: Option<Error>,
}

/// Tells whoever feeds a stream how far it is, if that can be done at once; false if not: then the feeder is woken to
/// do it. Telling twice does no harm.
#[derive(Clone)]
pub(crate) struct Tell(pub(crate) Arc<dyn Fn(&Progress) -> bool + Send + Sync>);

impl std::fmt::Debug for Tell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tell")
    }
}

/// What feeds a chunk's task.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// From a client, at the head.
    Client { packet: Packet, sync: bool },
    /// A whole record from a producer, at the head: its offset is not chosen yet.
    Record { record: Packet, sync: bool },
    /// From the member above.
    Chain {
        incarnation: u64,
        number: u64,
        packet: Packet,
        sync: bool,
        committed: u64,
    },
    /// The member above says what is committed.
    Committed { incarnation: u64, number: u64 },
    /// The member above has ended the stream in order.
    Closed { incarnation: u64 },
}

#[derive(Debug)]
pub(super) enum Control {
    WriteOpen {
        writer: WriterId,
        tell: Tell,
        reply: oneshot::Sender<Result<watch::Receiver<Progress>>>,
    },
    WriterGone {
        writer: WriterId,
    },
    ChainOpen {
        incarnation: u64,
        first: u64,
        fresh: bool,
        tell: Tell,
        reply: oneshot::Sender<Result<watch::Receiver<Progress>>>,
    },
    UpstreamGone {
        incarnation: u64,
    },
    Drain {
        why: Error,
        done: oneshot::Sender<()>,
    },
}

/// A running chunk's task, from outside.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    version: Version,
    control: mpsc::Sender<Control>,
    packets: mpsc::Sender<Incoming>,
}

/// All chunks that are being written, and the gates of those that were.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    entries: Mutex<BTreeMap<ChunkHandle, Entry>>,
    /// Connections to other members that carry no stream now.
    links: Arc<links::Links>,
}

#[derive(Debug, Default)]
struct Entry {
    gate: Arc<Gate>,
    task: Option<Handle>,
    /// Streams below this version are not opened any more.
    floor: Version,
}

/// A chunk with a stream, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenChunk {
    pub(crate) chunk: ChunkHandle,
    pub(crate) version: Version,
    pub(crate) length: u64,
    pub(crate) streaming: bool,
}

impl Chains {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ChunkHandle, Entry>> {
        self.entries.lock().expect("no panic while the chains are held")
    }

    /// The chunk's gate, if it was written since the start and not forgotten.
    pub(crate) fn gate(&self, chunk: ChunkHandle) -> Option<Arc<Gate>> {
        self.entries().get(&chunk).map(|e| e.gate.clone())
    }

    /// As [`Chains::gate`], made if there is none.
    pub(crate) fn gate_or_new(&self, chunk: ChunkHandle) -> Arc<Gate> {
        self.entries().entry(chunk).or_default().gate.clone()
    }

    /// A version is active: its bytes are decided.
    pub(crate) fn activated(&self, chunk: ChunkHandle, version: Version) {
        if let Some(gate) = self.gate(chunk) {
            gate.activated(version);
        }
    }

    /// Forgets a chunk whose replica is gone.
    pub(crate) fn forget(&self, chunk: ChunkHandle) {
        self.entries().remove(&chunk);
    }

    /// True while packets of the chunk may come in.
    pub(crate) fn has_stream(&self, chunk: ChunkHandle) -> bool {
        self.entries().get(&chunk).is_some_and(|e| e.task.is_some())
    }

    /// Chunks with a stream, and those whose stream was left with bytes uncommitted.
    pub(crate) fn open_chunks(&self) -> Vec<OpenChunk> {
        let open = |(chunk, entry): (&ChunkHandle, &Entry)| {
            let task = entry.task.as_ref().map(|t| t.version);
            let version = task.or_else(|| entry.gate.unresolved())?;
            let (length, streaming) = entry.gate.progress();
            Some(OpenChunk {
                chunk: *chunk,
                version,
                length: length.unwrap_or_default(),
                streaming,
            })
        };
        self.entries().iter().filter_map(open).collect()
    }

    /// Connections to other members that carry no stream now.
    #[cfg(test)]
    pub(crate) fn links_idle(&self) -> usize {
        self.links.idle()
    }

    /// Ends the chunk's streams of versions below `version` and opens none any more. When it returns, nothing of them
    /// is applied any more, and what they had not committed stays shut for readers.
    pub(crate) async fn drain(&self, chunk: ChunkHandle, version: Version) {
        let task = {
            let mut entries = self.entries();
            let entry = entries.entry(chunk).or_default();
            entry.floor = version.max(entry.floor);
            entry.task.clone().filter(|t| t.version < version)
        };
        if let Some(task) = task {
            let why =
                Error::new(Code::Stale, format!("version {version} is promised")).on_chunk(chunk, version);
            let (done, drained) = oneshot::channel();
            if task.control.send(Control::Drain { why, done }).await.is_ok() {
                // An error only says that the task has ended, which is as good.
                let _ = drained.await;
            }
        }
    }

    /// Ends all streams: at a stop.
    pub(crate) async fn stop(&self) {
        let tasks: Vec<Handle> = self.entries().values().filter_map(|e| e.task.clone()).collect();
        for task in tasks {
            let why = Error::new(Code::Unavailable, "the chunkserver stops");
            let (done, drained) = oneshot::channel();
            if task.control.send(Control::Drain { why, done }).await.is_ok() {
                let _ = drained.await;
            }
        }
    }

    /// The chunk's task, started if there is none.
    fn handle(&self, ground: &Ground, opening: &Opening) -> Result<Handle> {
        let (chunk, version) = (opening.capability.chunk, opening.capability.version);
        let mut entries = self.entries();
        let entry = entries.entry(chunk).or_default();
        if version < entry.floor {
            return Err(Error::from(Code::Stale).on_chunk(chunk, entry.floor));
        }
        entry.gate.activated(version);
        if let Some(why) = entry.gate.left(version) {
            return Err(why);
        }
        if let Some(task) = entry.task.as_ref().filter(|t| !t.control.is_closed()) {
            return match task.version.cmp(&version) {
                std::cmp::Ordering::Equal => Ok(task.clone()),
                std::cmp::Ordering::Greater => Err(Error::from(Code::Stale).on_chunk(chunk, task.version)),
                std::cmp::Ordering::Less => Err(Error::from(Code::NotYet).on_chunk(chunk, task.version)),
            };
        }
        let (control, controls) = mpsc::channel(CONTROLS_QUEUED_MAX);
        let (packets, incoming) = mpsc::channel(PACKETS_QUEUED_MAX);
        let task = Handle {
            version,
            control,
            packets,
        };
        entry.task = Some(task.clone());
        actor::start(
            ground.clone(),
            opening.clone(),
            entry.gate.clone(),
            (controls, incoming),
        );
        Ok(task)
    }

    /// Takes an ended task out, unless a new one has come.
    fn ended(&self, chunk: ChunkHandle) {
        if let Some(entry) = self.entries().get_mut(&chunk)
            && entry.task.as_ref().is_some_and(|t| t.control.is_closed())
        {
            entry.task = None;
        }
    }
}

/// Joins the chunk's stream as a client's writer.
pub(crate) async fn open_writer(
    ground: &Ground,
    opening: &Opening,
    writer: WriterId,
    tell: Tell,
) -> Result<(Handle, watch::Receiver<Progress>)> {
    let control = |reply| Control::WriteOpen {
        writer,
        tell: tell.clone(),
        reply,
    };
    open(ground, opening, control).await
}

/// Joins the chunk's stream as the member above.
pub(crate) async fn open_upstream(
    ground: &Ground,
    opening: &Opening,
    from: Upstream,
    tell: Tell,
) -> Result<(Handle, watch::Receiver<Progress>)> {
    let control = |reply| Control::ChainOpen {
        incarnation: from.incarnation,
        first: from.first,
        fresh: from.fresh,
        tell: tell.clone(),
        reply,
    };
    open(ground, opening, control).await
}

/// How the member above opens its stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    pub(crate) incarnation: u64,
    pub(crate) first: u64,
    pub(crate) fresh: bool,
}

async fn open(
    ground: &Ground,
    opening: &Opening,
    control: impl Fn(oneshot::Sender<Result<watch::Receiver<Progress>>>) -> Control,
) -> Result<(Handle, watch::Receiver<Progress>)> {
    // A task that ends at this moment is met once: the second try starts a new one.
    for _ in 0..2 {
        let task = ground.chains.handle(ground, opening)?;
        let (reply, answer) = oneshot::channel();
        if task.control.send(control(reply)).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer.map(|progress| (task, progress));
        }
    }
    Err(Error::new(Code::Unavailable, "the chunk's stream is ending")
        .on_chunk(opening.capability.chunk, opening.capability.version))
}

impl Handle {
    /// Feeds the stream; waits while it is full. False once it has ended.
    pub(crate) async fn feed(&self, incoming: Incoming) -> bool {
        self.packets.send(incoming).await.is_ok()
    }

    /// A client's stream has gone.
    pub(crate) async fn writer_gone(&self, writer: WriterId) {
        // If the task has ended there is nobody to tell.
        let _ = self.control.send(Control::WriterGone { writer }).await;
    }

    /// The link from above has gone without a word.
    pub(crate) async fn upstream_gone(&self, incarnation: u64) {
        let _ = self.control.send(Control::UpstreamGone { incarnation }).await;
    }
}
