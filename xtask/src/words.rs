//! Words that may not stand in a folder's code, and words that may stand nowhere.

use crate::finding::Finding;
use crate::house::House;
use crate::source::is_word;

/// Where a word is forbidden in code that is no test, and what to use in its place.
struct Ban {
    /// Paths: a file, or a folder (or the module's file) with all below. Empty: everywhere.
    inside: &'static [&'static str],
    /// Paths where it is allowed nevertheless. A name without a slash stands for any file or folder so named.
    except: &'static [&'static str],
    words: &'static [&'static str],
    advice: &'static str,
}

const PURE: &[&str] = &["master/src/state", "master/src/plan", "master/src/command.rs"];
const SIMULATED: &[&str] = &["master/src", "chunkserver/src", "client/src"];
const LIBRARIES: &[&str] = &[
    "stdx/src",
    "proto/src",
    "master/src",
    "chunkserver/src",
    "client/src",
    "fuse/src",
];

const BANS: [Ban; 14] = [
    Ban {
        inside: PURE,
        except: &[],
        words: &[
            "async",
            "await",
            "tokio",
            "tonic",
            "pb",
            "sled",
            "fs",
            "dfs_stdx::disk",
        ],
        advice: "the core is pure: values in, values out",
    },
    Ban {
        inside: PURE,
        except: &[],
        words: &[
            "Clock",
            "Rng",
            "Instant",
            "SystemTime",
            "fastrand",
            "getrandom",
            "HashMap",
            "HashSet",
        ],
        advice: "the core is deterministic: time and ids are arguments, maps are BTreeMap",
    },
    Ban {
        inside: PURE,
        except: &[],
        words: &[
            "crate::rpc",
            "crate::gate",
            "crate::log",
            "crate::applier",
            "crate::steward",
        ],
        advice: "data flows one way: this is below what it names",
    },
    Ban {
        inside: &["chunkserver/src/store"],
        except: &[],
        words: &["async", "await", "tokio", "tonic", "pb", "fs", "rustix", "OsDisk"],
        advice: "the chunk store is sync and touches the world through `Disk` only",
    },
    Ban {
        inside: &["fuse/src/vfs"],
        except: &[],
        words: &["fuser"],
        advice: "the kernel's types stop at fuse/src/filesystem.rs",
    },
    Ban {
        inside: LIBRARIES,
        except: &[
            "proto",
            "rpc",
            "convert",
            "chunkserver/src/peers",
            "client/src/fake",
        ],
        words: &["pb"],
        advice: "generated messages stop at rpc/ and the one file of each client that converts them",
    },
    Ban {
        inside: SIMULATED,
        except: &[],
        words: &["HashMap", "HashSet"],
        advice: "one seed gives one history: BTreeMap, BTreeSet",
    },
    Ban {
        inside: SIMULATED,
        except: &["master/src/store"],
        words: &["std::thread", "std::fs", "tokio::fs", "std::net", "rustix"],
        advice: "the world is reached through the seams: blocking::Pool, Disk, proto::net",
    },
    Ban {
        inside: &["proto/src"],
        except: &[],
        words: &["std::fs", "sled", "fuser"],
        advice: "the language knows no files",
    },
    Ban {
        inside: &[],
        except: &["proto/src/net", "tests", "benches"],
        words: &[
            "TcpStream",
            "TcpListener",
            "TcpSocket",
            "UnixStream",
            "UnixListener",
        ],
        advice: "proto::net::{Dial, Listen}",
    },
    Ban {
        inside: &[],
        except: &["stdx/src/clock.rs", "tests", "benches"],
        words: &[
            "SystemTime::now",
            "std::time::Instant",
            "thread::sleep",
            "UNIX_EPOCH",
        ],
        advice: "stdx::Clock, tokio::time",
    },
    Ban {
        inside: &[],
        except: &["stdx/src/rng.rs", "benches", "tests"],
        words: &["fastrand", "getrandom", "rand", "RandomState"],
        advice: "stdx::Rng",
    },
    Ban {
        inside: &[],
        except: &["benches"],
        words: &[
            "spawn_blocking",
            "block_in_place",
            "unbounded_channel",
            "mpsc::unbounded",
            "mpsc::channel::<",
        ],
        advice: "stdx::blocking::Pool; bounded channels",
    },
    Ban {
        inside: LIBRARIES,
        except: &[],
        words: &["process::exit", "println!", "eprintln!", "panic::catch_unwind"],
        advice: "a library returns errors and logs through tracing",
    },
];

