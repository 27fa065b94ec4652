//! What the mount has done: a count, errors and a histogram of latency for each kind of request.
//!
//! Shown as the file `.stats` at the mount's root (in no listing; JSON), and to Prometheus by [`crate::metrics`].

use dfs_stdx::clock::{Clock, Instant};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds of the histogram: 2^0, 2^1, .. microseconds; the last one takes all.
pub(crate) const BUCKETS: usize = 26;

macro_rules! operations {
    ($($name:ident $text:literal,)*) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($name,)*
        }

        impl Operation {
            /// All of them, in order.
            pub(crate) const ALL: &[Operation] = &[$(Operation::$name),*];

            /// As FUSE names it.
            #[must_use]
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Operation::$name => $text,)*
                }
            }
        }
    };
}

operations! {
    Lookup "lookup",
    Forget "forget",
    Getattr "getattr",
    Setattr "setattr",
    Readlink "readlink",
    Mknod "mknod",
    Mkdir "mkdir",
    Symlink "symlink",
    Unlink "unlink",
    Rmdir "rmdir",
    Rename "rename",
    Link "link",
    Open "open",
    Create "create",
    Read "read",
    Write "write",
    Flush "flush",
    Release "release",
    Fsync "fsync",
    Opendir "opendir",
    Readdir "readdir",
    Readdirplus "readdirplus",
    Releasedir "releasedir",
    Fsyncdir "fsyncdir",
    Statfs "statfs",
    Setxattr "setxattr",
    Getxattr "getxattr",
    Listxattr "listxattr",
    Removexattr "removexattr",
    Access "access",
    Getlk "getlk",
    Setlk "setlk",
    Fallocate "fallocate",
    Lseek "lseek",
    CopyFileRange "copy_file_range",
}

/// One kind of request, counted.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    pub(crate) errors: AtomicU64,
    pub(crate) nanoseconds: AtomicU64,
    longest_ns: AtomicU64,
    /// Each has its own answers only; the sum is the count.
    pub(crate) buckets: [AtomicU64; BUCKETS],
}

impl Counter {
    /// Answers so far.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(load).sum()
    }

    /// No more than this share of the answers (in thousandths) took longer.
    fn quantile_us(&self, thousandths: u64) -> u64 {
        let wanted = (self.count() * thousandths).div_ceil(1_000);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += load(count);
            if seen >= wanted && seen > 0 {
                return 1 << bucket;
            }
        }
        0
    }
}

/// Counters of a mount.
#[derive(Debug)]
pub(crate) struct Stats {
    source: String,
    mountpoint: String,
    started: Instant,
    counters: Vec<Counter>,
    pub(crate) waiting: AtomicU64,
    pub(crate) interrupted: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) invalidations: AtomicU64,
}

/// What `.stats` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// "host:port" of the masters.
    pub source: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// The mount's process.
    pub pid: u32,
    /// Its program.
    pub version: String,
    /// Since it was mounted.
    pub uptime_s: u64,
    /// Requests being worked on that could not be answered at once.
    pub waiting: u64,
    /// Requests whose program stopped waiting.
    pub interrupted: u64,
    /// Requests given up at their deadline.
    pub timed_out: u64,
    /// Bytes answered to reads (reads from the kernel's page cache do not arrive here).
    pub read_bytes: u64,
    /// Bytes taken from writes.
    pub written_bytes: u64,
    /// What the kernel was told to forget.
    pub invalidations: u64,
    /// Each kind of request that was made.
    pub operations: Vec<Row>,
}

/// One kind of request in a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// As FUSE names it.
    pub operation: String,
    /// Answers.
    pub count: u64,
    /// Of them errors (a name that is not there is no error).
    pub errors: u64,
    /// All of them together, microseconds.
    pub mean_us: u64,
    /// Half of them took no longer (to a power of two).
    pub p50_us: u64,
    /// 99 of a hundred took no longer (to a power of two).
    pub p99_us: u64,
    /// The longest.
    pub longest_us: u64,
}

impl Stats {
    /// Counters of a mount of `source` at `mountpoint`, which begins now.
    #[must_use]
    pub(crate) fn new(source: &str, mountpoint: &str, clock: &Clock) -> Stats {
        Stats {
            source: source.to_owned(),
            mountpoint: mountpoint.to_owned(),
            started: clock.now(),
            counters: Operation::ALL.iter().map(|_| Counter::default()).collect(),
            waiting: AtomicU64::new(0),
            interrupted: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
        }
    }

    /// The counter of a kind.
    #[must_use]
    pub(crate) fn of(&self, operation: Operation) -> &Counter {
        &self.counters[operation as usize]
    }

    /// A request was answered.
    pub(crate) fn answered(&self, operation: Operation, took: Duration, failed: bool) {
        let counter = self.of(operation);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let us = ns.div_ceil(1_000).max(1);
        let bucket = (u64::BITS - (us - 1).leading_zeros()) as usize;
        counter.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        counter.nanoseconds.fetch_add(ns, Ordering::Relaxed);
        if ns > load(&counter.longest_ns) {
            counter.longest_ns.fetch_max(ns, Ordering::Relaxed);
        }
        if failed {
            counter.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything, as it is now.
    #[must_use]
    pub(crate) fn report(&self) -> Report {
        Report {
            source: self.source.clone(),
            mountpoint: self.mountpoint.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            waiting: load(&self.waiting),
            interrupted: load(&self.interrupted),
            timed_out: load(&self.timed_out),
            read_bytes: load(&self.read_bytes),
            written_bytes: load(&self.written_bytes),
            invalidations: load(&self.invalidations),
            operations: Operation::ALL.iter().filter_map(|op| self.row(*op)).collect(),
        }
    }

    fn row(&self, operation: Operation) -> Option<Row> {
        let counter = self.of(operation);
        let count = counter.count();
        let mean_ns = load(&counter.nanoseconds).checked_div(count)?;
        Some(Row {
            operation: operation.name().to_owned(),
            count,
            errors: load(&counter.errors),
            mean_us: mean_ns / 1_000,
            p50_us: counter.quantile_us(500),
            p99_us: counter.quantile_us(990),
            longest_us: load(&counter.longest_ns) / 1_000,
        })
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Stats {
        Stats::new("127.0.0.1:7700", "/mnt", &Clock::system())
    }

    #[tokio::test]
    async fn a_report_has_what_was_asked_and_how_long_it_took() {
        let stats = stats();
        for us in [1, 3, 3, 3, 900] {
            stats.answered(Operation::Lookup, Duration::from_micros(us), us == 900);
        }
        let report = stats.report();
        let [row] = report.operations.as_slice() else {
            panic!("{report:?}");
        };
        assert_eq!((row.operation.as_str(), row.count, row.errors), ("lookup", 5, 1));
        assert_eq!(
            (row.mean_us, row.p50_us, row.p99_us, row.longest_us),
            (182, 4, 1_024, 900)
        );
    }

    #[tokio::test]
    async fn the_shortest_and_the_longest_have_a_bucket() {
        let stats = stats();
        stats.answered(Operation::Read, Duration::ZERO, false);
        stats.answered(Operation::Read, Duration::from_secs(1_000_000), false);
        let counter = stats.of(Operation::Read);
        assert_eq!(
            (load(&counter.buckets[0]), load(&counter.buckets[BUCKETS - 1])),
            (1, 1)
        );
    }

    #[test]
    fn operations_are_where_their_number_says() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, index);
        }
    }
}
