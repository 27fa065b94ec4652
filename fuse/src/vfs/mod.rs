//! The file system of a mount, without the kernel: methods are named as FUSE names its requests.
//!
//! In reading order: [`tree`] (names), [`attributes`], [`directories`] (listings), [`handles`] (open files),
//! [`locks`], [`space`]. A method whose answer is cached completes at its first poll; it never blocks its thread and
//! holds no lock across an await. Errors are the house's [`Error`]; the edge turns them into errno.

mod attributes;
pub mod content;
mod directories;
mod handles;
mod locks;
mod space;
mod tree;
mod types;

pub use handles::Create;
pub use types::*;

use dfs_client::{Client, InodeId, Inodes, Result};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

/// Invalidations that may wait for the kernel; beyond it the change stream waits.
const NOTICES_MAX: usize = 1_024;

/// A mounted file system.
pub struct Vfs {
    client: Client,
    options: Options,
    handles: handles::Handles,
    directories: directories::Directories,
    notices: Mutex<Option<mpsc::Receiver<Notice>>>,
    _notify: mpsc::Sender<Notice>,
    told: AtomicU64,
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfs").finish_non_exhaustive()
    }
}

impl Vfs {
    /// Starts a file system on a connected client, whose session becomes the mount's.
    ///
    /// # Errors
    /// The master's, if the root cannot be read.
    pub async fn start(client: Client, options: Options) -> Result<Arc<Vfs>> {
        let (sender, receiver) = mpsc::channel(NOTICES_MAX);
        let vfs = Arc::new(Vfs {
            client,
            options,
            handles: handles::Handles::default(),
            directories: directories::Directories::default(),
            notices: Mutex::new(Some(receiver)),
            _notify: sender,
            told: AtomicU64::new(0),
        });
        vfs.root().stat(InodeId::ROOT).await?;
        Ok(vfs)
    }

    /// What the kernel must be told, in order; once. Tell it from a thread of its own, never from a request's.
    #[must_use]
    pub fn notices(&self) -> Option<mpsc::Receiver<Notice>> {
        lock(&self.notices).take()
    }

    /// The kernel was told of everything up to this number.
    pub fn told(&self, number: u64) {
        self.told.fetch_max(number, std::sync::atomic::Ordering::Release);
    }

    /// Sends what is buffered in all open files; it goes on.
    ///
    /// # Errors
    /// The first failure of a file.
    pub async fn flush_all(&self) -> Result<()> {
        self.handles.flush_all().await
    }

    /// Ends it: what is buffered is sent, the session is closed.
    ///
    /// # Errors
    /// The first failure of a file.
    pub async fn stop(&self) -> Result<()> {
        self.handles.close_all().await
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
    fn root(&self) -> Inodes {
        self.client.inodes().acting_as(dfs_client::Caller::default())
    }
}

/// Locks are held for a few instructions, and nothing panics inside.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}
