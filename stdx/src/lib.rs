//! What the standard library lacks, and no word of the domain.
//!
//! Three of the five seams live here: the disk, the clock with chance, and the pool for blocking work.
//! (The network is in `dfs-proto`, the key-value store in `dfs-master`.) Production code reaches the outside
//! world through them only, so that a test can put a seeded world in their place.

pub mod backoff;
pub mod blocking;
pub mod buffers;
pub mod clock;
pub mod disk;
pub mod metrics;
pub mod rng;
pub mod settings;
pub mod size;
pub mod telemetry;

pub use clock::Clock;
pub use rng::Rng;
