//! `dfs mount`.
//!
//! Without `--foreground` it starts itself again in the background ([`daemon`]) and ends once that process says that
//! the mount answers, or why there is none: so its exit code can be believed.

mod daemon;

use super::{Context, node};
use crate::exit::{About as _, Exit, Failure, Result};
use crate::settings;
use dfs_client::{Client, Code};
use dfs_fuse::{Mounted, mounts};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// Said by the process in the background on its stdout: the mount answers.
const READY: &str = "ready";
const EXAMPLES: &str = "\
Examples:
  dfs mount 127.0.0.1:7700 /mnt/dfs                  returns when it is mounted; `dfs umount /mnt/dfs` ends it
  dfs mount 10.0.0.1:7700 /mnt/dfs -o ro             nothing can be changed
  dfs mount 10.0.0.1:7700 ~/dfs --foreground         stays; Ctrl-C sends what is buffered and unmounts
  dfs mount 10.0.0.1:7700 /data -o cache=1GiB,root_squash --metrics 127.0.0.1:9770

In /etc/fstab, with a link /sbin/mount.fuse.dfs to this program:
  10.0.0.1:7700  /mnt/dfs  fuse.dfs  _netdev,cache=1GiB  0  0

Options (-o): ro, rw, allow_other (default for root), noallow_other, default_permissions (default), uid=N, gid=N,
umask=OCTAL, root_squash, cache=SIZE (clean data, 64MiB), buffer=SIZE (unsent data, 64MiB), timeout=SECONDS
(of names and attributes in the kernel, 3600), threads=N (4), log=FILE, metrics=HOST:PORT, dev, suid, noexec, noatime,
sync, dirsync; what else mount(8) passes on is accepted and ignored.

What it does and how long it takes: `dfs mount-stats MOUNTPOINT`.";

/// Mount the file system
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "dfs mount [OPTIONS] [MASTER] <MOUNTPOINT>")]
pub(crate) struct Args {
    /// HOST:PORT of the master (or several, separated by commas; or --master), and an existing folder
    #[arg(required = true, num_args = 1..=2, value_names = ["MASTER", "MOUNTPOINT"])]
    operands: Vec<OsString>,
    /// Stay, and log to stderr
    #[arg(long, short)]
    foreground: bool,
    /// How to mount, separated by commas
    #[arg(short, value_name = "OPTIONS", value_parser = options)]
    options: Vec<String>,
    /// Serve metrics for Prometheus at http://HOST:PORT/metrics
    #[arg(long, value_name = "HOST:PORT", value_parser = crate::args::address)]
    metrics: Option<String>,
    /// Where the process in the background writes its log [default: /var/log/dfs or ~/.local/state/dfs]
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    log: Option<PathBuf>,
    /// Tell the process that started this one how it went, on stdout
    #[arg(long, hide = true, requires = "foreground")]
    report: bool,
}

/// What is to be mounted where.
#[derive(Debug)]
struct Wanted {
    settings: dfs_fuse::Settings,
    /// As typed, for the process in the background.
    typed: Vec<String>,
    metrics: Option<String>,
    log: Option<PathBuf>,
}

/// Mounts.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let (foreground, report) = (args.foreground, args.report);
    let wanted = wanted(args, context)?;
    if wanted.settings.options.remount {
        return remount(&wanted.settings);
    }
    if !foreground {
        return daemon::start(&wanted, context).await;
    }
    node::prepare("mount")?;
    if report {
        daemon::detach();
    }
    match serve(&wanted, report).await {
        Err(failure) if report => {
            // Whoever started this one says it to the user; here it goes to the log.
            daemon::tell(failure.to_string());
            Err(failure)
        }
        outcome => outcome,
    }
}

/// As `mount -o remount` asks for it: of a mount of dfs that is there.
fn remount(settings: &dfs_fuse::Settings) -> Result<Exit> {
    let subject = settings.mountpoint.as_os_str().as_bytes();
    match mounts::at(&settings.mountpoint).about(subject)? {
        Some(mount) if mount.is_ours() => {}
        Some(_) | None => {
            return Err(Failure::new(Code::InvalidArgument, "no mount of dfs is there").about(subject));
        }
    }
    dfs_fuse::remount(&settings.mountpoint, &settings.options).about(subject)?;
    Ok(Exit::Ok)
}

/// Mounts and stays until it is unmounted or told to stop.
async fn serve(wanted: &Wanted, report: bool) -> Result<Exit> {
    let subject = wanted.settings.mountpoint.as_os_str().as_bytes();
    let mut stop = Stop::new()?;
    let client = connect(&wanted.settings.masters)
        .await
        .about(&wanted.settings.masters)?;
    let mut mounted = tokio::select! {
        mounted = Mounted::start(client, &wanted.settings) => mounted.map_err(refused).about(subject)?,
        () = stop.requested() => return Ok(Exit::Failed),
    };
    if let Some(addr) = &wanted.metrics
        && let Err(failure) = node::watched(addr, mounted.metrics()).await
    {
        // The mount is not wanted without them.
        mounted.stop().await.map_err(refused).about(subject)?;
        return Err(failure);
    }
    tracing::info!(mountpoint = %wanted.settings.mountpoint.display(), masters = wanted.settings.masters, "mounted");
    if report {
        daemon::tell(READY.to_owned());
    } else {
        say_ready(wanted)?;
    }
    tokio::select! {
        ended = mounted.ended() => {
            ended.about(subject)?;
            tracing::info!("unmounted by someone else");
            mounted.finish().await.map_err(refused).about(subject)?;
        }
        () = stop.requested() => {
            tracing::info!("asked to stop");
            tokio::select! {
                stopped = mounted.stop() => stopped.map_err(refused).about(subject)?,
                () = stop.requested() => return Ok(abandon(&wanted.settings.mountpoint)),
            }
        }
    }
    tracing::info!("ended");
    Ok(Exit::Ok)
}

