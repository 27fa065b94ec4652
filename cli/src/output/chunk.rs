//! Chunks and their replicas: what `chunks` and `fsck` say.

use super::{PathField, Report};
use serde::Serialize;
use std::io::{self, Write};

/// One replica of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemberRow {
    /// Its chunkserver.
    pub(crate) node: u32,
    /// "host:port".
    pub(crate) addr: String,
    /// head, middle or tail.
    pub(crate) role: &'static str,
    /// ok, stale, corrupt, unreachable or absent.
    pub(crate) state: &'static str,
    /// What it has promised.
    pub(crate) version: u32,
    /// Bytes.
    pub(crate) length: u64,
    /// 16 hex digits.
    pub(crate) digest: Option<String>,
}

/// One chunk of a file, or a hole.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChunkRow {
    /// Of the file.
    #[serde(flatten)]
    pub(crate) path: PathField,
    /// From 0, holes included.
    pub(crate) index: u64,
    /// In the file, bytes.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// 16 hex digits; none for a hole.
    pub(crate) chunk: Option<String>,
    /// The active one.
    pub(crate) version: u32,
    /// Replicas it should have.
    pub(crate) goal: u32,
    /// ok, open, `under_goal`, missing or corrupt.
    pub(crate) state: &'static str,
    /// In chain order.
    pub(crate) members: Vec<MemberRow>,
}

impl ChunkRow {
    /// As it should be: nothing needs to be shown.
    fn is_well(&self) -> bool {
        let ok = self.state == "ok" || self.state == "open";
        ok && self.members.len() <= self.goal as usize && self.members.iter().all(|m| m.state != "stale")
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let chunk = self.chunk.as_deref().unwrap_or("hole");
        writeln!(
            out,
            "{:>5} {:>14} {:>10} {chunk:16} v{:<3} {}",
            self.index, self.offset, self.length, self.version, self.state
        )?;
        for member in &self.members {
            writeln!(
                out,
                "{:21}{:6} node {:<3} {:21} {:11} v{:<3} {:>10} {}",
                "",
                member.role,
                member.node,
                member.addr,
                member.state,
                member.version,
                member.length,
                member.digest.as_deref().unwrap_or("-")
            )?;
        }
        Ok(())
    }
}

/// The chunks of one file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Chunks {
    /// The file.
    #[serde(flatten)]
    pub(crate) path: PathField,
    /// Bytes.
    pub(crate) size: u64,
    /// In order, holes included.
    pub(crate) chunks: Vec<ChunkRow>,
}

impl Report for Chunks {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.path.bytes())?;
        writeln!(out, ": {} bytes in {} pieces", self.size, self.chunks.len())?;
        self.chunks.iter().try_for_each(|chunk| chunk.write(out))
    }
}

/// What `fsck` counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FsckSummary {
    /// Regular files.
    pub(crate) files: u64,
    /// Directories.
    pub(crate) directories: u64,
    /// Of all files.
    pub(crate) bytes: u64,
    /// Chunks; each is counted once more below, by its worst trouble.
    pub(crate) chunks: u64,
    /// As they should be (being written to is fine).
    pub(crate) ok: u64,
    /// Fewer good replicas than the goal.
    pub(crate) under_goal: u64,
    /// More replicas than the goal.
    pub(crate) over_goal: u64,
    /// No good replica answers.
    pub(crate) missing: u64,
    /// A replica is bad.
    pub(crate) corrupt: u64,
    /// Replicas that no longer count.
    pub(crate) stale: u64,
    /// Replicas on a machine that has another of the same chunk.
    pub(crate) misplaced: u64,
    /// Replicas of chunks nobody knows, in the whole cluster.
    pub(crate) orphan: u64,
}

impl FsckSummary {
    /// Every chunk has its goal of good replicas, and nothing else is left over.
    #[must_use]
    pub(crate) fn healthy(&self) -> bool {
        self.under_goal == 0 && self.missing == 0 && self.corrupt == 0 && self.stale == 0
    }
}

/// What `fsck` found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fsck {
    /// Below it everything was checked.
    #[serde(flatten)]
    pub(crate) path: PathField,
    /// Nothing is wrong.
    pub(crate) healthy: bool,
    /// Counts.
    pub(crate) summary: FsckSummary,
    /// Every chunk.
    pub(crate) chunks: Vec<ChunkRow>,
}

impl Report for Fsck {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for chunk in self.chunks.iter().filter(|c| !c.is_well()) {
            out.write_all(chunk.path.bytes())?;
            out.write_all(b":\n")?;
            chunk.write(out)?;
        }
        let s = &self.summary;
        writeln!(
            out,
            "{} files, {} directories, {} bytes, {} chunks: {} ok, {} under goal, {} over goal, {} missing, {} corrupt",
            s.files, s.directories, s.bytes, s.chunks, s.ok, s.under_goal, s.over_goal, s.missing, s.corrupt
        )?;
        writeln!(
            out,
            "replicas: {} stale, {} misplaced, {} orphan",
            s.stale, s.misplaced, s.orphan
        )?;
        out.write_all(self.path.bytes())?;
        out.write_all(if self.healthy {
            b": healthy\n"
        } else {
            b": NOT healthy\n"
        })
    }
}
