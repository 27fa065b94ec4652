//! `dfs rm`.

use super::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::Done;
use crate::path::{self, RemotePath};
use dfs_client::{Client, Code, Discard};

const EXAMPLES: &str = "\
Examples:
  dfs rm /report.csv                      a file, to the trash: `dfs trash ls` shows it
  dfs rm -r /albums                       a directory with all below it
  dfs rm -r --skip-trash /scratch         for good; its room comes back within minutes
  dfs rm -f /maybe                        no complaint if it is not there";

/// Remove files and trees
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directories with all below them, too
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Empty directories, too
    #[arg(short, long)]
    dir: bool,
    /// What does not exist is fine
    #[arg(short, long)]
    force: bool,
    /// For good, not to the trash
    #[arg(long, visible_alias = "skipTrash")]
    skip_trash: bool,
    /// What to remove
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// Removes each operand. Symlinks are removed, never followed.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    for RemotePath(path) in &args.paths {
        match remove(&client, path, &args).await {
            Err(failure) if args.force && failure.code == Code::NotFound => {}
            Err(failure) => context.console.complain(failure),
            Ok(()) => {}
        }
    }
    context.console.print(&Done {})?;
    Ok(Exit::Ok)
}

async fn remove(client: &Client, path: &[u8], args: &Args) -> Result<()> {
    match path::name(path) {
        b"/" => {
            return Err(Failure::new(Code::InvalidArgument, "the root directory is not removed").about(path));
        }
        b"." | b".." => {
            return Err(Failure::new(Code::InvalidArgument, "refusing to remove '.' or '..'").about(path));
        }
        _ => {}
    }
    let how = Discard {
        recursive: args.recursive,
        skip_trash: args.skip_trash,
    };
    match client.discard(path, how).await {
        Err(error) if error.code == Code::IsADirectory && args.dir => {
            client.remove_dir(path).await.about(path)
        }
        other => other.about(path),
    }
}
