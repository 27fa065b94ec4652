//! `dfs mount-stats`.

use super::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use dfs_client::Code;
use dfs_fuse::stats::Report;
use dfs_stdx::blocking::Pool;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A mount that is alive answers at once.
const DEADLINE: Duration = Duration::from_secs(5);

/// Show what a mount has done and how long it took
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dfs mount-stats /mnt/dfs\n  dfs mount-stats --json /mnt/dfs\n  cat /mnt/dfs/.stats               the same, without this program"
)]
pub(crate) struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
}

/// Shows it.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let report = read(&args.mountpoint)
        .await
        .about(args.mountpoint.as_os_str().as_bytes())?;
    context.console.print(&report)?;
    Ok(Exit::Ok)
}

/// What the mount says about itself.
///
/// # Errors
/// There is none, or it does not answer.
pub(crate) async fn read(mountpoint: &Path) -> Result<Report> {
    let path = mountpoint.join(dfs_fuse::STATS_FILE);
    let pool = Pool::threads("dfs-stats", 1);
    let text = tokio::time::timeout(DEADLINE, pool.run(move || std::fs::read(path)))
        .await
        .map_err(|_| Failure::new(Code::TimedOut, "the mount does not answer"))?;
    match text {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|_| Failure::new(Code::InvalidArgument, "not the root of a mount of dfs")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::new(
            Code::InvalidArgument,
            "not the root of a mount of dfs",
        )),
        Err(error) => Err(error.into()),
    }
}
