//! `dfs mv`.

use super::Context;
use super::put::{Destination, destination};
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::Done;
use crate::path::{self, RemotePath};
use dfs_client::{Client, Code, RenameMode};

const EXAMPLES: &str = "\
Examples:
  dfs mv /a /b                            rename; /b is replaced at once if it exists
  dfs mv /a /b /albums                    into a directory
  dfs mv -n /a /b                         fails if /b exists";

/// Rename and move
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Never replace what exists: fail instead
    #[arg(short, long)]
    no_clobber: bool,
    /// What to move
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<RemotePath>,
    /// Where to: a directory, or a name
    #[arg(value_name = "DST")]
    destination: RemotePath,
}

/// Renames each source.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let many = args.sources.len() > 1;
    let typed = &args.destination.0;
    // A directory may be given a name with a slash after it.
    let to = destination(&client, path::trimmed(typed), many).await?;
    let mode = match args.no_clobber {
        true => RenameMode::NoReplace,
        false => RenameMode::Replace,
    };
    for RemotePath(source) in &args.sources {
        if let Err(failure) = rename(&client, source, &to, mode).await {
            context.console.complain(failure);
        }
    }
    context.console.print(&Done {})?;
    Ok(Exit::Ok)
}

async fn rename(client: &Client, source: &[u8], to: &Destination, mode: RenameMode) -> Result<()> {
    let refused = || Failure::of(Code::InvalidArgument).about(source);
    let (parent, name) = path::split(source).ok_or_else(refused)?;
    let place = to.place(Some(name)).ok_or_else(refused)?;
    let parent = client.stat(parent).await.about(source)?;
    client
        .inodes()
        .rename((parent.inode, name), (place.parent, &place.name), mode, false)
        .await
        .map(drop)
        .map_err(|error| {
            // About the source if that is what is missing, else about the name it should get.
            let missing = error.code == Code::NotFound;
            Failure::from(error).about(if missing { source } else { place.path.as_slice() })
        })
}
