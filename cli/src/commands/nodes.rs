//! `dfs nodes`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::output::Nodes;

/// Show the chunkservers
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dfs nodes\n  dfs nodes --json | jq '.nodes[] | select(.state != \"alive\")'"
)]
pub(crate) struct Args {}

/// Shows each chunkserver as the master sees it.
pub(crate) async fn run(_args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let nodes = client.nodes().await.about(context.masters())?;
    context.console.print(&Nodes {
        nodes: nodes.into_iter().map(Into::into).collect(),
    })?;
    Ok(Exit::Ok)
}
