//! A running chunkserver, as its session and its orders see it.

use crate::Config;
use crate::ground::Ground;
use crate::peers::{Peers, PulledBlock};
use crate::removals::Removals;
use crate::report::{Adopted, DiskReport, Heartbeat, Line, Register, Registered};
use crate::store::{self, Install, Kind, Replica, Store};
use dfs_proto::capability::Member;
use dfs_proto::limits::Timings;
use dfs_proto::{ChunkHandle, ClusterId, Code, Error, NodeId, Result, Version};
use std::sync::{Arc, Mutex, MutexGuard};

/// Open replicas named in one heartbeat; with more, the rest is named in the next ones.
const OPEN_REPORTED_MAX: usize = 4_096;

/// What the session and the orders work on.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) ground: Ground,
    pub(crate) peers: Peers,
    config: Config,
    /// host:port, as the others reach it.
    addr: String,
    /// Of this process, random.
    incarnation: u64,
    soft: Mutex<Soft>,
    removals: Removals,
}

/// What is asked for often and looked at rarely.
#[derive(Debug)]
struct Soft {
    disks: Vec<DiskReport>,
    /// Where the next heartbeat goes on naming open replicas.
    open_from: ChunkHandle,
}

impl Server {
    /// On `ground`, reached at `addr`.
    pub(crate) fn new(ground: Ground, config: Config, addr: String) -> Arc<Server> {
        let soft = Soft {
            disks: Vec::new(),
            open_from: ChunkHandle(0),
        };
        Arc::new(Server {
            peers: Peers::new(ground.world.dial.clone()),
            incarnation: ground.world.rng.u64(),
            ground,
            config,
            addr,
            soft: Mutex::new(soft),
            removals: Removals::default(),
        })
    }

