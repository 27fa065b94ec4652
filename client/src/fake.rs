//! A small cluster in one process for this crate's tests: one fake master, some fake chunkservers, faults on demand.
//!
//! It keeps the protocol's promises to a client and nothing more: all members of a chunk are one map.

mod master;
mod server;

use crate::client::Client;
use crate::settings::Settings;
use async_trait::async_trait;
use dfs_proto::limits::Parameters;
use dfs_proto::net::{BoxStream, Dial, Listen, Listener};
use dfs_stdx::{Clock, Rng};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::mpsc;

/// Bytes of a chunk in these tests: three packets and a half.
pub(crate) const CHUNK_BYTES: u64 = 7 * 512 * 1024;
/// The fake master's address.
pub(crate) const MASTER: &str = "master:1";

/// Addresses and who listens there, over in-memory pipes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Net(Arc<Mutex<BTreeMap<String, mpsc::Sender<BoxStream>>>>);

#[async_trait]
impl Dial for Net {
    async fn dial(&self, addr: &str) -> io::Result<BoxStream> {
        let listener = self.0.lock().unwrap().get(addr).cloned();
        let (here, there) = tokio::io::duplex(256 * 1024);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        listener
            .ok_or_else(refused)?
            .send(Box::new(there))
            .await
            .map_err(|_| refused())?;
        Ok(Box::new(here))
    }
}

#[async_trait]
impl Listen for Net {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        let (sender, receiver) = mpsc::channel(16);
        self.0.lock().unwrap().insert(addr.to_owned(), sender);
        Ok(Box::new(Door {
            addr: addr.to_owned(),
            receiver,
        }))
    }
}

struct Door {
    addr: String,
    receiver: mpsc::Receiver<BoxStream>,
}

#[async_trait]
impl Listener for Door {
    async fn accept(&mut self) -> io::Result<(BoxStream, String)> {
        match self.receiver.recv().await {
            Some(stream) => Ok((stream, "a client".into())),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> String {
        self.addr.clone()
    }
}

/// A chunk with all its replicas.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) version: u32,
    pub(crate) members: Vec<u32>,
    /// As the master knows it.
    pub(crate) length: u64,
    pub(crate) durable: u64,
    pub(crate) loss: u32,
    pub(crate) replicas: BTreeMap<u32, Vec<u8>>,
    pub(crate) writers: BTreeMap<u64, u64>,
}

/// An inode; a directory's entries are in [`State::names`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Inode {
    pub(crate) directory: bool,
    pub(crate) size: u64,
    /// Offset to chunk.
    pub(crate) slots: BTreeMap<u64, u64>,
    pub(crate) mtime_ns: i64,
}

/// What one chunkserver does wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Its process is gone: connections end, none is accepted.
    pub(crate) dead: bool,
    /// It accepts, takes bytes, and never answers.
    pub(crate) hangs: bool,
    /// Connections end after so many packets were applied but not acknowledged.
    pub(crate) drops_after: Option<u32>,
    /// It flips a bit of what it sends.
    pub(crate) flips: bool,
    /// It has lost the master.
    pub(crate) detached: bool,
    /// It says it promised so much more.
    pub(crate) promised_more: u32,
    /// It has lost its replica, and what that had promised.
    pub(crate) forgetful: bool,
    /// Its replicas miss their last bytes.
    pub(crate) short: u64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) chunks: BTreeMap<u64, Chunk>,
    pub(crate) inodes: BTreeMap<u64, Inode>,
    pub(crate) names: BTreeMap<(u64, Vec<u8>), u64>,
    pub(crate) faults: BTreeMap<u32, Faults>,
    pub(crate) next: u64,
    pub(crate) session: u64,
    /// Sessions opened.
    pub(crate) opened: u32,
    /// The session that was renewed last.
    pub(crate) renewed: u64,
    /// Answers by (client, sequence), as the master keeps them.
    pub(crate) answered: BTreeMap<(u64, u64), dfs_proto::pb::MutateReply>,
    /// Replies of changes that are lost after they were made.
    pub(crate) lose_replies: u32,
    /// The master does not answer.
    pub(crate) master_away: bool,
    /// Files are always said to be written by someone.
    pub(crate) writing: bool,
    /// What a power cut took of every chunk: up to here.
    pub(crate) lost_end: u64,
    pub(crate) reconfigurations: u32,
    pub(crate) applied_packets: u32,
    pub(crate) synced_packets: u32,
    pub(crate) reads: BTreeMap<u32, u32>,
    pub(crate) locates: u32,
    /// Reconfigurations say that the source had lost power.
    pub(crate) power_lost: bool,
}

/// The cluster; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) net: Net,
    state: Arc<Mutex<State>>,
    nodes: u32,
}

impl Cluster {
    pub(crate) async fn start(nodes: u32) -> Cluster {
        let mut state = State {
            next: 100,
            session: 1,
            ..State::default()
        };
        state.inodes.insert(
            1,
            Inode {
                directory: true,
                ..Inode::default()
            },
        );
        let cluster = Cluster {
            net: Net::default(),
            state: Arc::new(Mutex::new(state)),
            nodes,
        };
        master::serve(&cluster).await;
        for node in 1..=nodes {
            server::serve(&cluster, node).await;
        }
        cluster
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn fault(&self, node: u32, fault: impl FnOnce(&mut Faults)) {
        fault(self.state().faults.entry(node).or_default());
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with(|_| {}).await
    }

    pub(crate) async fn client_with(&self, change: impl FnOnce(&mut Settings)) -> Client {
        let mut settings = Settings::new(MASTER).unwrap();
        settings.call_deadline = Duration::from_secs(20);
        change(&mut settings);
        let clock = Clock::simulated(1_700_000_000_000_000_000);
        Client::connect_with(settings, Arc::new(self.net.clone()), clock, Rng::seeded(7))
            .await
            .unwrap()
    }

    fn parameters(&self) -> Parameters {
        Parameters {
            chunk_bytes: CHUNK_BYTES,
            goal: 3,
            time_divisor: 10,
        }
    }

    /// What the members of the file's chunks hold, by the first member.
    pub(crate) fn stored(&self, inode: u64) -> Vec<u8> {
        let state = self.state();
        let file = &state.inodes[&inode];
        let mut all = vec![0; usize::try_from(file.size).unwrap()];
        for (offset, chunk) in &file.slots {
            let chunk = &state.chunks[chunk];
            let bytes = &chunk.replicas[&chunk.members[0]];
            let start = usize::try_from(*offset).unwrap();
            let end = all.len().min(start + bytes.len());
            all[start..end].copy_from_slice(&bytes[..end - start]);
        }
        all
    }
}

/// Bytes that are different everywhere.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}
