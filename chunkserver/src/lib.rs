//! A chunkserver: a careful disk with a chain on top.
//!
//! Order of reading: [`rpc`] (streams in, streams out), [`chain`] (one chunk's life), [`store`] (files), and beside
//! them the session with the master: `session.rs` (reports up, orders down), `orders.rs`, `sync.rs`, `copy.rs` (orders
//! carried out), `work.rs` (what is done without being asked). It asks nobody where bytes belong: a signed capability
//! says so.

mod budget;
mod chain;
mod copy;
pub mod fence;
mod ground;
mod metrics;
mod orders;
mod peers;
mod removals;
mod report;
mod rpc;
mod server;
mod session;
pub mod store;
mod sync;
mod work;

use budget::{BUSY_BYTES_A_SECOND, Budget};
use dfs_proto::net::is_address;
use dfs_proto::world::World;
use dfs_proto::{Code, Error, NodeId, Result};
use dfs_stdx::disk::MeteredDisk;
use fence::Fence;
use ground::Ground;
use metrics::Meters;
pub use metrics::Metrics;
use orders::Orders;
use server::Server;
use session::Sessions;
use std::path::PathBuf;
use std::sync::Arc;
use store::{Options, Store};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Troubles that may wait for a session; what comes on top is logged only.
const TROUBLES_QUEUED_MAX: usize = 1_024;
/// A tmpfs that lives as long as the page cache does: what a failed fsync left behind is noted there.
const NOTES: &str = "/dev/shm/dfs-chunkserver";

/// How a chunkserver is started.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// host:port of the data transport; port 0 takes a free one.
    pub listen: String,
    /// host:port where the others reach it; what it listens on if not said.
    pub advertise: Option<String>,
    /// host:port of each master.
    pub masters: Vec<String>,
    /// One a disk.
    pub data_dirs: Vec<PathBuf>,
    /// Failure domain and locality label.
    pub host: String,
    /// The wider failure domain.
    pub rack: String,
    /// Free bytes of a disk below which it takes no new replica.
    pub reserve_bytes: u64,
    /// An empty data directory beside used ones is a new disk.
    pub accept_new_disk: bool,
    /// Bytes a second that copies in the background may move while clients ask for something; a default if not said.
    pub repair_bytes_a_second: Option<u64>,
}

impl Config {
    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(Code::InvalidArgument, what));
        if self.masters.is_empty() {
            return wrong("a chunkserver needs the address of a master".into());
        }
        let mut addresses = self.masters.iter().chain(&self.advertise).chain([&self.listen]);
        match addresses.find(|a| !is_address(a)) {
            Some(address) => wrong(format!("{address} is no host:port")),
            None => Ok(()),
        }
    }
}

/// A running chunkserver. Dropped without [`Chunkserver::stop`], it ends as a killed process does.
#[derive(Debug)]
pub struct Chunkserver {
    server: Arc<Server>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Chunkserver {
    /// Takes the data directories, listens, and looks for the master for as long as it lives.
    ///
    /// # Errors
    /// `InvalidArgument` if the configuration or a data directory makes no sense (in use, foreign, a copy, unexpectedly
    /// empty); the disk's and the network's.
    pub async fn start(config: Config, world: World) -> Result<Chunkserver> {
        config.check()?;
        let meters = Arc::new(Meters::default());
        let world = metered(world, &meters);
        let options = Options {
            dirs: config.data_dirs.clone(),
            notes: Some(PathBuf::from(NOTES)),
            reserve_bytes: config.reserve_bytes,
            accept_new_disk: config.accept_new_disk,
        };
        let (disk, rng) = (world.disk.clone(), world.rng.clone());
        let store = world.pool.run(move || Store::open(disk, &options, &rng)).await?;
        let listener = world.listen.listen(&config.listen).await.map_err(|e| {
            Error::new(
                Code::Unavailable,
                format!("cannot listen on {}: {e}", config.listen),
            )
        })?;
        let addr = config.advertise.clone().unwrap_or_else(|| listener.local_addr());
        let fence = Fence::new();
        fence.set_node(store.identity().node);
        let (troubles, noticed) = mpsc::channel(TROUBLES_QUEUED_MAX);
        let budget = Budget::new(
            world.clock.clone(),
            config.repair_bytes_a_second.unwrap_or(BUSY_BYTES_A_SECOND),
        );
        let ground = Ground {
            budget: Arc::new(budget),
            world,
            store: Arc::new(store),
            chains: Arc::default(),
            fence,
            troubles,
            meters,
        };
        let masters = config.masters.clone();
        let server = Server::new(ground, config, addr);
        server.look_at_disks().await;
        tracing::info!(
            addr = server.addr(),
            replicas = server.ground.store.count(),
            "the chunkserver listens"
        );
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(rpc::serve(server.ground.clone(), listener, stop.clone()));
        let orders = Orders::new(server.clone());
        tasks.spawn(Sessions::new(server.clone(), orders, masters, noticed).run(stop.clone()));
        tasks.spawn(work::run(server.clone(), stop.clone()));
        Ok(Chunkserver { server, tasks, stop })
    }

    /// host:port, as the others reach it.
    #[must_use]
    pub fn addr(&self) -> &str {
        self.server.addr()
    }

    /// Its number; 0 until it has registered for the first time.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.server.node()
    }

    /// What it has done and how it is.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics(self.server.clone())
    }

    /// Ends the session and all streams, then puts what is open on stable storage, so that the next start finds
    /// every replica as it should be.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.server.ground.chains.stop().await;
        while self.tasks.join_next().await.is_some() {}
        self.server.close_all().await;
    }
}

/// The same world, its disk counted.
fn metered(world: World, meters: &Meters) -> World {
    let disk = MeteredDisk::new(world.disk, meters.disk.clone(), world.clock.clone());
    World {
        disk: Arc::new(disk),
        ..world
    }
}
