//! What the door, the gate and the steward share: the way to the hard state, the soft facts, orders under way,
//! time, chance and the keys.

use crate::applier::Handle;
use crate::command::{Change, Command, Reply};
use crate::live::Live;
use crate::live::servers::Ordered;
use crate::metrics::Meters;
use crate::plan::Session;
use crate::plan::order::{Answer, Order};
use crate::state;
use crate::store::Read;
use crate::store::records::Chunk;
use dfs_proto::capability::{Capability, Key, Keys, Operations};
use dfs_proto::limits::{Parameters, Timings};
use dfs_proto::{ChunkHandle, ClientId, ClusterId, NodeId, Result, Version};
use dfs_stdx::clock::Instant;
use dfs_stdx::{Clock, Rng};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// An answer to an order, and whose.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The server.
    pub node: NodeId,
    /// The chunk.
    pub chunk: ChunkHandle,
    /// What it said.
    pub answer: Answer,
}

#[derive(Debug)]
struct Waiting {
    node: NodeId,
    chunk: ChunkHandle,
    reply: mpsc::Sender<Answered>,
}

#[derive(Debug, Default)]
struct Orders {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// Shared by everything that serves.
#[derive(Debug)]
pub struct Desk {
    /// The way to the hard state.
    pub ground: Handle,
    /// Soft facts.
    pub live: Live,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub rng: Rng,
    /// Who we are.
    pub cluster: ClusterId,
    /// What the cluster was born with.
    pub parameters: Parameters,
    /// Its durations.
    pub timings: Timings,
    /// When this master began to serve.
    pub started: Instant,
    /// What is counted.
    pub meters: Meters,
    keys: watch::Sender<Keyring>,
    orders: Mutex<Orders>,
}

/// The keys that count, and until when the older one still signs.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Newest first.
    pub keys: Keys,
    /// Wall clock, nanoseconds: when the newest came.
    pub rotated_ns: i64,
}

impl Desk {
    /// At the master's start, with what its hard state says.
    #[must_use]
    pub fn new(ground: Handle, cluster: (ClusterId, Parameters), clock: Clock, rng: Rng) -> Desk {
        let (cluster, parameters) = cluster;
        let timings = parameters.timings();
        let started = clock.now();
        let live = Live::new(timings, started);
        ground.watched_by(&live.watch);
        Desk {
            ground,
            live,
            clock,
            rng,
            cluster,
            parameters,
            timings,
            started,
            meters: Meters::default(),
            keys: watch::Sender::new(Keyring::default()),
            orders: Mutex::default(),
        }
    }

    /// Now, monotonic.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Now, nanoseconds since 1970.
    #[must_use]
    pub fn wall_ns(&self) -> i64 {
        i64::try_from(self.clock.wall_ns()).unwrap_or(i64::MAX)
    }

    /// Logs a command and returns what came of it, when other mounts have heard of it.
    ///
    /// # Errors
    /// The state's refusal, or the log's failure.
    pub async fn log(&self, command: Command) -> Result<Reply> {
        self.log_then(command, || {}).await
    }

    /// As [`Desk::log`]; `applied` is called when the command has taken effect, before anyone else is waited for.
    ///
    /// # Errors
    /// The state's refusal, or the log's failure.
    pub async fn log_then(&self, command: Command, applied: impl FnOnce()) -> Result<Reply> {
        let (index, outcome) = self.ground.propose(&command).await?;
        applied();
        if command.request.is_some() {
            self.live.watch.settle(index, &self.clock).await;
        }
        outcome
    }

    /// Logs a change of the master's own and returns what came of it.
    ///
    /// # Errors
    /// The state's refusal, or the log's failure.
    pub async fn propose(&self, change: impl Into<Change>) -> Result<Reply> {
        self.log(Command::internal(self.wall_ns(), change)).await
    }

    /// Asks the hard state.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read<T, F>(&self, ask: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Read) -> T + Send + 'static,
    {
        self.ground.read(|view| ask(view))
    }

    /// Asks the hard state, and says as of which command.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read_indexed<T, F>(&self, ask: F) -> Result<(u64, T)>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Read) -> T + Send + 'static,
    {
        self.ground.read(|view| (view.applied(), ask(view)))
    }

