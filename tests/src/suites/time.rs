//! What every clock and every source of chance does.

use dfs_stdx::{Clock, Rng};
use std::time::Duration;

/// How far two readings of one clock may be apart beyond what was waited for.
const SLACK: Duration = Duration::from_secs(60);

/// Runs the suite on a clock. The wait is virtual if tokio's time is paused.
pub async fn clock_conformance(clock: Clock) {
    let (wall, instant) = (clock.wall_ns(), clock.now());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let elapsed = clock.now() - instant;
    let walled = Duration::from_nanos(clock.clone().wall_ns().saturating_sub(wall));
    assert!(
        elapsed >= Duration::from_millis(20) && elapsed < SLACK,
        "{elapsed:?}"
    );
    assert!(walled > Duration::ZERO && walled < SLACK, "{walled:?}");
}

/// Runs the suite on a source of chance.
pub fn rng_conformance(rng: &Rng) {
    assert_eq!(rng.below(0), 0);
    assert_eq!(rng.below(1), 0);
    assert!((0..1000).all(|_| rng.below(10) < 10));
    assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.unit())));
    let mut draws: Vec<u64> = (0..1000).map(|_| rng.u64()).collect();
    draws.sort_unstable();
    draws.dedup();
    assert_eq!(draws.len(), 1000, "a source that repeats itself is none");
    assert_ne!(rng.secret::<32>(), rng.secret::<32>());
    assert_ne!(rng.fork().u64(), rng.fork().u64());
}
