//! `dfs head`.

use super::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::path::RemotePath;
use dfs_client::Client;
use std::io::{self, Write as _};

const EXAMPLES: &str = "\
Examples:
  dfs head /log                           the first ten lines
  dfs head -n 3 /log                      the first three
  dfs head -c 4096 /image | xxd           the first 4096 bytes";

/// Write the beginning of files to stdout
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// So many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: u64,
    /// So many bytes
    #[arg(short = 'c', long, value_name = "N", conflicts_with = "lines")]
    bytes: Option<u64>,
    /// What to write
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// Writes the beginning of each operand, with its name above it if there are several.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    for (index, RemotePath(path)) in args.paths.iter().enumerate() {
        if args.paths.len() > 1 {
            heading(path, index > 0)?;
        }
        match beginning(&client, path, &args).await {
            Err(failure) if failure.quiet => return Err(failure),
            Err(failure) => context.console.complain(failure),
            Ok(()) => {}
        }
    }
    Ok(Exit::Ok)
}

/// `==> /name <==`, as GNU's head and tail have it.
///
/// # Errors
/// Stdout's.
pub(super) fn heading(path: &[u8], again: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(if again { b"\n==> " } else { b"==> " })?;
    out.write_all(path)?;
    out.write_all(b" <==\n")?;
    Ok(())
}

async fn beginning(client: &Client, path: &[u8], args: &Args) -> Result<()> {
    let mut file = client.open(path).await.about(path)?;
    let mut left = args.bytes.unwrap_or(args.lines);
    while left > 0 {
        let Some(block) = file.next_bytes().await.about(path)? else {
            break;
        };
        let length = match args.bytes {
            Some(_) => {
                let length = left.min(block.len() as u64);
                left -= length;
                usize::try_from(length).unwrap_or(block.len())
            }
            None => lines(&block, &mut left),
        };
        let part = block.get(..length).unwrap_or(&block);
        io::stdout().lock().write_all(part)?;
    }
    io::stdout().lock().flush().map_err(Failure::from)
}

/// Bytes of the first `left` lines of the block; `left` is less by those that end in it.
fn lines(block: &[u8], left: &mut u64) -> usize {
    for (index, _) in block.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        *left -= 1;
        if *left == 0 {
            return index + 1;
        }
    }
    block.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_over_blocks() {
        let mut left = 3;
        assert_eq!((lines(b"a\nb", &mut left), left), (3, 2));
        assert_eq!((lines(b"\nc\nd\n", &mut left), left), (3, 0));
    }
}
