//! `dfs test`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::path::RemotePath;
use dfs_client::Code;
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  dfs test -e /report.csv && echo there   it exists
  dfs test -d /albums                     it is a directory
  dfs test -f /report.csv                 it is a regular file
  dfs test -s /report.csv                 it exists and is not empty
  dfs test -z /report.csv                 it exists and is empty";

/// Ask a question; the exit code is the answer
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    question: Question,
    /// What it is about
    path: RemotePath,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Question {
    /// Does it exist?
    #[arg(short)]
    exists: bool,
    /// Is it a directory?
    #[arg(short)]
    directory: bool,
    /// Is it a regular file?
    #[arg(short)]
    file: bool,
    /// Does it exist with more than no bytes?
    #[arg(short)]
    size: bool,
    /// Does it exist with no bytes?
    #[arg(short)]
    zero: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    result: bool,
}

impl crate::output::Report for Answer {
    fn human(&self, _out: &mut dyn std::io::Write) -> std::io::Result<()> {
        Ok(())
    }
}

/// Exit 0 for yes, 1 for no.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let found = match client.stat(&args.path).await {
        Ok(metadata) => Some(metadata),
        Err(error) if matches!(error.code, Code::NotFound | Code::NotADirectory) => None,
        Err(error) => return Err(error).about(&args.path),
    };
    let q = &args.question;
    let result = found.is_some_and(|m| {
        q.exists
            || q.directory && m.is_dir()
            || q.file && m.is_file()
            || q.size && m.size > 0
            || q.zero && m.size == 0
    });
    context.console.print(&Answer { result })?;
    Ok(if result { Exit::Ok } else { Exit::Failed })
}
