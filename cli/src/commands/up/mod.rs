//! `dfs up`: a whole cluster on this machine, one child process for each node.
//!
//! Lock the folder, settle what the cluster looks like, start the master and the chunkservers, wait until all have
//! registered, say so (`cluster.json`, then the `ready` line), and stay until told to stop. A child that dies is not
//! started again: a line says so and how to bring it back.

mod children;
mod folder;
mod mount;
mod ports;

use super::{Context, wait};
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::complain_line;
use crate::settings::Profile;
use children::{Children, Node};
use dfs_client::{Client, Code};
use dfs_stdx::size::Size;
use folder::{ClusterFile, Folder, NodeEntry, Plan, ServerEntry};
use mount::Mount;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// All nodes have registered by then, or something is wrong with this machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
const EXAMPLES: &str = "\
Examples:
  dfs up                                      three chunkservers, master on port 7700, data in ./dfs-data
  dfs up --dir /tmp/play --chunkservers 5     one more folder, five of them
  dfs up --port 0                             on a free port; the `ready` line and cluster.json say which
  dfs up --mount /mnt/dfs                     mounted too (where this machine cannot, it says so and goes on)

Stop it with Ctrl-C; the same folder starts again with all its data. DIR/cluster.json has the pid, the log and the
command line of each node: kill one, then run its command line to bring it back.";

/// Start a whole cluster on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "./dfs-data")]
    dir: PathBuf,
    /// How many chunkservers [default: 3, later as many as there were]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    chunkservers: Option<u32>,
    /// Replicas of each chunk of a new cluster [default: 3, or the number of chunkservers if that is less]
    #[arg(long, value_name = "N")]
    replication: Option<u32>,
    /// The master's port on loopback; 0 takes a free one
    #[arg(long, default_value_t = 7700)]
    port: u16,
    /// Largest chunk of a new cluster [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    chunk_size: Option<Size>,
    /// How fast a new cluster's clocks run
    #[arg(long, hide = true)]
    profile: Option<Profile>,
    /// Mount it at this folder, which is made if need be
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
}

