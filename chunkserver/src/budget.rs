//! Bandwidth for what nobody waits for: copies in the background, and the reads of scrub.
//!
//! A leaky bucket of bytes. Its rate falls as soon as a client or a chain asks for anything, and rises again when nobody
//! has for a while: foreground work never waits behind more than a few blocks that are on their way already.

use dfs_stdx::Clock;
use dfs_stdx::clock::Instant;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes a second while clients ask for something.
pub(crate) const BUSY_BYTES_A_SECOND: u64 = 32 << 20;
/// Bytes a second while nobody does: about what one disk gives, so that it has time for who comes next.
const IDLE_BYTES_A_SECOND: u64 = 256 << 20;
/// Nobody has asked for this long: idle.
const QUIET: Duration = Duration::from_secs(1);
/// Bytes that may be moved at once before anyone waits.
const BURST_BYTES: u64 = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    clock: Clock,
    started: Instant,
    /// Bytes a second while clients ask.
    busy: u64,
    bucket: Mutex<Bucket>,
    /// When a client or a chain asked last, milliseconds since the start.
    asked_ms: AtomicU64,
}

impl Budget {
    /// Full; `busy` bytes a second while clients ask.
    pub(crate) fn new(clock: Clock, busy: u64) -> Budget {
        let started = clock.now();
        Budget {
            clock,
            started,
            busy,
            bucket: Mutex::new(Bucket {
                owed: 0.0,
                at: started,
            }),
            asked_ms: AtomicU64::new(0),
        }
    }

    /// A client or a chain asks for something.
    pub(crate) fn foreground(&self) {
        // Never 0: that is "nobody yet".
        self.asked_ms.store(self.now_ms() + 1, Ordering::Relaxed);
    }

    /// Waits until so many bytes may be moved.
    pub(crate) async fn take(&self, bytes: u64) {
        let wait = {
            let mut bucket = self.bucket.lock().expect("no panic while held");
            bucket.take(self.clock.now(), self.rate(), bytes)
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn rate(&self) -> u64 {
        let asked = self.asked_ms.load(Ordering::Relaxed);
        let quiet = u64::try_from(QUIET.as_millis()).expect("a second is short");
        match asked != 0 && self.now_ms() < asked + quiet {
            true => self.busy,
            false => IDLE_BYTES_A_SECOND.max(self.busy),
        }
    }

    fn now_ms(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 1)
    }
}

/// Bytes taken and not yet paid for by time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    owed: f64,
    at: Instant,
}

impl Bucket {
    /// Takes them now; how long to wait before they are moved.
    fn take(&mut self, now: Instant, rate: u64, bytes: u64) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.owed = (self.owed - passed * rate as f64).max(0.0) + bytes as f64;
        let over = self.owed - BURST_BYTES as f64;
        if over <= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(over / rate as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    async fn mib_in(budget: &Budget, time: Duration) -> u64 {
        let end = Instant::now() + time;
        let mut taken = 0;
        while tokio::time::timeout_at(end, budget.take(MIB)).await.is_ok() {
            taken += 1;
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_and_it_goes_as_fast_as_the_disk() {
        let budget = Budget::new(Clock::system(), BUSY_BYTES_A_SECOND);
        let taken = mib_in(&budget, Duration::from_secs(4)).await;
        assert!((1024..1024 + 16).contains(&taken), "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_yields_while_clients_ask_and_recovers_when_they_are_gone() {
        let budget = Budget::new(Clock::system(), 10 * MIB);
        mib_in(&budget, Duration::from_secs(1)).await;
        let mut taken = 0;
        for _ in 0..20 {
            budget.foreground();
            taken += mib_in(&budget, Duration::from_millis(500)).await;
        }
        assert!((80..130).contains(&taken), "ten seconds at ten a second: {taken}");
        tokio::time::sleep(QUIET).await;
        assert!(mib_in(&budget, Duration::from_secs(1)).await > 200);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_small_waits_for_nothing() {
        let budget = Budget::new(Clock::system(), MIB);
        budget.foreground();
        let start = Instant::now();
        for _ in 0..4 {
            budget.take(MIB).await;
        }
        assert_eq!(Instant::now(), start);
    }
}
