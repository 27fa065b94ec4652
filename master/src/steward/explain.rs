//! Answers for `dfs explain`, from the facts of the moment.

use super::{Steward, survey};
use crate::plan::explain::{self, Account, Burden, Facts};
use crate::state;
use crate::store::records::Chunk;
use dfs_proto::{ChunkHandle, InodeId, NodeId, Result};
use std::collections::BTreeSet;

/// Records looked at while the soft facts are held.
const PAGE_CHUNKS: usize = 256;
/// Names looked at in one go.
const PAGE_NAMES: usize = 8_192;
/// Files named in an answer.
const FILES_NAMED_MAX: usize = 10;

/// A chunk explained.
#[derive(Clone, Debug)]
pub struct ChunkAccount {
    /// Its record.
    pub record: Chunk,
    /// The words.
    pub account: Account,
    /// Names of its file.
    pub paths: Vec<Vec<u8>>,
}

/// A server explained.
#[derive(Clone, Debug, Default)]
pub struct NodeAccount {
    /// What rests on it.
    pub burden: Burden,
    /// Names of files that would lose bytes with it: some.
    pub paths: Vec<Vec<u8>>,
}

impl Steward {
    /// Explains a chunk; `None`: it is not known.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub async fn explain_chunk(&self, chunk: ChunkHandle) -> Result<Option<ChunkAccount>> {
        let Some(record) = self.desk.chunk(chunk).await? else {
            return Ok(None);
        };
        let timings = &self.desk.timings;
        let facts = self.facts(chunk, &record);
        let account = {
            let now = self.desk.now();
            let mut live = self.desk.live.lock();
            let around = survey::Around::of(&live, &self.desk, now);
            let mut view = survey::look(&mut live, (chunk, &record), timings.grant_lease, now);
            view.someone_away = around.someone_away;
            let facts = Facts {
                domains: around.domains,
                ..facts
            };
            explain::chunk(&view, &facts, &survey::patience(timings))
        };
        let owner = record.owner().into_iter().collect();
        Ok(Some(ChunkAccount {
            record,
            account,
            paths: self.paths(owner).await?,
        }))
    }

    /// Explains a server.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub async fn explain_node(&self, node: NodeId) -> Result<NodeAccount> {
        let mut burden = Burden::default();
        let mut lost = BTreeSet::new();
        let mut after = ChunkHandle(0);
        loop {
            let page = self
                .desk
                .read(move |read| state::chunks_after(read, after, PAGE_CHUNKS))
                .await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            self.weigh(node, &page, (&mut burden, &mut lost));
            tokio::task::yield_now().await;
        }
        Ok(NodeAccount {
            burden,
            paths: self.paths(lost).await?,
        })
    }

    /// Adds a page of chunks to what rests on a server.
    fn weigh(
        &self,
        node: NodeId,
        page: &[(ChunkHandle, Chunk)],
        (burden, lost): (&mut Burden, &mut BTreeSet<InodeId>),
    ) {
        let now = self.desk.now();
        let mut live = self.desk.live.lock();
        for (chunk, record) in page.iter().filter(|(_, r)| r.references > 0) {
            if record.members().any(|m| m == node) {
                let view = survey::look(&mut live, (*chunk, record), self.desk.timings.grant_lease, now);
                if burden.add(node, &view, &self.bad(*chunk)) && lost.len() < FILES_NAMED_MAX {
                    lost.insert(InodeId(record.inode));
                }
            }
        }
    }

    fn bad(&self, chunk: ChunkHandle) -> BTreeSet<NodeId> {
        let ailing = self.ailing.lock().expect("no panic while held");
        let of_chunk = (chunk, NodeId(0))..=(chunk, NodeId(u32::MAX));
        ailing.range(of_chunk).map(|(_, node)| *node).collect()
    }

    fn facts(&self, chunk: ChunkHandle, record: &Chunk) -> Facts {
        let now = self.desk.now();
        let spare = {
            let live = self.desk.live.lock();
            let candidates = live.servers.candidates(now);
            candidates.iter().any(|c| {
                c.free_bytes >= self.desk.parameters.chunk_bytes && record.members().all(|m| m != c.node)
            })
        };
        let since_ns = self.desk.wall_ns().saturating_sub(record.unreferenced_ns);
        Facts {
            bad: self.bad(chunk),
            lost_bytes: record.lost_end.saturating_sub(record.active.length),
            unreferenced_ms: (record.references == 0)
                .then(|| u64::try_from(since_ns / 1_000_000).unwrap_or(0)),
            changing: self.is_changing(chunk),
            blocked: self.changes.blocked(chunk),
            joining: self.copies.is_joining(chunk),
            spare,
            ..Facts::default()
        }
    }

    /// Names of these files, by a walk through all names.
    async fn paths(&self, wanted: BTreeSet<InodeId>) -> Result<Vec<Vec<u8>>> {
        let (mut paths, mut from) = (Vec::new(), None);
        if wanted.is_empty() {
            return Ok(paths);
        }
        loop {
            let (wanted, start) = (wanted.clone(), from.take());
            let (some, next) = self
                .desk
                .read(move |read| {
                    let named = state::names_of(read, &wanted, start, PAGE_NAMES);
                    let path = |(_, parent, name): &(InodeId, InodeId, Vec<u8>)| {
                        let mut path = state::directory_path(read, *parent)?;
                        path.push(b'/');
                        path.extend_from_slice(name);
                        Some(path)
                    };
                    (
                        named.found.iter().filter_map(path).collect::<Vec<_>>(),
                        named.next,
                    )
                })
                .await?;
            paths.extend(some);
            from = next;
            if from.is_none() {
                return Ok(paths);
            }
            tokio::task::yield_now().await;
        }
    }
}
