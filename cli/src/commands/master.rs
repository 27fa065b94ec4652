//! `dfs master`.

use super::{Context, node};
use crate::exit::{Exit, Failure, Result};
use crate::settings::{self, MasterLayer};
use dfs_master::{Config, Master, View};
use dfs_proto::world::World;
use std::path::PathBuf;
use std::time::Duration;

/// Threads for the log and the view.
const BLOCKING_THREADS: usize = 4;
/// The key-value store's cache: sled's own default is a gigabyte.
const VIEW_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Commands between two checkpoints, so that replay stays short.
const CHECKPOINT_EVERY: u64 = 10_000;
const EXAMPLES: &str = "\
Examples:
  dfs master --data-dir /srv/dfs/master
  dfs master --listen 0.0.0.0:7700 --advertise 10.0.0.1:7700 --data-dir /srv/dfs/master
  dfs master --config /etc/dfs/master.toml --print-config

Settings come from the file, then the environment (DFS_LISTEN, DFS_DATA_DIR, ..), then flags; the last one counts.
There is no authentication yet: listen on networks you trust only.";

/// Run a master
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A settings file (TOML)
    #[arg(long, env = "DFS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings as they would count, and end
    #[arg(long)]
    print_config: bool,
    /// Go on, once, with what can be read of a damaged log; what was acknowledged after the damage is lost
    #[arg(long)]
    recover_from_dump: bool,
    #[command(flatten)]
    layer: MasterLayer,
}

/// Serves until told to stop.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let settings = args.layer.complete(args.config.as_deref())?;
    if args.print_config {
        context.console.say(settings::as_toml(&settings).trim_end())?;
        return Ok(Exit::Ok);
    }
    node::prepare("master")?;
    let config = Config {
        listen: settings.listen.clone(),
        advertise: settings.advertise.clone(),
        data_dir: settings.data_dir.clone(),
        parameters: settings.parameters(),
        view: View::Sled {
            cache_bytes: VIEW_CACHE_BYTES,
        },
        checkpoint_every: CHECKPOINT_EVERY,
        repair_after: settings.repair_after.map(Duration::from_secs),
    };
    let world = World::real("dfs-master", BLOCKING_THREADS);
    let started = if args.recover_from_dump {
        Master::start_from_dump(config, world).await
    } else {
        Master::start(config, world).await
    };
    let master = started.map_err(Failure::from)?;
    tracing::info!(addr = %master.addr(), "master serves");
    node::watched_if_asked(settings.metrics.as_deref(), || master.metrics()).await;
    tokio::select! {
        asked = node::stop_requested() => asked?,
        why = master.failed() => return Err(dfs_proto::Error::new(dfs_proto::Code::Unavailable, why).into()),
    }
    master.stop().await;
    tracing::info!("master stopped");
    Ok(Exit::Ok)
}
