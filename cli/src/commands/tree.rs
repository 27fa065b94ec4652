//! `dfs tree`.

use super::Context;
use super::walk::{self, Walk};
use crate::exit::Exit;
use crate::exit::Result;
use crate::output::{Entry, Report};
use crate::path::{self, RemotePath};
use serde::Serialize;
use std::io::{self, Write};

const EXAMPLES: &str = "\
Examples:
  dfs tree /albums                        everything below, drawn
  dfs tree -L 2 -d /                      two levels of directories";

/// Draw a tree
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Names that begin with a dot, too
    #[arg(short)]
    all: bool,
    /// Directories only
    #[arg(short)]
    directories: bool,
    /// So many levels
    #[arg(short = 'L', value_name = "N")]
    levels: Option<usize>,
    /// Where to begin
    #[arg(default_value = "/")]
    path: RemotePath,
}

/// Entries depth first, each with its depth below the first.
#[derive(Debug, Serialize)]
struct Tree {
    entries: Vec<Entry>,
    #[serde(skip)]
    depths: Vec<usize>,
}

impl Report for Tree {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        // For each depth: does another name follow on it?
        let mut more: Vec<bool> = Vec::new();
        let (mut directories, mut files) = (0_u64, 0_u64);
        for (index, (entry, &depth)) in self.entries.iter().zip(&self.depths).enumerate() {
            let mut later = self.depths.iter().skip(index + 1).copied();
            let follows = later.find(|&other| other <= depth) == Some(depth);
            more.truncate(depth);
            if depth > 0 {
                for &open in more.iter().skip(1) {
                    out.write_all(if open { "│   " } else { "    " }.as_bytes())?;
                }
                out.write_all(if follows { "├── " } else { "└── " }.as_bytes())?;
                match entry.metadata.is_dir() {
                    true => directories += 1,
                    false => files += 1,
                }
            }
            more.push(follows);
            out.write_all(if depth == 0 {
                entry.path.bytes()
            } else {
                entry.name()
            })?;
            if let Some(target) = &entry.target_bytes {
                out.write_all(b" -> ")?;
                out.write_all(target)?;
            }
            out.write_all(b"\n")?;
        }
        writeln!(out, "\n{directories} directories, {files} files")
    }
}

/// Goes through the tree.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let top = path::trimmed(&args.path.0).to_vec();
    let depth_of = |path: &[u8]| {
        let below = path.get(top.len()..).unwrap_or_default();
        below
            .split(|&b| b == b'/')
            .filter(|name| !name.is_empty())
            .count()
    };
    let mut tree = Tree {
        entries: Vec::new(),
        depths: Vec::new(),
    };
    let mut walk = Walk::new(&client, &top).await?;
    if !args.all {
        walk.skip_hidden();
    }
    if let Some(levels) = args.levels {
        walk.stop_below(levels);
    }
    while let Some((path, metadata, listed)) = walk.next().await {
        if let Err(failure) = listed {
            context.console.complain(failure);
        }
        if args.directories && !metadata.is_dir() {
            continue;
        }
        tree.depths.push(depth_of(&path));
        tree.entries.push(walk::entry(&client, &path, metadata).await?);
    }
    context.console.print(&tree)?;
    Ok(Exit::Ok)
}
