//! `dfs status`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::output::Status;

/// Show the cluster at a glance
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  dfs status\n  dfs status --json | jq .healthy")]
pub(crate) struct Args {}

/// Shows what the master says of itself and its cluster.
pub(crate) async fn run(_args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let status = client.status().await.about(context.masters())?;
    context.console.print(&Status::from(status))?;
    Ok(Exit::Ok)
}