/// Runs the cluster until told to stop.
pub(crate) async fn run(args: Args, _context: &Context) -> Result<Exit> {
    let mut stop = Stop::new()?;
    let folder = Folder::open(&args.dir)?;
    let plan = folder.plan(&args).await?;
    let nodes = nodes(&folder, &plan)?;
    let mount = args
        .mount
        .as_deref()
        .map(|dir| Mount::new(&folder, &nodes, dir))
        .transpose()?;
    let mut children = Children::default();
    let started = tokio::select! {
        started = start(&folder, nodes, mount.as_ref(), &mut children) => started,
        () = stop.requested() => Ok(None),
    };
    match started {
        Ok(Some(line)) => {
            // Whoever read the line may have closed the pipe: the cluster stays.
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
        Ok(None) => return Ok(children.stop(&mut stop).await),
        Err(failure) => {
            children.kill().await;
            return Err(failure);
        }
    }
    loop {
        tokio::select! {
            death = children.next_death() => complain_line(format!("up: {death}").as_bytes()),
            () = stop.requested() => return Ok(children.stop(&mut stop).await),
        }
    }
}

/// The command lines of all nodes, the master first.
fn nodes(folder: &Folder, plan: &Plan) -> Result<Vec<Node>> {
    let program = std::env::current_exe()?;
    let master = format!("127.0.0.1:{}", plan.master);
    let [watched, each_watched @ ..] = plan.metrics.as_slice() else {
        unreachable!("a plan has a port for each node's metrics");
    };
    let mut nodes = vec![Node::new(
        folder,
        &program,
        "master",
        (&master, *watched),
        |argv| {
            argv.push(format!("--chunk-size={}", plan.chunk_size));
            argv.push(format!("--replication={}", plan.replication));
            if plan.profile == Profile::Test {
                argv.push("--profile=test".to_owned());
            }
        },
    )?];
    for (index, (port, watched)) in plan.chunkservers.iter().zip(each_watched).enumerate() {
        let (name, addr) = (format!("chunkserver-{}", index + 1), format!("127.0.0.1:{port}"));
        nodes.push(Node::new(folder, &program, &name, (&addr, *watched), |argv| {
            argv.push(format!("--master={master}"));
            argv.push(format!("--host={name}"));
            argv.push("--reserve=64MiB".to_owned());
        })?);
    }
    Ok(nodes)
}

/// Starts all nodes and waits until they have registered; returns the `ready` line.
async fn start(
    folder: &Folder,
    nodes: Vec<Node>,
    mount: Option<&Mount>,
    children: &mut Children,
) -> Result<Option<String>> {
    let master = nodes.first().expect("the master is the first node").addr.clone();
    let count = u32::try_from(nodes.len() - 1).expect("there are at most 64 chunkservers");
    folder.write_scripts(&nodes)?;
    let [first, servers @ ..] = nodes.as_slice() else {
        unreachable!("the master is the first node");
    };
    children.spawn(first)?;
    let client = Client::connect(&master).await.about(&master)?;
    for (server, number) in servers.iter().zip(1..) {
        // New ones register one after the other, so that their numbers are those of their names.
        let new = !Path::new(&server.data_dir).exists();
        children.spawn(server)?;
        if new {
            in_time(folder, children, wait::registered(&client, number)).await?;
        }
    }
    let connected = async {
        let status = wait::registered(&client, count).await.about(&master)?;
        let registered = client.nodes().await.about(&master)?;
        client.disconnect().await.about(&master)?;
        Ok::<_, Failure>((status, registered))
    };
    let (status, registered) = in_time(folder, children, connected).await?;
    let mounted = match mount {
        Some(mount) => mount.start(folder, children).await,
        None => None,
    };
    let mut entries = nodes.iter().map(|node| NodeEntry::new(node, children.pid(node)));
    let master_entry = entries.next().expect("the master is the first node");
    let chunkservers = entries
        .map(|node| {
            let known = registered.iter().find(|r| r.addr == node.addr);
            ServerEntry {
                id: known.map_or(0, |r| r.node.0),
                node,
            }
        })
        .collect();
    folder.announce(&ClusterFile {
        cluster_id: status.cluster,
        pid: std::process::id(),
        master: master_entry.clone(),
        masters: vec![master_entry],
        chunkservers,
        mount: mounted.clone(),
    })?;
    let metrics = first.metrics.as_deref().unwrap_or_default();
    Ok(Some(ready_line(
        folder,
        (&master, metrics),
        count,
        mounted.as_deref(),
    )))
}

/// What a cluster that starts well comes to within [`START_DEADLINE`].
async fn in_time<T>(
    folder: &Folder,
    children: &mut Children,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = step => done,
        death = children.next_death() => Err(Failure::new(Code::Unavailable, death.to_string())),
        () = tokio::time::sleep(START_DEADLINE) => {
            let text = format!("not all nodes registered within a minute; see {}", folder.logs().display());
            Err(Failure::new(Code::TimedOut, text))
        }
    }
}

/// What to type next.
fn ready_line(
    folder: &Folder,
    (master, metrics): (&str, &str),
    count: u32,
    mounted: Option<&Path>,
) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "dfs".to_owned());
    let export = match master == crate::settings::MASTER_ADDR {
        true => String::new(),
        false => format!("export DFS_MASTER={master}; "),
    };
    let mounted = mounted.map_or(String::new(), |dir| format!(", mounted at {}", dir.display()));
    format!(
        "ready: master {master} (metrics at http://{metrics}/metrics), {count} chunkservers, data in {}{mounted}; next, in another terminal: \
         {export}{program} put FILE / && {program} ls -l /",
        folder.path().display()
    )
}

/// Whoever wants the cluster to stop.
#[derive(Debug)]
pub(crate) struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    fn new() -> Result<Stop> {
        Ok(Stop {
            signals: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    /// Returns at SIGTERM, Ctrl-C, or when the terminal goes away.
    pub(crate) async fn requested(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
