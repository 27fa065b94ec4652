//! `dfs checksum`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::output::{PathField, Report};
use crate::path::RemotePath;
use dfs_client::Client;
use serde::Serialize;
use std::io::{self, Write};

const EXAMPLES: &str = "\
Examples:
  dfs checksum /report.csv                CRC-32 of its bytes, as `crc32` and zip print it
  dfs checksum --json /a /b";

/// Show the CRC-32 of files' bytes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Files
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

#[derive(Debug, Serialize)]
struct Sums {
    entries: Vec<Sum>,
}

#[derive(Debug, Serialize)]
struct Sum {
    #[serde(flatten)]
    path: PathField,
    algorithm: &'static str,
    checksum: String,
    size: u64,
}

impl Report for Sums {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for sum in &self.entries {
            write!(out, "{} {:>14} ", sum.checksum, sum.size)?;
            out.write_all(sum.path.bytes())?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Reads each operand.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let mut entries = Vec::new();
    for RemotePath(path) in &args.paths {
        match sum(&client, path).await {
            Ok(sum) => entries.push(sum),
            Err(failure) => context.console.complain(failure),
        }
    }
    context.console.print(&Sums { entries })?;
    Ok(Exit::Ok)
}

async fn sum(client: &Client, path: &[u8]) -> Result<Sum> {
    let mut file = client.open(path).await.about(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut size = 0;
    while let Some(block) = file.next_bytes().await.about(path)? {
        hasher.update(&block);
        size += block.len() as u64;
    }
    Ok(Sum {
        path: PathField::new(path),
        algorithm: "crc32",
        checksum: format!("{:08x}", hasher.finalize()),
        size,
    })
}
