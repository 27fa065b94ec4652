//! `dfs chunks`: what the master says of a file's chunks, and what each replica says of itself.

use super::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::{ChunkRow, Chunks, MemberRow, PathField};
use crate::path::RemotePath;
use dfs_client::{ChunkState, Code, NodeId, Probed, ReplicaState, Version};

const EXAMPLES: &str = "\
Examples:
  dfs chunks /report.csv                  where its bytes are
  dfs chunks /report.csv --verify         reads all replicas and checks them";

/// Show a file's chunks and where their replicas are
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Read every replica and check its bytes
    #[arg(long)]
    verify: bool,
    /// The file
    path: RemotePath,
}

/// Shows every chunk and hole of the file.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    let path = &args.path.0;
    let metadata = client.stat(path).await.about(path)?;
    if !metadata.is_file() {
        let code = if metadata.is_dir() {
            Code::IsADirectory
        } else {
            Code::InvalidArgument
        };
        return Err(Failure::of(code).about(path));
    }
    let chunks = client.chunks(path).await.about(path)?;
    let probed = client.probe(&chunks, args.verify).await.about(path)?;
    let answer = Chunks {
        path: PathField::new(path),
        size: metadata.size,
        chunks: rows(path, metadata.size, metadata.goal, &chunks, &probed),
    };
    context.console.print(&answer)?;
    Ok(Exit::Ok)
}

/// A row for each chunk, and one for each hole between them.
pub(super) fn rows(
    path: &[u8],
    size: u64,
    goal: u32,
    chunks: &[ChunkState],
    probed: &[Probed],
) -> Vec<ChunkRow> {
    let mut rows = Vec::new();
    let mut end = 0;
    let mut add = |offset: u64, length: u64, chunk: Option<&ChunkState>| {
        let members = chunk.map(|chunk| members(chunk, probed)).unwrap_or_default();
        rows.push(ChunkRow {
            path: PathField::new(path),
            index: rows.len() as u64,
            offset,
            length,
            chunk: chunk.map(|c| c.chunk.to_string()),
            version: chunk.map_or(0, |c| c.version.0),
            goal: chunk.map_or(goal, |c| c.goal),
            state: chunk.map_or("ok", |c| chunk_state(c, &members)),
            members,
        });
    };
    for chunk in chunks {
        if chunk.offset > end {
            add(end, chunk.offset - end, None);
        }
        add(chunk.offset, chunk.length, Some(chunk));
        end = chunk.offset + chunk.span_bytes;
    }
    if size > end {
        add(end, size - end, None);
    }
    rows
}

/// The worst trouble of a chunk.
fn chunk_state(chunk: &ChunkState, members: &[MemberRow]) -> &'static str {
    let good = members.iter().filter(|m| m.state == "ok").count();
    // Nothing was ever written to it: the first packet makes its files.
    let unborn = chunk.length == 0 && chunk.version == Version::FIRST;
    let none = members.iter().all(|m| m.state == "absent");
    if chunk.lost_bytes > 0 {
        "missing"
    } else if unborn && none && !members.is_empty() {
        if chunk.writing { "open" } else { "ok" }
    } else if members.iter().any(|m| m.state == "corrupt") {
        "corrupt"
    } else if good == 0 {
        "missing"
    } else if good < chunk.goal as usize {
        "under_goal"
    } else if chunk.writing {
        "open"
    } else {
        "ok"
    }
}

fn members(chunk: &ChunkState, probed: &[Probed]) -> Vec<MemberRow> {
    let answer = |node: NodeId| {
        let mut of_chunk = probed.iter().filter(|p| p.chunk == chunk.chunk);
        of_chunk
            .find(|p| p.member.node == node)
            .and_then(|p| p.replica.as_ref().ok())
    };
    let expected = Expected {
        version: chunk.version,
        length: chunk.length,
        settled: !chunk.writing && !chunk.changing,
        digest: common_digest(chunk.members.iter().filter_map(|m| answer(m.node))),
    };
    let last = chunk.members.len().saturating_sub(1);
    let row = |(index, member): (usize, &dfs_client::Member)| {
        let replica = answer(member.node);
        let there = replica.filter(|r| r.present);
        MemberRow {
            node: member.node.0,
            addr: member.addr.clone(),
            role: match index {
                0 => "head",
                index if index == last => "tail",
                _ => "middle",
            },
            state: member_state(replica, &expected),
            version: there.map_or(0, |r| r.promised.0),
            length: there.map_or(0, |r| r.length),
            digest: there.map(|r| format!("{:016x}", r.digest)),
        }
    };
    chunk.members.iter().enumerate().map(row).collect()
}

/// What a good replica is like.
#[derive(Clone, Copy, Debug)]
struct Expected {
    version: Version,
    length: u64,
    /// Nobody writes and no member changes: then all are equal.
    settled: bool,
    digest: Option<u64>,
}

