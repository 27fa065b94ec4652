//! What operators and schedulers ask: the cluster's state, chunks and their replicas, splits.

use crate::client::Client;
use crate::convert::data;
use crate::splits;
use crate::types::{ChunkAccount, ChunkState, Glance, Node, NodeAccount, Probed, Space, Split, Status};
use dfs_proto::capability::Member;
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Result};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

/// Chunks in one question to a server.
const PROBE_CHUNKS_MAX: usize = 64;
/// How long a server may take to say what it has.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

#[expect(clippy::missing_errors_doc, reason = "the same for all: see the type")]
impl Client {
    /// Room in the cluster.
    pub async fn statfs(&self) -> Result<Space> {
        self.inodes.statfs().await
    }

    /// The master and its cluster.
    pub async fn status(&self) -> Result<Status> {
        self.inodes.core.master.status().await
    }

    /// What the cluster is busy with: cheap to ask for again and again.
    pub async fn glance(&self) -> Result<Glance> {
        self.inodes.core.master.glance().await
    }

    /// All chunkservers.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        self.inodes.core.master.nodes().await
    }

    /// Why a chunk is as it is, and what it waits for.
    pub async fn explain_chunk(&self, chunk: ChunkHandle) -> Result<ChunkAccount> {
        self.inodes.core.master.explain_chunk(chunk).await
    }

    /// What rests on a chunkserver, and whether it may be rebooted.
    pub async fn explain_node(&self, node: NodeId) -> Result<NodeAccount> {
        self.inodes.core.master.explain_node(node).await
    }

    /// The chunks of a file; holes are gaps between them.
    pub async fn chunks(&self, path: impl AsRef<[u8]>) -> Result<Vec<ChunkState>> {
        let inode = self.inode(path.as_ref(), true).await?;
        let mut all = Vec::new();
        let mut offset = 0;
        loop {
            let (page, next) = self
                .inodes
                .core
                .master
                .chunks(&self.inodes.caller, inode, offset)
                .await?;
            all.extend(page);
            if next == 0 {
                return Ok(all);
            }
            offset = next;
        }
    }

    /// Asks every member (and every other server known to hold a replica) of the chunks about its replica;
    /// with `verify` it reads and checks all its bytes, and may take as long as a call may.
    /// In order of the chunks, members before others.
    pub async fn probe(&self, chunks: &[ChunkState], verify: bool) -> Result<Vec<Probed>> {
        let mut by_server: BTreeMap<NodeId, (Member, Vec<usize>)> = BTreeMap::new();
        for (number, chunk) in chunks.iter().enumerate() {
            for place in places(chunk) {
                by_server
                    .entry(place.node)
                    .or_insert((place, Vec::new()))
                    .1
                    .push(number);
            }
        }
        let questions = by_server.into_values().map(|(member, numbers)| async move {
            let mut answers = Vec::new();
            for some in numbers.chunks(if verify { 1 } else { PROBE_CHUNKS_MAX }) {
                answers.extend(self.probe_one(chunks, &member, some, verify).await);
            }
            answers
        });
        let mut all: Vec<(usize, Probed)> = join_all(questions).await.into_iter().flatten().collect();
        let rank = |number: usize, node: NodeId| {
            let members = &chunks[number].members;
            members
                .iter()
                .position(|m| m.node == node)
                .unwrap_or(members.len())
        };
        all.sort_by_key(|(number, probed)| (*number, rank(*number, probed.member.node), probed.member.node));
        Ok(all.into_iter().map(|(_, probed)| probed).collect())
    }

    async fn probe_one(
        &self,
        chunks: &[ChunkState],
        member: &Member,
        numbers: &[usize],
        verify: bool,
    ) -> Vec<(usize, Probed)> {
        let core = &self.inodes.core;
        let deadline = match verify {
            true => core.master.deadline(),
            false => core.clock.now() + PROBE_DEADLINE,
        };
        let ask = data::probe(numbers.iter().map(|n| chunks[*n].token.clone()).collect(), verify);
        let answer = core.servers.request(member, ask, deadline).await;
        let answer = answer.and_then(|(from, _)| data::probe_answer(from));
        let of = |number: usize| {
            let chunk = chunks[number].chunk;
            let missing = || Error::new(Code::Internal, "the server did not speak of this chunk");
            let replica = match &answer {
                Ok(states) => {
                    let state = states
                        .iter()
                        .find(|(c, _)| *c == chunk)
                        .map(|(_, state)| state.clone());
                    state.ok_or_else(missing)
                }
                Err(error) => Err(error.clone()),
            };
            (
                number,
                Probed {
                    chunk,
                    member: member.clone(),
                    replica,
                },
            )
        };
        numbers.iter().map(|n| of(*n)).collect()
    }

    /// Cuts a file into ranges of about `target_bytes`, each with the hosts that hold it.
    ///
    /// Ranges are cut at chunk edges where that comes near, since a range in one chunk has all of it on the same
    /// hosts. See `examples/wordcount.rs` for reading records across their edges.
    pub async fn splits(&self, path: impl AsRef<[u8]>, target_bytes: u64) -> Result<Vec<Split>> {
        let path = path.as_ref();
        let size = self.stat(path).await?.size;
        let chunks = self.chunks(path).await?;
        Ok(splits::cut(size, &chunks, target_bytes.max(1)))
    }
}

/// Members first, then other servers that are known to have a replica.
fn places(chunk: &ChunkState) -> Vec<Member> {
    let mut all = chunk.members.clone();
    for replica in &chunk.replicas {
        if replica.connected && all.iter().all(|m| m.node != replica.place.node) {
            all.push(replica.place.clone());
        }
    }
    all
}
