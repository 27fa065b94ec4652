//! The world of one run: machines with disks, and what may happen to them.

use super::SimNet;
use dfs_chunkserver::Chunkserver;
use dfs_client::{Client, Settings};
use dfs_master::Master;
use dfs_proto::limits::Parameters;
use dfs_proto::world::World;
use dfs_stdx::blocking::Pool;
use dfs_stdx::disk::{MemDisk, Surviving};
use dfs_stdx::{Clock, Rng};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

const MASTER: &str = "master:7700";
const TICK: Duration = Duration::from_millis(1);

/// A machine with a disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The master.
    Master,
    /// Chunkserver number n, from 0.
    Chunkserver(usize),
}

impl Node {
    /// Its name on the simulated network.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            Node::Master => "master".into(),
            Node::Chunkserver(n) => format!("cs{n}"),
        }
    }
}

/// What happened, in order: it tells whether two runs were the same.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Vec<String>>>);

impl History {
    /// Notes one event with the virtual time.
    pub fn note(&self, event: impl AsRef<str>) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        if std::env::var_os("DFS_TRACE").is_some() {
            eprintln!("{:>9.3} {}", at.as_secs_f64(), event.as_ref());
        }
        self.0.lock().expect("no panic while noting").push(format!(
            "{:>9.3} {}",
            at.as_secs_f64(),
            event.as_ref()
        ));
    }

    /// All events.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        self.0.lock().expect("no panic while noting").clone()
    }
}

/// One world at a time: task ids are numbered process-wide, see [`align_task_ids`].
static ALONE: Mutex<()> = Mutex::new(());

/// A runtime that is dropped (a crash) ends its tasks in an order that depends on their ids modulo a small power of two.
/// Every world begins at a multiple of 64, so that a seed gives the same history alone and after other seeds.
fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers");
    runtime.block_on(async {
        while tokio::spawn(async {})
            .id()
            .to_string()
            .parse::<u64>()
            .map_or(0, |id| (id + 1) % 64)
            != 0
        {}
    });
}

/// A running simulation.
pub struct SimWorld {
    sim: turmoil::Sim<'static>,
    disks: BTreeMap<Node, MemDisk>,
    down: Vec<Node>,
    clients: Vec<String>,
    finished: Rc<RefCell<BTreeMap<String, bool>>>,
    rng: Rng,
    /// What happened.
    pub history: History,
    /// Last: what ends with the rest may start tasks, and these have ids as well.
    _alone: MutexGuard<'static, ()>,
}

impl SimWorld {
    /// One master and `chunkservers` chunkservers, started.
    #[must_use]
    pub fn new(seed: u64, chunkservers: usize, parameters: Parameters) -> SimWorld {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        align_task_ids();
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
            .simulation_duration(Duration::from_secs(3_600))
            .tick_duration(TICK)
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(Duration::from_millis(4))
            .tcp_capacity(65_536)
            .enable_random_order()
            .build();
        let rng = Rng::seeded(seed);
        let mut world = SimWorld {
            sim,
            disks: BTreeMap::new(),
            down: Vec::new(),
            clients: Vec::new(),
            finished: Rc::default(),
            rng,
            history: History::default(),
            _alone: alone,
        };
        world.add_master(parameters);
        for n in 0..chunkservers {
            world.add_chunkserver(n);
        }
        world
    }

    fn add_master(&mut self, parameters: Parameters) {
        let disk = self.disk(Node::Master);
        let rng = self.rng.fork();
        self.sim.host("master", move || {
            let (disk, rng) = (disk.process(), rng.fork());
            async move {
                let world = world(disk, rng);
                let config = dfs_master::Config {
                    listen: "0.0.0.0:7700".into(),
                    advertise: Some(MASTER.into()),
                    data_dir: "/master".into(),
                    parameters,
                    checkpoint_every: 500,
                    repair_after: None,
                    view: dfs_master::View::Memory,
                };
                let _master = Master::start(config, world).await?;
                std::future::pending::<()>().await;
                Ok(())
            }
        });
    }

    fn add_chunkserver(&mut self, n: usize) {
        let node = Node::Chunkserver(n);
        let disk = self.disk(node.clone());
        let rng = self.rng.fork();
        let host = node.host();
        self.sim.host(host.clone(), move || {
            let (disk, rng, host) = (disk.process(), rng.fork(), host.clone());
            async move {
                let world = world(disk, rng);
                let config = dfs_chunkserver::Config {
                    listen: "0.0.0.0:7710".into(),
                    advertise: Some(format!("{host}:7710")),
                    masters: vec![MASTER.into()],
                    data_dirs: vec!["/data".into()],
                    rack: String::new(),
                    reserve_bytes: 0,
                    accept_new_disk: false,
                    repair_bytes_a_second: None,
                    host,
                };
                let _server = Chunkserver::start(config, world).await?;
                std::future::pending::<()>().await;
                Ok(())
            }
        });
    }

    fn disk(&mut self, node: Node) -> MemDisk {
        self.disks.entry(node).or_default().clone()
    }

