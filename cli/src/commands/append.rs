//! `dfs append`.

use super::Context;
use super::transfer::{Job, Options, interruptible, upload};
use crate::exit::{About as _, Exit, Result};
use crate::path::RemotePath;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  dfs append today.log /log               a local file to the end of one in dfs, made if it is not there
  echo done | dfs append - /log           stdin
Interrupted, the beginning of what was to be added may be there. One writer at a time.";

/// Add local files to the end of a file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Local files; - is stdin
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<PathBuf>,
    /// The file in dfs
    #[arg(value_name = "DST")]
    destination: RemotePath,
}

/// Adds each source, in order.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let job = Job::new(context, Options::default()).await?;
    let path = &args.destination.0;
    let work = async {
        let file = job.client.append(path).await.about(path)?;
        let mut end = file.handle().len().await.about(path)?;
        for source in &args.sources {
            end = upload::append(&job, source, file.handle(), end, path).await?;
        }
        file.close().await.about(path)
    };
    interruptible(&job, work).await?;
    job.report(context)
}
