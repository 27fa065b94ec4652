//! The world as a role sees it: the five seams in one bundle, real in production, seeded in a simulation.

use crate::net::{Dial, Listen, Tcp};
use dfs_stdx::blocking::Pool;
use dfs_stdx::disk::{Disk, OsDisk};
use dfs_stdx::{Clock, Rng};
use std::sync::Arc;

/// Everything outside a role that it may touch. (The fifth seam, the key-value store, is the master's own.)
#[derive(Clone, Debug)]
pub struct World {
    /// Opens connections.
    pub dial: Arc<dyn Dial>,
    /// Accepts connections.
    pub listen: Arc<dyn Listen>,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub rng: Rng,
    /// Where blocking work runs.
    pub pool: Pool,
}

impl World {
    /// The machine itself: TCP, its file system and clocks, and `threads` threads called `name` for blocking work.
    #[must_use]
    pub fn real(name: &str, threads: usize) -> World {
        World {
            dial: Arc::new(Tcp),
            listen: Arc::new(Tcp),
            disk: Arc::new(OsDisk),
            clock: Clock::system(),
            rng: Rng::system(),
            pool: Pool::threads(name, threads),
        }
    }
}
