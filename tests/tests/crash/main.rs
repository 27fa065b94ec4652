//! Real processes, killed, stopped, cut off and robbed of their power, under load; and what was acknowledged compared
//! with what is left. How much of it is said by variables: `DFS_KILLS`, `DFS_CUTS`, `DFS_ROTS`, `DFS_STALES`, `DFS_RECORD_KILLS`, and
//! `DFS_SEED` to see a run again. Every rig prints its seed, the faults that landed and the operations they hit.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "all of this target is a test"
)]

mod cells;
mod hang;
mod kill;
mod load;
mod names;
mod nodes;
mod power;
mod records;
mod repair;
mod rot;
mod stale;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Rigs measure time and fill the machine: one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A number from the environment; else one for release builds, and a small one where code is slow.
fn scaled(variable: &str, release: u64, debug: u64) -> u64 {
    let default = if cfg!(debug_assertions) { debug } else { release };
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().expect("a number"))
}

/// Where this run's randomness comes from.
fn seeded(rig: &str) -> dfs_stdx::Rng {
    let seed = scaled("DFS_SEED", 0, 0);
    let seed = if seed == 0 {
        fastrand::u64(1..1 << 32)
    } else {
        seed
    };
    println!("{rig}: DFS_SEED={seed}");
    dfs_stdx::Rng::seeded(seed)
}

/// Runs a rig on a runtime of its own, within a bound.
fn run(minutes: u64, rig: impl Future<Output = anyhow::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let ended =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60 * minutes), rig).await });
    runtime.shutdown_timeout(Duration::from_secs(5));
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(_) => panic!("not done within {minutes} minutes"),
    }
}

/// A random moment within so many milliseconds.
fn moment(rng: &dfs_stdx::Rng, from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(from_ms + rng.below(to_ms - from_ms))
}
