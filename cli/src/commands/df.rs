//! `dfs df`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::output::Capacity;

const EXAMPLES: &str = "\
Examples:
  dfs df -h               room in the cluster, raw: a byte in three replicas takes three";

/// Show how much room there is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_flag = true)]
pub(crate) struct Args {
    /// Sizes with units
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Shows the raw bytes of all chunkservers.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let space = client.statfs().await.about(context.masters())?;
    let name = format!("dfs://{}", context.masters());
    context
        .console
        .print(&Capacity::new(space, name, args.human_readable))?;
    Ok(Exit::Ok)
}
