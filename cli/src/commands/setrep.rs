//! `dfs setrep`.

use super::Context;
use super::walk::Walk;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::Replication;
use crate::path::RemotePath;
use dfs_client::{ChunkState, Client, Code, Metadata, SetAttributes};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ASK_EVERY: Duration = Duration::from_millis(200);
const EXAMPLES: &str = "\
Examples:
  dfs setrep 2 /scratch                   files below it, now, and what will be made there
  dfs setrep -w 5 /contracts.tar          and wait until each chunk has five replicas";

/// Set how many replicas files have
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Wait until every chunk has so many
    #[arg(short, long)]
    wait: bool,
    /// With -w: give up after so many seconds
    #[arg(short, long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<f64>,
    /// Directories with all below them: they are taken so anyway
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Replicas of each chunk, 1 to 8
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    replicas: u32,
    /// Files, and directories with all below them
    #[arg(required = true)]
    paths: Vec<RemotePath>,
}

/// Sets the goal of each operand and of all below it.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let limit = args.timeout.map(Duration::try_from_secs_f64).transpose();
    let limit =
        limit.map_err(|_| Failure::new(Code::InvalidArgument, "a timeout is a number of seconds from 0"))?;
    let client = context.connect().await?;
    let start = Instant::now();
    let (mut files, mut directories) = (Vec::new(), 0);
    for RemotePath(path) in &args.paths {
        let mut walk = Walk::new(&client, path).await?;
        while let Some((path, metadata, listed)) = walk.next().await {
            match listed.and(set(&client, &path, &metadata, args.replicas).await) {
                Ok(()) if metadata.is_dir() => directories += 1,
                Ok(()) if metadata.is_file() => files.push(path),
                Ok(()) => {}
                Err(failure) => context.console.complain(failure),
            }
        }
    }
    if args.wait {
        let deadline = limit.map(|limit| start + limit);
        for path in &files {
            reached(&client, path, args.replicas, deadline).await?;
        }
    }
    context.console.print(&Replication {
        replication: args.replicas,
        files: files.len() as u64,
        directories,
        seconds: start.elapsed().as_secs_f64(),
    })?;
    Ok(Exit::Ok)
}

/// What has no chunks and never will is left alone.
async fn set(client: &Client, path: &[u8], metadata: &Metadata, goal: u32) -> Result<()> {
    if !metadata.is_file() && !metadata.is_dir() {
        return Ok(());
    }
    let set = SetAttributes {
        goal: Some(goal),
        ..SetAttributes::default()
    };
    client.symlink_set_attributes(path, set).await.about(path)?;
    Ok(())
}

/// Waits until every chunk of the file has exactly its goal of good replicas. A file that was removed has.
async fn reached(client: &Client, path: &[u8], goal: u32, deadline: Option<Instant>) -> Result<()> {
    loop {
        let chunks = match client.chunks(path).await {
            Err(error) if error.code == Code::NotFound => return Ok(()),
            chunks => chunks.about(path)?,
        };
        let left = chunks.iter().filter(|c| !has_goal(c, goal)).count();
        if left == 0 {
            return Ok(());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let text = format!("{left} chunks do not have {goal} replicas yet");
            return Err(Failure::new(Code::TimedOut, text).about(path));
        }
        sleep(ASK_EVERY).await;
    }
}

fn has_goal(chunk: &ChunkState, goal: u32) -> bool {
    let is_good = |m: &dfs_client::Member| {
        let mut known = chunk.replicas.iter();
        let replica = known.find(|r| r.place.node == m.node);
        // A chunk without a byte has no replica to tell of.
        replica.map_or(chunk.length == 0, |r| r.connected && !r.stale && !r.broken)
    };
    !chunk.changing && chunk.members.len() == goal as usize && chunk.members.iter().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_client::{KnownReplica, Member, NodeId, Version};

    fn chunk(nodes: &[u32]) -> ChunkState {
        let member = |n: &u32| Member {
            node: NodeId(*n),
            ..Member::default()
        };
        let replica = |n: &u32| KnownReplica {
            place: member(n),
            connected: true,
            promised: Version(1),
            synced: Version(1),
            stale: false,
            broken: false,
        };
        let mut chunk = ChunkState::default();
        chunk.length = 10;
        chunk.members = nodes.iter().map(member).collect();
        chunk.replicas = nodes.iter().map(replica).collect();
        chunk
    }

    #[test]
    fn a_chunk_has_its_goal_with_exactly_so_many_good_members() {
        assert!(has_goal(&chunk(&[1, 2]), 2));
        assert!(!has_goal(&chunk(&[1]), 2) && !has_goal(&chunk(&[1, 2, 3]), 2));
        let mut away = chunk(&[1, 2]);
        away.replicas[0].connected = false;
        assert!(!has_goal(&away, 2));
        let mut changing = chunk(&[1, 2]);
        changing.changing = true;
        assert!(!has_goal(&changing, 2));
    }
}
