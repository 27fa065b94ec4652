//! The file system of a mount, without the kernel: methods are named as FUSE names its requests.
//!
//! In reading order: `tree` (names), `attributes` and `xattrs`, `directories` (listings), `handles` (open files) over
//! [`content`] (their bytes), `locks`, `space`. They answer from `cache` where they can, which `changes` keeps right by
//! what the master tells of other mounts; what the kernel must drop leaves through `notices`. `orphans` gives removed
//! files back that nobody has open any more, `upkeep` bounds the memory.
//!
//! A method whose answer is cached completes at its first poll; it never blocks its thread and holds no lock across an
//! await. Errors are the house's [`Error`](dfs_client::Error); the edge turns them into errno.

mod attributes;
mod cache;
mod changes;
pub mod content;
mod directories;
mod handles;
mod locks;
mod notices;
mod orphans;
mod reach;
mod space;
mod tree;
mod types;
mod upkeep;
mod xattrs;

pub use handles::Create;
pub use types::*;

use cache::Cache;
use dfs_client::{Client, InodeId, Inodes, Metadata, Result, WatchControl};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longest wait for the master when the file system stops.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// A mounted file system.
pub struct Vfs {
    client: Client,
    options: Options,
    cache: Cache,
    contents: Arc<content::Shared>,
    files: handles::Files,
    listings: directories::Listings,
    waits: locks::Waits,
    room: space::Remembered,
    notices: notices::Notices,
    orphans: orphans::Orphans,
    reach: reach::Reach,
    control: WatchControl,
    stopping: CancellationToken,
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfs").finish_non_exhaustive()
    }
}

impl Vfs {
    /// Starts a file system on a connected client, whose session is the mount's from now on (it was opened with
    /// [`Settings::mount`](dfs_client::Settings::mount)). Ends with [`Vfs::stop`].
    ///
    /// # Errors
    /// The master's, if the root cannot be read.
    pub async fn start(client: Client, options: Options) -> Result<Arc<Vfs>> {
        let watch = client.watch();
        let limits = content::Limits {
            dirty_bytes: options.write_buffer_bytes,
            cache_bytes: options.data_cache_bytes,
            ..content::Limits::default()
        };
        let vfs = Arc::new(Vfs {
            cache: Cache::new(),
            contents: content::Shared::start(&client, limits),
            files: handles::Files::default(),
            listings: directories::Listings::default(),
            waits: locks::Waits::default(),
            room: space::Remembered::default(),
            notices: notices::Notices::new(),
            orphans: orphans::Orphans::default(),
            reach: reach::Reach::new(),
            control: watch.control(),
            stopping: CancellationToken::new(),
            client,
            options,
        });
        tokio::spawn(changes::follow(vfs.clone(), watch));
        tokio::spawn(orphans::give_back(vfs.clone()));
        tokio::spawn(upkeep::keep(vfs.clone()));
        vfs.fresh(Caller::default(), InodeId::ROOT.0).await?;
        vfs.refresh_room().await;
        Ok(vfs)
    }

    /// What the kernel must be told, in order; once. Tell it from a thread of its own, never from a request's.
    /// As long as nobody has asked for them there is no kernel to tell.
    #[must_use]
    pub fn notices(&self) -> Option<mpsc::Receiver<Notice>> {
        self.notices.take()
    }

    /// The kernel was told of everything up to this number.
    pub fn told(&self, number: u64) {
        self.notices.told(number);
    }

    /// Sends what is buffered in all open files; it goes on.
    ///
    /// # Errors
    /// The first failure of a file.
    pub async fn flush_all(&self) -> Result<()> {
        self.contents.settle_all().await
    }

    /// Returns when answers may be kept: the change stream stands.
    pub async fn watching(&self) {
        self.reach.watching().await;
    }

    /// Ends it: what is buffered is sent, the session with its locks is closed.
    ///
    /// # Errors
    /// The first failure of a file.
    pub async fn stop(&self) -> Result<()> {
        let settled = self.contents.settle_all().await;
        self.stopping.cancel();
        // Without the master the session ends by its lease.
        let ended = tokio::time::timeout(GOODBYE_MAX, self.client.clone().disconnect()).await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "the session ends by its lease");
        }
        settled
    }

    /// Calls in a caller's name.
    fn acting(&self, caller: Caller) -> Inodes {
        let groups = match caller.uid {
            // Groups open nothing to root that is closed to it.
            0 => Vec::new(),
            _ => (self.options.groups_of)(caller),
        };
        self.client.inodes().acting_as(dfs_client::Caller {
            uid: caller.uid,
            gid: caller.gid,
            groups,
        })
    }

    /// Calls in the mount's own name: for what was permitted when a file was opened.
    fn own(&self) -> Inodes {
        self.client.inodes().acting_as(dfs_client::Caller::default())
    }

    /// Calls for a question whose permission the kernel has checked already, if it does that.
    fn asking(&self, caller: Caller) -> Inodes {
        if self.options.ask_permission {
            self.acting(caller)
        } else {
            self.own()
        }
    }

    /// For how long the kernel may keep what was asked for in an epoch.
    fn ttls(&self, sure: bool) -> (Duration, Duration) {
        if sure && !self.options.ask_permission {
            (self.options.entry_ttl, self.options.attr_ttl)
        } else {
            (Duration::ZERO, Duration::ZERO)
        }
    }

    /// As this mount's programs must see it.
    fn shown(&self, mut metadata: Metadata) -> Metadata {
        if metadata.is_file()
            && let Some(content) = self
                .cache
                .peek(metadata.inode.0, |node| node.content.clone())
                .flatten()
        {
            content.overlay(&mut metadata);
        }
        metadata
    }
}

/// Locks are held for a few instructions, and nothing panics inside.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}
