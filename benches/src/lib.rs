//! What the benchmarks share: child processes, CPU accounting, medians.
//!
//! Figures here drift with the machine, so every claim is a ratio inside one interleaved run (docs/testing.md).

use anyhow::{Context as _, Result, ensure};
use std::process::{Child, Command};
use std::time::Duration;

/// A child process that is killed and reaped when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is fine: it was waited for or died by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one whole process took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Start to exit.
    pub wall: Duration,
}

/// Runs a command to its end.
///
/// # Errors
/// If it cannot be started or does not exit with 0.
pub fn timed(command: &mut Command) -> Result<Cost> {
    let start = dfs_stdx::Clock::system().now();
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(Cost {
        wall: start.elapsed(),
    })
}

/// User and system CPU time that process `pid` and its waited-for children have used (proc(5), stat fields 14 to 17).
///
/// # Errors
/// If it is gone.
pub fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("no command name in stat")?.1;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// The middle value.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn this_process_uses_cpu() {
        assert!(cpu_of(std::process::id()).is_ok());
        assert!(cpu_of(u32::MAX).is_err());
    }
}
