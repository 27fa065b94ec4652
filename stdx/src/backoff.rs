//! How long to wait before trying again: exponential, with full jitter, up to a cap, until a deadline.
//!
//! Full jitter (a wait drawn from zero to the current ceiling) spreads callers that failed together; see
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use crate::Rng;
use std::time::Duration;
use tokio::time::Instant;

/// The waits of one call's retries.
#[derive(Clone, Debug)]
pub struct Backoff {
    rng: Rng,
    ceiling: Duration,
    cap: Duration,
    deadline: Instant,
}

/// No time is left for another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct Exhausted;

impl Backoff {
    /// The first wait is at most `first`, each ceiling twice the one before and never above `cap`;
    /// no wait reaches the deadline.
    #[must_use]
    pub fn new(rng: Rng, first: Duration, cap: Duration, deadline: Instant) -> Self {
        Backoff {
            rng,
            ceiling: first.min(cap),
            cap,
            deadline,
        }
    }

    /// The next wait, or `Exhausted` if it would reach the deadline.
    pub fn next_wait(&mut self) -> Result<Duration, Exhausted> {
        let wait = self.ceiling.mul_f64(self.rng.unit());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.cap);
        if Instant::now() + wait < self.deadline {
            Ok(wait)
        } else {
            Err(Exhausted)
        }
    }

    /// Waits as long as [`Backoff::next_wait`] says.
    pub async fn wait(&mut self) -> Result<(), Exhausted> {
        tokio::time::sleep(self.next_wait()?).await;
        Ok(())
    }

    /// The instant after which there is no further try.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(10);
    const CAP: Duration = Duration::from_millis(200);

    #[tokio::test(start_paused = true)]
    async fn waits_stay_below_a_doubling_ceiling_and_the_cap() {
        let deadline = Instant::now() + Duration::from_secs(3600);
        let mut backoff = Backoff::new(Rng::seeded(1), FIRST, CAP, deadline);
        let mut ceiling = FIRST;
        for _ in 0..20 {
            assert!(backoff.next_wait().unwrap() <= ceiling);
            ceiling = (ceiling * 2).min(CAP);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end_before_the_deadline() {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut backoff = Backoff::new(Rng::seeded(1), FIRST, CAP, deadline);
        let mut tries = 0;
        while backoff.wait().await.is_ok() {
            tries += 1;
            assert!(Instant::now() < deadline);
        }
        assert!(tries > 10);
    }
}
