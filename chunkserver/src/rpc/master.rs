//! The session stream to the master: dialled here, its messages turned into values and back.
//!
//! One gRPC stream carries everything; the queue up is bounded, and whoever fills it waits.

use crate::metrics::Activity;
use crate::peers::Pass;
use crate::report::{
    self, Adopted, Comparison, DiskReport, Done, Heartbeat, Order, Outcome, Register, Registered, Report,
    SyncTask, Task, Told, Trouble,
};
use crate::store::Kind;
use bytes::Bytes;
use dfs_proto::capability::Keys;
use dfs_proto::limits::Parameters;
use dfs_proto::net::{DECODED_BYTES_MAX, Dial, channel};
use dfs_proto::pb::sessions_client::SessionsClient;
use dfs_proto::pb::{self, down, order, order_done, up};
use dfs_proto::{ChunkHandle, ClusterId, Code, Error, NodeId, Result, Version};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Reports that may wait for the transport: a page of the inventory and the answers of a burst of orders.
const REPORTS_QUEUED_MAX: usize = 64;

/// An open stream to the master.
pub(crate) struct Stream {
    up: mpsc::Sender<pb::Up>,
    down: Streaming<pb::Down>,
}

impl Stream {
    /// Dials `master` and opens the stream; [`Report::Register`] must be sent first.
    ///
    /// # Errors
    /// `NotLeader` with whom to ask instead, or the transport's.
    pub(crate) async fn open(dial: Arc<dyn Dial>, master: &str, register: Register) -> Result<Stream> {
        let (up, reports) = mpsc::channel(REPORTS_QUEUED_MAX);
        // The first report is in the queue before the call is made: a server may answer only once it has read it.
        up.try_send(message(Report::Register(register)))
            .expect("an empty queue has room");
        let mut client =
            SessionsClient::new(channel(dial, master, None)).max_decoding_message_size(DECODED_BYTES_MAX);
        let down = client.session(ReceiverStream::new(reports)).await?.into_inner();
        Ok(Stream { up, down })
    }

    /// A handle to send reports with.
    pub(crate) fn reports(&self) -> Reports {
        Reports(self.up.clone())
    }

    /// The next thing the master says; `None` at the end of the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The transport's, the master's, or `Internal` for a message without sense.
    pub(crate) async fn next(&mut self) -> Result<Option<Told>> {
        self.down.message().await?.map(told).transpose()
    }
}

/// Sends reports up one session's stream.
#[derive(Clone, Debug)]
pub(crate) struct Reports(mpsc::Sender<pb::Up>);

impl Reports {
    /// Queues a report, waiting for room.
    ///
    /// # Errors
    /// `Unavailable` if the stream has ended.
    pub(crate) async fn send(&self, report: Report) -> Result<()> {
        let ended = |_| Error::new(Code::Unavailable, "the session has ended");
        self.0.send(message(report)).await.map_err(ended)
    }
}

fn message(report: Report) -> pb::Up {
    let body = match report {
        Report::Register(r) => up::Body::Register(register(r)),
        Report::Heartbeat(h) => up::Body::Heartbeat(heartbeat(h)),
        Report::Inventory { replicas, last } => up::Body::Inventory(pb::Inventory {
            replicas: replicas.iter().map(replica).collect(),
            last,
        }),
        Report::Done(d) => up::Body::OrderDone(done(d)),
        Report::Trouble(t) => up::Body::Trouble(trouble(t)),
    };
    pb::Up { body: Some(body) }
}

fn register(r: Register) -> pb::Register {
    pb::Register {
        node: r.node.0,
        cluster: r
            .cluster
            .map_or_else(Bytes::new, |c| Bytes::copy_from_slice(&c.0)),
        identity: Bytes::copy_from_slice(&r.identity),
        incarnation: r.incarnation,
        addr: r.addr,
        host: r.host,
        rack: r.rack,
        disks: r.disks.iter().map(disk).collect(),
        replace: r.replace,
    }
}

fn disk(d: &DiskReport) -> pb::Disk {
    pb::Disk {
        id: Bytes::copy_from_slice(&d.id),
        path: d.path.clone(),
        capacity_bytes: d.capacity_bytes,
        free_bytes: d.free_bytes,
        failed: d.failed,
    }
}

fn heartbeat(h: Heartbeat) -> pb::Heartbeat {
    let open = h.open.iter().map(|o| pb::OpenChunk {
        chunk: o.chunk.0,
        version: o.version.0,
        length: o.length,
        streaming: o.streaming,
    });
    pb::Heartbeat {
        sequence: h.sequence,
        disks: h.disks.iter().map(disk).collect(),
        chunks: h.chunks,
        open: open.collect(),
        load: h.load,
        activity: Some(activity(h.activity)),
    }
}

fn activity(a: Activity) -> pb::Activity {
    pb::Activity {
        reads: a.reads,
        read_bytes: a.read_bytes,
        packets: a.packets,
        packet_bytes: a.packet_bytes,
        copied_bytes: a.copied_bytes,
        syncs: a.syncs,
        orders: a.orders,
    }
}

fn kind(kind: Kind) -> pb::ReplicaKind {
    match kind {
        Kind::Intact => pb::ReplicaKind::ReplicaIntact,
        Kind::Lost => pb::ReplicaKind::ReplicaLost,
        Kind::Broken => pb::ReplicaKind::ReplicaBroken,
    }
}

