//! `dfs fsck`: every chunk below a path, asked of every replica.

use super::walk::Walk;
use super::{Context, chunks};
use crate::exit::{About as _, Exit, Result};
use crate::output::{ChunkRow, Fsck, FsckSummary, PathField};
use crate::path::{self, RemotePath};
use dfs_client::{ChunkState, Client, Code, Metadata, Node};
use futures::stream::{self, StreamExt as _};
use std::collections::BTreeSet;

/// Files whose chunks are asked of the master at once.
const FILES_AT_ONCE: usize = 16;
/// Chunks probed in one go: what one request to a replica's server may carry.
const CHUNKS_PROBED_MAX: usize = 256;
const EXAMPLES: &str = "\
Examples:
  dfs fsck /                              asks every replica of every chunk what it is
  dfs fsck /albums --verify               reads them all and checks every block, too
  dfs fsck --json / | jq .summary

Exit codes: 0 healthy, 1 could not run, 2 typed wrongly, 3 all is readable but under goal or stale,
4 something is missing or corrupt.";

/// Check every chunk below a path
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Read every replica and check its bytes
    #[arg(long)]
    verify: bool,
    /// Where to begin
    #[arg(default_value = "/")]
    path: RemotePath,
}

/// Checks everything below the path.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let path = path::trimmed(&args.path.0);
    let nodes = client.nodes().await.about(context.masters())?;
    let mut check = Check {
        client: &client,
        nodes: &nodes,
        verify: args.verify,
        summary: FsckSummary::default(),
        rows: Vec::new(),
    };
    let mut files = Vec::new();
    let mut walk = Walk::new(&client, path).await?;
    while let Some((path, metadata, listed)) = walk.next().await {
        listed?;
        if metadata.is_dir() {
            check.summary.directories += 1;
        } else if metadata.is_file() {
            check.summary.files += 1;
            check.summary.bytes += metadata.size;
            files.push((path, metadata));
        }
        if files.len() >= CHUNKS_PROBED_MAX {
            check.files(std::mem::take(&mut files)).await?;
        }
    }
    check.files(files).await?;
    if path == b"/" {
        check.summary.orphan = client.status().await.about(context.masters())?.chunks.orphan;
    }
    let Check { summary, rows, .. } = check;
    let answer = Fsck {
        path: PathField::new(path),
        healthy: summary.healthy(),
        summary,
        chunks: rows,
    };
    context.console.print(&answer)?;
    Ok(match () {
        () if summary.missing + summary.corrupt > 0 => Exit::Damaged,
        () if !summary.healthy() => Exit::Degraded,
        () => Exit::Ok,
    })
}

/// A check under way.
struct Check<'a> {
    client: &'a Client,
    nodes: &'a [Node],
    verify: bool,
    summary: FsckSummary,
    rows: Vec<ChunkRow>,
}

type Found = (Vec<u8>, Metadata, Vec<ChunkState>);

impl Check<'_> {
    /// Checks some files, in order.
    async fn files(&mut self, files: Vec<(Vec<u8>, Metadata)>) -> Result<()> {
        let client = self.client;
        let asked = files.into_iter().map(|(path, metadata)| async move {
            match client.chunks(&path).await {
                Ok(chunks) => Ok(Some((path, metadata, chunks))),
                // Removed since.
                Err(error) if error.code == Code::NotFound => Ok(None),
                Err(error) => Err(error).about(&path),
            }
        });
        let mut answers = stream::iter(asked).buffered(FILES_AT_ONCE);
        let (mut batch, mut count): (Vec<Found>, usize) = (Vec::new(), 0);
        while let Some(answer) = answers.next().await {
            let Some(found) = answer? else { continue };
            count += found.2.len();
            batch.push(found);
            if count >= CHUNKS_PROBED_MAX {
                self.probe(std::mem::take(&mut batch)).await?;
                count = 0;
            }
        }
        self.probe(batch).await
    }

    async fn probe(&mut self, batch: Vec<Found>) -> Result<()> {
        let chunks: Vec<ChunkState> = batch.iter().flat_map(|(_, _, chunks)| chunks.clone()).collect();
        let mut probed = Vec::new();
        for some in chunks.chunks(CHUNKS_PROBED_MAX) {
            probed.extend(self.client.probe(some, self.verify).await?);
        }
        for (path, metadata, chunks) in &batch {
            for chunk in chunks {
                self.count_replicas(chunk);
            }
            let rows = chunks::rows(path, metadata.size, metadata.goal, chunks, &probed);
            for row in rows.into_iter().filter(|row| row.chunk.is_some()) {
                self.count(&row);
                self.rows.push(row);
            }
        }
        Ok(())
    }

    /// Counts a chunk by its worst trouble.
    fn count(&mut self, row: &ChunkRow) {
        let s = &mut self.summary;
        s.chunks += 1;
        s.stale += row.members.iter().filter(|m| m.state == "stale").count() as u64;
        *match row.state {
            "missing" => &mut s.missing,
            "corrupt" => &mut s.corrupt,
            "under_goal" => &mut s.under_goal,
            _ if row.members.len() > row.goal as usize => &mut s.over_goal,
            _ => &mut s.ok,
        } += 1;
    }

    /// Counts replicas that are too many or in the wrong place.
    fn count_replicas(&mut self, chunk: &ChunkState) {
        let member = |node| chunk.members.iter().any(|m| m.node == node);
        let stale = chunk
            .replicas
            .iter()
            .filter(|r| r.stale && r.connected && !member(r.place.node));
        self.summary.stale += stale.count() as u64;
        self.summary.misplaced += misplaced(chunk, self.nodes);
    }
}

/// Replicas that share a machine or a rack though there are others.
fn misplaced(chunk: &ChunkState, nodes: &[Node]) -> u64 {
    let shared = |used: BTreeSet<&str>, all: BTreeSet<&str>| {
        let possible = all.len().min(chunk.members.len());
        possible.saturating_sub(used.len()) as u64
    };
    let hosts = shared(
        chunk.members.iter().map(|m| m.host.as_str()).collect(),
        nodes.iter().map(|n| n.host.as_str()).collect(),
    );
    let racks = shared(
        chunk.members.iter().map(|m| m.rack.as_str()).collect(),
        nodes.iter().map(|n| n.rack.as_str()).collect(),
    );
    hosts.max(racks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_client::Member;

    fn places(all: &[(&str, &str)]) -> (Vec<Member>, Vec<Node>) {
        let member = |(host, rack): &(&str, &str)| Member {
            host: (*host).into(),
            rack: (*rack).into(),
            ..Member::default()
        };
        let node = |(host, rack): &(&str, &str)| Node {
            host: (*host).into(),
            rack: (*rack).into(),
            ..Node::default()
        };
        (all.iter().map(member).collect(), all.iter().map(node).collect())
    }

    #[test]
    fn replicas_that_share_a_place_though_there_are_others_are_misplaced() {
        let (_, nodes) = places(&[("a", "x"), ("b", "x"), ("c", "y")]);
        let of = |members: &[(&str, &str)]| {
            let mut chunk = ChunkState::default();
            chunk.members = places(members).0;
            misplaced(&chunk, &nodes)
        };
        assert_eq!(of(&[("a", "x"), ("c", "y")]), 0);
        assert_eq!(of(&[("a", "x"), ("b", "x")]), 1, "both in one rack");
        assert_eq!(of(&[("a", "x"), ("a", "x")]), 1, "both on one machine");
        assert_eq!(of(&[("a", "x")]), 0);
    }
}