fn member_state(replica: Option<&ReplicaState>, expected: &Expected) -> &'static str {
    let Some(replica) = replica else {
        return "unreachable";
    };
    if !replica.present {
        "absent"
    } else if !replica.bad_blocks.is_empty() {
        "corrupt"
    } else if replica.promised < expected.version
        || replica.synced < expected.version
        || expected.settled
            && (replica.length < expected.length || expected.digest.is_some_and(|d| d != replica.digest))
    {
        "stale"
    } else {
        "ok"
    }
}

/// The digest that most replicas have; of several the one met first.
fn common_digest<'a>(replicas: impl Iterator<Item = &'a ReplicaState>) -> Option<u64> {
    let mut counts: Vec<(u64, usize)> = Vec::new();
    for replica in replicas.filter(|r| r.present) {
        match counts.iter_mut().find(|(digest, _)| *digest == replica.digest) {
            Some((_, count)) => *count += 1,
            None => counts.push((replica.digest, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts
        .iter()
        .find(|(_, count)| *count == most)
        .map(|(digest, _)| *digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected {
        version: Version(2),
        length: 10,
        settled: true,
        digest: Some(7),
    };

    fn good() -> ReplicaState {
        ReplicaState {
            present: true,
            promised: Version(2),
            synced: Version(2),
            length: 10,
            digest: 7,
            serving: true,
            bad_blocks: Vec::new(),
        }
    }

    fn chunk() -> ChunkState {
        let mut chunk = ChunkState::default();
        (chunk.version, chunk.goal, chunk.length) = (Version(2), 2, 10);
        chunk
    }

    fn row(state: &'static str) -> MemberRow {
        MemberRow {
            node: 1,
            addr: String::new(),
            role: "head",
            state,
            version: 1,
            length: 0,
            digest: None,
        }
    }

    #[test]
    fn a_replica_is_judged_by_what_it_says_of_itself() {
        let state = |change: &dyn Fn(&mut ReplicaState)| {
            let mut replica = good();
            change(&mut replica);
            member_state(Some(&replica), &EXPECTED)
        };
        assert_eq!(state(&|_| {}), "ok");
        assert_eq!(state(&|r| r.present = false), "absent");
        assert_eq!(state(&|r| r.bad_blocks = vec![3]), "corrupt");
        assert_eq!(state(&|r| r.promised = Version(1)), "stale");
        assert_eq!(state(&|r| r.promised = Version(3)), "ok");
        assert_eq!(state(&|r| r.synced = Version(1)), "stale");
        assert_eq!(state(&|r| r.length = 9), "stale");
        assert_eq!(state(&|r| r.digest = 8), "stale");
        assert_eq!(member_state(None, &EXPECTED), "unreachable");
    }

    #[test]
    fn while_a_chunk_is_written_its_replicas_may_differ() {
        let replica = ReplicaState {
            length: 20,
            digest: 9,
            ..good()
        };
        let open = Expected {
            settled: false,
            ..EXPECTED
        };
        assert_eq!(member_state(Some(&replica), &open), "ok");
    }

    #[test]
    fn a_chunk_has_its_worst_trouble() {
        let state = |states: [&'static str; 2]| chunk_state(&chunk(), &states.map(row));
        assert_eq!(state(["ok", "ok"]), "ok");
        assert_eq!(state(["ok", "unreachable"]), "under_goal");
        assert_eq!(state(["absent", "unreachable"]), "missing");
        assert_eq!(state(["absent", "absent"]), "missing");
        assert_eq!(state(["ok", "corrupt"]), "corrupt");
        let two = [row("ok"), row("ok")];
        let changed = |change: &dyn Fn(&mut ChunkState)| {
            let mut chunk = chunk();
            change(&mut chunk);
            chunk
        };
        assert_eq!(chunk_state(&changed(&|c| c.writing = true), &two), "open");
        assert_eq!(chunk_state(&changed(&|c| c.lost_bytes = 9), &two), "missing");
    }

    #[test]
    fn a_chunk_nothing_was_ever_written_to_is_not_missing() {
        let mut unborn = chunk();
        (unborn.version, unborn.length) = (Version::FIRST, 0);
        assert_eq!(chunk_state(&unborn, &[row("absent"), row("absent")]), "ok");
        assert_eq!(
            chunk_state(&unborn, &[row("absent"), row("unreachable")]),
            "missing"
        );
    }

    #[test]
    fn the_digest_of_most_replicas_is_the_right_one() {
        let other = ReplicaState { digest: 1, ..good() };
        assert_eq!(common_digest([&other, &good(), &good()].into_iter()), Some(7));
        assert_eq!(common_digest(std::iter::empty()), None);
    }
}
