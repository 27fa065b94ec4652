//! A mount's life: clean what is left at the mountpoint, start the file system, mount, answer, and at the end send
//! what is buffered and unmount.

use crate::attr::Shown;
use crate::caller::{Groups, Names};
use crate::desk::Desk;
use crate::dotstats::DotStats;
use crate::filesystem::Edge;
use crate::options::Options;
use crate::stats::Stats;
use crate::vfs::{self, Vfs};
use crate::{device, mounts, notify};
use dfs_client::Client;
use dfs_stdx::Clock;
use dfs_stdx::blocking::Pool;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Whoever looks at a mountpoint that answers no one within it has a dead mount there.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// At the end what is buffered is sent within it, or given up with a line in the log.
const FLUSH_DEADLINE: Duration = Duration::from_secs(60);
/// Programs that still use a mount that was taken away may go on for so long.
const LINGER: Duration = Duration::from_secs(2);
/// The kernel may read so far ahead.
const READ_AHEAD_KIB: &str = "4096";

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine or this user lacks something.
    #[error("{0}")]
    Missing(String),
    /// Another mount is there.
    #[error("{0}")]
    Taken(String),
    /// The cluster's.
    #[error(transparent)]
    Cluster(#[from] dfs_client::Error),
    /// The system's, at what.
    #[error("{0}: {1}")]
    System(&'static str, #[source] io::Error),
}

/// What is mounted where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// "host:port" of the masters, separated by commas.
    pub masters: String,
    /// What the kernel names as the mount's source: as it was typed, so that mount(8) and findmnt(8) know it again.
    pub source: String,
    /// Where: absolute, without symlinks ([`mounts::absolute`]).
    pub mountpoint: PathBuf,
    /// How.
    pub options: Options,
}

/// A mount that answers.
#[derive(Debug)]
pub struct Mounted {
    vfs: Arc<Vfs>,
    stats: Arc<Stats>,
    mountpoint: PathBuf,
    pool: Pool,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl Mounted {
    /// Mounts on a connected client, whose session becomes the mount's; returns once the mount answers.
    ///
    /// # Errors
    /// Why there is none; nothing is left mounted.
    pub async fn start(client: Client, settings: &Settings) -> Result<Mounted, Error> {
        let pool = Pool::threads("dfs-mount", 2);
        make_room(&pool, &settings.mountpoint).await?;
        let clock = Clock::system();
        let stats = Arc::new(Stats::new(
            &settings.masters,
            &settings.mountpoint.to_string_lossy(),
            &clock,
        ));
        let groups = Groups::new(clock.clone());
        let options = &settings.options;
        let vfs = Vfs::start(client, vfs_options(options, groups)).await?;
        let edge = Edge {
            vfs: vfs.clone(),
            desk: Desk::new(tokio::runtime::Handle::current(), clock, stats.clone()),
            names: Names::of(options),
            shown: Shown::of(options),
            dotstats: DotStats::default(),
        };
        let source = settings.source.clone();
        let (mountpoint, asked) = (settings.mountpoint.clone(), options.clone());
        let session = pool
            .run(move || device::mount(edge, &source, &mountpoint, &asked))
            .await;
        let session = match session {
            Ok(session) => session,
            Err(error) => {
                // Nothing was written: there is nothing to lose.
                let _ = vfs.stop().await;
                return Err(error);
            }
        };
        notify::start(&vfs, &session.notifier(), &stats).map_err(|e| Error::System("threads", e))?;
        let (tell, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("dfs-session".to_owned())
            .spawn(move || {
                // Nobody may be waiting for it any more.
                let _ = tell.send(session.run());
            })
            .map_err(|e| Error::System("threads", e))?;
        let mounted = Mounted {
            vfs,
            stats,
            mountpoint: settings.mountpoint.clone(),
            pool,
            ended,
        };
        read_far_ahead(&mounted.mountpoint);
        mounted.answers().await?;
        Ok(mounted)
    }

    /// What the mount has done.
    #[must_use]
    pub fn metrics(&self) -> crate::metrics::Metrics {
        crate::metrics::Metrics::new(self.stats.clone())
    }

    /// Returns when someone else has unmounted it.
    ///
    /// # Errors
    /// Why the kernel's requests cannot be taken any more.
    pub async fn ended(&mut self) -> io::Result<()> {
        (&mut self.ended).await.unwrap_or(Ok(()))
    }

    /// Sends what is buffered, unmounts, and ends the session.
    ///
    /// # Errors
    /// What could not be sent, or why it cannot be unmounted.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.flush("before unmounting").await;
        let mountpoint = self.mountpoint.clone();
        if mounts::at(&mountpoint).is_ok_and(|found| found.is_some_and(|mount| mount.is_ours())) {
            let unmounted = self.pool.run(move || {
                device::unmount(&mountpoint, false).or_else(|error| {
                    tracing::warn!(%error, "still in use: taken away lazily");
                    device::unmount(&mountpoint, true)
                })
            });
            unmounted.await.map_err(|error| Error::System("umount", error))?;
        }
        if tokio::time::timeout(LINGER, &mut self.ended).await.is_err() {
            tracing::warn!("still used (open files, or another mount namespace has it): errors from now on");
        }
        self.finish().await
    }

    /// Sends what is buffered and ends the session, once it is unmounted.
    ///
    /// # Errors
    /// What could not be sent.
    pub async fn finish(self) -> Result<(), Error> {
        match tokio::time::timeout(FLUSH_DEADLINE, self.vfs.stop()).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::Cluster(dfs_client::Error::new(
                dfs_client::Code::TimedOut,
                "what was buffered could not be sent within a minute",
            ))),
        }
    }

    async fn flush(&self, when: &'static str) {
        match tokio::time::timeout(FLUSH_DEADLINE, self.vfs.flush_all()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, when, "not everything could be sent"),
            Err(_) => tracing::error!(when, "not everything could be sent within a minute"),
        }
    }

    /// Asks the mount something, as any program would.
    async fn answers(&self) -> Result<(), Error> {
        let looked = look(&self.pool, &self.mountpoint).await;
        match looked {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                // It is of no use; what remains of it is the system's to say.
                let _ = device::unmount(&self.mountpoint, true);
                Err(Error::System("the mount does not answer", error))
            }
            None => {
                let _ = device::unmount(&self.mountpoint, true);
                let error = io::Error::from(io::ErrorKind::TimedOut);
                Err(Error::System("the mount does not answer", error))
            }
        }
    }
}

