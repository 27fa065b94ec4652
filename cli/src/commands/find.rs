//! `dfs find`: the tests of find(1) that name and describe files, all of which must hold.

use super::Context;
use super::walk::{self, Walk};
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::{Entry, Listing, Look};
use crate::path::{self, RemotePath};
use dfs_client::{Code, Kind, Metadata};
use dfs_stdx::size::Size;
use std::cmp::Ordering;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

const EXAMPLES: &str = "\
Examples:
  dfs find / -name '*.csv' -type f        by name and kind
  dfs find /albums -size +1M -newer /done larger than 1 MiB, changed after /done
  dfs find / --json -empty                as {\"entries\": [..]}

Tests (all must hold; ! before one turns it round):
  -name GLOB  -iname GLOB  -path GLOB  -type f|d|l|p|s|c|b  -empty
  -size [+-]N[ckMG] (rounded up to the unit; without one: 512 bytes)  -newer PATH
  -mindepth N  -maxdepth N";

/// Find names by what they are like
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to begin
    #[arg(default_value = "/")]
    path: RemotePath,
    /// Tests, below
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "TEST")]
    tests: Vec<OsString>,
}

/// One test, and whether it is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    holds: bool,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Name(Vec<u8>),
    NameOfAnyCase(Vec<u8>),
    Path(Vec<u8>),
    Type(Kind),
    Empty,
    /// More, the same or less than so many units of so many bytes.
    Size(Ordering, u64, u64),
    Newer(Vec<u8>),
}

/// What was typed after the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    tests: Vec<Test>,
    depth_min: usize,
    depth_max: Option<usize>,
    json: bool,
}

fn parse(words: &[OsString]) -> std::result::Result<Wanted, String> {
    let mut wanted = Wanted::default();
    let mut words = words.iter().map(|word| word.as_bytes());
    let mut holds = true;
    while let Some(word) = words.next() {
        let shown = String::from_utf8_lossy(word).into_owned();
        let mut value = || words.next().ok_or_else(|| format!("{shown} needs a value"));
        let number = |text: &[u8]| {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            number.ok_or_else(|| format!("{shown} needs a number"))
        };
        let what = match word {
            b"!" | b"-not" => {
                holds = !holds;
                continue;
            }
            b"-a" | b"-and" | b"-print" => continue,
            // Everything after the path comes here.
            b"--json" => {
                wanted.json = true;
                continue;
            }
            b"-mindepth" => {
                wanted.depth_min = number(value()?)?;
                continue;
            }
            b"-maxdepth" => {
                wanted.depth_max = Some(number(value()?)?);
                continue;
            }
            b"-name" => What::Name(value()?.to_vec()),
            b"-iname" => What::NameOfAnyCase(value()?.to_ascii_lowercase()),
            b"-path" => What::Path(value()?.to_vec()),
            b"-type" => What::Type(kind(value()?)?),
            b"-empty" => What::Empty,
            b"-size" => size(value()?).ok_or("-size needs [+-]N[ckMG]")?,
            b"-newer" => What::Newer(value()?.to_vec()),
            _ => return Err(format!("unknown test: {shown}")),
        };
        wanted.tests.push(Test { holds, what });
        holds = true;
    }
    Ok(wanted)
}

fn kind(letter: &[u8]) -> std::result::Result<Kind, String> {
    match letter {
        b"f" => Ok(Kind::File),
        b"d" => Ok(Kind::Directory),
        b"l" => Ok(Kind::Symlink),
        b"p" => Ok(Kind::Fifo),
        b"s" => Ok(Kind::Socket),
        b"c" => Ok(Kind::CharacterDevice),
        b"b" => Ok(Kind::BlockDevice),
        _ => Err("-type needs one of f d l p s c b".into()),
    }
}

fn size(text: &[u8]) -> Option<What> {
    let text = std::str::from_utf8(text).ok()?;
    let (order, text) = match text.split_at_checked(1)? {
        ("+", rest) => (Ordering::Greater, rest),
        ("-", rest) => (Ordering::Less, rest),
        _ => (Ordering::Equal, text),
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..)? {
        "" | "b" => 512,
        "c" => 1,
        unit => format!("1{unit}").parse::<Size>().ok()?.bytes(),
    };
    Some(What::Size(order, digits.parse().ok()?, unit))
}

