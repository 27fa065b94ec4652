//! Where records go: the file's last chunk, under grants that all producers of a handle share.

use super::Shared;
use crate::convert::{self, Change, Grant};
use dfs_proto::capability::Member;
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Result, Retry, Version};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The master may wait for a leaving server's session to end before it answers.
const RECONFIGURE_DEADLINE: Duration = Duration::from_secs(10);
/// Chunks whose newest grants are kept: the last one, and those producers are still to hear the end of.
const KEPT_MAX: usize = 16;

/// A chunk under a grant.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) grant: Grant,
    shared: Arc<Shared>,
    /// The length that all members have, as far as was heard.
    length: AtomicU64,
    /// The length the master knows.
    recorded: AtomicU64,
}

/// The places of a handle.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The file's last chunk, as far as is known.
    pub(super) current: Option<Arc<Place>>,
    /// The newest grant of each chunk that was written to.
    known: BTreeMap<ChunkHandle, Arc<Place>>,
}

impl Place {
    fn new(shared: &Arc<Shared>, grant: Grant, before: Option<&Place>) -> Arc<Place> {
        shared.core.master.writing().begin(grant.capability.chunk.0);
        let length = before.map_or(0, Place::length).max(grant.capability.length);
        Arc::new(Place {
            recorded: AtomicU64::new(grant.capability.length),
            grant,
            shared: shared.clone(),
            length: AtomicU64::new(length),
        })
    }

    pub(super) fn chunk(&self) -> ChunkHandle {
        self.grant.capability.chunk
    }

    pub(super) fn version(&self) -> Version {
        self.grant.capability.version
    }

    pub(super) fn is(&self) -> (ChunkHandle, Version) {
        (self.chunk(), self.version())
    }

    pub(super) fn head(&self) -> &Member {
        &self.grant.capability.members[0]
    }

    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    pub(super) fn grown(&self, length: u64) {
        self.length.fetch_max(length, Ordering::Relaxed);
    }

    pub(super) fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    pub(super) fn note_recorded(&self, length: u64) {
        self.recorded.fetch_max(length, Ordering::Relaxed);
    }

    /// Names chunk and version, and the head unless the error names a member itself.
    pub(super) fn blame(&self, error: Error) -> Error {
        let (chunk, version) = error.chunk.unwrap_or(self.is());
        let node = error.node.unwrap_or(self.head().node);
        error.on_chunk(chunk, version).on_node(node)
    }

    /// The connection to the head failed.
    pub(super) fn broken(&self, why: &dyn std::fmt::Display) -> Error {
        self.blame(Error::new(
            Code::Unavailable,
            format!("the head's connection: {why}"),
        ))
    }

    /// No byte of this chunk was ever acknowledged to anyone.
    fn is_empty(&self) -> bool {
        self.grant.capability.length == 0 && self.length() == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.core.master.writing().end(self.chunk().0);
    }
}

impl Places {
    fn learn(&mut self, shared: &Arc<Shared>, grant: Grant) -> Arc<Place> {
        let chunk = grant.capability.chunk;
        let before = self.known.get(&chunk);
        shared.note_loss(&grant);
        let place = Place::new(shared, grant, before.map(|p| &**p));
        self.known.insert(chunk, place.clone());
        while self.known.len() > KEPT_MAX {
            self.known.pop_first();
        }
        place
    }

    /// Where the next record goes.
    pub(super) async fn current(&mut self, shared: &Arc<Shared>, by: Instant) -> Result<Arc<Place>> {
        if let Some(current) = &self.current {
            return Ok(current.clone());
        }
        self.go_on(shared, None, by).await
    }

    /// The chunk is full, at this length: where records go on. Who hears it second is told the same.
    pub(super) async fn behind(
        &mut self,
        shared: &Arc<Shared>,
        full: &Place,
        length: u64,
        by: Instant,
    ) -> Result<Arc<Place>> {
        match &self.current {
            Some(current) if current.chunk() != full.chunk() => Ok(current.clone()),
            _ => {
                let (chunk, version) = full.is();
                let place = self.go_on(shared, Some((chunk, version, length)), by).await?;
                full.grown(length);
                full.note_recorded(length);
                shared.sealed(full);
                Ok(place)
            }
        }
    }

    async fn go_on(
        &mut self,
        shared: &Arc<Shared>,
        full: Option<(ChunkHandle, Version, u64)>,
        by: Instant,
    ) -> Result<Arc<Place>> {
        let avoid = shared.core.experience().avoided(shared.core.clock.now());
        let grant = granted(shared, convert::next_chunk(shared.inode, full, &avoid), by).await?;
        let place = self.learn(shared, grant);
        self.current = Some(place.clone());
        Ok(place)
    }

    /// A newer grant for the same chunk after a failure; another chunk only if this one is no part of the file any
    /// more, so that nothing of what was sent to it is in the file.
    pub(super) async fn again(
        &mut self,
        shared: &Arc<Shared>,
        failed: &Place,
        error: &Error,
        by: Instant,
    ) -> Result<Arc<Place>> {
        if let Some(newer) = self
            .known
            .get(&failed.chunk())
            .filter(|p| p.version() > failed.version())
        {
            return Ok(newer.clone());
        }
        let change = match error.code {
            Code::Stale | Code::NotYet | Code::Busy | Code::SessionExpired | Code::PermissionDenied => {
                convert::grant(shared.inode, failed.grant.file_offset, ChunkHandle(0), &[])
            }
            _ if error.retry() == Retry::Never => return Err(error.clone()),
            _ => without(shared, failed, error),
        };
        match granted(shared, change, by.min(Instant::now() + RECONFIGURE_DEADLINE)).await {
            Ok(grant) if grant.capability.chunk == failed.chunk() => {
                let place = self.learn(shared, grant);
                if self.current.as_ref().is_some_and(|c| c.chunk() == place.chunk()) {
                    self.current = Some(place.clone());
                }
                Ok(place)
            }
            // Given up for a new one, or cut off the file.
            Ok(_) => self.instead(shared, failed, by).await,
            Err(error) if error.code == Code::Stale => self.instead(shared, failed, by).await,
            Err(error) => Err(error),
        }
    }

    async fn instead(&mut self, shared: &Arc<Shared>, gone: &Place, by: Instant) -> Result<Arc<Place>> {
        self.known.remove(&gone.chunk());
        self.current = self.current.take().filter(|c| c.chunk() != gone.chunk());
        self.current(shared, by).await
    }

    /// What the handle has written to.
    pub(super) fn all(&self) -> Vec<Arc<Place>> {
        self.known.values().cloned().collect()
    }

    pub(super) fn forget(&mut self) {
        *self = Places::default();
    }
}

/// The next version of the chunk, without whom the error names.
fn without(shared: &Shared, failed: &Place, error: &Error) -> Change {
    let members = &failed.grant.capability.members;
    let named = error.node.filter(|n| members.iter().any(|m| m.node == *n));
    let suspects: Vec<NodeId> = vec![named.unwrap_or(failed.head().node)];
    let now = shared.core.clock.now();
    for suspect in &suspects {
        shared.core.experience().failed_write(*suspect, now);
    }
    let why = error.to_string();
    convert::reconfigure(shared.inode, failed.is(), &suspects, (&why, failed.is_empty()))
}

async fn granted(shared: &Shared, change: Change, by: Instant) -> Result<Grant> {
    let reply = shared.core.master.change_by(&shared.caller, change, by).await?;
    convert::granted(reply)
}
