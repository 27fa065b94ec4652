//! `dfs trash`: what was removed and can come back.

use super::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::{Done, RetentionRow, Trash};
use crate::path::{self, RemotePath};
use dfs_client::{Client, Code, Trashed};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  dfs trash ls                            what can come back, and until when
  dfs trash restore /report.csv           the newest one that was removed as /report.csv, to where it was
  dfs trash restore 00000000000000a3 /r   by its number, under another name
  dfs trash empty                         everything of yours goes for good
  dfs trash keep /scratch off             nothing below /scratch goes to the trash (7d, 12h, 30m, 45s, off, default)
  dfs trash keep /scratch                 how long it is";

/// Show, restore and empty the trash
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show what you removed (the superuser: what anyone removed)
    Ls {
        /// Only what was removed below this path
        path: Option<RemotePath>,
    },
    /// Take something out of it
    Restore {
        /// Its number or the path it was removed as
        what: OsString,
        /// Where to; must not exist
        to: Option<RemotePath>,
    },
    /// Do away with it for good
    Empty {
        /// Numbers or paths; none: everything of yours
        what: Vec<OsString>,
    },
    /// Show or say how long it keeps what is removed below a directory
    Keep {
        /// The directory
        directory: RemotePath,
        /// 7d, 12h, 30m, 45s, off (no trash) or default (as the directory above)
        #[arg(value_parser = keep)]
        time: Option<Keep>,
    },
}

/// What `keep` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keep(Option<Duration>);

fn keep(text: &str) -> std::result::Result<Keep, String> {
    let wrong = || "a time is 7d, 12h, 30m or 45s; or off, or default".to_owned();
    match text {
        "default" => return Ok(Keep(None)),
        "off" => return Ok(Keep(Some(Duration::ZERO))),
        _ => {}
    }
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" | "" => 1,
        _ => return Err(wrong()),
    };
    let count: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Keep(Some(Duration::from_secs(seconds))))
}

/// Does what is asked.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    match args.what {
        What::Ls { path } => {
            let mut entries = client.trash().await.about(context.masters())?;
            if let Some(RemotePath(below)) = &path {
                entries.retain(|e| is_below(&e.path, path::trimmed(below)));
            }
            context.console.print(&Trash::new(&entries))?;
        }
        What::Restore { what, to } => {
            let entry = find(&client.trash().await.about(context.masters())?, &what)?;
            let to = to.as_ref().map(|path| path.0.as_slice());
            client.restore(entry, to).await.about(what.as_bytes())?;
            context.console.print(&Done {})?;
        }
        What::Empty { what } => {
            empty(&client, &what, context).await?;
            context.console.print(&Done {})?;
        }
        What::Keep { directory, time } => {
            let path = &directory.0;
            if let Some(Keep(time)) = time {
                client.set_retention(path, time).await.about(path)?;
            }
            let retention = client.retention(path).await.about(path)?;
            let row = RetentionRow::new(path, retention);
            match time {
                // As chmod: what was asked for is done, and nothing is said.
                Some(_) if !context.console.json => {}
                _ => context.console.print(&row)?,
            }
        }
    }
    Ok(Exit::Ok)
}

async fn empty(client: &Client, what: &[OsString], context: &Context) -> Result<()> {
    let all = client.trash().await.about(context.masters())?;
    let mut entries: Vec<u64> = Vec::new();
    for one in what {
        match find(&all, one) {
            Ok(entry) => entries.push(entry),
            Err(failure) => context.console.complain(failure),
        }
    }
    if what.is_empty() {
        entries = all.iter().map(|e| e.entry).collect();
    }
    client.empty_trash(&entries).await.about(context.masters())
}

fn is_below(path: &[u8], top: &[u8]) -> bool {
    top == b"/"
        || path == top
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// The entry of that number, or the newest one that was removed as that path.
fn find(all: &[Trashed], what: &OsString) -> Result<u64> {
    let text = what.as_bytes();
    let found = match text.first() {
        Some(b'/') => all
            .iter()
            .rev()
            .find(|e| path::trimmed(&e.path) == path::trimmed(text)),
        _ => {
            let number = std::str::from_utf8(text).ok();
            let number = number.and_then(|n| u64::from_str_radix(n, 16).ok());
            all.iter().find(|e| Some(e.entry) == number)
        }
    };
    let missing = || Failure::new(Code::NotFound, "Not in the trash").about(text);
    found.map(|e| e.entry).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_seconds() {
        let seconds = |text| keep(text).unwrap().0.map(|d| d.as_secs());
        assert_eq!(seconds("3d"), Some(259_200));
        assert_eq!(seconds("12h"), Some(43_200));
        assert_eq!(seconds("45"), Some(45));
        assert_eq!(seconds("off"), Some(0));
        assert_eq!(seconds("default"), None);
        for wrong in ["3w", "d", "-1s", "99999999999999999999d", ""] {
            assert!(keep(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_is_below_its_directory() {
        assert!(is_below(b"/a/b", b"/a") && is_below(b"/a", b"/a") && is_below(b"/a", b"/"));
        assert!(!is_below(b"/ab", b"/a"));
    }
}