    /// A client machine that runs `work` to its end with a connected client.
    pub fn client<F, Fut>(&mut self, name: &str, work: F)
    where
        F: FnOnce(Client, Rng, History) -> Fut + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        self.client_of(name, false, work);
    }

    /// As [`SimWorld::client`], with the session of a mount.
    pub fn mount<F, Fut>(&mut self, name: &str, work: F)
    where
        F: FnOnce(Client, Rng, History) -> Fut + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        self.client_of(name, true, work);
    }

    fn client_of<F, Fut>(&mut self, name: &str, mount: bool, work: F)
    where
        F: FnOnce(Client, Rng, History) -> Fut + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        let (rng, history, finished) = (self.rng.fork(), self.history.clone(), self.finished.clone());
        let host = name.to_owned();
        self.clients.push(name.to_owned());
        finished.borrow_mut().insert(host.clone(), false);
        self.sim.client(name, async move {
            let mut settings = Settings::new(MASTER)?;
            settings.host.clone_from(&host);
            settings.mount = mount;
            let clock = simulated_clock();
            let client = Client::connect_with(settings, Arc::new(SimNet), clock, rng.fork()).await?;
            work(client, rng, history).await?;
            finished.borrow_mut().insert(host, true);
            Ok(())
        });
    }

    /// Runs until every client is done, giving `each` a look at the world every virtual millisecond.
    ///
    /// # Panics
    /// If a client fails, or `bound` passes: nothing may hang.
    pub fn run(&mut self, bound: Duration, mut each: impl FnMut(&mut SimWorld, Duration)) {
        let start = self.sim.elapsed();
        while self.finished.borrow().values().any(|done| !done) {
            let elapsed = self.sim.elapsed() - start;
            assert!(
                elapsed < bound,
                "clients still at work after {bound:?}:\n{}",
                self.tail()
            );
            each(self, elapsed);
            if let Err(error) = self.sim.step() {
                panic!("a client failed: {error}\n{}", self.tail());
            }
        }
    }

    fn tail(&self) -> String {
        let events = self.history.events();
        events[events.len().saturating_sub(40)..].join("\n")
    }

    /// A seeded choice for the schedule.
    #[must_use]
    pub fn rng(&self) -> &Rng {
        &self.rng
    }

    /// Nodes that are down.
    #[must_use]
    pub fn down(&self) -> &[Node] {
        &self.down
    }

    /// Kills the process; its page cache stays.
    pub fn kill(&mut self, node: &Node) {
        self.stop(node, "kill", |disk, _| disk.crash());
    }

    /// Cuts the machine's power: of what was not synced anything may be left.
    pub fn power_cut(&mut self, node: &Node) {
        self.stop(node, "power cut", |disk, rng| {
            disk.power_cut(rng, Surviving::Random)
        });
    }

    fn stop(&mut self, node: &Node, how: &str, end: impl FnOnce(&MemDisk, &Rng)) {
        if self.down.contains(node) {
            return;
        }
        self.history
            .0
            .lock()
            .expect("no panic")
            .push(format!("{how} {node:?}"));
        self.sim.crash(node.host());
        end(&self.disks[node], &self.rng);
        self.down.push(node.clone());
    }

    /// Starts a stopped node again on what its disk holds.
    pub fn start(&mut self, node: &Node) {
        if let Some(at) = self.down.iter().position(|n| n == node) {
            self.down.remove(at);
            self.history
                .0
                .lock()
                .expect("no panic")
                .push(format!("start {node:?}"));
            self.sim.bounce(node.host());
        }
    }

    /// Cuts the link between two hosts, both ways; see `heal`.
    pub fn partition(&mut self, a: &str, b: &str) {
        self.history
            .0
            .lock()
            .expect("no panic")
            .push(format!("partition {a} {b}"));
        self.sim.partition(a, b);
    }

    /// Joins the link again.
    pub fn repair(&mut self, a: &str, b: &str) {
        self.history
            .0
            .lock()
            .expect("no panic")
            .push(format!("repair {a} {b}"));
        self.sim.repair(a, b);
    }

    /// Every node is started and every link joined.
    pub fn heal(&mut self) {
        for node in self.down.clone() {
            self.start(&node);
        }
        let hosts = self.hosts();
        for (n, a) in hosts.iter().enumerate() {
            for b in &hosts[n + 1..] {
                self.sim.repair(a.as_str(), b.as_str());
            }
        }
    }

    /// Every host's name: nodes first, then clients.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        self.disks
            .keys()
            .map(Node::host)
            .chain(self.clients.iter().cloned())
            .collect()
    }

    /// The disk of a node: rot it, fill it, look at it.
    #[must_use]
    pub fn disk_of(&self, node: &Node) -> &MemDisk {
        &self.disks[node]
    }
}

fn simulated_clock() -> Clock {
    let since_epoch = turmoil::since_epoch().unwrap_or_default();
    Clock::simulated(u64::try_from(since_epoch.as_nanos()).expect("before the year 2554"))
}

fn world(disk: MemDisk, rng: Rng) -> World {
    World {
        dial: Arc::new(SimNet),
        listen: Arc::new(SimNet),
        disk: Arc::new(disk),
        clock: simulated_clock(),
        rng,
        pool: Pool::inline(),
    }
}
