//! `dfs completions`.

use super::Context;
use crate::args::Args as Typed;
use crate::exit::{Exit, Result};
use clap::CommandFactory as _;
use std::io::Write as _;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dfs completions bash > /etc/bash_completion.d/dfs\n  dfs completions zsh > ~/.zfunc/_dfs"
)]
pub(crate) struct Args {
    /// Which one
    shell: clap_complete::Shell,
}

/// Prints the script.
#[expect(clippy::unused_async, reason = "every command has this signature")]
pub(crate) async fn run(args: Args, _context: &Context) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Typed::command(), "dfs", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Exit::Ok)
}
