//! Time. The monotonic clock is tokio's (virtual when a test pauses it); the wall clock is asked here and nowhere else.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
pub use tokio::time::Instant;

/// Where "now" comes from: the system, or a virtual wall clock that moves with tokio's paused time.
#[derive(Clone, Debug)]
pub struct Clock {
    simulated: Option<Arc<Simulated>>,
}

#[derive(Debug)]
struct Simulated {
    wall_start_ns: u64,
    start: Instant,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Clock { simulated: None }
    }

    /// A wall clock that stood at `wall_start_ns` when this was called and advances with tokio's time.
    #[must_use]
    pub fn simulated(wall_start_ns: u64) -> Self {
        Clock {
            simulated: Some(Arc::new(Simulated {
                wall_start_ns,
                start: Instant::now(),
            })),
        }
    }

    /// The monotonic instant. Never compare it with another process's.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Nanoseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        match &self.simulated {
            Some(s) => s.wall_start_ns + nanoseconds(s.start.elapsed()),
            #[expect(clippy::disallowed_methods, reason = "this is the seam")]
            None => nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        }
    }
}

/// The system's form of nanoseconds since 1970-01-01 UTC, which may be negative.
#[must_use]
pub fn system_time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    match ns < 0 {
        true => UNIX_EPOCH - distance,
        false => UNIX_EPOCH + distance,
    }
}

/// Nanoseconds since 1970-01-01 UTC; what does not fit is the first or the last time that does.
#[must_use]
pub fn system_ns(time: SystemTime) -> i64 {
    let in_ns = |distance: Duration| i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => in_ns(after),
        Err(before) => -in_ns(before.duration()),
    }
}

fn nanoseconds(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_wall_clock_moves_with_paused_time() {
        let clock = Clock::simulated(1_000);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.wall_ns(), 2_000_001_000);
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        assert!(Clock::system().wall_ns() > 1_577_836_800_000_000_000);
    }

    #[test]
    fn times_before_1970_survive() {
        for ns in [0, 1, -1, 1_700_000_000_123_456_789, -5_000_000_001] {
            assert_eq!(system_ns(system_time(ns)), ns);
        }
    }

    #[test]
    fn a_time_beyond_what_is_kept_is_the_last_one() {
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(system_ns(far), i64::MAX);
    }
}
