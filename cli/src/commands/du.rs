//! `dfs du`.

use super::Context;
use super::walk::Walk;
use crate::exit::{Exit, Result};
use crate::output::{PathField, Report};
use crate::path::{self, RemotePath};
use dfs_client::{Client, InodeId};
use dfs_stdx::size::Size;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};

const EXAMPLES: &str = "\
Examples:
  dfs du -sh /albums                      one figure, with units
  dfs du -b /                             bytes of each directory
Figures are allocated bytes of one replica (-b: sizes); without -h or -b in units of 1024 bytes.";

/// Show how much room trees take
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_flag = true)]
pub(crate) struct Args {
    /// Operands only, not the directories below
    #[arg(short, long)]
    summarize: bool,
    /// Files, too
    #[arg(short, long, conflicts_with = "summarize")]
    all: bool,
    /// Sizes in bytes
    #[arg(short, long)]
    bytes: bool,
    /// With units
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Where to look
    #[arg(default_value = "/")]
    paths: Vec<RemotePath>,
}

#[derive(Debug, Serialize)]
struct Usage {
    entries: Vec<Row>,
    #[serde(skip)]
    bytes: bool,
    #[serde(skip)]
    human: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    path: PathField,
    bytes: u64,
    allocated_bytes: u64,
}

impl Report for Usage {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in &self.entries {
            let figure = if self.bytes {
                row.bytes
            } else {
                row.allocated_bytes
            };
            match (self.human, self.bytes) {
                (true, _) => write!(out, "{}\t", Size(figure).human())?,
                (false, true) => write!(out, "{figure}\t")?,
                (false, false) => write!(out, "{}\t", figure.div_ceil(1_024))?,
            }
            out.write_all(row.path.bytes())?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Adds up each operand; a file with several names counts once.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for RemotePath(path) in &args.paths {
        match add_up(&client, path, &args, context, &mut seen).await {
            Ok(rows) => entries.extend(rows),
            Err(failure) => context.console.complain(failure),
        }
    }
    context.console.print(&Usage {
        entries,
        bytes: args.bytes,
        human: args.human_readable,
    })?;
    Ok(Exit::Ok)
}

async fn add_up(
    client: &Client,
    top: &[u8],
    args: &Args,
    context: &Context,
    seen: &mut BTreeSet<InodeId>,
) -> Result<Vec<Row>> {
    let mut walk = Walk::new(client, top).await?;
    let mut done = Vec::new();
    // Directories whose contents are being added up, the operand first.
    let mut open: Vec<Row> = Vec::new();
    while let Some((path, metadata, listed)) = walk.next().await {
        if let Err(failure) = listed {
            context.console.complain(failure);
        }
        while open.last().is_some_and(|row| !is_below(&path, row.path.bytes())) {
            close(&mut open, &mut done, args.summarize);
        }
        let counts = metadata.nlink < 2 || metadata.is_dir() || seen.insert(metadata.inode);
        let row = Row {
            path: PathField::new(&path),
            bytes: if counts { metadata.size } else { 0 },
            allocated_bytes: if counts { metadata.allocated_bytes } else { 0 },
        };
        if metadata.is_dir() || open.is_empty() {
            open.push(row);
        } else if let Some(parent) = open.last_mut() {
            parent.bytes += row.bytes;
            parent.allocated_bytes += row.allocated_bytes;
            done.extend(args.all.then_some(row));
        }
    }
    while !open.is_empty() {
        close(&mut open, &mut done, args.summarize);
    }
    Ok(done)
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    let directory = path::trimmed(directory);
    directory == b"/"
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with(b"/"))
}

/// A directory is complete: it counts for the one above it.
fn close(open: &mut Vec<Row>, done: &mut Vec<Row>, summarize: bool) {
    let Some(row) = open.pop() else { return };
    if let Some(parent) = open.last_mut() {
        parent.bytes += row.bytes;
        parent.allocated_bytes += row.allocated_bytes;
    }
    if !summarize || open.is_empty() {
        done.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_begins_alike_is_not_below() {
        assert!(is_below(b"/a/b", b"/a") && is_below(b"/a", b"/") && is_below(b"/a/b/c", b"/a/"));
        assert!(!is_below(b"/ab/c", b"/a"));
        assert!(!is_below(b"/b", b"/a"));
    }
}
