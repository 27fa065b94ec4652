//! What the mount has done: a count, errors and a histogram of latency for each kind of request.
//!
//! Shown as the file `.stats` at the mount's root (in no listing; JSON), and to Prometheus by [`crate::metrics`].

use dfs_stdx::clock::{Clock, Instant};
use dfs_stdx::metrics::{Counter, Timed};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// Counters of a mount.
#[derive(Debug)]
pub(crate) struct Stats {
    source: String,
    mountpoint: String,
    started: Instant,
    counters: Vec<Timed>,
    pub(crate) waiting: AtomicU64,
    pub(crate) interrupted: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) invalidations: Counter,
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
            counters: Operation::ALL.iter().map(|_| Timed::default()).collect(),
            waiting: AtomicU64::new(0),
            interrupted: Counter::default(),
            timed_out: Counter::default(),
            read_bytes: Counter::default(),
            written_bytes: Counter::default(),
            invalidations: Counter::default(),
        }
    }

    /// The counter of a kind.
    #[must_use]
    pub(crate) fn of(&self, operation: Operation) -> &Timed {
        &self.counters[operation as usize]
    }

    /// A request was answered.
    pub(crate) fn answered(&self, operation: Operation, took: Duration, failed: bool) {
        self.of(operation).answered(took, failed);
    }

    /// Since it was mounted.
    #[must_use]
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Everything, as it is now.
    #[must_use]
    pub(crate) fn report(&self) -> Report {
        Report {
            source: self.source.clone(),
            mountpoint: self.mountpoint.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.uptime().as_secs(),
            waiting: self.waiting.load(Ordering::Relaxed),
            interrupted: self.interrupted.get(),
            timed_out: self.timed_out.get(),
            read_bytes: self.read_bytes.get(),
            written_bytes: self.written_bytes.get(),
            invalidations: self.invalidations.get(),
            operations: Operation::ALL.iter().filter_map(|op| self.row(*op)).collect(),
        }
    }

    fn row(&self, operation: Operation) -> Option<Row> {
        let timed = self.of(operation);
        let count = timed.took.count();
        let mean_ns = nanoseconds(timed.took.sum()).checked_div(count)?;
        Some(Row {
            operation: operation.name().to_owned(),
            count,
            errors: timed.errors.get(),
            mean_us: mean_ns / 1_000,
            p50_us: nanoseconds(timed.took.quantile(500)) / 1_000,
            p99_us: nanoseconds(timed.took.quantile(990)) / 1_000,
            longest_us: nanoseconds(timed.took.longest()) / 1_000,
        })
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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

    #[test]
    fn operations_are_where_their_number_says() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, index);
        }
    }
}
