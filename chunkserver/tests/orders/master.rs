//! A scripted master: takes sessions, compares as it is told, sends the orders a test wants and hands back their answers.

use dfs_proto::capability::{Capability, Key, Member, Operations};
use dfs_proto::net::{Listen as _, Tcp, serve, server};
use dfs_proto::pb::sessions_server::{Sessions, SessionsServer};
use dfs_proto::pb::{self, down, order, order_done, up};
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Version};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) const CLUSTER: [u8; 16] = [7; 16];
const FAR_FUTURE_MS: u64 = 1 << 45;

#[derive(Clone)]
pub(crate) struct Master {
    pub(crate) addr: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    servers: BTreeMap<u32, Known>,
    /// By the identity a server registers with.
    nodes: BTreeMap<Vec<u8>, u32>,
    answers: BTreeMap<u64, oneshot::Sender<pb::OrderDone>>,
    next_order: u64,
    troubles: Vec<(u32, pb::Trouble)>,
    /// What the comparison of a chunk says; nothing to promise without an entry.
    promises: BTreeMap<(u32, u64), u32>,
    silent: bool,
    /// Whom to ask instead.
    leader: Option<String>,
    /// Another one than [`CLUSTER`].
    cluster: Option<[u8; 16]>,
    registrations: usize,
}

#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) register: pb::Register,
    pub(crate) inventory: Vec<pb::Replica>,
    pub(crate) compared: bool,
    pub(crate) heartbeats: Vec<pb::Heartbeat>,
    down: Option<mpsc::Sender<Result<pb::Down, Status>>>,
}

pub(crate) fn key() -> Key {
    Key {
        id: 1,
        secret: [9; 32],
    }
}

