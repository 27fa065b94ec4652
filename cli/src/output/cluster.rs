//! The cluster: what `status`, `nodes` and `df` say.

use super::Report;
use dfs_client as client;
use dfs_stdx::size::Size;
use serde::Serialize;
use std::io::{self, Write};

/// The master, in `status`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MasterRow {
    addr: String,
    role: String,
    term: u64,
    applied_index: u64,
}

/// Chunks by their worst trouble, in `status`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChunkSummary {
    ok: u64,
    under_goal: u64,
    missing: u64,
    corrupt: u64,
}

/// Chunkservers by state, in `status`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodesSummary {
    alive: u32,
    suspect: u32,
    dead: u32,
}

/// The cluster at a glance.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    cluster_id: String,
    version: String,
    /// Every chunk has its goal of good replicas, and no server is late.
    pub(crate) healthy: bool,
    uptime_s: u64,
    master: MasterRow,
    files: u64,
    directories: u64,
    chunks: ChunkSummary,
    nodes: NodesSummary,
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
}

impl From<client::Status> for Status {
    fn from(s: client::Status) -> Status {
        Status {
            healthy: trouble(&s).is_none(),
            cluster_id: s.cluster,
            version: s.version,
            uptime_s: s.uptime.as_secs(),
            master: MasterRow {
                addr: s.addr,
                role: s.role,
                term: s.term,
                applied_index: s.applied_index,
            },
            files: s.files,
            directories: s.directories,
            chunks: ChunkSummary {
                ok: s.chunks.ok,
                under_goal: s.chunks.under_goal,
                missing: s.chunks.missing,
                corrupt: s.chunks.corrupt,
            },
            nodes: NodesSummary {
                alive: s.alive,
                suspect: s.suspect,
                dead: s.dead,
            },
            capacity_bytes: s.capacity_bytes,
            used_bytes: s.used_bytes,
            free_bytes: s.free_bytes,
        }
    }
}

/// What keeps a cluster from being healthy. A server that is dead for good does not, once its chunks are elsewhere.
#[must_use]
pub(crate) fn trouble(s: &client::Status) -> Option<String> {
    let parts: Vec<String> = [
        (s.chunks.missing, "chunks missing"),
        (s.chunks.corrupt, "chunks corrupt"),
        (s.chunks.under_goal, "chunks under goal"),
        (u64::from(s.suspect), "servers late"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

impl Report for Status {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let word = if self.healthy { "healthy" } else { "NOT healthy" };
        writeln!(out, "cluster  {} {word}, dfs {}", self.cluster_id, self.version)?;
        writeln!(
            out,
            "master   {} {}, term {}, index {}, up {} s",
            self.master.addr, self.master.role, self.master.term, self.master.applied_index, self.uptime_s
        )?;
        writeln!(
            out,
            "nodes    {} alive, {} suspect, {} dead",
            self.nodes.alive, self.nodes.suspect, self.nodes.dead
        )?;
        writeln!(
            out,
            "names    {} files, {} directories",
            self.files, self.directories
        )?;
        writeln!(
            out,
            "chunks   {} ok, {} under goal, {} missing, {} corrupt",
            self.chunks.ok, self.chunks.under_goal, self.chunks.missing, self.chunks.corrupt
        )?;
        writeln!(
            out,
            "room     {} used, {} free of {}",
            Size(self.used_bytes).human(),
            Size(self.free_bytes).human(),
            Size(self.capacity_bytes).human()
        )
    }
}

/// A data directory, in `nodes`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DiskRow {
    path: String,
    state: String,
    capacity_bytes: u64,
    free_bytes: u64,
}

/// A chunkserver.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeRow {
    node: u32,
    addr: String,
    host: String,
    rack: String,
    state: String,
    heartbeat_age_ms: u64,
    chunks: u64,
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    disks: Vec<DiskRow>,
}