    fn soft(&self) -> MutexGuard<'_, Soft> {
        self.soft.lock().expect("no panic while it is held")
    }

    /// This server's number; 0 before the first registration.
    pub(crate) fn node(&self) -> NodeId {
        self.ground.fence.node()
    }

    /// The cluster's durations, or the defaults before the first registration.
    pub(crate) fn timings(&self) -> Timings {
        self.ground.fence.parameters().timings()
    }

    /// What it registers with.
    pub(crate) fn register(&self) -> Register {
        let identity = self.ground.store.identity();
        Register {
            node: identity.node,
            cluster: (identity.cluster != ClusterId::default()).then_some(identity.cluster),
            identity: identity.server,
            incarnation: self.incarnation,
            addr: self.addr.clone(),
            host: self.config.host.clone(),
            rack: self.config.rack.clone(),
            disks: self.soft().disks.clone(),
            replace: identity.node == NodeId(0) && self.config.accept_new_disk,
        }
    }

    /// Takes what the master said at registration; the first time, it is written to the identity files.
    pub(crate) async fn enter(&self, registered: Registered) -> Result<()> {
        let (cluster, node) = (registered.cluster, registered.node);
        self.store(move |store| store.register(cluster, node)).await?;
        self.ground.fence.set_parameters(registered.parameters);
        self.ground.fence.set_keys(registered.keys);
        self.ground.fence.set_first_new(registered.next_chunk);
        Ok(())
    }

    /// All replicas, and the chunks whose files turned out unreadable.
    pub(crate) fn inventory(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = self.ground.store.replicas().iter().map(|r| line(r)).collect();
        let broken = self.ground.store.broken().into_iter().map(|chunk| Line {
            chunk,
            promised: Version(0),
            synced: Version(0),
            length: 0,
            kind: Kind::Broken,
            restarted: true,
        });
        lines.extend(broken);
        lines
    }

    /// The next sign of life.
    pub(crate) fn heartbeat(&self, sequence: u64) -> Heartbeat {
        let mut soft = self.soft();
        let mut open = self.ground.chains.open_chunks();
        // What an older version left undecided is the newer one's matter.
        open.retain(|o| self.ground.store.promised(o.chunk) <= o.version);
        if open.len() > OPEN_REPORTED_MAX {
            let from = open.partition_point(|o| o.chunk < soft.open_from);
            open.rotate_left(from);
            open.truncate(OPEN_REPORTED_MAX);
            soft.open_from = open.last().map_or(ChunkHandle(0), |o| ChunkHandle(o.chunk.0 + 1));
        }
        Heartbeat {
            sequence,
            disks: soft.disks.clone(),
            chunks: self.ground.store.count() as u64,
            activity: self.activity(),
            load: u32::try_from(open.iter().filter(|o| o.streaming).count()).unwrap_or(u32::MAX),
            open,
        }
    }

    /// True while the master counts on this server.
    pub(crate) fn is_live(&self) -> bool {
        self.ground.fence.is_live(self.ground.world.clock.now())
    }

    /// The disks, as they were when they were last looked at.
    pub(crate) fn disks(&self) -> Vec<DiskReport> {
        self.soft().disks.clone()
    }

    /// Looks at the disks again.
    pub(crate) async fn look_at_disks(&self) {
        let store = self.ground.store.clone();
        let disks = self.ground.world.pool.run(move || store.disks()).await;
        let report = |d: store::DiskState| DiskReport {
            id: d.id,
            path: d.path.display().to_string(),
            capacity_bytes: d.capacity_bytes,
            free_bytes: d.free_bytes,
            failed: d.failed,
        };
        self.soft().disks = disks.into_iter().map(report).collect();
    }

    /// The chunk's replica.
    pub(crate) fn replica(&self, chunk: ChunkHandle) -> Option<Arc<Replica>> {
        self.ground.store.get(chunk)
    }

    /// The chunk's replica, or a new empty one that counts for nothing, to copy into.
    pub(crate) async fn base(&self, chunk: ChunkHandle) -> Result<Arc<Replica>> {
        self.store(move |store| match store.get(chunk) {
            Some(replica) => Ok(replica),
            None => store.create_base(chunk),
        })
        .await
    }

    /// Promises a version, durably: what is queued of an older one is applied or dropped first.
    /// Says what this replica is then; a promise that is higher already stays.
    pub(crate) async fn promise(
        &self,
        chunk: ChunkHandle,
        version: Version,
        members: Option<&[Member]>,
    ) -> Result<Adopted> {
        if members.is_some() || self.ground.store.promised(chunk) < version {
            let members: Vec<NodeId> = members.unwrap_or_default().iter().map(|m| m.node).collect();
            // Nothing of an older version is applied any more once this returns.
            self.ground.chains.drain(chunk, version).await;
            let kept = self.store(move |store| match store.promise(chunk, version, members) {
                Ok(_) | Err(store::Error::Stale(_) | store::Error::Fenced) => Ok(()),
                Err(error) => Err(error),
            });
            kept.await?;
        }
        self.adopted(chunk, version).await
    }

    /// What the replica is. One on a failed disk needs no promise on it: it answers nobody any more.
    async fn adopted(&self, chunk: ChunkHandle, version: Version) -> Result<Adopted> {
        let promised = self.ground.store.promised(chunk);
        let Some(replica) = self.replica(chunk) else {
            return Ok(Adopted::absent(promised));
        };
        if replica.state().kind == Kind::Broken {
            return Ok(Adopted {
                kind: Kind::Broken,
                ..Adopted::absent(promised.max(version))
            });
        }
        let look = |r: &Arc<Replica>| Ok((r.fsynced_length()?, r.digest()?));
        let (fsynced_length, digest) = self.ground.on_disk(&replica, look).await?;
        let state = replica.state();
        Ok(Adopted {
            promised,
            synced: state.synced,
            absent: state.synced == Version(0),
            kind: state.kind,
            restarted: state.restarted,
            length: state.length,
            fsynced_length,
            loss: state.loss,
            digest,
        })
    }

    /// Bytes that sync brought, and those that were not committed, may be read at `version` from now on.
    pub(crate) fn activated(&self, chunk: ChunkHandle, version: Version) {
        self.ground.fence.note_active(chunk, version);
        self.ground.chains.activated(chunk, version);
    }

    /// Deletes the replica unless it has promised more; absent is fine.
    pub(crate) async fn delete(&self, chunk: ChunkHandle, version: Version) -> Result<()> {
        let tokens_end_ms = self.ground.world.clock.wall_ns() / 1_000_000
            + u64::try_from(self.timings().read_token.as_millis()).unwrap_or(u64::MAX) * 2;
        if let Some(replica) = self.replica(chunk)
            && replica.state().promised > version
        {
            return Err(Error::new(Code::Stale, "a newer version is promised")
                .on_chunk(chunk, replica.state().promised)
                .on_node(self.node()));
        }
        self.ground.chains.drain(chunk, version.next()).await;
        let remove = |wanted: Vec<(ChunkHandle, Version)>| {
            let store = self.ground.store.clone();
            self.ground.world.pool.run(move || {
                let mut outcomes = store.remove_all(&wanted, tokens_end_ms);
                for (_, outcome) in &mut outcomes {
                    if let Err(store::Error::NotFound(_)) = outcome {
                        *outcome = Ok(());
                    }
                }
                outcomes
            })
        };
        let removed = self.removals.remove(chunk, version, remove).await;
        removed.map_err(|error| error.on_node(self.node()))?;
        self.ground.chains.forget(chunk);
        self.ground.fence.forget(chunk);
        Ok(())
    }

    /// Puts pulled blocks in.
    pub(crate) async fn put(&self, mut install: Install, blocks: Vec<PulledBlock>) -> Result<Install> {
        let put = move || {
            for block in &blocks {
                install.put(block.block, &block.bytes)?;
            }
            store::Result::Ok(install)
        };
        Ok(self.ground.world.pool.run(put).await?)
    }

    /// Makes what was put in the replica's.
    pub(crate) async fn commit(&self, install: Install) -> Result<()> {
        let replica = install.replica().clone();
        self.ground.on_disk(&replica, move |_| install.commit()).await
    }

    /// host:port, as the others reach it.
    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Fsyncs every replica that may hold bytes which are not on stable storage.
    pub(crate) async fn fsync_open(&self) {
        for replica in self.ground.store.replicas() {
            if replica.state().open {
                self.note(&replica, self.ground.on_disk(&replica, |r| r.sync()).await);
            }
        }
    }

    /// Clears the open mark of replicas that have no stream and miss nothing (a stream closes its own).
    pub(crate) async fn close_idle(&self) {
        for replica in self.ground.store.replicas() {
            let state = replica.state();
            // Asked one by one, right before: a stream may open at any moment.
            let idle = state.open && !state.restarted && !self.ground.chains.has_stream(replica.handle());
            if idle && self.is_committed(&replica, state.length) {
                self.close(&replica).await;
            }
        }
    }

    /// True if no stream left bytes behind of which nobody knows whether they are committed.
    fn is_committed(&self, replica: &Replica, length: u64) -> bool {
        let gate = self.ground.chains.gate(replica.handle());
        gate.is_none_or(|gate| gate.readable(&(0..length), length) == Some(length))
    }

    /// Ends every stream, then closes what misses nothing: at a clean stop.
    pub(crate) async fn close_all(&self) {
        self.ground.chains.stop().await;
        self.close_idle().await;
    }

    async fn close(&self, replica: &Arc<Replica>) {
        let close = |r: &Arc<Replica>| {
            r.sync()?;
            r.close()
        };
        self.note(replica, self.ground.on_disk(replica, close).await);
    }

    fn note(&self, replica: &Replica, outcome: Result<()>) {
        if let Err(error) = outcome {
            tracing::warn!(chunk = %replica.handle(), %error, "an open replica cannot be fsynced");
        }
    }

    /// Deleted replicas' promises that no token can name any more.
    pub(crate) async fn forget_graves(&self) {
        let now_ms = self.ground.world.clock.wall_ns() / 1_000_000;
        if let Err(error) = self.store(move |store| store.forget_graves(now_ms)).await {
            tracing::warn!(%error, "the graves cannot be tidied");
        }
    }

    async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> store::Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.ground.store.clone();
        let outcome = self.ground.world.pool.run(move || work(&store)).await;
        outcome.map_err(|e| Error::from(e).on_node(self.node()))
    }
}

fn line(replica: &Replica) -> Line {
    let state = replica.state();
    Line {
        chunk: replica.handle(),
        promised: state.promised,
        synced: state.synced,
        length: state.length,
        kind: state.kind,
        restarted: state.restarted,
    }
}
