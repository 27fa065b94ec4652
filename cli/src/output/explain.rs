//! Words of the master: what `explain` says.

use super::{PathField, Report};
use dfs_client as client;
use dfs_stdx::size::Size;
use serde::Serialize;
use std::io::{self, Write};

/// Why a chunk is as it is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChunkWords {
    chunk: String,
    version: u32,
    goal: u32,
    length: u64,
    /// ok, open, `under_goal`, `over_goal`, missing, corrupt, frozen or collecting.
    pub(crate) health: String,
    good: u32,
    members: Vec<u32>,
    why: Vec<String>,
    waits_for: Vec<String>,
    inode: u64,
    offset: u64,
    files: Vec<PathField>,
}

impl From<client::ChunkAccount> for ChunkWords {
    fn from(a: client::ChunkAccount) -> ChunkWords {
        ChunkWords {
            chunk: a.chunk.chunk.to_string(),
            version: a.chunk.version.0,
            goal: a.chunk.goal,
            length: a.chunk.length,
            health: a.health,
            good: a.good,
            members: a.chunk.members.iter().map(|m| m.node.0).collect(),
            why: a.why,
            waits_for: a.waits_for,
            inode: a.inode.0,
            offset: a.chunk.offset,
            files: a.paths.iter().map(|p| PathField::new(p)).collect(),
        }
    }
}

impl Report for ChunkWords {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} v{}: {}, {} good of {} wanted, {} bytes on nodes {:?}",
            self.chunk, self.version, self.health, self.good, self.goal, self.length, self.members
        )?;
        for file in &self.files {
            out.write_all(b"  of       ")?;
            out.write_all(file.bytes())?;
            writeln!(out, " at byte {}", self.offset)?;
        }
        lines(out, "because", &self.why)?;
        lines(out, "awaits", &self.waits_for)
    }
}

fn lines(out: &mut dyn Write, word: &str, sentences: &[String]) -> io::Result<()> {
    sentences
        .iter()
        .try_for_each(|sentence| writeln!(out, "  {word:8} {sentence}"))
}

/// Why a file's chunks are as they are.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Explained {
    #[serde(flatten)]
    path: PathField,
    chunks: Vec<ChunkWords>,
}

impl Explained {
    /// Of one file, its chunks in order.
    #[must_use]
    pub(crate) fn new(path: &[u8], chunks: Vec<ChunkWords>) -> Explained {
        let path = PathField::new(path);
        Explained { path, chunks }
    }
}

impl Report for Explained {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let well = self
            .chunks
            .iter()
            .filter(|c| c.why.is_empty() && c.waits_for.is_empty());
        out.write_all(self.path.bytes())?;
        writeln!(
            out,
            ": {} chunks, {} as they should be",
            self.chunks.len(),
            well.count()
        )?;
        self.chunks
            .iter()
            .filter(|c| !c.why.is_empty() || !c.waits_for.is_empty())
            .try_for_each(|chunk| chunk.human(out))
    }
}

/// What rests on a chunkserver.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeWords {
    node: u32,
    addr: String,
    host: String,
    state: String,
    chunks: u64,
    writing: u64,
    only_here: u64,
    only_here_bytes: u64,
    one_other: u64,
    /// While it is away everything can be read and written.
    pub(crate) safe_to_reboot: bool,
    why: Vec<String>,
    files: Vec<PathField>,
}

impl From<client::NodeAccount> for NodeWords {
    fn from(a: client::NodeAccount) -> NodeWords {
        NodeWords {
            safe_to_reboot: a.is_safe_to_reboot(),
            node: a.node.node.0,
            addr: a.node.addr,
            host: a.node.host,
            state: a.node.state,
            chunks: a.chunks,
            writing: a.writing,
            only_here: a.only_here,
            only_here_bytes: a.only_here_bytes,
            one_other: a.one_other,
            why: a.why,
            files: a.paths.iter().map(|p| PathField::new(p)).collect(),
        }
    }
}

impl Report for NodeWords {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "node {} {} on {}: {}, {} chunks, {} of them being written",
            self.node, self.addr, self.host, self.state, self.chunks, self.writing
        )?;
        lines(out, "because", &self.why)?;
        writeln!(
            out,
            "  if it died now: {} chunks ({}) would be lost, {} more would have one copy left",
            self.only_here,
            Size(self.only_here_bytes).human(),
            self.one_other
        )?;
        for file in &self.files {
            out.write_all(b"  with     ")?;
            out.write_all(file.bytes())?;
            out.write_all(b"\n")?;
        }
        writeln!(
            out,
            "  {}",
            match self.safe_to_reboot {
                true => "safe to reboot: everything can be read and written meanwhile",
                false => "NOT safe to reboot: no other good replica of these chunks is connected",
            }
        )
    }
}
