//! `dfs explain`: why is it so, what does it wait for, what would be lost, may it be rebooted.

use super::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::{ChunkWords, Explained, NodeWords};
use crate::path::RemotePath;
use dfs_client::{ChunkHandle, Code, NodeId};

const EXAMPLES: &str = "\
Examples:
  dfs explain file /report.csv            every chunk that is not as it should be, and what it waits for
  dfs explain chunk 00000000000000a3      one chunk, by the handle that `chunks` and `fsck` show
  dfs explain node 2 && ssh host2 reboot  what rests on chunkserver 2, and whether it is safe to reboot it

Exit codes: 0 well (a node: safe to reboot), 1 could not ask, 2 typed wrongly, 3 under goal or waiting
(a node: not safe), 4 missing or corrupt.";

/// Say why a chunk, a file or a chunkserver is as it is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    about: About,
}

#[derive(Debug, clap::Subcommand)]
enum About {
    /// One chunk: 16 hex digits
    Chunk {
        /// As `chunks` and `fsck` show it
        #[arg(value_parser = handle)]
        chunk: ChunkHandle,
    },
    /// Every chunk of a file
    File {
        /// The file
        path: RemotePath,
    },
    /// A chunkserver: what rests on it, and whether it may be rebooted
    Node {
        /// Its number, as `nodes` shows it
        node: u32,
    },
}

fn handle(text: &str) -> std::result::Result<ChunkHandle, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map(ChunkHandle)
        .map_err(|_| "a chunk is a hexadecimal number, such as 00000000000000a3".to_owned())
}

/// Asks the master and shows what it says.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    match args.about {
        About::Chunk { chunk } => {
            let account = client.explain_chunk(chunk).await;
            let account = account.map_err(|error| no_such(error, "No such chunk"));
            let words = ChunkWords::from(account.about(chunk.to_string())?);
            let exit = health(&words.health);
            context.console.print(&words)?;
            Ok(exit)
        }
        About::File { path } => {
            let path = &path.0;
            let metadata = client.stat(path).await.about(path)?;
            if !metadata.is_file() {
                return Err(Failure::new(Code::InvalidArgument, "Not a regular file").about(path));
            }
            let mut chunks = Vec::new();
            for chunk in client.chunks(path).await.about(path)? {
                match client.explain_chunk(chunk.chunk).await {
                    Ok(account) => chunks.push(ChunkWords::from(account)),
                    // It went since the file was asked for its chunks.
                    Err(error) if error.code == Code::NotFound => {}
                    Err(error) => return Err(error).about(path),
                }
            }
            let exit = chunks.iter().map(|c| health(&c.health)).max().unwrap_or(Exit::Ok);
            context.console.print(&Explained::new(path, chunks))?;
            Ok(exit)
        }
        About::Node { node } => {
            let account = client.explain_node(NodeId(node)).await;
            let account = account.map_err(|error| no_such(error, "No such chunkserver"));
            let words = NodeWords::from(account.about(node.to_string())?);
            let exit = if words.safe_to_reboot {
                Exit::Ok
            } else {
                Exit::Degraded
            };
            context.console.print(&words)?;
            Ok(exit)
        }
    }
}

fn no_such(error: dfs_client::Error, text: &str) -> Failure {
    match error.code {
        Code::NotFound => Failure::new(Code::NotFound, text),
        _ => error.into(),
    }
}

/// As `fsck` would end for it.
fn health(word: &str) -> Exit {
    match word {
        "ok" | "open" | "over_goal" | "collecting" => Exit::Ok,
        "missing" | "corrupt" => Exit::Damaged,
        _ => Exit::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_named_in_hex() {
        assert_eq!(handle("00000000000000a3"), Ok(ChunkHandle(0xa3)));
        assert_eq!(handle("0xA3"), Ok(ChunkHandle(0xa3)));
        assert!(handle("/file").is_err());
    }

    #[test]
    fn the_exit_code_is_fscks() {
        assert_eq!(health("ok"), Exit::Ok);
        assert_eq!(health("under_goal"), Exit::Degraded);
        assert_eq!(health("frozen"), Exit::Degraded);
        assert_eq!(health("corrupt"), Exit::Damaged);
    }
}
