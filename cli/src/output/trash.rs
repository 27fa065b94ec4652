//! The trash: what `trash ls` and `trash keep` say.

use super::entry::{time_string, type_word};
use super::{PathField, Report};
use dfs_client as client;
use serde::Serialize;
use std::io::{self, Write};

/// Something that can come back.
#[derive(Clone, Debug, Serialize)]
struct TrashRow {
    entry: String,
    #[serde(flatten)]
    path: PathField,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    inode: u64,
    uid: u32,
    removed_ns: i64,
    due_ns: i64,
}

/// Everything that can come back.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trash {
    entries: Vec<TrashRow>,
}

impl Trash {
    /// Oldest first.
    #[must_use]
    pub(crate) fn new(entries: &[client::Trashed]) -> Trash {
        let row = |e: &client::Trashed| TrashRow {
            entry: format!("{:016x}", e.entry),
            path: PathField::new(&e.path),
            kind: type_word(e.kind),
            size: e.size,
            inode: e.inode.0,
            uid: e.uid,
            removed_ns: e.removed_ns,
            due_ns: e.due_ns,
        };
        Trash {
            entries: entries.iter().map(row).collect(),
        }
    }
}

impl Report for Trash {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in &self.entries {
            let (removed, due) = (time_string(row.removed_ns), time_string(row.due_ns));
            write!(out, "{} {removed} until {due} {:>12} ", row.entry, row.size)?;
            out.write_all(row.path.bytes())?;
            out.write_all(if row.kind == "dir" { b"/\n" } else { b"\n" })?;
        }
        Ok(())
    }
}

/// How long the trash keeps what is removed in a directory.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RetentionRow {
    #[serde(flatten)]
    path: PathField,
    keep_s: u64,
    own_s: Option<u64>,
}

impl RetentionRow {
    /// Of a directory.
    #[must_use]
    pub(crate) fn new(path: &[u8], retention: client::Retention) -> RetentionRow {
        RetentionRow {
            path: PathField::new(path),
            keep_s: retention.keep.as_secs(),
            own_s: retention.own.map(|o| o.as_secs()),
        }
    }
}

impl Report for RetentionRow {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.path.bytes())?;
        let from = if self.own_s.is_some() { "" } else { " (from above)" };
        match self.keep_s {
            0 => writeln!(out, ": off{from}"),
            seconds => writeln!(out, ": {seconds}s{from}"),
        }
    }
}
