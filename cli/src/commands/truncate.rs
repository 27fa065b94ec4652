//! `dfs truncate`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::output::Done;
use crate::path::RemotePath;
use dfs_client::{Client, Code, OpenOptions, SetAttributes};
use dfs_stdx::size::Size;

const EXAMPLES: &str = "\
Examples:
  dfs truncate -s 0 /log                  empty
  dfs truncate -s 1GiB /image             longer: what is added reads as zeros and takes no room
  dfs truncate -s +64KiB /image           longer by so much (- for shorter)";

/// Set the size of files
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Make nothing
    #[arg(short = 'c', long)]
    no_create: bool,
    /// The size; with + or - relative
    #[arg(short, long, value_parser = parse, allow_hyphen_values = true)]
    size: Change,
    /// Files
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// A change of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    To(u64),
    Longer(u64),
    Shorter(u64),
}

fn parse(text: &str) -> std::result::Result<Change, dfs_stdx::size::Invalid> {
    Ok(match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(by), _) => Change::Longer(by.parse::<Size>()?.bytes()),
        (_, Some(by)) => Change::Shorter(by.parse::<Size>()?.bytes()),
        (None, None) => Change::To(text.parse::<Size>()?.bytes()),
    })
}

/// Sets the size of each operand.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    for RemotePath(path) in &args.paths {
        if let Err(failure) = set(&client, path, &args).await {
            context.console.complain(failure);
        }
    }
    context.console.print(&Done {})?;
    Ok(Exit::Ok)
}

async fn set(client: &Client, path: &[u8], args: &Args) -> Result<()> {
    let size = match client.stat(path).await {
        Ok(metadata) => metadata.size,
        Err(error) if error.code == Code::NotFound && args.no_create => return Ok(()),
        Err(error) if error.code == Code::NotFound => {
            let mode = 0o666 & !super::umask();
            let options = OpenOptions::new().write(true).create(true).mode(mode);
            client
                .open_with(path, options)
                .await
                .about(path)?
                .close()
                .await
                .about(path)?;
            0
        }
        Err(error) => return Err(error).about(path),
    };
    let set = SetAttributes {
        size: Some(match args.size {
            Change::To(size) => size,
            Change::Longer(by) => size.saturating_add(by),
            Change::Shorter(by) => size.saturating_sub(by),
        }),
        ..SetAttributes::default()
    };
    client.set_attributes(path, set).await.map(drop).about(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_absolute_or_relative() {
        assert_eq!(parse("1K").unwrap(), Change::To(1_024));
        assert_eq!(parse("+2").unwrap(), Change::Longer(2));
        assert_eq!(parse("-3").unwrap(), Change::Shorter(3));
        assert!(parse("x").is_err());
    }
}
