//! `dfs chmod`.

use super::Context;
use super::walk::Walk;
use crate::exit::{About as _, Exit, Result};
use crate::output::Done;
use crate::path::RemotePath;
use dfs_client::{Client, Metadata, SetAttributes};

const EXAMPLES: &str = "\
Examples:
  dfs chmod 640 /report.csv               octal
  dfs chmod -R g+rX,o= /albums            symbolic; X is x for directories and what is executable already";

/// Change permission bits
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directories with all below them, too (symlinks are left alone)
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Octal, or clauses such as u+x,go-w,a=rX
    #[arg(value_parser = parse, allow_hyphen_values = true)]
    mode: Change,
    /// What to change
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Octal(u32),
    Clauses(Vec<Clause>),
}

/// `go-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    /// Of user, group and others, each as its three bits, and their special bits.
    who: u32,
    operator: u8,
    /// `rwxXst`.
    bits: Vec<u8>,
}

fn parse(text: &str) -> std::result::Result<Change, String> {
    let wrong = || format!("{text}: neither octal (644) nor clauses (u+x,go-w)");
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?;
        return if mode <= 0o7777 {
            Ok(Change::Octal(mode))
        } else {
            Err(wrong())
        };
    }
    let clauses: Option<Vec<Clause>> = text.split(',').map(clause).collect();
    clauses.map(Change::Clauses).ok_or_else(wrong)
}

fn clause(text: &str) -> Option<Clause> {
    let at = text.find(['+', '-', '='])?;
    let (who, rest) = text.split_at(at);
    let (operator, bits) = rest.as_bytes().split_first()?;
    let mut mask = 0;
    for letter in who.bytes() {
        mask |= match letter {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o1007,
            b'a' => 0o7777,
            _ => return None,
        };
    }
    if who.is_empty() {
        // As chmod(1): everybody, but for what the umask keeps away.
        mask = 0o7777 & !super::umask();
    }
    let known = bits.iter().all(|letter| b"rwxXst".contains(letter));
    known.then(|| Clause {
        who: mask,
        operator: *operator,
        bits: bits.to_vec(),
    })
}

impl Change {
    /// The mode that comes of it.
    fn of(&self, metadata: &Metadata) -> u32 {
        let clauses = match self {
            Change::Octal(mode) => return *mode,
            Change::Clauses(clauses) => clauses,
        };
        clauses.iter().fold(metadata.mode, |mode, clause| {
            let wanted = clause.bits.iter().fold(0, |bits, letter| {
                bits | match letter {
                    b'r' => 0o444,
                    b'w' => 0o222,
                    b'x' => 0o111,
                    b'X' if metadata.is_dir() || mode & 0o111 != 0 => 0o111,
                    b's' => 0o6000,
                    b't' => 0o1000,
                    _ => 0,
                }
            }) & clause.who;
            match clause.operator {
                b'+' => mode | wanted,
                b'-' => mode & !wanted,
                _ => mode & !(clause.who & 0o777) | wanted,
            }
        })
    }
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
    if !args.recursive {
        let metadata = client.stat(path).await.about(path)?;
        return set(client, path, args.mode.of(&metadata)).await;
    }
    let mut walk = Walk::new(client, path).await?;
    while let Some((path, metadata, listed)) = walk.next().await {
        let done = match metadata.is_symlink() {
            true => listed,
            false => listed.and(set(client, &path, args.mode.of(&metadata)).await),
        };
        if let Err(failure) = done {
            context.console.complain(failure);
        }
    }
    Ok(())
}

async fn set(client: &Client, path: &[u8], mode: u32) -> Result<()> {
    let set = SetAttributes {
        mode: Some(mode),
        ..SetAttributes::default()
    };
    client.set_attributes(path, set).await.about(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::metadata;
    use dfs_client::Kind;

    #[test]
    fn clauses_change_bits_as_chmod_does() {
        for (text, before, after) in [
            ("640", 0o4777, 0o640),
            ("u+x", 0o644, 0o744),
            ("go-w,o=", 0o666, 0o640),
            ("a=r", 0o755, 0o444),
            ("u+s,g+s,o+t", 0o755, 0o7755),
            ("a+X", 0o644, 0o644),
            ("a+X", 0o744, 0o755),
        ] {
            assert_eq!(
                parse(text).unwrap().of(&metadata(Kind::File, before)),
                after,
                "{text} {before:o}"
            );
        }
        assert_eq!(parse("a+X").unwrap().of(&metadata(Kind::Directory, 0o600)), 0o711);
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "8", "77777", "u", "z+x", "u+q", "u+x,"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
