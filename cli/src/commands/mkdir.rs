//! `dfs mkdir`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::output::Done;
use crate::path::RemotePath;
use dfs_client::{Client, SetAttributes};

const EXAMPLES: &str = "\
Examples:
  dfs mkdir /albums                       one directory
  dfs mkdir -p /albums/2026/spring        with those above it; one that exists is fine
  dfs mkdir -m 700 /private               with these permissions";

/// Make directories
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Make missing directories above, too; one that exists is fine
    #[arg(short, long)]
    parents: bool,
    /// Permission bits, octal
    #[arg(short, long, value_parser = octal)]
    mode: Option<u32>,
    /// Directories to make
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

fn octal(text: &str) -> std::result::Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "permission bits are octal, such as 755".to_owned())
}

/// Makes each operand.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    for RemotePath(path) in &args.paths {
        if let Err(failure) = make(&client, path, &args).await {
            context.console.complain(failure);
        }
    }
    context.console.print(&Done {})?;
    Ok(Exit::Ok)
}

async fn make(client: &Client, path: &[u8], args: &Args) -> Result<()> {
    if !args.parents {
        let mode = args.mode.unwrap_or(0o777 & !super::umask());
        client.mkdir_with(path, mode).await.about(path)?;
        return Ok(());
    }
    let existed = client.exists(path).await.about(path)?;
    client.mkdir_all(path).await.about(path)?;
    if let (Some(mode), false) = (args.mode, existed) {
        let set = SetAttributes {
            mode: Some(mode),
            ..SetAttributes::default()
        };
        client.set_attributes(path, set).await.about(path)?;
    }
    Ok(())
}
