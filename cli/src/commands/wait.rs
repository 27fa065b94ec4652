//! `dfs wait`.

use super::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::{Status, trouble};
use dfs_client::{Client, Code};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ASK_EVERY: Duration = Duration::from_millis(200);
const EXAMPLES: &str = "\
Examples:
  dfs wait --healthy                      until every chunk has its goal of good replicas
  dfs wait --healthy -t 120 || dfs fsck / at most two minutes
  dfs wait --nodes 5                      until five chunkservers answer";

/// Wait until the cluster is well
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Until every chunk has its goal of good replicas and no server is late
    #[arg(long, required_unless_present = "nodes")]
    healthy: bool,
    /// Until so many chunkservers are alive
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
    /// Give up after so many seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60.0)]
    timeout: f64,
}

/// Asks until it is so: exit 0, or 1 with what is still wrong.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let limit = Duration::try_from_secs_f64(args.timeout)
        .map_err(|_| Failure::new(Code::InvalidArgument, "a timeout is a number of seconds from 0"))?;
    let client = context.connect().await?;
    let deadline = Instant::now() + limit;
    loop {
        let wrong =
            match tokio::time::timeout_at(deadline.max(Instant::now() + ASK_EVERY), client.status()).await {
                Ok(Ok(status)) => match missing(&args, &status) {
                    None => {
                        context.console.print(&Status::from(status))?;
                        return Ok(Exit::Ok);
                    }
                    Some(wrong) => wrong,
                },
                Ok(Err(error)) if error.retry() == dfs_client::Retry::Never => {
                    return Err(error).about(context.masters());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the master does not answer".to_owned(),
            };
        if Instant::now() >= deadline {
            let text = format!("still not so after {} s: {wrong}", args.timeout);
            return Err(Failure::new(Code::TimedOut, text));
        }
        sleep(ASK_EVERY).await;
    }
}

/// What is not yet as it was asked for.
fn missing(args: &Args, status: &dfs_client::Status) -> Option<String> {
    if let Some(nodes) = args.nodes
        && status.alive < nodes
    {
        return Some(format!("{} of {nodes} chunkservers are alive", status.alive));
    }
    args.healthy.then(|| trouble(status)).flatten()
}

/// Waits until `count` chunkservers are alive; for `dfs up`.
pub(super) async fn registered(client: &Client, count: u32) -> Result<dfs_client::Status> {
    loop {
        match client.status().await {
            Ok(status) if status.alive >= count => return Ok(status),
            Ok(_) => {}
            Err(error) if error.retry() == dfs_client::Retry::Never => return Err(error.into()),
            Err(_) => {}
        }
        sleep(Duration::from_millis(20)).await;
    }
}
