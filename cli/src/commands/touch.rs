//! `dfs touch`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::output::Done;
use crate::path::RemotePath;
use dfs_client::{Client, Code, OpenOptions, SetAttributes, Time};

const EXAMPLES: &str = "\
Examples:
  dfs touch /done                         made if it is not there, else its times are now
  dfs touch -c /maybe                     never made";

/// Set times to now; make files that do not exist
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Make nothing
    #[arg(short = 'c', long)]
    no_create: bool,
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// Touches each operand.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    for RemotePath(path) in &args.paths {
        if let Err(failure) = touch(&client, path, args.no_create).await {
            context.console.complain(failure);
        }
    }
    context.console.print(&Done {})?;
    Ok(Exit::Ok)
}

async fn touch(client: &Client, path: &[u8], no_create: bool) -> Result<()> {
    let set = SetAttributes {
        atime: Some(Time::Now),
        mtime: Some(Time::Now),
        ..SetAttributes::default()
    };
    match client.set_attributes(path, set).await {
        Err(error) if error.code == Code::NotFound && no_create => Ok(()),
        Err(error) if error.code == Code::NotFound => {
            let mode = 0o666 & !super::umask();
            let options = OpenOptions::new().write(true).create(true).mode(mode);
            let file = client.open_with(path, options).await.about(path)?;
            file.close().await.about(path)
        }
        other => other.map(drop).about(path),
    }
}