/// Words that may stand in no text file, comments included.
const NOWHERE: [(&str, &str); 6] = [
    ("TODO", "do it, or file an issue"),
    ("FIXME", "fix it, or file an issue"),
    ("XXX", "say it in a sentence, or file an issue"),
    ("/work/", "no paths of one machine"),
    ("/root/", "no paths of one machine"),
    ("/home/", "no paths of one machine"),
];

/// The same for Rust files, tests included.
const NOWHERE_IN_RUST: [(&str, &str); 3] = [
    ("todo!", "write it"),
    ("unimplemented!", "write it"),
    ("#[ignore", "a test runs, or prints `skipped: why`"),
];

/// File names that say nothing.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "manager", "common", "misc"];

/// The one file that spells the words it looks for.
const DICTIONARY: &str = "xtask/src/words.rs";

/// Every forbidden word.
pub(crate) fn check(house: &House) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in house.sources.iter().filter(|source| !source.is_test()) {
        let name = source
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs");
        if EMPTY_NAMES.contains(&name) {
            found.push(Finding::new(
                &source.path,
                0,
                "names",
                name,
                "name the file by its noun",
            ));
        }
        for ban in BANS.iter().filter(|ban| ban.covers(&source.path)) {
            for (line, code) in source.production_code() {
                let hits = ban.words.iter().filter(|word| contains(code, word));
                found.extend(hits.map(|word| Finding::new(&source.path, line, "words", *word, ban.advice)));
            }
        }
    }
    for source in house.sources.iter().filter(|source| source.path != DICTIONARY) {
        found.extend(nowhere(&source.path, &source.text, &NOWHERE));
        found.extend(nowhere(&source.path, &source.text, &NOWHERE_IN_RUST));
    }
    for text in &house.texts {
        found.extend(nowhere(&text.path, &text.text, &NOWHERE));
    }
    found
}

fn nowhere(path: &str, text: &str, words: &[(&str, &str)]) -> Vec<Finding> {
    let hits = |(i, line): (usize, &str)| {
        let words = words.iter().filter(|(word, _)| contains(line, word));
        words
            .map(|(word, advice)| Finding::new(path, i + 1, "words", *word, *advice))
            .collect::<Vec<_>>()
    };
    text.lines().enumerate().flat_map(hits).collect()
}

impl Ban {
    fn covers(&self, path: &str) -> bool {
        let inside = self.inside.is_empty() || self.inside.iter().any(|place| holds(place, path));
        inside
            && !self
                .except
                .iter()
                .any(|place| holds(place, path) || is_part(place, path))
    }
}

/// True if `path` is `place`, its module's file, or below it.
fn holds(place: &str, path: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
}

fn is_part(name: &str, path: &str) -> bool {
    !name.contains('/')
        && path
            .split('/')
            .any(|part| part == name || part.strip_suffix(".rs") == Some(name))
}

/// True if the word stands in the text and is not a part of a longer one.
fn contains(text: &str, word: &str) -> bool {
    let ends_in_word = |s: &str| s.chars().next_back().is_some_and(is_word);
    let starts_with_word = |s: &str| s.chars().next().is_some_and(is_word);
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        let began_earlier = starts_with_word(word) && ends_in_word(before);
        let goes_on = ends_in_word(word) && starts_with_word(after);
        !began_earlier && !goes_on
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_whole() {
        assert!(contains("use pb::X;", "pb"));
        assert!(!contains("let pbx = a_pb;", "pb"));
        assert!(contains("x.await?", "await"));
        assert!(!contains("awaiting", "await"));
        assert!(contains("std::fs::read", "std::fs"));
    }

    #[test]
    fn a_ban_covers_a_module_however_it_is_split() {
        let covers = |path| BANS[0].covers(path);
        assert!(covers("master/src/state/files.rs") && covers("master/src/state.rs"));
        assert!(covers("master/src/command.rs") && !covers("master/src/statements.rs"));
        let messages = &BANS[5];
        assert!(messages.words == ["pb"] && messages.covers("client/src/write.rs"));
        assert!(!messages.covers("client/src/convert.rs") && !messages.covers("master/src/rpc/peers.rs"));
        assert!(!messages.covers("chunkserver/src/rpc.rs") && !messages.covers("proto/src/status.rs"));
    }
}
