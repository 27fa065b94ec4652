//! `dfs append`.

use super::Context;
use super::transfer::{Job, Options, interruptible, records as of_lines, upload};
use crate::exit::{About as _, Exit, Result};
use crate::path::RemotePath;
use dfs_stdx::Rng;
use std::path::PathBuf;
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  dfs append today.log /log               a local file to the end of one in dfs, made if it is not there
  echo done | dfs append - /log           stdin
  producer | dfs append --record - /log   each line a record: whole, once, beside those of other producers
  dfs append --record --producer 7 --sequence 100 more /log
                                          lines 100, 101, .. of producer 7; what is in the file already is not repeated
Interrupted, the beginning of what was to be added may be there. Without --record one writer at a time.";

/// Add local files to the end of a file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Each line, with its end, is a record: appended whole and exactly once, at a place the file chooses
    #[arg(short = 'R', long)]
    record: bool,
    /// Number of the source of the records, 1 to 2^63 - 2: the same sequence of the same producer is appended once
    #[arg(long, value_name = "N", requires = "record")]
    producer: Option<u64>,
    /// Sequence of the first record
    #[arg(long, value_name = "N", requires = "producer", default_value_t = 1)]
    sequence: u64,
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
    match args.record {
        true => interruptible(&job, records(&job, &args)).await?,
        false => interruptible(&job, bytes(&job, &args)).await?,
    }
    job.report(context)
}

async fn bytes(job: &Arc<Job>, args: &Args) -> Result<()> {
    let path = &args.destination.0;
    let file = job.client.append(path).await.about(path)?;
    let mut end = file.handle().len().await.about(path)?;
    for source in &args.sources {
        end = upload::append(job, source, file.handle(), end, path).await?;
    }
    file.close().await.about(path)
}

async fn records(job: &Arc<Job>, args: &Args) -> Result<()> {
    let path = &args.destination.0;
    let file = job.client.append(path).await.about(path)?;
    let mut line = of_lines::Line {
        handle: file.handle(),
        // By chance: nobody else has it, and nobody asks for it again.
        producer: args.producer.unwrap_or_else(|| (Rng::system().u64() >> 2) | 1),
        sequence: args.sequence,
        path,
    };
    for source in &args.sources {
        line.append(job, source).await?;
    }
    file.close().await.about(path)
}
