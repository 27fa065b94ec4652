//! `dfs man`.

use super::Context;
use crate::args::Args as Typed;
use crate::exit::{Exit, Failure, Result};
use clap::CommandFactory as _;
use std::io::Write as _;

/// Print the manual page
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  dfs man | man -l -\n  dfs man put > dfs-put.1")]
pub(crate) struct Args {
    /// Of one command
    command: Option<String>,
}

/// Prints the page in roff.
#[expect(clippy::unused_async, reason = "every command has this signature")]
pub(crate) async fn run(args: Args, _context: &Context) -> Result<Exit> {
    let mut command = Typed::command();
    command.build();
    if let Some(name) = &args.command {
        let found = command.find_subcommand(name).cloned();
        command =
            found.ok_or_else(|| Failure::new(dfs_client::Code::NotFound, "no such command").about(name))?;
        let title = format!("dfs-{name}");
        command = command.bin_name(title.clone()).display_name(title);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    std::io::stdout().lock().write_all(&page)?;
    Ok(Exit::Ok)
}
