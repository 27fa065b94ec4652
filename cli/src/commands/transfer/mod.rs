//! What `put`, `get`, `cp` and `cat` share: counting, buffers, and files that appear under their name whole or not at all.

pub(crate) mod buffers;
pub(crate) mod download;
pub(crate) mod local;
pub(crate) mod records;
pub(crate) mod tree;
pub(crate) mod upload;

use super::Context;
use crate::exit::{Exit, Failure, Result};
use crate::output::Report;
use dfs_client::{Client, Code};
use dfs_stdx::blocking::Pool;
use dfs_stdx::size::Size;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Bytes moved at a time: a packet of the data plane.
pub(crate) const BLOCK_BYTES: usize = 1024 * 1024;
/// Blocks read ahead of the network, or behind it to be written: bounds memory, hides the disk's hiccups.
pub(crate) const BLOCKS_AHEAD: usize = 4;
/// Files of a tree under way at once.
pub(crate) const FILES_AT_ONCE: usize = 32;
/// Threads for local files: small ones wait for their fsync side by side.
const LOCAL_THREADS: usize = 16;

/// How to copy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Directories with all below them.
    pub(crate) recursive: bool,
    /// Times, owners and exact modes, too.
    pub(crate) preserve: bool,
    /// Never replace a name.
    pub(crate) no_clobber: bool,
}

/// What one run of a command has at hand; shared by the files it copies at once.
#[derive(Debug)]
pub(crate) struct Job {
    /// The cluster.
    pub(crate) client: Client,
    /// For local files.
    pub(crate) pool: Pool,
    /// How to copy.
    pub(crate) options: Options,
    /// How far it is.
    pub(crate) tally: Tally,
    /// Temporary names that an interrupt removes.
    pub(crate) unfinished: local::Unfinished,
    /// Blocks to be used again.
    pub(crate) buffers: buffers::Buffers,
    /// What this process takes from the modes of what it makes.
    pub(crate) umask: u32,
}

/// How far a command is.
#[derive(Debug)]
pub(crate) struct Tally {
    files: AtomicU64,
    bytes: AtomicU64,
    start: Instant,
    bar: ProgressBar,
}

/// What was copied.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Copied {
    files: u64,
    bytes: u64,
    seconds: f64,
    longest_stall_ms: u64,
    failovers: u64,
}

impl Report for Copied {
    /// Nothing: as `cp`.
    fn human(&self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

impl Tally {
    fn new(watched: bool) -> Tally {
        let bar = match watched {
            true => ProgressBar::new(0).with_style(
                ProgressStyle::with_template(
                    "{bytes}/{total_bytes} {binary_bytes_per_sec} [{wide_bar}] {eta} {msg}",
                )
                .expect("the template is right"),
            ),
            false => ProgressBar::hidden(),
        };
        Tally {
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            start: Instant::now(),
            bar,
        }
    }

    /// More is to come.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// Bytes were moved.
    pub(crate) fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bar.inc(bytes as u64);
    }

    /// A file (or symlink, or node) is there.
    pub(crate) fn finished(&self) {
        let files = self.files.fetch_add(1, Ordering::Relaxed) + 1;
        if files > 1 && !self.bar.is_hidden() {
            self.bar.set_message(format!("{files} files"));
        }
    }
}

impl Job {
    /// Connects.
    ///
    /// # Errors
    /// The client's.
    pub(crate) async fn new(context: &Context, options: Options) -> Result<Arc<Job>> {
        let threads = if options.recursive { LOCAL_THREADS } else { 2 };
        Ok(Arc::new(Job {
            client: context.connect().await?,
            pool: Pool::threads("dfs-local", threads),
            options,
            tally: Tally::new(context.console.watched()),
            unfinished: local::Unfinished::default(),
            buffers: buffers::Buffers::default(),
            umask: super::umask(),
        }))
    }

    /// Permission bits of a copy: exact with `-r` or `-p`, else less the umask, as `cp` does.
    #[must_use]
    pub(crate) fn mode(&self, mode: u32) -> u32 {
        match self.options.recursive || self.options.preserve {
            true => mode & 0o7777,
            false => mode & 0o777 & !self.umask,
        }
    }

    /// Shows what was copied.
    ///
    /// # Errors
    /// Stdout's.
    pub(crate) fn report(&self, context: &Context) -> Result<Exit> {
        let stats = self.client.stats();
        self.tally.bar.finish_and_clear();
        let copied = Copied {
            files: self.tally.files.load(Ordering::Relaxed),
            bytes: self.tally.bytes.load(Ordering::Relaxed),
            seconds: self.tally.start.elapsed().as_secs_f64(),
            longest_stall_ms: u64::try_from(stats.longest_stall.as_millis()).unwrap_or(u64::MAX),
            failovers: stats.failovers,
        };
        if context.console.watched() {
            let mib = copied.bytes as f64 / (1 << 20) as f64 / copied.seconds.max(1e-6);
            let amount = Size(copied.bytes).human();
            let line = format!(
                "{} files, {amount} in {:.1} s, {mib:.0} MiB/s",
                copied.files, copied.seconds
            );
            context.console.note(&line);
        }
        context.console.print(&copied)?;
        Ok(Exit::Ok)
    }
}

/// Does the work, unless a signal comes: then temporary names are removed and that is the end.
///
/// # Errors
/// The work's, or that it was interrupted.
pub(crate) async fn interruptible(job: &Arc<Job>, work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = work => return done,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    job.tally.bar.finish_and_clear();
    job.unfinished.remove_all(&job.client).await;
    Err(Failure::new(Code::Unavailable, "interrupted"))
}