    /// A chunk's record.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn chunk(&self, chunk: ChunkHandle) -> Result<Option<Chunk>> {
        self.read(move |read| state::chunk(read, chunk)).await
    }

    /// How a server's session stands.
    #[must_use]
    pub fn session(&self, node: NodeId) -> Session {
        self.live.session(node, self.now())
    }

    /// Takes the keys of the hard state.
    pub fn set_keys(&self, keyring: Keyring) {
        self.keys.send_replace(keyring);
    }

    /// Changes when keys are rotated.
    #[must_use]
    pub fn keys(&self) -> watch::Receiver<Keyring> {
        self.keys.subscribe()
    }

    /// The key to sign with: the newest one that every live chunkserver has.
    ///
    /// # Panics
    /// Before the first key: it is made before anything is served.
    #[must_use]
    pub fn signing_key(&self) -> Key {
        let ring = self.keys.borrow();
        let spread_ns = i64::try_from(self.timings.session_master.as_nanos()).unwrap_or(i64::MAX);
        let spread = self.wall_ns() >= ring.rotated_ns.saturating_add(spread_ns);
        let older = if spread { None } else { ring.keys.0.get(1) };
        older
            .or(ring.keys.0.first())
            .expect("a key is made before anything is served")
            .clone()
    }

    /// What a holder may do with a chunk at its active version, unsigned.
    #[must_use]
    pub fn capability(
        &self,
        chunk: ChunkHandle,
        record: &Chunk,
        to: Operations,
        client: ClientId,
    ) -> Capability {
        Capability {
            chunk,
            version: Version(record.active.version),
            operations: to,
            expires_unix_ms: self.expiry_unix_ms(self.timings.read_token),
            client,
            members: self.live.lock().servers.places(record.members()),
            loss: Version(record.active.loss),
            length: record.active.length,
            goal: record.goal,
        }
    }

    /// The right to pull a version, proposed or active, for its members.
    #[must_use]
    pub fn pull(&self, chunk: ChunkHandle, version: Version, members: &[NodeId]) -> Capability {
        Capability {
            chunk,
            version,
            operations: Operations::PULL,
            expires_unix_ms: self.expiry_unix_ms(self.timings.read_token),
            members: self.live.lock().servers.places(members.iter().copied()),
            ..Capability::default()
        }
    }

    fn expiry_unix_ms(&self, life: Duration) -> u64 {
        self.clock.wall_ns() / 1_000_000 + u64::try_from(life.as_millis()).unwrap_or(u64::MAX >> 1)
    }

    /// Sends an order whose answer is awaited at `reply`. False: the server is not connected, and nothing will come.
    ///
    /// # Panics
    /// If a holder of the table panicked.
    pub fn order(
        &self,
        node: NodeId,
        chunk: ChunkHandle,
        order: Order,
        reply: &mpsc::Sender<Answered>,
    ) -> bool {
        let id = {
            let mut orders = self.orders.lock().expect("no panic while orders are held");
            orders.next += 1;
            let id = orders.next;
            orders.waiting.insert(
                id,
                Waiting {
                    node,
                    chunk,
                    reply: reply.clone(),
                },
            );
            id
        };
        let sent = self.live.lock().servers.send(node, Ordered { id, chunk, order });
        if !sent {
            self.orders
                .lock()
                .expect("no panic while orders are held")
                .waiting
                .remove(&id);
        }
        sent
    }

    /// Orders whose answers are awaited.
    ///
    /// # Panics
    /// If a holder of the table panicked.
    #[must_use]
    pub fn orders_waiting(&self) -> usize {
        let orders = self.orders.lock().expect("no panic while orders are held");
        orders.waiting.len()
    }

    /// Sends an order that is not answered.
    pub fn tell(&self, node: NodeId, chunk: ChunkHandle, order: Order) {
        self.live
            .lock()
            .servers
            .send(node, Ordered { id: 0, chunk, order });
    }

    /// An answer came in; one nobody waits for any more is dropped.
    ///
    /// # Panics
    /// If a holder of the table panicked.
    pub fn answered(&self, node: NodeId, id: u64, answer: Answer) {
        let waiting = {
            let mut orders = self.orders.lock().expect("no panic while orders are held");
            match orders.waiting.get(&id) {
                Some(w) if w.node == node => orders.waiting.remove(&id),
                Some(_) | None => None,
            }
        };
        if let Some(w) = waiting {
            // A full queue means its reader gave up: the deadline takes care of it.
            let _ = w.reply.try_send(Answered {
                node,
                chunk: w.chunk,
                answer,
            });
        }
    }

    /// A server's session is over: its orders will not be answered.
    ///
    /// # Panics
    /// If a holder of the table panicked.
    pub fn forget_orders(&self, node: NodeId) {
        self.orders
            .lock()
            .expect("no panic while orders are held")
            .waiting
            .retain(|_, w| w.node != node);
    }

    /// Orders whose waiters have gone are forgotten.
    ///
    /// # Panics
    /// If a holder of the table panicked.
    pub fn tidy_orders(&self) {
        self.orders
            .lock()
            .expect("no panic while orders are held")
            .waiting
            .retain(|_, w| !w.reply.is_closed());
    }
}
