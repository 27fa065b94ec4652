//! Locks on ranges of files.

use super::{Caller, Lock, Locked, Vfs};
use dfs_client::{Code, Result};
use std::future::Future;

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// A lock that forbids this one; `None` if there is none.
    pub async fn getlk(&self, _caller: Caller, _inode: u64, _lock: Lock) -> Result<Option<Lock>> {
        Err(Code::NotSupported.into())
    }

    /// Takes, changes or gives up a lock. With `cancelled` it waits for others until that future is ready;
    /// without it does not wait.
    pub async fn setlk<C>(
        &self,
        _caller: Caller,
        _inode: u64,
        _lock: Lock,
        _cancelled: Option<C>,
    ) -> Result<Locked>
    where
        C: Future<Output = ()> + Send,
    {
        Err(Code::NotSupported.into())
    }
}