impl Master {
    pub(crate) async fn start() -> Master {
        let listener = Tcp.listen("127.0.0.1:0").await.unwrap();
        let master = Master {
            addr: listener.local_addr(),
            state: Arc::default(),
        };
        let routes = server().add_service(SessionsServer::new(master.clone()));
        tokio::spawn(async move { serve(routes, listener, std::future::pending()).await });
        master
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The server's session, once its inventory was compared and a heartbeat answered after that.
    pub(crate) async fn session(&self, node: u32) -> Known {
        let ready = |k: &&Known| k.compared && k.down.is_some() && k.heartbeats.len() > 1;
        until(&format!("a session of node {node}"), || {
            self.state().servers.get(&node).filter(ready).cloned()
        })
        .await
    }

    /// The next server that registers has this number.
    pub(crate) async fn registered(&self, count: usize) {
        until("a registration", || {
            (self.state().servers.len() >= count).then_some(())
        })
        .await;
    }

    pub(crate) fn member(&self, node: u32) -> Member {
        let state = self.state();
        Member {
            node: NodeId(node),
            addr: state.servers[&node].register.addr.clone(),
            ..Member::default()
        }
    }

    pub(crate) fn members(&self, nodes: &[u32]) -> Vec<Member> {
        nodes.iter().map(|n| self.member(*n)).collect()
    }

    /// To read and write an active version.
    pub(crate) fn capability(&self, chunk: u64, version: u32, nodes: &[u32], length: u64) -> pb::Signed {
        self.signed(
            chunk,
            version,
            nodes,
            (Operations::READ | Operations::WRITE, length),
        )
    }

    /// To pull a version that may only be proposed.
    pub(crate) fn pass(&self, chunk: u64, version: u32, nodes: &[u32]) -> pb::Signed {
        self.signed(chunk, version, nodes, (Operations::PULL, 0))
    }

    fn signed(
        &self,
        chunk: u64,
        version: u32,
        nodes: &[u32],
        (operations, length): (Operations, u64),
    ) -> pb::Signed {
        key().sign(&Capability {
            chunk: ChunkHandle(chunk),
            version: Version(version),
            operations,
            expires_unix_ms: FAR_FUTURE_MS,
            members: self.members(nodes),
            length,
            goal: 3,
            ..Capability::default()
        })
    }

    /// Sends an order and waits for its answer.
    pub(crate) async fn order(&self, node: u32, body: order::Body) -> Result<order_done::Result, Error> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut state = self.state();
            state.next_order += 1;
            let id = state.next_order;
            state.answers.insert(id, answer);
            id
        };
        self.send(node, pb::Order { id, body: Some(body) }).await;
        let done = tokio::time::timeout(Duration::from_secs(20), answered)
            .await
            .expect("every order is answered")
            .unwrap();
        match (done.error, done.result) {
            (Some(error), _) => Err(error.into()),
            (None, Some(result)) => Ok(result),
            (None, None) => panic!("an answer without a result"),
        }
    }

    /// Sends an order that has no answer.
    pub(crate) async fn tell(&self, node: u32, body: order::Body) {
        self.send(
            node,
            pb::Order {
                id: 0,
                body: Some(body),
            },
        )
        .await;
    }

    async fn send(&self, node: u32, order: pb::Order) {
        let down = self.state().servers[&node].down.clone().expect("a session");
        let body = Some(down::Body::Order(order));
        down.send(Ok(pb::Down { body })).await.expect("a session");
    }

    pub(crate) async fn adopt(&self, node: u32, chunk: u64, version: u32, members: &[u32]) -> pb::Adopted {
        let adopt = pb::Adopt {
            chunk,
            version,
            members: self.members(members).into_iter().map(Into::into).collect(),
            truncate: None,
            active: 0,
        };
        match self.order(node, order::Body::Adopt(adopt)).await.unwrap() {
            order_done::Result::Adopted(adopted) => adopted,
            other => panic!("{other:?}"),
        }
    }

    /// Orders a sync to the proposed configuration; the pull capability is signed for it.
    pub(crate) async fn sync(&self, node: u32, plan: &Plan<'_>) -> Result<pb::Ready, Error> {
        let sync = pb::Sync {
            chunk: plan.chunk,
            version: plan.version,
            source_node: plan.source,
            others: self.members(plan.others).into_iter().map(Into::into).collect(),
            pull: Some(self.pass(plan.chunk, plan.version, plan.members)),
            source_lost: plan.source_lost,
            truncate: plan.truncate,
        };
        match self.order(node, order::Body::Sync(sync)).await? {
            order_done::Result::Ready(ready) => Ok(ready),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn activated(&self, chunk: u64, version: u32, nodes: &[u32]) {
        for node in nodes {
            self.tell(*node, order::Body::Activated(pb::Activated { chunk, version }))
                .await;
        }
    }

    /// What the next comparisons ask `node` to promise.
    pub(crate) fn ask_promise(&self, node: u32, chunk: u64, version: u32) {
        self.state().promises.insert((node, chunk), version);
    }

    /// Stops or resumes answering heartbeats and taking new sessions.
    pub(crate) fn silence(&self, silent: bool) {
        self.state().silent = silent;
    }

    /// It is not the leader.
    pub(crate) fn name_leader(&self, addr: &str) {
        self.state().leader = Some(addr.to_owned());
    }

    /// It belongs to this cluster.
    pub(crate) fn found_cluster(&self, cluster: [u8; 16]) {
        self.state().cluster = Some(cluster);
    }

    pub(crate) fn registrations(&self) -> usize {
        self.state().registrations
    }

    pub(crate) fn heartbeats(&self) -> usize {
        self.state().servers.values().map(|k| k.heartbeats.len()).sum()
    }

    /// Ends every session.
    pub(crate) fn hang_up(&self) {
        for known in self.state().servers.values_mut() {
            known.down = None;
            known.compared = false;
            known.heartbeats.clear();
        }
    }

    pub(crate) fn troubles(&self) -> Vec<(u32, pb::Trouble)> {
        self.state().troubles.clone()
    }

    fn register(&self, register: pb::Register, down: mpsc::Sender<Result<pb::Down, Status>>) -> u32 {
        let mut state = self.state();
        state.registrations += 1;
        let next = state.nodes.len() as u32 + 1;
        let node = *state.nodes.entry(register.identity.to_vec()).or_insert(next);
        assert!(
            register.node == 0 || register.node == node,
            "a server keeps its number"
        );
        let known = Known {
            register,
            inventory: Vec::new(),
            compared: false,
            heartbeats: Vec::new(),
            down: Some(down),
        };
        state.servers.insert(node, known);
        node
    }

    /// What the master answers to a report, if anything.
    fn hear(&self, node: u32, report: up::Body) -> Option<down::Body> {
        let mut state = self.state();
        match report {
            up::Body::Heartbeat(heartbeat) => {
                let sequence = heartbeat.sequence;
                let silent = state.silent;
                state.servers.get_mut(&node)?.heartbeats.push(heartbeat);
                (!silent).then_some(down::Body::Heartbeat(pb::HeartbeatAnswered { sequence }))
            }
            up::Body::Inventory(page) => {
                let promises = state.promises.clone();
                let known = state.servers.get_mut(&node)?;
                known.inventory.extend(page.replicas.clone());
                known.compared |= page.last;
                let comparison = |r: &pb::Replica| pb::Comparison {
                    chunk: r.chunk,
                    active: 0,
                    promise: promises.get(&(node, r.chunk)).copied().unwrap_or_default(),
                };
                Some(down::Body::Compared(pb::Compared {
                    chunks: page.replicas.iter().map(comparison).collect(),
                    last: page.last,
                }))
            }
            up::Body::OrderDone(done) => {
                let answer = state
                    .answers
                    .remove(&done.id)
                    .expect("answered once, in its session");
                let _ = answer.send(done);
                None
            }
            up::Body::Trouble(trouble) => {
                state.troubles.push((node, trouble));
                None
            }
            up::Body::Register(_) => panic!("registered twice"),
        }
    }
}

/// A version to make.
pub(crate) struct Plan<'a> {
    pub(crate) chunk: u64,
    pub(crate) version: u32,
    pub(crate) members: &'a [u32],
    pub(crate) source: u32,
    pub(crate) others: &'a [u32],
    pub(crate) source_lost: bool,
    pub(crate) truncate: Option<u64>,
}