/// Asked a second time: it ends now, with what is buffered.
fn abandon(mountpoint: &Path) -> Exit {
    tracing::error!("asked again: ends without sending what is buffered");
    // It may be gone already.
    let _ = dfs_fuse::unmount(mountpoint, true);
    Exit::Failed
}

fn say_ready(wanted: &Wanted) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "ready: {} is mounted at {}; Ctrl-C unmounts it",
        wanted.settings.masters,
        wanted.settings.mountpoint.display()
    )?;
    Ok(out.flush()?)
}

/// A session of its own, as root: the kernel has checked who may do what by then.
async fn connect(masters: &str) -> Result<Client> {
    let mut settings = dfs_client::Settings::new(masters)?;
    settings.name = format!("dfs mount {}", std::process::id());
    settings.host = settings::hostname();
    settings.mount = true;
    settings.sync_on_close = false;
    let world = dfs_proto::world::World::real("dfs-client", 1);
    Ok(Client::connect_with(settings, world.dial, world.clock, world.rng).await?)
}

fn wanted(args: Args, context: &Context) -> Result<Wanted> {
    let mut operands = args.operands.into_iter();
    let (first, second) = (operands.next(), operands.next());
    let (masters, source, mountpoint) = match (first, second) {
        (Some(typed), Some(mountpoint)) => {
            // An address is ASCII, however it is written.
            (
                addresses(&typed)?,
                typed.to_string_lossy().into_owned(),
                mountpoint,
            )
        }
        (first, _) => {
            let masters = context.masters();
            let mountpoint = first.expect("at least one is required");
            (masters.clone(), masters, mountpoint)
        }
    };
    let mut options = dfs_fuse::Options::default();
    for list in &args.options {
        options
            .read(list)
            .map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
    }
    let mountpoint = PathBuf::from(mountpoint);
    let subject = mountpoint.as_os_str().as_bytes();
    let absolute = mounts::absolute(&mountpoint).about(subject)?;
    // A mount that is there already may be dead, and would answer with an error.
    if mounts::at(&absolute).about(subject)?.is_none() && !absolute.is_dir() {
        return Err(Failure::of(Code::NotADirectory)).about(subject);
    }
    Ok(Wanted {
        metrics: args.metrics.or_else(|| options.metrics.clone()),
        log: args.log.or_else(|| options.log.clone().map(PathBuf::from)),
        typed: args.options,
        settings: dfs_fuse::Settings {
            masters,
            source,
            mountpoint: absolute,
            options,
        },
    })
}

/// "host:port[,host:port]", also as fstab may have it: `dfs#host:port`, `dfs://host:port/`.
fn addresses(typed: &OsString) -> Result<String> {
    let text = typed.to_string_lossy();
    let bare = text
        .strip_prefix("dfs#")
        .or_else(|| text.strip_prefix("dfs://"))
        .unwrap_or(&text);
    let bare = bare.trim_end_matches('/');
    match bare.split(',').all(dfs_proto::net::is_address) {
        true => Ok(bare.to_owned()),
        false => Err(Failure::new(
            Code::InvalidArgument,
            "not a master's address, which is HOST:PORT",
        )
        .about(typed.as_bytes())),
    }
}

/// Checks options while they are read, so that a wrong one is a usage error.
fn options(list: &str) -> std::result::Result<String, String> {
    dfs_fuse::Options::default()
        .read(list)
        .map_err(|error| error.to_string())?;
    Ok(list.to_owned())
}

/// Why there is no mount, in the words of the exit.
fn refused(error: dfs_fuse::Error) -> Failure {
    let text = error.to_string();
    match error {
        dfs_fuse::Error::Missing(_) => Failure::new(Code::NotSupported, text),
        dfs_fuse::Error::Taken(_) => Failure::new(Code::Busy, text),
        dfs_fuse::Error::Cluster(error) => error.into(),
        dfs_fuse::Error::System(..) => Failure::new(Code::Unavailable, text),
    }
}

/// Whoever wants it to stop.
struct Stop([tokio::signal::unix::Signal; 3]);

impl Stop {
    fn new() -> Result<Stop> {
        Ok(Stop([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn requested(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_written_in_three_ways() {
        for typed in ["10.0.0.1:7700", "dfs#10.0.0.1:7700", "dfs://10.0.0.1:7700/"] {
            assert_eq!(addresses(&typed.into()).unwrap(), "10.0.0.1:7700");
        }
        assert_eq!(addresses(&"a:1,b:2".into()).unwrap(), "a:1,b:2");
        assert!(addresses(&"/mnt".into()).is_err());
    }
}
