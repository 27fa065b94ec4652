//! `dfs ls`.

use super::{Context, walk};
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::{Entry, Listing, Look, Section};
use crate::path::{self, RemotePath};
use dfs_client::{Client, Kind};

const EXAMPLES: &str = "\
Examples:
  dfs ls /                 names, in order
  dfs ls -l /albums        with mode, links, owner, group, size, time (UTC)
  dfs ls -lhS /albums      largest first, sizes with units
  dfs ls -R --json /       everything, as one JSON document";

/// List directories
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_flag = true)]
pub(crate) struct Args {
    /// All attributes
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot too, with . and ..
    #[arg(short)]
    all: bool,
    /// Names that begin with a dot too
    #[arg(short = 'A')]
    almost_all: bool,
    /// Directories themselves, not what is in them
    #[arg(short)]
    directory: bool,
    /// All directories below, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Sizes with units
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// Inode numbers
    #[arg(short)]
    inode: bool,
    /// Newest first
    #[arg(short = 't', conflicts_with = "by_size")]
    by_time: bool,
    /// Largest first
    #[arg(short = 'S')]
    by_size: bool,
    /// The other way round
    #[arg(short)]
    reverse: bool,
    /// One name a line (as always)
    #[arg(short = '1')]
    one: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// What to list
    #[arg(default_value = "/")]
    paths: Vec<RemotePath>,
}

/// Lists the operands: first what is no directory, then each directory.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let (mut plain, mut directories) = (Vec::new(), Vec::new());
    for RemotePath(path) in &args.paths {
        match operand(&client, path, &args).await {
            Ok(entry) if entry.metadata.is_dir() && !args.directory => directories.push(path.clone()),
            Ok(entry) => plain.push(entry),
            Err(failure) => context.console.complain(failure),
        }
    }
    sort(&mut plain, &args);
    let headings = args.paths.len() > 1 || args.recursive;
    let mut listing = Listing {
        look: Look {
            long: args.long,
            human: args.human_readable,
            inode: args.inode,
            paths: directories.is_empty(),
            classify: false,
        },
        ..Listing::default()
    };
    if !plain.is_empty() {
        let count = plain.len();
        listing.sections.push(Section { heading: None, count });
        listing.entries = plain;
    }
    directories.reverse();
    while let Some(directory) = directories.pop() {
        match contents(&client, &directory, &args).await {
            Ok(entries) => {
                if args.recursive {
                    let below = entries
                        .iter()
                        .rev()
                        .filter(|e| e.metadata.is_dir() && !is_dots(e));
                    directories.extend(below.map(|e| e.path.bytes().to_vec()));
                }
                let shown = entries
                    .into_iter()
                    .filter(|e| !context.console.json || !is_dots(e));
                let before = listing.entries.len();
                listing.entries.extend(shown);
                listing.sections.push(Section {
                    heading: headings.then_some(directory),
                    count: listing.entries.len() - before,
                });
            }
            Err(failure) => context.console.complain(failure),
        }
    }
    if !listing.entries.is_empty() || !listing.sections.is_empty() || context.console.json {
        context.console.print(&listing)?;
    }
    Ok(Exit::Ok)
}

/// An operand itself; with `-l` or `-d` a symlink is shown, else followed.
async fn operand(client: &Client, path: &[u8], args: &Args) -> Result<Entry> {
    let follow = !args.long && !args.directory;
    let metadata = match follow {
        true => client.stat(path).await,
        false => client.symlink_stat(path).await,
    };
    let metadata = match metadata {
        // A dangling symlink is shown as what it is.
        Err(error) if follow && error.code == dfs_client::Code::NotFound => client.symlink_stat(path).await,
        other => other,
    };
    walk::entry(client, path, metadata.about(path)?).await
}

async fn contents(client: &Client, directory: &[u8], args: &Args) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for found in client.list(directory).await.about(directory)? {
        if found.name.starts_with(b".") && !args.all && !args.almost_all {
            continue;
        }
        let path = path::join(directory, &found.name);
        // A symlink that was removed since has no target to show.
        let entry = match walk::entry(client, &path, found.metadata.clone()).await {
            Err(Failure {
                code: dfs_client::Code::NotFound,
                ..
            }) => Entry::new(&path, found.metadata, None),
            other => other?,
        };
        entries.push(entry);
    }
    sort(&mut entries, args);
    if args.all {
        let mut dots = Vec::new();
        for dot in [&b"."[..], b".."] {
            let path = path::join(directory, dot);
            let metadata = client.stat(&path).await.about(&path)?;
            dots.push(Entry::new(&path, metadata, None));
        }
        entries.splice(0..0, dots);
    }
    Ok(entries)
}

fn is_dots(entry: &Entry) -> bool {
    entry.metadata.kind == Kind::Directory && matches!(entry.name(), b"." | b"..")
}

fn sort(entries: &mut [Entry], args: &Args) {
    entries.sort_by(|a, b| a.path.bytes().cmp(b.path.bytes()));
    if args.by_time {
        entries.sort_by_key(|e| std::cmp::Reverse(e.metadata.mtime_ns));
    } else if args.by_size {
        entries.sort_by_key(|e| std::cmp::Reverse(e.metadata.size));
    }
    if args.reverse {
        entries.reverse();
    }
}
