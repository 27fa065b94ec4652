//! What a command says: one type per answer, written for people or, with `--json`, as one document.

mod chunk;
mod cluster;
mod entry;
mod explain;
mod mount;
mod top;
mod trash;

pub(crate) use chunk::{ChunkRow, Chunks, Fsck, FsckSummary, MemberRow};
pub(crate) use cluster::{Capacity, Nodes, Replication, Status, trouble};
pub(crate) use entry::{Entry, Listing, Look, Section, Stats};
pub(crate) use explain::{ChunkWords, Explained, NodeWords};
pub(crate) use top::{Meter, Top};
pub(crate) use trash::{RetentionRow, Trash};

#[cfg(test)]
pub(crate) use entry::tests;

use crate::exit::{Exit, Failure, Result};
use base64::Engine as _;
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::sync::Mutex;

/// An answer that can be read by people and by programs.
pub(crate) trait Report: Serialize {
    /// Writes it for people.
    ///
    /// # Errors
    /// The writer's.
    fn human(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Where a command speaks: results on stdout, complaints on stderr.
#[derive(Debug)]
pub(crate) struct Console {
    /// The command's name, before every complaint.
    pub(crate) command: &'static str,
    /// One document instead of text.
    pub(crate) json: bool,
    /// The first complaint: with `--json` the only one shown.
    first: Mutex<Option<Failure>>,
}

impl Console {
    /// For one command.
    #[must_use]
    pub(crate) fn new(command: &'static str, json: bool) -> Console {
        Console {
            command,
            json,
            first: Mutex::new(None),
        }
    }

    /// Notes a failure and goes on: shown at once to people, at the end (and only the first) to programs.
    pub(crate) fn complain(&self, failure: Failure) {
        if !self.json && !failure.quiet {
            complain_line(&failure.line(self.command));
        }
        self.first
            .lock()
            .expect("no panic while it is held")
            .get_or_insert(failure);
    }

    /// True if something was complained about.
    #[must_use]
    pub(crate) fn failed(&self) -> bool {
        self.first.lock().expect("no panic while it is held").is_some()
    }

    /// Shows the answer; with `--json` only if nothing was complained about.
    ///
    /// # Errors
    /// Stdout's.
    pub(crate) fn print<R: Report>(&self, report: &R) -> Result<()> {
        self.print_as(report, self.json)
    }

    /// As [`Console::print`], where a command found out late whether JSON is wanted.
    ///
    /// # Errors
    /// Stdout's.
    pub(crate) fn print_as<R: Report>(&self, report: &R, json: bool) -> Result<()> {
        let json = json || self.json;
        if json && self.failed() {
            return Ok(());
        }
        let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        if json {
            serde_json::to_writer(&mut out, report).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        } else {
            report.human(&mut out)?;
        }
        out.flush()?;
        Ok(())
    }

    /// One line for people on stdout.
    ///
    /// # Errors
    /// Stdout's.
    pub(crate) fn say(&self, line: &str) -> Result<()> {
        if !self.json {
            let mut out = io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()?;
        }
        Ok(())
    }

    /// One line on stderr that is no failure.
    pub(crate) fn note(&self, line: &str) {
        if !self.json {
            complain_line(format!("{}: {line}", self.command).as_bytes());
        }
    }

    /// True if a person watches: progress may be drawn.
    #[must_use]
    pub(crate) fn watched(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// The end of the command: what it came to, with all that was complained about on the way.
    #[must_use]
    pub(crate) fn finish(&self, outcome: Result<Exit>) -> Exit {
        let exit = outcome.unwrap_or_else(|failure| {
            if failure.quiet {
                return Exit::Ok;
            }
            self.complain(failure);
            Exit::Failed
        });
        let Some(first) = self.first.lock().expect("no panic while it is held").take() else {
            return exit;
        };
        if self.json {
            complain_line(first.json().as_bytes());
        }
        exit.max(Exit::Failed)
    }
}

/// A line on stderr. If nobody listens there, there is nobody to tell.
pub(crate) fn complain_line(line: &[u8]) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(line).and_then(|()| err.write_all(b"\n"));
}

/// A path in JSON: readable, and exact beside it where it is not UTF-8.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathField {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(skip)]
    raw: Vec<u8>,
}

impl PathField {
    /// Of a path's bytes.
    #[must_use]
    pub(crate) fn new(raw: &[u8]) -> PathField {
        PathField {
            path: String::from_utf8_lossy(raw).into_owned(),
            path_b64: exact(raw),
            raw: raw.to_vec(),
        }
    }

    /// The bytes themselves.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.raw
    }
}

/// Base64 of what is not UTF-8.
fn exact(raw: &[u8]) -> Option<String> {
    std::str::from_utf8(raw)
        .is_err()
        .then(|| base64::engine::general_purpose::STANDARD.encode(raw))
}

/// An empty answer: `{}`, and nothing for people.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Done {}

impl Report for Done {
    fn human(&self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}
