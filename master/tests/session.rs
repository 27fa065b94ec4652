//! A master over loopback with chunkservers that only talk: registering, writing, losing a server, returning.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use dfs_master::{Config, Master, View};
use dfs_proto::capability::{Capability, peek};
use dfs_proto::limits::Parameters;
use dfs_proto::net::{self, Tcp};
use dfs_proto::pb::namespace_client::NamespaceClient;
use dfs_proto::pb::sessions_client::SessionsClient;
use dfs_proto::pb::{self, mutate_reply, mutate_request, query_reply, query_request};
use dfs_proto::{Code, Error, World};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const ROOT: u64 = 1;
const BOUND: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default)]
struct Replica {
    promised: u32,
    synced: u32,
    length: u64,
}

type Replicas = Arc<Mutex<BTreeMap<u64, Replica>>>;

/// A chunkserver that keeps its promises and has no bytes.
struct Fake {
    task: JoinHandle<()>,
    replicas: Replicas,
}

impl Fake {
    /// Registers and lives until dropped.
    async fn start(master: &str, number: u8, replicas: Replicas) -> Result<Fake, Error> {
        let asked = register(number);
        let (up, mut down) = session(master, asked).await;
        let first = down.message().await.map_err(Error::from)?.expect("an answer");
        let Some(pb::down::Body::Registered(registered)) = first.body else {
            panic!("{first:?}")
        };
        if let Some(refused) = registered.refused {
            return Err(refused.into());
        }
        let kept = replicas.clone();
        let task = tokio::spawn(async move { live(up, down, kept).await });
        Ok(Fake { task, replicas })
    }

