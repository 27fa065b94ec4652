//! What was typed: the options every command shares, and which command it is.

use crate::commands::Command;
use dfs_proto::net::is_address;

const EXAMPLES: &str = "\
Examples:
  dfs up                                  a master and three chunkservers on this machine
  dfs put report.csv /                    a local file into the root directory
  dfs put -r photos /albums               a tree, many files at a time
  dfs ls -l /                             what is there
  dfs cat /report.csv | head              bytes to stdout
  dfs get /report.csv copy.csv            and back
  dfs stat --json /report.csv             one JSON document, for scripts
  dfs fsck / --verify                     reads every replica of every chunk

Paths in dfs are absolute. Every command has examples of its own: `dfs put --help`.
Exit codes: 0 done, 1 failed, 2 typed wrongly; `fsck` and `explain` also 3 (under goal) and 4 (missing or corrupt).";

/// A distributed chunk file system: one master says where, chunkservers hold the bytes, in as many copies as asked for.
#[derive(Debug, clap::Parser)]
#[command(name = "dfs", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// Where the master is; several are separated by commas
    #[arg(
        long,
        global = true,
        env = "DFS_MASTER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = address,
        help_heading = "Everywhere"
    )]
    pub(crate) master: Vec<String>,

    /// Answer with one JSON document; on failure with one line of JSON on stderr
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,

    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Accepts "host:port".
///
/// # Errors
/// A sentence for the user.
pub(crate) fn address(text: &str) -> Result<String, String> {
    match is_address(text) {
        true => Ok(text.to_owned()),
        false => Err("an address is HOST:PORT, such as 127.0.0.1:7700".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_address_has_a_port() {
        assert!(address("127.0.0.1:7700").is_ok());
        assert!(address("localhost").is_err());
    }
}