impl From<client::Node> for NodeRow {
    fn from(n: client::Node) -> NodeRow {
        let disk = |d: client::NodeDisk| DiskRow {
            path: d.path,
            state: d.state,
            capacity_bytes: d.capacity_bytes,
            free_bytes: d.free_bytes,
        };
        NodeRow {
            node: n.node.0,
            addr: n.addr,
            host: n.host,
            rack: n.rack,
            state: n.state,
            heartbeat_age_ms: n.heartbeat_age_ms,
            chunks: n.chunks,
            capacity_bytes: n.capacity_bytes,
            used_bytes: n.used_bytes,
            free_bytes: n.free_bytes,
            disks: n.disks.into_iter().map(disk).collect(),
        }
    }
}

/// All chunkservers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Nodes {
    /// By number.
    pub(crate) nodes: Vec<NodeRow>,
}

impl Report for Nodes {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "NODE ADDRESS               STATE     HEARD ms   CHUNKS       USED       FREE HOST"
        )?;
        for n in &self.nodes {
            writeln!(
                out,
                "{:>4} {:21} {:8} {:>9} {:>8} {:>10} {:>10} {}{}",
                n.node,
                n.addr,
                n.state,
                n.heartbeat_age_ms,
                n.chunks,
                Size(n.used_bytes).human(),
                Size(n.free_bytes).human(),
                n.host,
                if n.rack.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", n.rack)
                }
            )?;
        }
        Ok(())
    }
}

/// How much room there is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Capacity {
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    files: u64,
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    human: bool,
}

impl Capacity {
    /// Of the cluster at `name`; `human`: with units.
    #[must_use]
    pub(crate) fn new(space: client::Space, name: String, human: bool) -> Capacity {
        Capacity {
            capacity_bytes: space.capacity_bytes,
            used_bytes: space.used_bytes,
            free_bytes: space.free_bytes,
            files: space.files,
            name,
            human,
        }
    }
}

impl Report for Capacity {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let size = |bytes: u64| match self.human {
            true => Size(bytes).human(),
            false => bytes.div_ceil(1_024).to_string(),
        };
        let unit = if self.human { "Size" } else { "1K-blocks" };
        let of = (self.used_bytes + self.free_bytes).max(1);
        let percent = (u128::from(self.used_bytes) * 100).div_ceil(u128::from(of));
        let width = self.name.len().max(10);
        writeln!(
            out,
            "{:width$} {unit:>12} {:>12} {:>12} {:>4} {:>10}",
            "Filesystem", "Used", "Available", "Use%", "Files"
        )?;
        writeln!(
            out,
            "{:width$} {:>12} {:>12} {:>12} {percent:>3}% {:>10}",
            self.name,
            size(self.capacity_bytes),
            size(self.used_bytes),
            size(self.free_bytes),
            self.files
        )
    }
}

/// What `setrep` did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Replication {
    /// Replicas of each chunk from now on.
    pub(crate) replication: u32,
    /// Files that were set.
    pub(crate) files: u64,
    /// Directories that were set.
    pub(crate) directories: u64,
    /// How long it took, with the wait.
    pub(crate) seconds: f64,
}

impl Report for Replication {
    fn human(&self, _: &mut dyn Write) -> io::Result<()> {
        Ok(()) // Silent, as chmod is.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_server_or_a_chunk_under_goal_is_trouble() {
        let mut status = client::Status::default();
        assert_eq!(trouble(&status), None);
        status.suspect = 1;
        status.chunks.under_goal = 2;
        assert_eq!(trouble(&status).unwrap(), "2 chunks under goal, 1 servers late");
    }

    #[test]
    fn status_has_the_fields_of_the_contract() {
        let json = serde_json::to_value(Status::from(client::Status::default())).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        for key in [
            "cluster_id",
            "version",
            "healthy",
            "uptime_s",
            "master",
            "files",
            "directories",
            "chunks",
            "nodes",
        ] {
            assert!(keys.contains(&key), "{key}");
        }
    }
}
