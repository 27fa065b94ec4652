//! `dfs get`.

use super::Context;
use super::put::How;
use super::transfer::local::set_directory;
use super::transfer::{Job, download, interruptible, tree};
use crate::exit::{About as _, Exit, Failure, Result};
use crate::path::{self, RemotePath};
use dfs_client::Code;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  dfs get /report.csv .                   into a directory, under its own name
  dfs get /report.csv copy.csv            under another name; replaced at once if it exists
  dfs get -r /albums backup               a tree, many files at a time, with symlinks and modes
  dfs get -rp /albums backup              with times, too
  dfs get /shop.sql - | mysql shop        to stdout

A file has its name only once all of it is there and synced; interrupted, nothing is left.";

/// Copy files out of dfs
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    /// Files and directories in dfs
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<RemotePath>,
    /// Where to: a local directory, or a name; - is stdout
    #[arg(value_name = "DST")]
    destination: PathBuf,
}

/// Copies each source.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let job = Job::new(context, args.how.into()).await?;
    let to_stdout = args.destination == Path::new("-");
    let work = Box::pin(async {
        let into = !to_stdout && args.destination.is_dir();
        if !into && !to_stdout && args.sources.len() > 1 {
            return Err(Failure::of(Code::NotADirectory).about(args.destination.as_os_str().as_bytes()));
        }
        for RemotePath(source) in &args.sources {
            let done = match to_stdout {
                true => download::stdout(&job, source).await,
                false => get(&job, context, source, &args.destination, into).await,
            };
            match done {
                Err(failure) if failure.quiet => return Err(failure),
                Err(failure) => context.console.complain(failure),
                Ok(()) => {}
            }
        }
        Ok(())
    });
    interruptible(&job, work).await?;
    match to_stdout {
        // Stdout is the file's.
        true => Ok(Exit::Ok),
        false => job.report(context),
    }
}

async fn get(job: &Arc<Job>, context: &Context, source: &[u8], destination: &Path, into: bool) -> Result<()> {
    // As `cp`: without -r a symlink is followed, with it kept.
    let metadata = match job.options.recursive {
        true => job.client.symlink_stat(source).await,
        false => job.client.stat(source).await,
    };
    let metadata = metadata.about(source)?;
    let named = !matches!(path::name(source), b"/" | b"." | b"..");
    let local = match into && named {
        true => destination.join(OsStr::from_bytes(path::name(source))),
        false => destination.to_owned(),
    };
    if metadata.is_file() {
        return download::file(job, source, &metadata, &local).await;
    }
    if !metadata.is_dir() {
        return download::special(job, source, &metadata, &local).await;
    }
    if !job.options.recursive {
        let text = "Is a directory (-r copies it with all below it)";
        return Err(Failure::new(Code::IsADirectory, text).about(source));
    }
    let made = tree::local_directory(&local)?;
    tree::get(job, &context.console, source, &local).await;
    if made {
        let (path, attributes) = (local.clone(), download::attributes(job, &metadata));
        job.pool.run(move || set_directory(&path, attributes)).await?;
    }
    Ok(())
}
