//! `dfs tail`.

use super::{Context, head};
use crate::exit::{About as _, Exit, Result};
use crate::path::RemotePath;
use dfs_client::{Client, Handle};
use std::io::{self, Write as _};

/// Read backwards in pieces of it to find lines.
const PIECE_BYTES: u64 = 64 * 1024;
const EXAMPLES: &str = "\
Examples:
  dfs tail /log                           the last ten lines
  dfs tail -n 100 -f /log                 the last hundred, and what comes
  dfs tail -c 512 /image | xxd            the last 512 bytes";

/// Write the end of files to stdout
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// So many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: u64,
    /// So many bytes
    #[arg(short = 'c', long, value_name = "N", conflicts_with = "lines")]
    bytes: Option<u64>,
    /// Go on as the file grows, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// What to write
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// Writes the end of each operand, with its name above it if there are several; follows the last one.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let mut last = None;
    for (index, RemotePath(path)) in args.paths.iter().enumerate() {
        if args.paths.len() > 1 {
            head::heading(path, index > 0)?;
        }
        match end(&client, path, &args).await {
            Err(failure) if failure.quiet => return Err(failure),
            Err(failure) => context.console.complain(failure),
            Ok(reached) => last = Some((path, reached)),
        }
    }
    if let (true, Some((path, reached))) = (args.follow, last) {
        follow(&client, path, reached).await?;
    }
    Ok(Exit::Ok)
}

/// Writes the end; returns how far it came.
async fn end(client: &Client, path: &[u8], args: &Args) -> Result<u64> {
    let file = client.open(path).await.about(path)?;
    let size = file.handle().len().await.about(path)?;
    let start = match args.bytes {
        Some(bytes) => size.saturating_sub(bytes),
        None => start_of_lines(file.handle(), size, args.lines)
            .await
            .about(path)?,
    };
    copy(file.handle(), start, path).await
}

/// Where the last `lines` lines begin. A last line without an end counts.
async fn start_of_lines(file: &Handle, size: u64, lines: u64) -> dfs_client::Result<u64> {
    let mut wanted = lines;
    if wanted == 0 {
        return Ok(size);
    }
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(PIECE_BYTES);
        let length = usize::try_from(end - start).unwrap_or(0);
        let piece = file.read_at(start, length).await?;
        let ends = piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        for (index, _) in ends {
            let after = start + index as u64 + 1;
            // The end of the last line begins no line.
            if after == size {
                continue;
            }
            wanted -= 1;
            if wanted == 0 {
                return Ok(after);
            }
        }
        end = start;
    }
    Ok(0)
}

/// Writes from `start` to the end; returns where that was.
async fn copy(file: &Handle, start: u64, path: &[u8]) -> Result<u64> {
    let mut offset = start;
    loop {
        let block = file
            .read_at(offset, super::transfer::BLOCK_BYTES)
            .await
            .about(path)?;
        let mut out = io::stdout().lock();
        if block.is_empty() {
            out.flush()?;
            return Ok(offset);
        }
        out.write_all(&block)?;
        offset += block.len() as u64;
    }
}

/// Writes what is added as soon as it is committed; a write to a pipe that is closed ends it.
async fn follow(client: &Client, path: &[u8], reached: u64) -> Result<()> {
    let file = client.open(path).await.about(path)?;
    let mut following = file.handle().follow(reached).about(path)?;
    loop {
        let bytes = following.next().await.about(path)?;
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()?;
    }
}
