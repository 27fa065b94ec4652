//! Attributes, ordinary and extended.

use super::{Attr, Caller, Set, SetXattr, Vfs};
use dfs_client::{Code, InodeId, Metadata, Result, SetAttributes};
use std::time::Duration;

/// Set-user-id and set-group-id.
const SUID: u32 = 0o4000;
const SGID: u32 = 0o2000;
/// Executable by the group: only then does the set-group-id bit mean a privilege.
const GROUP_EXECUTE: u32 = 0o010;

/// The mode after privileges were killed; `None` if there were none.
pub(super) fn without_privileges(metadata: &Metadata) -> Option<u32> {
    let mut mode = metadata.mode & !SUID;
    if mode & GROUP_EXECUTE != 0 {
        mode &= !SGID;
    }
    (metadata.is_file() && mode != metadata.mode).then_some(mode)
}

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// Attributes.
    pub async fn getattr(&self, caller: Caller, inode: u64, handle: Option<u64>) -> Result<Attr> {
        let _ = handle;
        let metadata = self.acting(caller).stat(InodeId(inode)).await?;
        Ok(self.attr(metadata))
    }

    /// Changes attributes; through a handle that is open for writing the size needs no permission any more.
    pub async fn setattr(&self, caller: Caller, inode: u64, handle: Option<u64>, set: Set) -> Result<Attr> {
        let _ = handle;
        let inode = InodeId(inode);
        let calls = self.acting(caller);
        let mode = match set {
            Set {
                mode: None,
                kill_privileges: true,
                ..
            } => without_privileges(&calls.stat(inode).await?),
            Set { mode, .. } => mode,
        };
        let Set {
            uid,
            gid,
            size,
            atime,
            mtime,
            ..
        } = set;
        let set = SetAttributes {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
            goal: None,
            kill_privileges: set.kill_privileges,
        };
        if self.handles.is_open(inode.0) {
            self.handles.flush(inode.0).await?;
        }
        Ok(self.attr(calls.set_attributes(inode, set).await?))
    }

    /// Whether the caller may read (4), write (2), execute (1).
    pub async fn access(&self, _caller: Caller, _inode: u64, _mask: u32) -> Result<()> {
        Ok(())
    }

    /// The value of an extended attribute.
    pub async fn getxattr(&self, caller: Caller, inode: u64, name: &[u8]) -> Result<Vec<u8>> {
        self.acting(caller).get_xattr(InodeId(inode), name).await
    }

    /// Sets an extended attribute.
    pub async fn setxattr(&self, caller: Caller, inode: u64, set: SetXattr<'_>) -> Result<()> {
        if set.name.is_empty() {
            return Err(Code::InvalidArgument.into());
        }
        let calls = self.acting(caller);
        calls
            .set_xattr(InodeId(inode), set.name, set.value, set.mode)
            .await
    }

    /// Names of extended attributes, each ended by NUL.
    pub async fn listxattr(&self, caller: Caller, inode: u64) -> Result<Vec<u8>> {
        let names = self.acting(caller).list_xattrs(InodeId(inode)).await?;
        Ok(names
            .iter()
            .flat_map(|name| name.iter().copied().chain([0]))
            .collect())
    }

    /// Removes an extended attribute.
    pub async fn removexattr(&self, caller: Caller, inode: u64, name: &[u8]) -> Result<()> {
        self.acting(caller).remove_xattr(InodeId(inode), name).await
    }

    fn attr(&self, metadata: Metadata) -> Attr {
        Attr {
            metadata,
            ttl: Duration::ZERO,
        }
    }
}