fn replica(r: &report::Line) -> pb::Replica {
    pb::Replica {
        chunk: r.chunk.0,
        promised: r.promised.0,
        synced: r.synced.0,
        length: r.length,
        kind: kind(r.kind).into(),
        restarted: r.restarted,
    }
}

fn done(d: Done) -> pb::OrderDone {
    let (error, result) = match d.result {
        Ok(outcome) => (None, Some(outcome_message(outcome))),
        Err(error) => (Some(error.into()), None),
    };
    pb::OrderDone {
        id: d.id,
        chunk: d.chunk.0,
        error,
        result,
    }
}

fn outcome_message(outcome: Outcome) -> order_done::Result {
    match outcome {
        Outcome::Adopted(a) => order_done::Result::Adopted(adopted(&a)),
        Outcome::Ready { length, digest, loss } => order_done::Result::Ready(pb::Ready {
            length,
            digest,
            loss: loss.0,
        }),
        Outcome::Copied { length, bytes } => order_done::Result::Copied(pb::Copied { length, bytes }),
        Outcome::Deleted => order_done::Result::Deleted(pb::Deleted {}),
    }
}

fn adopted(a: &Adopted) -> pb::Adopted {
    pb::Adopted {
        promised: a.promised.0,
        synced: a.synced.0,
        absent: a.absent,
        kind: kind(a.kind).into(),
        restarted: a.restarted,
        length: a.length,
        fsynced_length: a.fsynced_length,
        loss: a.loss.0,
        digest: a.digest,
    }
}

fn trouble(t: Trouble) -> pb::Trouble {
    let of = |kind: pb::TroubleKind, chunk: ChunkHandle, version: Version| pb::Trouble {
        chunk: chunk.0,
        version: version.0,
        kind: kind.into(),
        ..pb::Trouble::default()
    };
    match t {
        Trouble::LinkBroken {
            chunk,
            version,
            suspect,
        } => pb::Trouble {
            suspect: suspect.0,
            ..of(pb::TroubleKind::TroubleLinkBroken, chunk, version)
        },
        Trouble::BadBlock {
            chunk,
            version,
            message,
        } => pb::Trouble {
            message,
            ..of(pb::TroubleKind::TroubleBadBlock, chunk, version)
        },
        Trouble::DiskFailed { disk, message } => pb::Trouble {
            disk: Bytes::copy_from_slice(&disk),
            message,
            ..of(pb::TroubleKind::TroubleDiskFailed, ChunkHandle(0), Version(0))
        },
    }
}

fn told(message: pb::Down) -> Result<Told> {
    match message.body.ok_or_else(senseless)? {
        down::Body::Registered(r) => registered(r),
        down::Body::Heartbeat(h) => Ok(Told::Heartbeat { sequence: h.sequence }),
        down::Body::Compared(c) => Ok(Told::Compared {
            chunks: c.chunks.iter().map(comparison).collect(),
            last: c.last,
        }),
        down::Body::Order(o) => told_order(o).map(Told::Order),
        down::Body::Keys(keys) => Ok(Told::Keys(Keys::from(&keys))),
    }
}

fn registered(r: pb::Registered) -> Result<Told> {
    if let Some(error) = r.refused {
        return Ok(Told::Refused(error.into()));
    }
    let parameters = r.parameters.ok_or_else(senseless)?;
    Ok(Told::Registered(Registered {
        node: NodeId(r.node),
        cluster: ClusterId::from_slice(&parameters.cluster).ok_or_else(senseless)?,
        parameters: Parameters::from(&parameters),
        keys: r.keys.as_ref().map(Keys::from).unwrap_or_default(),
        next_chunk: ChunkHandle(r.next_chunk),
    }))
}

fn comparison(c: &pb::Comparison) -> Comparison {
    Comparison {
        chunk: ChunkHandle(c.chunk),
        active: Version(c.active),
        promise: Version(c.promise),
    }
}

fn told_order(message: pb::Order) -> Result<Order> {
    let (chunk, version, task) = match message.body.ok_or_else(senseless)? {
        order::Body::Adopt(a) => {
            let task = Task::Adopt {
                members: a.members.into_iter().map(Into::into).collect(),
                truncate: a.truncate,
                active: Version(a.active),
            };
            (a.chunk, a.version, task)
        }
        order::Body::Sync(s) => {
            let task = Task::Sync(SyncTask {
                source: NodeId(s.source_node),
                others: s.others.into_iter().map(Into::into).collect(),
                pass: Pass(s.pull.unwrap_or_default()),
                source_lost: s.source_lost,
                truncate: s.truncate,
            });
            (s.chunk, s.version, task)
        }
        order::Body::Activated(a) => (a.chunk, a.version, Task::Activated),
        order::Body::Copy(c) => {
            let task = Task::Copy {
                from: c.from.into_iter().map(Into::into).collect(),
                pass: Pass(c.pull.unwrap_or_default()),
            };
            (c.chunk, c.version, task)
        }
        order::Body::Delete(d) => (d.chunk, d.version, Task::Delete),
    };
    Ok(Order {
        id: message.id,
        chunk: ChunkHandle(chunk),
        version: Version(version),
        task,
    })
}

fn senseless() -> Error {
    Error::new(Code::Internal, "the master sent a message without a body")
}
