//! `dfs ln`.

use super::Context;
use super::put::{Destination, destination};
use super::transfer::local::temporary_name;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::Done;
use crate::path::{self, RemotePath};
use dfs_client::{Client, Code, Kind, Make, RenameMode};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

const EXAMPLES: &str = "\
Examples:
  dfs ln /report.csv /same                another name for the same file
  dfs ln -s ../report.csv /d/link         a symlink; its target may be anything
  dfs ln -sf /new /link                   replaced at once";

/// Make links
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A symlink, not another name
    #[arg(short, long)]
    symbolic: bool,
    /// Replace what has the name
    #[arg(short, long)]
    force: bool,
    /// What the link leads to
    target: OsString,
    /// The link, or a directory to make it in
    #[arg(value_name = "LINK")]
    link: RemotePath,
}

/// Makes the link.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let target = args.target.as_bytes();
    let place = match destination(&client, &args.link.0, false).await? {
        Destination::As(place) => place,
        into @ Destination::Into(..) => {
            let name = path::trimmed(target)
                .rsplit(|&b| b == b'/')
                .next()
                .unwrap_or_default();
            let refused = || Failure::of(Code::AlreadyExists).about(&args.link);
            into.place(Some(name).filter(|name| !name.is_empty()))
                .ok_or_else(refused)?
        }
    };
    let temporary = temporary_name("ln");
    let name = if args.force {
        temporary.as_bytes()
    } else {
        &place.name
    };
    make(&client, &args, (place.parent, name))
        .await
        .about(if args.symbolic { &place.path } else { target })?;
    if args.force {
        let inodes = client.inodes();
        let renamed = inodes
            .rename(
                (place.parent, name),
                (place.parent, &place.name),
                RenameMode::Replace,
                false,
            )
            .await;
        // A rename between two names of one file does nothing: the temporary one is still there.
        let _ = inodes.unlink(place.parent, name, false).await;
        renamed.about(&place.path)?;
    }
    context.console.print(&Done {})?;
    Ok(Exit::Ok)
}

async fn make(
    client: &Client,
    args: &Args,
    (parent, name): (dfs_client::InodeId, &[u8]),
) -> dfs_client::Result<()> {
    let target = args.target.as_bytes();
    let inodes = client.inodes();
    if args.symbolic {
        let make = Make {
            kind: Kind::Symlink,
            mode: 0o777,
            rdev: 0,
            target: target.to_vec(),
        };
        inodes.make(parent, name, make).await?;
    } else {
        let existing = client.symlink_stat(target).await?;
        inodes.link(existing.inode, parent, name).await?;
    }
    Ok(())
}
