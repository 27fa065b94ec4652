//! `dfs stat`.

use super::{Context, walk};
use crate::exit::{About as _, Exit, Result};
use crate::output::Stats;
use crate::path::RemotePath;

const EXAMPLES: &str = "\
Examples:
  dfs stat /report.csv                    size, mode, owner, times, chunks
  dfs stat --json /a /b                   the same as {\"entries\": [..]}
  dfs stat -L /link                       what the link points to";

/// Show all attributes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Follow symlinks
    #[arg(short = 'L', long)]
    dereference: bool,
    /// What to show
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// Shows each operand; a symlink itself unless told to follow.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let mut entries = Vec::new();
    for RemotePath(path) in &args.paths {
        let metadata = match args.dereference {
            true => client.stat(path).await,
            false => client.symlink_stat(path).await,
        };
        let entry = match metadata.about(path) {
            Ok(metadata) => walk::entry(&client, path, metadata).await,
            Err(failure) => Err(failure),
        };
        match entry {
            Ok(entry) => entries.push(entry.into()),
            Err(failure) => context.console.complain(failure),
        }
    }
    context.console.print(&Stats { entries })?;
    Ok(Exit::Ok)
}
