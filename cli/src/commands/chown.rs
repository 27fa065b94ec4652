//! `dfs chown`.

use super::Context;
use super::walk::Walk;
use crate::exit::{About as _, Exit, Result};
use crate::output::Done;
use crate::path::RemotePath;
use dfs_client::{Client, SetAttributes};

const EXAMPLES: &str = "\
Examples:
  dfs chown ann /report.csv               the user, by this machine's names
  dfs chown -R 1000:100 /albums           user and group, by number
  dfs chown :staff /albums                the group alone";

/// Change owner and group
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directories with all below them, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// USER, USER:GROUP or :GROUP, as names or numbers
    #[arg(value_parser = parse)]
    owner: Owner,
    /// What to change
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// Who is to own it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

fn parse(text: &str) -> std::result::Result<Owner, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let owner = Owner {
        uid: number(user, "/etc/passwd")?,
        gid: number(group, "/etc/group")?,
    };
    match owner {
        Owner { uid: None, gid: None } => Err("USER, USER:GROUP or :GROUP".into()),
        owner => Ok(owner),
    }
}

/// The number of a name, from the third field of a line of the system's table.
fn number(name: &str, table: &str) -> std::result::Result<Option<u32>, String> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let lines = std::fs::read_to_string(table).map_err(|error| format!("{table}: {error}"))?;
    let found = lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    });
    found.map(Some).ok_or_else(|| format!("{name}: not in {table}"))
}

/// Changes each operand.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    for RemotePath(path) in &args.paths {
        if let Err(failure) = change(&client, path, &args, context).await {
            context.console.complain(failure);
        }
    }
    context.console.print(&Done {})?;
    Ok(Exit::Ok)
}

async fn change(client: &Client, path: &[u8], args: &Args, context: &Context) -> Result<()> {
    let set = SetAttributes {
        uid: args.owner.uid,
        gid: args.owner.gid,
        ..SetAttributes::default()
    };
    if !args.recursive {
        return client.set_attributes(path, set).await.map(drop).about(path);
    }
    let mut walk = Walk::new(client, path).await?;
    while let Some((path, _, listed)) = walk.next().await {
        let changed = client
            .symlink_set_attributes(&path, set.clone())
            .await
            .map(drop)
            .about(&path);
        if let Err(failure) = listed.and(changed) {
            context.console.complain(failure);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_named_or_numbered() {
        let owner = |uid, gid| Ok(Owner { uid, gid });
        assert_eq!(parse("root:0"), owner(Some(0), Some(0)));
        assert_eq!(parse("12"), owner(Some(12), None));
        assert_eq!(parse(":34"), owner(None, Some(34)));
        assert!(parse(":").is_err() && parse("nobody-has-this-name").is_err());
    }
}
