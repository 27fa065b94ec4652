//! Extended attributes.
//!
//! The kernel and `ls` ask for some that hardly any file has, so the list of names is asked for once and answers for
//! those that are not in it.

use super::cache::{Values, Xattrs};
use super::{Caller, SetXattr, Vfs};
use dfs_client::{Code, InodeId, Metadata, Result};
use std::sync::Arc;

/// File capabilities (capabilities(7)).
const CAPABILITIES: &[u8] = b"security.capability";
/// Longest value that is kept.
const VALUE_MAX: usize = 4_096;
/// What the kernel itself would handle, if it were there: POSIX access control lists.
const SYSTEM: &[u8] = b"system.";

impl Xattrs {
    pub(super) fn has_capabilities(&self) -> bool {
        self.values.contains_key(CAPABILITIES)
    }
}

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// The value of an extended attribute.
    pub async fn getxattr(&self, caller: Caller, inode: u64, name: &[u8]) -> Result<Arc<[u8]>> {
        if name.starts_with(SYSTEM) {
            return Err(Code::NotSupported.into());
        }
        let list = self.list(caller, inode).await?;
        match list.get(name) {
            None => return Err(Code::NoAttribute.into()),
            Some(Some(value)) => return Ok(value.clone()),
            Some(None) => {}
        }
        let stamp = self.cache.stamp(inode);
        let value: Arc<[u8]> = self.acting(caller).get_xattr(InodeId(inode), name).await?.into();
        // Others may not be allowed to read it; but what is for the superuser alone the kernel keeps from them.
        if value.len() <= VALUE_MAX && !self.options.ask_permission {
            self.cache.learn_xattr(stamp, inode, name, &value);
        }
        Ok(value)
    }

    /// Sets an extended attribute.
    pub async fn setxattr(&self, caller: Caller, inode: u64, set: SetXattr<'_>) -> Result<()> {
        if set.name.starts_with(SYSTEM) {
            return Err(Code::NotSupported.into());
        }
        let calls = self.acting(caller);
        let set = calls.set_xattr(InodeId(inode), set.name, set.value, set.mode);
        self.change_xattrs(inode, set).await
    }

    /// Names of extended attributes, each ended by NUL.
    pub async fn listxattr(&self, caller: Caller, inode: u64) -> Result<Vec<u8>> {
        let list = self.list(caller, inode).await?;
        let mut names: Vec<&Vec<u8>> = list.keys().collect();
        names.sort_unstable();
        let seen = names
            .into_iter()
            .filter(|name| caller.uid == 0 || !name.starts_with(b"trusted."));
        Ok(seen.flat_map(|name| name.iter().copied().chain([0])).collect())
    }

    /// Removes an extended attribute.
    pub async fn removexattr(&self, caller: Caller, inode: u64, name: &[u8]) -> Result<()> {
        if name.starts_with(SYSTEM) {
            return Err(Code::NotSupported.into());
        }
        let calls = self.acting(caller);
        self.change_xattrs(inode, calls.remove_xattr(InodeId(inode), name))
            .await
    }

    /// All names of an inode's extended attributes, some with their values.
    async fn list(&self, caller: Caller, inode: u64) -> Result<Arc<Values>> {
        if let Some(Xattrs { values, .. }) = self.cache.xattrs(inode) {
            return Ok(values);
        }
        // The attributes say whether there are any.
        if self
            .cache
            .attributes(inode)
            .is_some_and(|metadata| metadata.xattr_bytes == 0)
        {
            return Ok(Arc::default());
        }
        let stamp = self.cache.stamp(inode);
        // In the mount's own name, so that the list is whole.
        let calls = if self.options.ask_permission {
            self.acting(caller)
        } else {
            self.own()
        };
        let names = calls.list_xattrs(InodeId(inode)).await?;
        let listed: Arc<Values> = Arc::new(names.into_iter().map(|name| (name, None)).collect());
        self.cache.learn_xattrs(stamp, inode, listed.clone());
        Ok(listed)
    }

    /// Own changes are told by nobody: their answer is kept, and what an older question brings later is not.
    async fn change_xattrs(&self, inode: u64, change: impl Future<Output = Result<Metadata>>) -> Result<()> {
        let done = self.set(inode, change).await;
        self.cache.drop_xattrs(inode);
        done.map(drop)
    }

    /// True if it has file capabilities.
    pub(super) async fn has_capabilities(&self, inode: u64) -> Result<bool> {
        Ok(self
            .list(Caller::default(), inode)
            .await?
            .contains_key(CAPABILITIES))
    }
}
