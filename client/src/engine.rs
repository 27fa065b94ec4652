//! What all files and calls of one client share.

use crate::master::Master;
use crate::meter::Meter;
use crate::plan::{Experience, Here};
use crate::servers::Servers;
use crate::settings::Settings;
use dfs_stdx::backoff::Backoff;
use dfs_stdx::{Clock, Rng};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// The shared part of a client.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) master: Master,
    pub(crate) servers: Servers,
    pub(crate) settings: Settings,
    pub(crate) here: Here,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) meter: Arc<Meter>,
    /// Never held across an await.
    pub(crate) experience: Mutex<Experience>,
}

impl Core {
    pub(crate) fn experience(&self) -> MutexGuard<'_, Experience> {
        self.experience.lock().expect("no panic while held")
    }

    /// Waits between tries with chunkservers and for a chunk's new members.
    pub(crate) fn backoff(&self, deadline: Instant) -> Backoff {
        Backoff::new(
            self.rng.clone(),
            Duration::from_millis(5),
            Duration::from_millis(250),
            deadline,
        )
    }

    /// Milliseconds since 1970-01-01 UTC, as capabilities count.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.clock.wall_ns() / 1_000_000
    }

    pub(crate) fn mtime_ns(&self) -> i64 {
        i64::try_from(self.clock.wall_ns()).unwrap_or(i64::MAX)
    }
}
