//! The master: where everything is.
//!
//! A request comes in at the door ([`rpc`]), passes the [`gate`], becomes a [`command`], is ordered and made durable by the
//! [`log`], applied to the [`state`] over a [`store`], and answered. Chunkservers' reports are noted in [`live`]; [`plan`]
//! judges, the [`steward`] carries out. [`Master::start`] puts it together.

pub mod applier;
pub mod command;
pub mod desk;
pub mod gate;
pub mod live;
pub mod log;
mod metrics;
pub mod plan;
pub mod rpc;
pub mod state;
pub mod steward;
pub mod store;

use applier::{Applier, Handle, Options};
use command::{Change, Command, Genesis};
use desk::Desk;
use dfs_proto::limits::Parameters;
use dfs_proto::net::Listener;
use dfs_proto::{ClusterId, Code, Error, Result, World};
use gate::Gate;
use rpc::Door;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use steward::Steward;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Mode of a new cluster's root directory: everyone may make files in it, as in /tmp.
const ROOT_MODE: u32 = 0o1777;

pub use applier::ViewKind as View;
pub use metrics::Metrics;

/// How a master is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// host:port to listen on; port 0 takes a free one.
    pub listen: String,
    /// host:port that others are told, if it is not what it listens on.
    pub advertise: Option<String>,
    /// Where its log and state are.
    pub data_dir: PathBuf,
    /// What the cluster is born with; later the stored ones count.
    pub parameters: Parameters,
    /// Where the state is materialised.
    pub view: View,
    /// Commands between checkpoints.
    pub checkpoint_every: u64,
    /// A chunk under its goal waits so long for a dead server to come back; the cluster's default if not said.
    pub repair_after: Option<Duration>,
}

/// A running master.
#[derive(Debug)]
pub struct Master {
    addr: String,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
    rounds: JoinHandle<()>,
    applier: Applier,
    desk: Arc<Desk>,
    steward: Arc<Steward>,
}

impl Master {
    /// Replays its log and serves. A folder without a log becomes a new cluster.
    ///
    /// # Errors
    /// If its folder or its log cannot be used, or it cannot listen.
    pub async fn start(config: Config, world: World) -> Result<Master> {
        Master::begin(config, world, false).await
    }

    /// As [`Master::start`], but goes on with what can be read of a damaged log: what was acknowledged after the
    /// damage is lost.
    ///
    /// # Errors
    /// As [`Master::start`].
    pub async fn start_from_dump(config: Config, world: World) -> Result<Master> {
        Master::begin(config, world, true).await
    }

    async fn begin(config: Config, world: World, recover_from_dump: bool) -> Result<Master> {
        if !config.parameters.are_valid() {
            return Err(Error::new(
                Code::InvalidArgument,
                "no cluster can live with these parameters",
            ));
        }
        let listener = listen(&config, &world).await?;
        let addr = config.advertise.clone().unwrap_or_else(|| listener.local_addr());
        let options = Options {
            view: config.view,
            checkpoint_every: config.checkpoint_every,
            recover_from_dump,
            ..Options::new(&config.data_dir)
        };
        let applier = Applier::start(options, &world, ClusterId(world.rng.secret())).await?;
        let ground = applier.handle();
        let cluster = born(&ground, &config, &world).await?;
        let mut desk = Desk::new(ground, cluster, world.clock, world.rng);
        if let Some(grace) = config.repair_after {
            desk.timings.repair_after = grace;
        }
        let desk = Arc::new(desk);
        recall(&desk).await?;
        let steward = Steward::new(desk.clone());
        steward.rotate_keys().await?;
        let rounds = tokio::spawn(steward.clone().rounds());
        let (stop, stopping) = watch::channel(false);
        let gate = Arc::new(Gate::new(desk.clone(), steward.clone()));
        let door = Door {
            desk: desk.clone(),
            gate,
            steward: steward.clone(),
            addr: addr.clone(),
            stopping,
        };
        let served = tokio::spawn(async move {
            if let Err(error) = rpc::serve(door, listener).await {
                tracing::error!(%error, "the master does not serve any more");
            }
        });
        tracing::info!(addr, cluster = %desk.cluster, "the master serves");
        Ok(Master {
            addr,
            stop,
            served,
            rounds,
            applier,
            desk,
            steward,
        })
    }

    /// Where clients and chunkservers reach it.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The cluster it is the master of.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.desk.cluster
    }

    /// What it has done and how the cluster is.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::new(self.desk.clone(), self.steward.clone())
    }

    /// Stops: takes no more calls, ends sessions, and closes the log.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // Whoever holds a call open has had its chance.
        if tokio::time::timeout(self.desk.timings.session_master, &mut self.served)
            .await
            .is_err()
        {
            self.served.abort();
        }
        self.rounds.abort();
        self.applier.stop().await;
    }

    /// Waits until the master cannot go on (its log or store failed), and says why. The process should end.
    pub async fn failed(&self) -> String {
        self.desk.ground.failed().await
    }
}

async fn listen(config: &Config, world: &World) -> Result<Box<dyn Listener>> {
    world.listen.listen(&config.listen).await.map_err(|error| {
        Error::new(
            Code::Unavailable,
            format!("the master cannot listen on {}: {error}", config.listen),
        )
    })
}

/// Who this master is: from its state, or new.
async fn born(ground: &Handle, config: &Config, world: &World) -> Result<(ClusterId, Parameters)> {
    if let Some(known) = ground.read(|view| state::cluster(view))? {
        let id = ClusterId::from_slice(&known.id)
            .ok_or_else(|| Error::new(Code::Internal, "the stored cluster id does not have 16 bytes"))?;
        return Ok((id, known.parameters.into()));
    }
    let cluster = ground.cluster();
    let genesis = Genesis {
        cluster: cluster.0.to_vec(),
        parameters: Some(config.parameters.into()),
        uid: 0,
        gid: 0,
        mode: ROOT_MODE,
    };
    let now_ns = i64::try_from(world.clock.wall_ns()).unwrap_or(i64::MAX);
    ground
        .propose(&Command::internal(now_ns, Change::from(genesis)))
        .await?
        .1?;
    tracing::info!(%cluster, "a cluster is born");
    Ok((cluster, config.parameters))
}

/// Soft facts that begin from hard ones: servers, clients with fresh leases, keys.
async fn recall(desk: &Desk) -> Result<()> {
    let (servers, clients) = desk
        .read(|read| (state::servers(read), state::clients(read)))
        .await?;
    let now = desk.now();
    {
        let mut live = desk.live.lock();
        for (node, record) in &servers {
            live.servers.learn(*node, record);
        }
        for (client, record) in &clients {
            live.clients.learn(*client, &record.host, now);
            if record.mount {
                desk.live.watch.begin(*client);
            }
        }
    }
    steward::load_keys(desk).await
}
