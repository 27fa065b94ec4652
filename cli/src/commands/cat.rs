//! `dfs cat`.

use super::Context;
use super::transfer::{Job, Options, download};
use crate::exit::{Exit, Result};
use crate::path::RemotePath;

const EXAMPLES: &str = "\
Examples:
  dfs cat /log | grep error               a file's bytes to stdout
  dfs cat /part-0 /part-1 > whole         several, one after the other";

/// Write files to stdout
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to write
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// Writes each operand.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let job = Job::new(context, Options::default()).await?;
    for RemotePath(path) in &args.paths {
        match download::stdout(&job, path).await {
            Err(failure) if failure.quiet => return Err(failure),
            Err(failure) => context.console.complain(failure),
            Ok(()) => {}
        }
    }
    Ok(Exit::Ok)
}