fn vfs_options(options: &Options, groups: Groups) -> vfs::Options {
    vfs::Options {
        entry_ttl: options.timeout,
        attr_ttl: options.timeout,
        data_cache_bytes: options.cache_bytes,
        write_buffer_bytes: options.buffer_bytes,
        groups_of: Arc::new(move |caller| groups.of(caller)),
        ..vfs::Options::default()
    }
}

/// A mount of ours whose process is dead is taken away; a living one is not mounted over.
async fn make_room(pool: &Pool, mountpoint: &Path) -> Result<(), Error> {
    let found = mounts::at(mountpoint).map_err(|error| Error::System("/proc/self/mountinfo", error))?;
    let Some(mount) = found.filter(mounts::Mount::is_ours) else {
        return Ok(());
    };
    match look(pool, mountpoint).await {
        Some(Err(error)) if is_dead(&error) => {
            tracing::info!(mountpoint = %mountpoint.display(), "a dead mount is taken away");
            device::unmount(mountpoint, true).map_err(|error| Error::System("umount of a dead mount", error))
        }
        Some(_) => Err(Error::Taken(format!("{} is mounted here already", mount.source))),
        None => Err(Error::Taken(format!(
            "{} is mounted here already and does not answer; `dfs umount --lazy` takes it away",
            mount.source
        ))),
    }
}

/// ENOTCONN: nobody has the other end. ECONNABORTED: it was cut.
fn is_dead(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotConnected | io::ErrorKind::ConnectionAborted
    )
}

/// `statfs` of a path, which the kernel never answers by itself, unless it takes too long: then the thread is left to
/// wait alone.
async fn look(pool: &Pool, path: &Path) -> Option<io::Result<()>> {
    let path = path.to_owned();
    let asked = pool.run(move || Ok(rustix::fs::statfs(path).map(drop)?));
    tokio::time::timeout(LOOK_DEADLINE, asked).await.ok()
}

/// Larger reads for sequential readers: 128 KiB is the default, and root may change it.
fn read_far_ahead(mountpoint: &Path) {
    let Ok(Some(mount)) = mounts::at(mountpoint) else {
        return;
    };
    let path = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB) {
        tracing::debug!(%error, path, "the kernel's readahead stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_has_room_for_a_mount() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::threads("test", 1);
        make_room(&pool, folder.path()).await.unwrap();
    }

    #[test]
    fn a_dead_mount_is_known_by_its_error() {
        assert!(is_dead(&io::Error::from_raw_os_error(107)), "ENOTCONN");
        assert!(is_dead(&io::Error::from_raw_os_error(103)), "ECONNABORTED");
        assert!(!is_dead(&io::Error::from_raw_os_error(13)), "EACCES");
    }
}
