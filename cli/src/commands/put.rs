//! `dfs put`.

use super::Context;
use super::transfer::local::at;
use super::transfer::tree::{self, Filled};
use super::transfer::upload::{self, Place};
use super::transfer::{Job, Options, interruptible};
use crate::exit::{About as _, Exit, Failure, Result};
use crate::path::{self, RemotePath};
use dfs_client::{Client, Code, InodeId};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  dfs put report.csv /                    into a directory, under its own name
  dfs put report.csv /2026.csv            under another name; replaced at once if it exists
  dfs put -n report.csv /                 fails if /report.csv exists
  dfs put -r photos /albums               a tree, many files at a time, with symlinks and modes
  dfs put -rp photos/. /albums            its contents, with times
  mysqldump shop | dfs put - /shop.sql    stdin

A file has its name only once all of it is on stable storage of every replica; interrupted, nothing is left.";

/// Copy local files into dfs
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    /// Local files and directories; - is stdin
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<PathBuf>,
    /// Where to, in dfs: a directory, or a name
    #[arg(value_name = "DST")]
    destination: RemotePath,
}

#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Directories with all below them; symlinks and modes are kept
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Keep times (and, for root, owners), too
    #[arg(short, long)]
    preserve: bool,
    /// Never replace what exists: fail instead
    #[arg(short, long)]
    no_clobber: bool,
}

impl From<How> for Options {
    fn from(how: How) -> Options {
        Options {
            recursive: how.recursive,
            preserve: how.preserve,
            no_clobber: how.no_clobber,
        }
    }
}

/// What the last operand names.
pub(super) enum Destination {
    /// A directory: copies go into it under their own names.
    Into(InodeId, Vec<u8>),
    /// The name of the one copy.
    As(Place),
}

/// Copies each source.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let job = Job::new(context, args.how.into()).await?;
    let work = Box::pin(async {
        let many = args.sources.len() > 1;
        let destination = destination(&job.client, &args.destination.0, many).await?;
        for source in &args.sources {
            if let Err(failure) = put(&job, context, source, &destination).await {
                context.console.complain(failure);
            }
        }
        Ok(())
    });
    interruptible(&job, work).await?;
    job.report(context)
}

/// Finds out what the last operand names; several sources need a directory.
pub(super) async fn destination(client: &Client, typed: &[u8], many: bool) -> Result<Destination> {
    match client.stat(typed).await {
        Ok(metadata) if metadata.is_dir() => return Ok(Destination::Into(metadata.inode, typed.to_vec())),
        Ok(_) if many || typed.ends_with(b"/") => return Err(Failure::of(Code::NotADirectory).about(typed)),
        Err(error) if error.code == Code::NotFound && many => return Err(error).about(typed),
        Err(error) if error.code != Code::NotFound => return Err(error).about(typed),
        Ok(_) | Err(_) => {}
    }
    let (parent, name) = path::split(typed).ok_or_else(|| Failure::of(Code::NotFound).about(typed))?;
    let directory = client.stat(parent).await.about(typed)?;
    if !directory.is_dir() {
        return Err(Failure::of(Code::NotADirectory).about(typed));
    }
    Ok(Destination::As(Place {
        parent: directory.inode,
        name: name.to_vec(),
        path: path::trimmed(typed).to_vec(),
    }))
}

impl Destination {
    /// Where the copy called `name` goes; without a name of its own: `None`, the directory itself.
    pub(super) fn place(&self, name: Option<&[u8]>) -> Option<Place> {
        match (self, name) {
            (Destination::As(place), _) => Some(place.clone()),
            (Destination::Into(inode, path), Some(name)) => Some(Place {
                parent: *inode,
                name: name.to_vec(),
                path: path::join(path, name),
            }),
            (Destination::Into(..), None) => None,
        }
    }
}

async fn put(job: &Arc<Job>, context: &Context, source: &Path, destination: &Destination) -> Result<()> {
    if source == Path::new("-") {
        return match destination {
            Destination::As(place) => upload::stdin(job, place).await,
            Destination::Into(_, path) => Err(Failure::of(Code::IsADirectory).about(path)),
        };
    }
    // As `cp`: without -r a symlink is followed, with it kept.
    let metadata = match job.options.recursive {
        true => std::fs::symlink_metadata(source),
        false => std::fs::metadata(source),
    };
    let metadata = metadata.map_err(at(source))?;
    let name = tree::local_name(source);
    let place = destination.place(name.as_deref());
    if !metadata.is_dir() {
        let place =
            place.ok_or_else(|| Failure::of(Code::InvalidArgument).about(source.as_os_str().as_bytes()))?;
        return match metadata.is_file() || !job.options.recursive {
            true => upload::file(job, source, &place).await,
            false => upload::special(job, source, &metadata, &place).await,
        };
    }
    if !job.options.recursive {
        let text = "Is a directory (-r copies it with all below it)";
        return Err(Failure::new(Code::IsADirectory, text).about(source.as_os_str().as_bytes()));
    }
    let (filled, made) = match (&place, destination) {
        (Some(place), _) => tree::directory(job, place, metadata.mode()).await?,
        (None, Destination::Into(inode, path)) => {
            let (inode, path) = (*inode, path.clone());
            (Filled { inode, path }, false)
        }
        (None, Destination::As(_)) => unreachable!("a name that is given is always a place"),
    };
    let inode = filled.inode;
    tree::put(job, &context.console, source, filled).await;
    if let (true, Some(place)) = (made, &place) {
        tree::finish_directory(job, inode, &metadata, place).await?;
    }
    Ok(())
}
