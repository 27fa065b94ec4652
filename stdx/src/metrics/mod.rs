//! What happens, counted where it happens and shown to whoever watches: [`Counter`], [`Gauge`], [`Histogram`], [`Timed`], and
//! the [`Page`] that shows them in Prometheus's text format.
//!
//! Counting takes no lock and no memory: a few relaxed additions, so that calls of microseconds can afford it. (The
//! usual crates' histograms lock for each observation.) What is a state and no event is not counted here: a
//! [`Source`] reads it when it is asked.

mod page;

pub use page::{Family, Kind, Page};

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds of a histogram: 2^0, 2^1, .. microseconds; the last one takes all.
pub const BUCKETS: usize = 26;

/// Who can be watched.
pub trait Source: Send + Sync + 'static {
    /// All of its numbers, in Prometheus's text format.
    fn page(&self) -> String;

    /// Whether it can do its work now.
    ///
    /// # Errors
    /// Why not, in a sentence.
    fn health(&self) -> Result<(), String>;
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// So much more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How much it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is set by whoever changes what it counts.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is so much now.
    pub fn set(&self, now: usize) {
        self.0.store(now as u64, Ordering::Relaxed);
    }

    /// How much it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations, counted by powers of two of a microsecond.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Each has its own observations only; the sum is the count.
    buckets: [Counter; BUCKETS],
    nanoseconds: Counter,
    longest_ns: AtomicU64,
}

impl Histogram {
    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let us = ns.div_ceil(1_000).max(1);
        let bucket = (u64::BITS - (us - 1).leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].add(1);
        self.nanoseconds.add(ns);
        if ns > self.longest_ns.load(Ordering::Relaxed) {
            self.longest_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// Observations so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }

    /// The longest one.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed))
    }

    /// No more than this share of the observations (in thousandths) took longer than what is returned (a power of two
    /// of a microsecond); zero without observations.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> Duration {
        let wanted = (self.count() * thousandths).div_ceil(1_000);
        let mut seen = 0;
        for (exponent, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.get();
            if seen >= wanted && seen > 0 {
                return Duration::from_micros(1 << exponent);
            }
        }
        Duration::ZERO
    }

    /// Observations of each bucket, and its bound; the last one has none.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bound = |exponent: usize| (exponent + 1 < BUCKETS).then(|| Duration::from_micros(1 << exponent));
        let all = self.buckets.iter().enumerate();
        all.map(move |(exponent, bucket)| (bound(exponent), bucket.get()))
    }
}

/// One kind of call: how long its answers took, and which were errors.
#[derive(Debug, Default)]
pub struct Timed {
    /// Of all answers.
    pub took: Histogram,
    /// Answers that were errors.
    pub errors: Counter,
}

impl Timed {
    /// A call was answered.
    pub fn answered(&self, took: Duration, failed: bool) {
        self.took.observe(took);
        if failed {
            self.errors.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_power_of_two_that_enough_are_within() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(990), Duration::ZERO);
        for us in [1, 3, 3, 3, 900] {
            histogram.observe(Duration::from_micros(us));
        }
        let at = |thousandths| histogram.quantile(thousandths).as_micros();
        assert_eq!((at(500), at(990)), (4, 1_024));
        assert_eq!((histogram.count(), histogram.sum().as_micros()), (5, 910));
        assert_eq!(histogram.longest().as_micros(), 900);
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_bucket() {
        let histogram = Histogram::default();
        histogram.observe(Duration::ZERO);
        histogram.observe(Duration::from_secs(1_000_000));
        let filled: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(Some(Duration::from_micros(1)), 1), (None, 1)]);
    }

    #[test]
    fn what_fails_is_timed_and_counted() {
        let timed = Timed::default();
        timed.answered(Duration::from_micros(2), false);
        timed.answered(Duration::from_micros(2), true);
        assert_eq!((timed.took.count(), timed.errors.get()), (2, 1));
    }
}