#[tonic::async_trait]
impl Sessions for Master {
    type SessionStream = Pin<Box<dyn futures::Stream<Item = Result<pb::Down, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::Up>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if self.state().silent {
            return Err(Status::unavailable("silent"));
        }
        if let Some(leader) = self.state().leader.clone() {
            let error = Error {
                leader: Some(leader),
                ..Error::from(Code::NotLeader)
            };
            return Err(error.into());
        }
        let mut reports = request.into_inner();
        let (down, stream) = mpsc::channel(64);
        let master = self.clone();
        tokio::spawn(async move {
            let Ok(Some(pb::Up {
                body: Some(up::Body::Register(register)),
            })) = reports.message().await
            else {
                panic!("the first report registers");
            };
            let node = master.register(register, down.clone());
            let cluster = master.state().cluster.unwrap_or(CLUSTER);
            let registered = down::Body::Registered(pb::Registered {
                node,
                parameters: Some(pb::Parameters {
                    cluster: cluster.to_vec().into(),
                    chunk_bytes: 4 << 20,
                    goal: 3,
                    time_divisor: 10,
                }),
                keys: Some(pb::Keys {
                    keys: vec![(&key()).into()],
                }),
                refused: None,
                next_chunk: 0,
            });
            let _ = down
                .send(Ok(pb::Down {
                    body: Some(registered),
                }))
                .await;
            let weak = down.downgrade();
            drop(down);
            while let Ok(Some(report)) = reports.message().await {
                let answer = master.hear(node, report.body.expect("a report"));
                let (Some(body), Some(down)) = (answer, weak.upgrade()) else {
                    continue;
                };
                let _ = down.send(Ok(pb::Down { body: Some(body) })).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Waits for a condition with a bound.
pub(crate) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2_000 {
        if let Some(value) = condition() {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited too long for {what}");
}