/// Lists all that pass.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let wanted = parse(&args.tests).map_err(|text| Failure::new(Code::InvalidArgument, text))?;
    let client = context.connect().await?;
    let mut newer = Vec::new();
    for test in &wanted.tests {
        if let What::Newer(path) = &test.what {
            newer.push((path.clone(), client.stat(path).await.about(path)?.mtime_ns));
        }
    }
    let top = path::trimmed(&args.path.0).to_vec();
    let mut walk = Walk::new(&client, &top).await?;
    if let Some(levels) = wanted.depth_max {
        walk.stop_below(levels);
    }
    let mut entries: Vec<Entry> = Vec::new();
    while let Some((path, metadata, listed)) = walk.next().await {
        if let Err(failure) = listed {
            context.console.complain(failure);
        }
        let depth = path
            .get(top.len()..)
            .unwrap_or_default()
            .split(|&b| b == b'/')
            .filter(|n| !n.is_empty())
            .count();
        if depth < wanted.depth_min {
            continue;
        }
        let mut passes = true;
        for test in &wanted.tests {
            let holds = match &test.what {
                What::Empty if metadata.is_dir() => client.list(&path).await.about(&path)?.is_empty(),
                what => holds(what, &path, &metadata, &newer),
            };
            passes &= holds == test.holds;
        }
        if passes {
            entries.push(walk::entry(&client, &path, metadata).await?);
        }
    }
    let listing = Listing {
        entries,
        look: Look {
            paths: true,
            ..Look::default()
        },
        ..Listing::default()
    };
    context.console.print_as(&listing, wanted.json)?;
    Ok(Exit::Ok)
}

/// Every test but that of an empty directory.
fn holds(what: &What, path: &[u8], metadata: &Metadata, newer: &[(Vec<u8>, i64)]) -> bool {
    match what {
        What::Name(glob) => matches(glob, path::name(path)),
        What::NameOfAnyCase(glob) => matches(glob, &path::name(path).to_ascii_lowercase()),
        What::Path(glob) => matches(glob, path),
        What::Type(kind) => metadata.kind == *kind,
        What::Empty => metadata.is_file() && metadata.size == 0,
        What::Size(order, count, unit) => metadata.size.div_ceil(*unit).cmp(count) == *order,
        What::Newer(than) => newer
            .iter()
            .any(|(path, mtime_ns)| path == than && metadata.mtime_ns > *mtime_ns),
    }
}

/// A shell's pattern: `*`, `?`, `[a-z]`, `[!a-z]`, and a backslash before what is meant as it is.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match (glob, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            (0..=text.len()).any(|skip| matches(rest, text.get(skip..).unwrap_or_default()))
        }
        ([b'?', rest @ ..], [_, text @ ..]) => matches(rest, text),
        ([b'[', set @ ..], [letter, text @ ..]) => match set_end(set) {
            Some(end) => {
                let (set, rest) = set.split_at(end);
                in_set(set, *letter) && matches(rest.get(1..).unwrap_or_default(), text)
            }
            None => *letter == b'[' && matches(set, text),
        },
        ([b'\\', letter, rest @ ..], [other, text @ ..]) => letter == other && matches(rest, text),
        ([letter, rest @ ..], [other, text @ ..]) => letter == other && matches(rest, text),
        ([], [_, ..]) | ([_, ..], []) => false,
    }
}

/// Where the `]` of a set is; one in the first place is a member.
fn set_end(set: &[u8]) -> Option<usize> {
    let skip = usize::from(matches!(set.first(), Some(b'!' | b'^'))) + 1;
    set.iter().skip(skip).position(|&b| b == b']').map(|at| at + skip)
}

fn in_set(set: &[u8], letter: u8) -> bool {
    let (wanted, mut set) = match set {
        [b'!' | b'^', rest @ ..] => (false, rest),
        set => (true, set),
    };
    let mut found = false;
    loop {
        set = match set {
            [from, b'-', to, rest @ ..] => {
                found |= (*from..=*to).contains(&letter);
                rest
            }
            [one, rest @ ..] => {
                found |= *one == letter;
                rest
            }
            [] => return found == wanted,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::metadata;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(Into::into).collect()
    }

    #[test]
    fn a_glob_matches_as_in_a_shell() {
        for (glob, yes, no) in [
            ("*.csv", "a.csv", "a.csv.gz"),
            ("a?c", "abc", "ac"),
            ("[a-c]*", "bx", "dx"),
            ("[!a-c]*", "dx", "bx"),
            ("[]]", "]", "["),
            ("\\*", "*", "x"),
            ("*a*b*", "xaxbx", "xbxax"),
        ] {
            assert!(matches(glob.as_bytes(), yes.as_bytes()), "{glob} {yes}");
            assert!(!matches(glob.as_bytes(), no.as_bytes()), "{glob} {no}");
        }
    }

    #[test]
    fn tests_are_read_as_find_reads_them() {
        let wanted = parse(&words("-name *.c ! -type d -maxdepth 2 --json")).unwrap();
        assert_eq!((wanted.depth_max, wanted.json), (Some(2), true));
        let holds: Vec<bool> = wanted.tests.iter().map(|test| test.holds).collect();
        assert_eq!(holds, [true, false]);
        for wrong in ["-nome x", "-name", "-type q", "-size M", "-maxdepth x"] {
            assert!(parse(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_rounded_up_to_their_unit() {
        let file = |size| Metadata {
            size,
            ..metadata(Kind::File, 0o644)
        };
        let holds = |text: &str, bytes| holds(&size(text.as_bytes()).unwrap(), b"/a", &file(bytes), &[]);
        assert!(holds("1", 5) && holds("5c", 5) && holds("1k", 1_024) && holds("+1M", 1_048_577));
        assert!(!holds("+1M", 1_048_576) && !holds("-1k", 1) && holds("-1k", 0));
    }
}
