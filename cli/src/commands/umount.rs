//! `dfs umount`.

use super::{Context, mount_stats};
use crate::exit::{About as _, Exit, Failure, Result};
use dfs_client::Code;
use dfs_fuse::mounts;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The mount's process sends what is buffered within it, unless another mount namespace keeps it alive.
const END_DEADLINE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Unmount
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dfs umount /mnt/dfs\n  dfs umount --lazy /mnt/dfs      also if something there is in use, or does not answer\n\nIt returns when everything that was written is sent. umount(8) does as well, but does not wait for the process."
)]
pub(crate) struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// Take it away now; who has files open there may go on for a moment
    #[arg(long)]
    lazy: bool,
}

/// Unmounts.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let subject = args.mountpoint.as_os_str().as_bytes();
    let mountpoint = mounts::absolute(&args.mountpoint).about(subject)?;
    match mounts::at(&mountpoint).about(subject)? {
        None => return Err(Failure::new(Code::InvalidArgument, "not mounted")).about(subject),
        Some(mount) if !mount.is_ours() => {
            let text = format!("a mount of type {}, not of dfs", mount.kind);
            return Err(Failure::new(Code::InvalidArgument, text)).about(subject);
        }
        Some(_) => {}
    }
    let process = match args.lazy {
        // It may not answer.
        true => None,
        false => mount_stats::read(&mountpoint).await.ok().map(|report| report.pid),
    };
    dfs_fuse::unmount(&mountpoint, args.lazy).about(subject)?;
    let Some(process) = process else {
        return Ok(Exit::Ok);
    };
    let gone = async {
        while Path::new(&format!("/proc/{process}")).exists() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if tokio::time::timeout(END_DEADLINE, gone).await.is_err() {
        context.console.note(&format!(
            "unmounted here, but process {process} goes on: it has something to send, or is used in another namespace"
        ));
    }
    Ok(Exit::Ok)
}