    /// The process is gone: its connections are reset.
    fn kill(self) -> Replicas {
        self.task.abort();
        self.replicas.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn register(number: u8) -> pb::Register {
    pb::Register {
        identity: vec![number; 16].into(),
        incarnation: 1,
        addr: format!("127.0.0.1:{}", 10_000 + u32::from(number)),
        host: format!("h{number}"),
        disks: vec![pb::Disk {
            id: vec![number; 16].into(),
            path: "/d".into(),
            capacity_bytes: 1 << 40,
            free_bytes: 1 << 39,
            failed: false,
        }],
        ..pb::Register::default()
    }
}

async fn session(master: &str, register: pb::Register) -> (mpsc::Sender<pb::Up>, tonic::Streaming<pb::Down>) {
    let mut client = SessionsClient::new(net::channel(Arc::new(Tcp), master, None));
    let (up, receiver) = mpsc::channel(64);
    up.send(message(pb::up::Body::Register(register))).await.unwrap();
    let down = client
        .session(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    (up, down)
}

fn message(body: pb::up::Body) -> pb::Up {
    pb::Up { body: Some(body) }
}

async fn live(up: mpsc::Sender<pb::Up>, mut down: tonic::Streaming<pb::Down>, replicas: Replicas) {
    let replica = |(chunk, r): (&u64, &Replica)| pb::Replica {
        chunk: *chunk,
        promised: r.promised,
        synced: r.synced,
        length: r.length,
        kind: pb::ReplicaKind::ReplicaIntact as i32,
        restarted: false,
    };
    let inventory = pb::Inventory {
        replicas: replicas.lock().unwrap().iter().map(replica).collect(),
        last: true,
    };
    up.send(message(pb::up::Body::Inventory(inventory)))
        .await
        .unwrap();
    let mut heartbeat = tokio::time::interval(Duration::from_millis(50));
    let mut sequence = 0;
    loop {
        let sent = tokio::select! {
            _ = heartbeat.tick() => {
                sequence += 1;
                let disks = register(1).disks;
                message(pb::up::Body::Heartbeat(pb::Heartbeat { sequence, disks, ..pb::Heartbeat::default() }))
            }
            received = down.message() => match received {
                Ok(Some(pb::Down { body: Some(body) })) => match told(body, &replicas) {
                    Some(done) => message(pb::up::Body::OrderDone(done)),
                    None => continue,
                },
                _ => return,
            },
        };
        if up.send(sent).await.is_err() {
            return;
        }
    }
}

/// Does what it is told, without bytes.
fn told(body: pb::down::Body, replicas: &Replicas) -> Option<pb::OrderDone> {
    let pb::down::Body::Order(order) = body else {
        return None;
    };
    let mut replicas = replicas.lock().unwrap();
    let (chunk, result) = match order.body? {
        pb::order::Body::Adopt(a) => {
            let absent = !replicas.contains_key(&a.chunk);
            let r = replicas.entry(a.chunk).or_default();
            r.promised = r.promised.max(a.version);
            let adopted = pb::Adopted {
                promised: r.promised,
                synced: r.synced,
                absent,
                kind: pb::ReplicaKind::ReplicaIntact as i32,
                length: r.length,
                fsynced_length: r.length,
                ..pb::Adopted::default()
            };
            (a.chunk, pb::order_done::Result::Adopted(adopted))
        }
        pb::order::Body::Sync(s) => {
            let r = replicas.get_mut(&s.chunk).expect("adopted before");
            r.synced = s.version;
            r.length = s.truncate.unwrap_or(10).min(10);
            (
                s.chunk,
                pb::order_done::Result::Ready(pb::Ready {
                    length: r.length,
                    digest: r.length,
                    loss: 0,
                }),
            )
        }
        pb::order::Body::Copy(c) => (c.chunk, pb::order_done::Result::Copied(pb::Copied::default())),
        pb::order::Body::Delete(d) => {
            replicas.remove(&d.chunk);
            (d.chunk, pb::order_done::Result::Deleted(pb::Deleted {}))
        }
        pb::order::Body::Activated(_) => return None,
    };
    Some(pb::OrderDone {
        id: order.id,
        chunk,
        error: None,
        result: Some(result),
    })
}

struct Cluster {
    master: Master,
    fakes: Vec<Fake>,
    names: NamespaceClient<Channel>,
    client: u64,
    sequence: u64,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start(servers: u8) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            listen: "127.0.0.1:0".into(),
            advertise: None,
            data_dir: folder.path().to_owned(),
            parameters: Parameters {
                time_divisor: 10,
                ..Parameters::default()
            },
            view: View::Memory,
            checkpoint_every: 10_000,
            repair_after: None,
        };
        let master = Master::start(config, World::real("test", 2)).await.unwrap();
        let mut fakes = Vec::new();
        for number in 1..=servers {
            fakes.push(
                Fake::start(master.addr(), number, Replicas::default())
                    .await
                    .unwrap(),
            );
        }
        let mut names = NamespaceClient::new(net::channel(Arc::new(Tcp), master.addr(), Some(BOUND)));
        let open = pb::OpenSessionRequest {
            nonce: 7,
            ..pb::OpenSessionRequest::default()
        };
        let client = names.open_session(open).await.unwrap().into_inner().client;
        Cluster {
            master,
            fakes,
            names,
            client,
            sequence: 0,
            _folder: folder,
        }
    }

    fn request(&self, sequence: u64, change: mutate_request::Change) -> pb::MutateRequest {
        pb::MutateRequest {
            id: Some(pb::RequestId {
                client: self.client,
                sequence,
                lowest_unanswered: sequence,
            }),
            caller: Some(pb::Caller::default()),
            change: Some(change),
        }
    }

    async fn mutate(&mut self, change: mutate_request::Change) -> Result<mutate_reply::Result, Error> {
        self.sequence += 1;
        let request = self.request(self.sequence, change);
        let reply = self.names.mutate(request).await?.into_inner();
        Ok(reply.result.expect("a result"))
    }

    async fn query(&mut self, query: query_request::Query) -> Result<query_reply::Result, Error> {
        let request = pb::QueryRequest {
            client: self.client,
            caller: Some(pb::Caller::default()),
            query: Some(query),
        };
        let reply = self.names.query(request).await?.into_inner();
        Ok(reply.result.expect("a result"))
    }

    /// A file with a chunk on three servers and ten committed bytes, and its grant.
    async fn written(&mut self) -> (u64, Capability) {
        let make = pb::Make {
            parent: ROOT,
            name: "file".into(),
            kind: pb::Kind::File as i32,
            mode: 0o644,
            grant: true,
            ..pb::Make::default()
        };
        let mutate_reply::Result::Made(made) = self.mutate(mutate_request::Change::Make(make)).await.unwrap()
        else {
            panic!("not made")
        };
        let inode = made.attributes.unwrap().inode;
        let granted = made.granted.expect("a grant");
        let capability = peek(&granted.capability.unwrap()).unwrap();
        for fake in &self.fakes {
            let replica = Replica {
                promised: 1,
                synced: 1,
                length: 10,
            };
            fake.replicas.lock().unwrap().insert(capability.chunk.0, replica);
        }
        let commit = pb::CommitLength {
            inode,
            chunk: capability.chunk.0,
            version: 1,
            length: 10,
            close: true,
            ..pb::CommitLength::default()
        };
        let committed = self
            .mutate(mutate_request::Change::CommitLength(commit))
            .await
            .unwrap();
        let mutate_reply::Result::Committed(committed) = committed else {
            panic!("{committed:?}")
        };
        assert_eq!(committed.size, 10);
        (inode, capability)
    }

    async fn located(&mut self, inode: u64) -> Capability {
        let locate = pb::Locate {
            inode,
            offset: 0,
            length: 10,
            by_handle: false,
            wait_ms: 0,
        };
        let query_reply::Result::Located(located) =
            self.query(query_request::Query::Locate(locate)).await.unwrap()
        else {
            panic!("not located")
        };
        assert_eq!(located.extents.len(), 1);
        peek(located.extents[0].capability.as_ref().unwrap()).unwrap()
    }

    async fn reconfigure(
        &mut self,
        inode: u64,
        known: &Capability,
        suspect: u32,
    ) -> Result<Capability, Error> {
        let ask = pb::Reconfigure {
            inode,
            chunk: known.chunk.0,
            base: known.version.0,
            suspects: vec![suspect],
            reason: "test".into(),
            empty: false,
            by_handle: false,
        };
        let mutate_reply::Result::Granted(granted) =
            self.mutate(mutate_request::Change::Reconfigure(ask)).await?
        else {
            panic!("not granted")
        };
        peek(&granted.capability.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_made_written_and_found() {
    let mut cluster = Cluster::start(3).await;
    let (inode, grant) = cluster.written().await;
    assert_eq!(grant.members.len(), 3);
    let located = cluster.located(inode).await;
    assert_eq!((located.chunk, located.length), (grant.chunk, 10));
    let lookup = pb::Lookup {
        parent: ROOT,
        name: "file".into(),
    };
    let query_reply::Result::Attributes(found) =
        cluster.query(query_request::Query::Lookup(lookup)).await.unwrap()
    else {
        panic!("not found")
    };
    assert_eq!((found.inode, found.size), (inode, 10));
    cluster.master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_gets_its_first_answer() {
    let mut cluster = Cluster::start(0).await;
    let make = |name: &'static str| {
        mutate_request::Change::Make(pb::Make {
            parent: ROOT,
            name: name.into(),
            kind: pb::Kind::Directory as i32,
            mode: 0o755,
            exclusive: true,
            ..pb::Make::default()
        })
    };
    let first = cluster
        .names
        .mutate(cluster.request(1, make("d")))
        .await
        .unwrap()
        .into_inner();
    let again = cluster
        .names
        .mutate(cluster.request(1, make("d")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, again);
    let other = Error::from(
        cluster
            .names
            .mutate(cluster.request(2, make("d")))
            .await
            .unwrap_err(),
    );
    assert_eq!(other.code, Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_left_out_within_a_second_and_joins_again_when_it_returns() {
    let mut cluster = Cluster::start(3).await;
    let (inode, grant) = cluster.written().await;
    let replicas = cluster.fakes.pop().unwrap().kill();
    let begun = tokio::time::Instant::now();
    let next = cluster.reconfigure(inode, &grant, 3).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!((next.version.0, next.length), (2, 10));
    assert_eq!(next.members.iter().map(|m| m.node.0).collect::<Vec<_>>(), {
        let mut left: Vec<u32> = grant.members.iter().map(|m| m.node.0).collect();
        left.retain(|n| *n != 3);
        left
    });
    let newest = cluster.reconfigure(inode, &grant, 3).await.unwrap();
    assert_eq!(
        newest.version, next.version,
        "an old base is answered with the newest"
    );

    let close = pb::CommitLength {
        inode,
        close: true,
        ..pb::CommitLength::default()
    };
    cluster
        .mutate(mutate_request::Change::CommitLength(close))
        .await
        .unwrap();
    let back = Fake::start(cluster.master.addr(), 3, replicas).await.unwrap();
    let until = tokio::time::Instant::now() + BOUND;
    while cluster.located(inode).await.members.len() < 3 {
        assert!(tokio::time::Instant::now() < until, "it never joined again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(back);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_chunk_whose_head_died_is_replaced_by_a_new_one() {
    let mut cluster = Cluster::start(4).await;
    let make = pb::Make {
        parent: ROOT,
        name: "file".into(),
        kind: pb::Kind::File as i32,
        mode: 0o644,
        grant: true,
        ..pb::Make::default()
    };
    let mutate_reply::Result::Made(made) = cluster.mutate(mutate_request::Change::Make(make)).await.unwrap()
    else {
        panic!("not made")
    };
    let inode = made.attributes.unwrap().inode;
    let grant = peek(&made.granted.unwrap().capability.unwrap()).unwrap();
    let head = grant.members[0].node.0;
    cluster.fakes.remove(usize::try_from(head).unwrap() - 1).kill();
    let ask = pb::Reconfigure {
        inode,
        chunk: grant.chunk.0,
        base: 1,
        suspects: vec![head],
        empty: true,
        ..pb::Reconfigure::default()
    };
    cluster.sequence += 1;
    let request = cluster.request(cluster.sequence, mutate_request::Change::Reconfigure(ask));
    let mut answers = Vec::new();
    for _ in 0..2 {
        let reply = cluster.names.mutate(request.clone()).await.unwrap().into_inner();
        let Some(mutate_reply::Result::Granted(granted)) = reply.result else {
            panic!("not granted")
        };
        answers.push(peek(&granted.capability.unwrap()).unwrap());
    }
    assert_ne!(answers[0].chunk, grant.chunk);
    assert_eq!(answers[0].chunk, answers[1].chunk, "a retry gets the same one");
    assert!(answers[0].members.iter().all(|m| m.node.0 != head));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncation_is_answered_when_every_member_has_cut() {
    let mut cluster = Cluster::start(3).await;
    let (inode, grant) = cluster.written().await;
    let cut = pb::SetAttributes {
        inode,
        size: Some(4),
        ..pb::SetAttributes::default()
    };
    let mutate_reply::Result::Attributes(cut) = cluster
        .mutate(mutate_request::Change::SetAttributes(cut))
        .await
        .unwrap()
    else {
        panic!("no attributes")
    };
    assert_eq!(cut.size, 4);
    let located = cluster.located(inode).await;
    assert_eq!(located.length, 4);
    assert!(located.version > grant.version);
    for fake in &cluster.fakes {
        assert_eq!(fake.replicas.lock().unwrap()[&grant.chunk.0].length, 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_strangers_and_empty_disks_are_refused() {
    let cluster = Cluster::start(1).await;
    let addr = cluster.master.addr().to_owned();
    let refused = |asked: pb::Register| {
        let addr = addr.clone();
        async move {
            let (_up, mut down) = session(&addr, asked).await;
            match down.message().await.unwrap().unwrap().body {
                Some(pb::down::Body::Registered(r)) => r.refused.map(|e| Error::from(e).code),
                other => panic!("{other:?}"),
            }
        }
    };
    let clone = pb::Register {
        incarnation: 2,
        ..register(1)
    };
    assert_eq!(refused(clone).await, Some(Code::Busy));
    let stranger = pb::Register {
        cluster: vec![9; 16].into(),
        ..register(2)
    };
    assert_eq!(refused(stranger).await, Some(Code::PermissionDenied));
    let empty = pb::Register {
        addr: register(1).addr,
        ..register(2)
    };
    assert_eq!(refused(empty.clone()).await, Some(Code::PermissionDenied));
    let replacing = pb::Register {
        replace: true,
        ..empty
    };
    assert_eq!(refused(replacing).await, None);
}
