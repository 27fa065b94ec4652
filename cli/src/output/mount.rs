//! A mount: what `mount-stats` says.

use super::Report;
use dfs_fuse::stats as fuse;
use dfs_stdx::size::Size;
use std::io::{self, Write};

impl Report for fuse::Report {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} at {}: process {}, version {}, for {} s",
            self.source, self.mountpoint, self.pid, self.version, self.uptime_s
        )?;
        writeln!(
            out,
            "{} read, {} written; {} waiting, {} interrupted, {} timed out; {} invalidations",
            Size(self.read_bytes).human(),
            Size(self.written_bytes).human(),
            self.waiting,
            self.interrupted,
            self.timed_out,
            self.invalidations
        )?;
        writeln!(
            out,
            "{:<16}{:>12}{:>9}{:>11}{:>11}{:>11}{:>12}",
            "operation", "count", "errors", "mean us", "p50 us", "p99 us", "longest us"
        )?;
        self.operations.iter().try_for_each(|row| {
            writeln!(
                out,
                "{:<16}{:>12}{:>9}{:>11}{:>11}{:>11}{:>12}",
                row.operation, row.count, row.errors, row.mean_us, row.p50_us, row.p99_us, row.longest_us
            )
        })
    }
}
