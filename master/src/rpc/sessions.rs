//! The stream a chunkserver keeps: it registers, is compared replica by replica, and lives by its heartbeats.
//!
//! Reports only note facts and wake the steward; heartbeats are answered at once. When the stream ends, the session ends.

use super::{Door, Served, convert, orders};
use crate::command::{DiskFailed, RegisterServer, Reply};
use crate::desk::Desk;
use crate::live::grants::Open;
use crate::live::servers::{Disk, Ordered};
use crate::plan::repair::Replica;
use crate::state;
use crate::store::records;
use dfs_proto::{ChunkHandle, ClusterId, Code, Error, NodeId, Result, Version, pb};
use futures::Stream;
use pb::down::Body as Down;
use pb::up::Body as Up;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A stream's first message comes within this.
const REGISTER_WITHIN: Duration = Duration::from_secs(10);
/// Messages that may wait for a slow stream; orders wait in a queue of their own.
const DOWN_MAX: usize = 64;
/// Disks and labels a server may register.
const DISKS_MAX: usize = 256;

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Door);

type Sent = std::result::Result<pb::Down, Status>;

#[tonic::async_trait]
impl pb::sessions_server::Sessions for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Sent> + Send>>;

    async fn session(&self, request: Request<Streaming<pb::Up>>) -> Served<Self::SessionStream> {
        let (down, receiver) = mpsc::channel(DOWN_MAX);
        let (door, up) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move { converse(door, up, down).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// A registered chunkserver's end of the conversation.
struct Session {
    door: Door,
    node: NodeId,
    number: u64,
    down: mpsc::Sender<Sent>,
    inventory_begun: bool,
}

fn message(body: Down) -> pb::Down {
    pb::Down { body: Some(body) }
}

async fn converse(door: Door, mut up: Streaming<pb::Up>, down: mpsc::Sender<Sent>) {
    let first = match tokio::time::timeout(REGISTER_WITHIN, up.message()).await {
        Ok(Ok(Some(pb::Up {
            body: Some(Up::Register(register)),
        }))) => register,
        Ok(Ok(_)) => {
            let _ = down
                .send(Err(convert::invalid("a session begins with Register").into()))
                .await;
            return;
        }
        Ok(Err(_)) | Err(_) => return,
    };
    let addr = first.addr.clone();
    let (node, number, queue, next_chunk) = match register(&door, first).await {
        Ok(registered) => registered,
        Err(error) => {
            door.desk.meters.refused_servers.add(1);
            tracing::error!(addr, %error, "a chunkserver was refused");
            let refused = pb::Registered {
                refused: Some(error.into()),
                ..pb::Registered::default()
            };
            let _ = down.send(Ok(message(Down::Registered(refused)))).await;
            return;
        }
    };
    tracing::info!(%node, addr, session = number, "a chunkserver's session begins");
    let desk = door.desk.clone();
    let registered = pb::Registered {
        node: node.0,
        parameters: Some(super::admin::parameters(&desk)),
        keys: Some(keys(&desk)),
        refused: None,
        next_chunk,
    };
    let steward = door.steward.clone();
    let mut session = Session {
        door,
        node,
        number,
        down,
        inventory_begun: false,
    };
    let why = match session.send(Down::Registered(registered)).await {
        Ok(()) => session.run(up, queue).await,
        Err(why) => why,
    };
    let by_peer = PEERS_DOING.contains(&why);
    desk.live
        .lock()
        .servers
        .disconnect(node, number, by_peer, desk.now());
    if !desk.session(node).is_connected() {
        desk.forget_orders(node);
    }
    desk.live.notify();
    steward.wake();
    tracing::info!(%node, session = number, why, "a chunkserver's session is over");
}

/// Why a session ended, for the log.
type Why = &'static str;

const CLOSED: Why = "it closed the stream";
const BROKEN: Why = "its connection broke";
const GONE: Why = "its stream is closed";
/// What the peer knows of as soon as we do: it has stopped serving.
const PEERS_DOING: [Why; 3] = [CLOSED, BROKEN, GONE];

impl Session {
    async fn send(&self, body: Down) -> std::result::Result<(), Why> {
        // A peer that reads nothing for so long has no session.
        let limit = self.door.desk.timings.session_master;
        match tokio::time::timeout(limit, self.down.send(Ok(message(body)))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(GONE),
            Err(_) => Err("it does not read"),
        }
    }

    async fn run(&mut self, mut up: Streaming<pb::Up>, mut queue: mpsc::Receiver<Ordered>) -> Why {
        let desk = self.door.desk.clone();
        let mut rotated = desk.keys();
        rotated.borrow_and_update();
        let mut stopping = self.door.stopping.clone();
        loop {
            let result = tokio::select! {
                biased;
                () = super::stopped(&mut stopping) => return "the master stops",
                ordered = queue.recv() => match ordered {
                    Some(ordered) => self.pass_on(ordered).await,
                    None => return "its heartbeats stopped, or another session took its place",
                },
                received = up.message() => match received {
                    Ok(Some(pb::Up { body: Some(body) })) => self.take(body).await,
                    Ok(Some(pb::Up { body: None })) => Ok(()),
                    Ok(None) => return CLOSED,
                    Err(_) => return BROKEN,
                },
                changed = rotated.changed() => match changed {
                    Ok(()) => self.send(Down::Keys(keys(&desk))).await,
                    Err(_) => return "the master stops",
                },
            };
            if let Err(why) = result {
                return why;
            }
        }
    }

    async fn pass_on(&self, ordered: Ordered) -> std::result::Result<(), Why> {
        let down = orders::down(&self.door.desk, ordered);
        self.down.send(Ok(down)).await.map_err(|_| GONE)
    }

    async fn take(&mut self, body: Up) -> std::result::Result<(), Why> {
        match body {
            Up::Register(_) => Err("it registered twice"),
            Up::Heartbeat(heartbeat) => self.heartbeat(heartbeat).await,
            Up::Inventory(page) => self.inventory(page).await,
            Up::OrderDone(done) => {
                let id = done.id;
                self.door.desk.answered(self.node, id, orders::answer(done));
                Ok(())
            }
            Up::Trouble(trouble) => self.trouble(trouble).await,
        }
    }

    async fn heartbeat(&mut self, heartbeat: pb::Heartbeat) -> std::result::Result<(), Why> {
        let desk = &self.door.desk;
        let now = desk.now();
        {
            let mut live = desk.live.lock();
            if !live.servers.heartbeat(self.node, self.number, now) {
                return Err("its heartbeat came too late");
            }
            live.servers
                .report(self.node, disks(&heartbeat.disks), heartbeat.chunks);
            if let Some(activity) = heartbeat.activity {
                live.servers.worked(self.node, convert::worked(activity));
            }
            for open in &heartbeat.open {
                let (chunk, version) = (ChunkHandle(open.chunk), Version(open.version));
                let report = Open {
                    node: self.node,
                    version,
                    length: open.length,
                    since: now,
                };
                live.grants.reported(chunk, report, open.streaming, now);
                live.replicas.assume(chunk, self.node, version, open.length);
            }
        }
        self.send(Down::Heartbeat(pb::HeartbeatAnswered {
            sequence: heartbeat.sequence,
        }))
        .await
    }

    /// A page of replicas, each compared with the newest proposal of its chunk.
    async fn inventory(&mut self, page: pb::Inventory) -> std::result::Result<(), Why> {
        let desk = self.door.desk.clone();
        if !self.inventory_begun {
            self.inventory_begun = true;
            desk.live.lock().replicas.begin_inventory(self.node);
        }
        let (node, chunks) = (
            self.node,
            page.replicas
                .iter()
                .map(|r| ChunkHandle(r.chunk))
                .collect::<Vec<_>>(),
        );
        let records = desk
            .read(move |read| {
                chunks
                    .into_iter()
                    .map(|c| state::chunk(read, c))
                    .collect::<Vec<_>>()
            })
            .await
            .map_err(|_| "the master cannot read its state")?;
        let mut compared = Vec::with_capacity(records.len());
        {
            let mut live = desk.live.lock();
            for (replica, record) in page.replicas.iter().zip(&records) {
                let chunk = ChunkHandle(replica.chunk);
                live.replicas.put(chunk, node, reported(replica));
                if record.is_none() {
                    live.replicas.note_unknown(chunk, node);
                }
                compared.push(compare(replica, record.as_ref()));
            }
            if page.last {
                live.replicas.end_inventory(node);
                live.servers.compared(node, self.number);
                self.inventory_begun = false;
            }
        }
        self.send(Down::Compared(pb::Compared {
            chunks: compared,
            last: page.last,
        }))
        .await?;
        if page.last {
            desk.live.notify();
            self.door.steward.wake();
            self.door.steward.wake_collect();
        }
        Ok(())
    }

    async fn trouble(&self, trouble: pb::Trouble) -> std::result::Result<(), Why> {
        let (node, chunk, version) = (self.node, ChunkHandle(trouble.chunk), Version(trouble.version));
        let steward = &self.door.steward;
        let message = &trouble.message;
        match pb::TroubleKind::try_from(trouble.kind) {
            Ok(pb::TroubleKind::TroubleLinkBroken) => {
                tracing::info!(%node, %chunk, %version, suspect = trouble.suspect, message, "a link is broken");
                steward.link_broken(chunk, version, (node, NodeId(trouble.suspect)));
            }
            Ok(pb::TroubleKind::TroubleBadBlock) => {
                tracing::warn!(%node, %chunk, message, "a replica has a bad block");
                steward.bad_block(chunk, node);
            }
            Ok(pb::TroubleKind::TroubleDiskFailed) => {
                return self.disk_failed(&trouble.disk, message).await;
            }
            Ok(pb::TroubleKind::TroublePromiseAbove) => {
                tracing::error!(%node, %chunk, %version, message, "a promise above the newest proposal");
                steward.wake();
            }
            Ok(pb::TroubleKind::TroubleUnspecified) | Err(_) => {
                tracing::warn!(%node, %chunk, message, "an unknown trouble");
            }
        }
        Ok(())
    }

    /// Logged once; then the server shows anew what it has left.
    async fn disk_failed(&self, disk: &[u8], message: &str) -> std::result::Result<(), Why> {
        let (node, desk) = (self.node, &self.door.desk);
        if desk.live.lock().servers.has_failed(node, disk) {
            return Ok(());
        }
        tracing::error!(%node, message, "a disk has failed");
        let failed = DiskFailed {
            node: node.0,
            disk: disk.to_vec(),
        };
        if let Err(error) = desk.propose(failed).await {
            tracing::error!(%node, %error, "the failed disk could not be logged");
            return Ok(());
        }
        if let Err(error) = learn_all(desk).await {
            tracing::error!(%node, %error, "the servers' records could not be read");
        }
        Err("a disk of it failed")
    }
}

fn keys(desk: &Desk) -> pb::Keys {
    let ring = desk.keys();
    let ring = ring.borrow();
    pb::Keys {
        keys: ring.keys.0.iter().map(Into::into).collect(),
    }
}

fn disks(disks: &[pb::Disk]) -> Vec<Disk> {
    let disk = |d: &pb::Disk| Disk {
        id: d.id.to_vec(),
        path: d.path.clone(),
        capacity_bytes: d.capacity_bytes,
        free_bytes: d.free_bytes,
        failed: d.failed,
    };
    disks.iter().take(DISKS_MAX).map(disk).collect()
}

fn reported(replica: &pb::Replica) -> Replica {
    Replica {
        promised: Version(replica.promised),
        synced: Version(replica.synced),
        length: replica.length,
        kind: orders::kind(replica.kind),
        restarted: replica.restarted,
    }
}

/// What a replica must promise before it serves anything, and the oldest version it may serve.
fn compare(replica: &pb::Replica, record: Option<&records::Chunk>) -> pb::Comparison {
    let Some(record) = record else {
        return pb::Comparison {
            chunk: replica.chunk,
            active: 0,
            promise: 0,
        };
    };
    let newest = record.newest().0;
    pb::Comparison {
        chunk: replica.chunk,
        active: record.active.version,
        promise: if newest > replica.promised { newest } else { 0 },
    }
}

/// Admits a chunkserver. Returns its number, its session's number, its orders and the next chunk's handle.
async fn register(door: &Door, asked: pb::Register) -> Result<(NodeId, u64, mpsc::Receiver<Ordered>, u64)> {
    let desk = &door.desk;
    check(desk, &asked)?;
    let identity = asked.identity.to_vec();
    let (known, all) = desk
        .read(move |read| (state::server_by_identity(read, &identity), state::servers(read)))
        .await?;
    if let Some(node) = known {
        if desk
            .live
            .lock()
            .servers
            .is_taken(node, asked.incarnation, desk.now())
        {
            let why =
                "another process with this identity is connected: a copied data directory, or an old process";
            return Err(Error::new(Code::Busy, why).on_node(node));
        }
    } else {
        admit_new(&asked, &all)?;
    }
    let known_as = known.and_then(|node| all.iter().find(|(n, _)| *n == node));
    let wanted = RegisterServer {
        identity: asked.identity.to_vec(),
        addr: asked.addr.clone(),
        host: asked.host.clone(),
        rack: asked.rack.clone(),
        disks: asked
            .disks
            .iter()
            .map(|d| records::Disk {
                id: d.id.to_vec(),
                path: d.path.clone(),
                failed: d.failed,
            })
            .collect(),
        replace: asked.replace,
    };
    let node = match known_as {
        Some((node, server)) if is_as_known(server, &wanted) => *node,
        Some(_) | None => match desk.propose(wanted).await? {
            Reply::Server(registered) => NodeId(registered.node),
            other => {
                return Err(Error::new(
                    Code::Internal,
                    format!("the state answered {other:?}"),
                ));
            }
        },
    };
    learn_all(desk).await?;
    let (applied, next_chunk) = desk.read_indexed(|read| state::counters(read).next_chunk).await?;
    let mut live = desk.live.lock();
    let (number, queue) = live.servers.connect(node, asked.incarnation, applied, desk.now());
    live.servers.report(node, disks(&asked.disks), 0);
    drop(live);
    desk.forget_orders(node);
    desk.live.notify();
    Ok((node, number, queue, next_chunk))
}

fn check(desk: &Desk, asked: &pb::Register) -> Result<()> {
    if !asked.cluster.is_empty() && ClusterId::from_slice(&asked.cluster) != Some(desk.cluster) {
        return Err(Error::new(
            Code::PermissionDenied,
            "this chunkserver belongs to another cluster",
        ));
    }
    if asked.identity.len() != 16 || asked.incarnation == 0 || asked.disks.len() > DISKS_MAX {
        return Err(convert::invalid(
            "a chunkserver has an identity, an incarnation and not too many disks",
        ));
    }
    if !dfs_proto::net::is_address(&asked.addr) {
        return Err(convert::invalid("a chunkserver's address is host:port"));
    }
    Ok(())
}

/// A server nobody knows: it must never have been registered, and must not stand where another one is expected.
fn admit_new(asked: &pb::Register, all: &[(NodeId, records::Server)]) -> Result<()> {
    if asked.node != 0 {
        let why = "this chunkserver was registered, and the master does not know it: was the master restored from a backup?";
        return Err(Error::new(Code::PermissionDenied, why).on_node(NodeId(asked.node)));
    }
    let expected = all.iter().find(|(_, s)| s.addr == asked.addr && !s.removed);
    match expected {
        Some((node, _)) if !asked.replace => {
            let why = format!(
                "an empty data directory where chunkserver {node} is expected: mount its disk, or start with --accept-new-disk"
            );
            Err(Error::new(Code::PermissionDenied, why).on_node(*node))
        }
        Some(_) | None => Ok(()),
    }
}

fn is_as_known(server: &records::Server, wanted: &RegisterServer) -> bool {
    let same_disk = |d: &records::Disk| {
        server
            .disks
            .iter()
            .any(|k| k.id == d.id && k.path == d.path && (k.failed || !d.failed))
    };
    !server.removed
        && (&server.addr, &server.host, &server.rack) == (&wanted.addr, &wanted.host, &wanted.rack)
        && wanted.disks.iter().all(same_disk)
}

async fn learn_all(desk: &Desk) -> Result<()> {
    let all = desk.read(state::servers).await?;
    let mut live = desk.live.lock();
    for (node, record) in &all {
        live.servers.learn(*node, record);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::{Chunk, Configuration, Proposal};

    #[test]
    fn a_replica_is_compared_with_the_newest_proposal_and_told_the_active_version() {
        let record = Chunk {
            active: Configuration {
                version: 3,
                members: vec![1],
                ..Configuration::default()
            },
            proposed: Some(Proposal {
                version: 4,
                members: vec![1],
                ..Proposal::default()
            }),
            ..Chunk::default()
        };
        let told = |promised| {
            let replica = pb::Replica {
                promised,
                ..pb::Replica::default()
            };
            let c = compare(&replica, Some(&record));
            (c.active, c.promise)
        };
        assert_eq!(told(3), (3, 4), "else it serves while 4 is being activated");
        assert_eq!(told(4), (3, 0));
    }
}
