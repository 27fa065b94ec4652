//! `dfs chunkserver`.

use super::{Context, node};
use crate::exit::{Exit, Failure, Result};
use crate::settings::{self, ChunkserverLayer};
use dfs_chunkserver::{Chunkserver, Config};
use dfs_proto::world::World;
use dfs_stdx::size::Size;
use std::path::PathBuf;

/// Threads for its disks.
const BLOCKING_THREADS: usize = 4;
const EXAMPLES: &str = "\
Examples:
  dfs chunkserver --master 10.0.0.1:7700 --listen 0.0.0.0:7710 --advertise 10.0.0.2:7710 --data-dir /disk1 --data-dir /disk2
  dfs chunkserver --config /etc/dfs/chunkserver.toml --print-config

Settings come from the file, then the environment (DFS_MASTER, DFS_DATA_DIR, ..), then flags; the last one counts.
There is no authentication yet: listen on networks you trust only.";

/// Run a chunkserver
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A settings file (TOML)
    #[arg(long, env = "DFS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings as they would count, and end
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    layer: ChunkserverLayer,
}

/// Serves until told to stop.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let settings = args.layer.complete(&context.masters, args.config.as_deref())?;
    if args.print_config {
        context.console.say(settings::as_toml(&settings).trim_end())?;
        return Ok(Exit::Ok);
    }
    node::prepare("chunkserver")?;
    let config = Config {
        listen: settings.listen,
        advertise: settings.advertise,
        masters: settings.master,
        data_dirs: settings.data_dir,
        host: settings.host,
        rack: settings.rack,
        reserve_bytes: settings.reserve.bytes(),
        accept_new_disk: settings.accept_new_disk,
        repair_bytes_a_second: settings.repair_rate.map(Size::bytes),
    };
    let world = World::real("dfs-disk", BLOCKING_THREADS);
    let server = Chunkserver::start(config, world).await.map_err(Failure::from)?;
    tracing::info!(addr = %server.addr(), "chunkserver serves");
    node::watched_if_asked(settings.metrics.as_deref(), || server.metrics()).await;
    node::stop_requested().await?;
    server.stop().await;
    tracing::info!("chunkserver stopped");
    Ok(Exit::Ok)
}
