//! Soft facts: who is alive, which replica is where, who may write just now. They come in reports, are never logged,
//! and are gathered anew after a restart.
//!
//! One lock over plain tables, held for moments and never across an await; whoever waits for a change of
//! sessions watches [`Live::changes`].

pub mod clients;
pub mod dying;
pub mod grants;
pub mod locks;
pub mod replicas;
pub mod servers;
pub mod turns;
pub mod watch;

use crate::plan::Session;
use clients::Clients;
use dfs_proto::NodeId;
use dfs_proto::limits::Timings;
use dfs_stdx::clock::Instant;
use dying::Dying;
use grants::Grants;
use locks::Waiters;
use replicas::Replicas;
use servers::Servers;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch as watch_channel;
use turns::Turns;
use watch::Watch;

/// A question for a turn waits for a second and is asked again at once: who is silent for so long, undivided, is gone.
const TURN_PATIENCE: Duration = Duration::from_secs(2);

/// All soft facts.
#[derive(Debug)]
pub struct Live {
    /// Who was told about which inode; has a lock of its own.
    pub watch: Arc<Watch>,
    /// About what nobody new is told just now; has a lock of its own.
    pub dying: Arc<Dying>,
    tables: Mutex<Tables>,
    changed: watch_channel::Sender<u64>,
    turns_moved: watch_channel::Sender<u64>,
}

/// The tables, under the lock.
#[derive(Debug)]
pub struct Tables {
    /// Chunkservers and their sessions.
    pub servers: Servers,
    /// Who has reported which replica.
    pub replicas: Replicas,
    /// Who may write which chunk.
    pub grants: Grants,
    /// Client sessions.
    pub clients: Clients,
    /// Who waits for which lock.
    pub waiters: Waiters,
    /// Who may append to which file.
    pub turns: Turns,
}

impl Live {
    /// At the master's start, when nothing was reported yet.
    #[must_use]
    pub fn new(timings: Timings, now: Instant) -> Live {
        Live {
            watch: Arc::new(Watch::new(&timings, now)),
            dying: Arc::default(),
            tables: Mutex::new(Tables {
                servers: Servers::new(timings, now),
                replicas: Replicas::default(),
                grants: Grants::new(timings.grant_lease),
                clients: Clients::new(timings.client_lease),
                waiters: Waiters::default(),
                turns: Turns::new(TURN_PATIENCE),
            }),
            changed: watch_channel::Sender::new(0),
            turns_moved: watch_channel::Sender::new(0),
        }
    }

    /// The tables. Do not wait while holding them.
    ///
    /// # Panics
    /// If a holder panicked.
    pub fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables
            .lock()
            .expect("no panic while the live tables are held")
    }

    /// Changes when a session begins, is compared, or ends.
    #[must_use]
    pub fn changes(&self) -> watch_channel::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Says that sessions have changed.
    pub fn notify(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Changes when a turn to append was given back.
    #[must_use]
    pub fn turns_moved(&self) -> watch_channel::Receiver<u64> {
        self.turns_moved.subscribe()
    }

    /// Says that a turn was given back.
    pub fn notify_turns(&self) {
        self.turns_moved.send_modify(|n| *n += 1);
    }

    /// How a chunkserver's session stands.
    #[must_use]
    pub fn session(&self, node: NodeId, now: Instant) -> Session {
        self.lock().servers.session(node, now)
    }
}
