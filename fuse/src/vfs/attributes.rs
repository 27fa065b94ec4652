//! Attributes.

use super::{Attr, Caller, Set, Vfs};
use dfs_client::{Code, Error, InodeId, Metadata, Result, SetAttributes};

/// Set-user-id and set-group-id.
const PRIVILEGES: u32 = 0o6000;

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// Attributes.
    pub async fn getattr(&self, caller: Caller, inode: u64, handle: Option<u64>) -> Result<Attr> {
        let _ = handle;
        let (metadata, epoch) = self.known(caller, inode).await?;
        Ok(self.attr(epoch, metadata))
    }

    /// Changes attributes; through a handle that is open for writing the size needs no permission any more.
    pub async fn setattr(&self, caller: Caller, inode: u64, handle: Option<u64>, set: Set) -> Result<Attr> {
        if let Some(size) = set.size {
            return self.resize(caller, inode, handle, (size, set)).await;
        }
        if set.mtime.is_some() || set.atime.is_some() {
            self.settle(inode).await;
        }
        let calls = self.acting(caller);
        let rest = rest_of(&set, set.kill_privileges);
        self.set(inode, calls.set_attributes(InodeId(inode), rest)).await
    }

    /// A new size goes through the file's bytes, in one call with what else is set.
    async fn resize(
        &self,
        caller: Caller,
        inode: u64,
        handle: Option<u64>,
        (size, set): (u64, Set),
    ) -> Result<Attr> {
        if handle.is_none() && self.options.ask_permission {
            self.acting(caller)
                .access(InodeId(inode), super::handles::MAY_WRITE)
                .await?;
        }
        let (metadata, _) = self.known(caller, inode).await?;
        if metadata.is_dir() {
            return Err(Code::IsADirectory.into());
        }
        if !metadata.is_file() {
            return Err(Error::new(
                Code::InvalidArgument,
                "only regular files have a size to set",
            ));
        }
        let content = self.content(&metadata);
        // Owner and mode are the caller's to change, not the mount's.
        let others = set.mode.is_some() || set.uid.is_some() || set.gid.is_some();
        let with_size = SetAttributes {
            size: Some(size),
            atime: set.atime.filter(|_| !others),
            mtime: set.mtime.filter(|_| !others),
            kill_privileges: set.kill_privileges && !others,
            ..SetAttributes::default()
        };
        let cut = self.set(inode, content.truncate(with_size)).await?;
        if !others {
            return Ok(cut);
        }
        let calls = self.acting(caller);
        self.set(
            inode,
            calls.set_attributes(InodeId(inode), rest_of(&set, set.kill_privileges)),
        )
        .await
    }

    /// Runs a change of attributes and keeps its answer.
    pub(super) async fn set(
        &self,
        inode: u64,
        change: impl Future<Output = Result<Metadata>>,
    ) -> Result<Attr> {
        let epoch = self.cache.epoch();
        let changed = change.await.map_err(|error| self.missing(inode, error));
        let metadata = self.learn(epoch, &self.outcome(inode, changed)?);
        Ok(self.attr(epoch, metadata))
    }

    /// The outcome of telling the master something of an inode. If it failed, perhaps only the answer was lost: own changes
    /// are told by nobody else, so what is known is asked for again.
    pub(super) fn outcome<T>(&self, inode: u64, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.cache.doubt(inode);
        }
        outcome
    }

    /// Keeps attributes that the master answered to a question or change of this mount's own.
    pub(super) fn learn(&self, epoch: u64, metadata: &Metadata) -> Metadata {
        let newest = self.cache.learn(epoch, metadata);
        if metadata.is_file()
            && let Some(content) = self
                .cache
                .peek(metadata.inode.0, |node| node.content.clone())
                .flatten()
        {
            content.learned(&newest);
        }
        newest
    }

    /// suid, sgid and capabilities go before bytes are changed by someone who may not keep them.
    pub(super) async fn kill_privileges(&self, inode: u64) -> Result<()> {
        let (metadata, _) = self.known(Caller::default(), inode).await?;
        let privileged = metadata.mode & PRIVILEGES != 0 || self.has_capabilities(inode).await?;
        if privileged {
            let set = SetAttributes {
                kill_privileges: true,
                ..SetAttributes::default()
            };
            self.set(inode, self.own().set_attributes(InodeId(inode), set))
                .await?;
            self.cache.drop_xattrs(inode);
        }
        Ok(())
    }

    /// True unless it is known that there is nothing to kill.
    pub(super) fn may_have_privileges(&self, inode: u64) -> bool {
        let Some(metadata) = self.cache.attributes(inode) else {
            return true;
        };
        let may_be_capable = || {
            let known = self.cache.xattrs(inode);
            metadata.xattr_bytes > 0 && known.is_none_or(|xattrs| xattrs.has_capabilities())
        };
        metadata.mode & PRIVILEGES != 0 || may_be_capable()
    }

    /// Whether the caller may read (4), write (2), execute (1).
    pub async fn access(&self, caller: Caller, inode: u64, mask: u32) -> Result<()> {
        let epoch = self.cache.epoch();
        let metadata = self.acting(caller).access(InodeId(inode), mask).await?;
        self.learn(epoch, &metadata);
        Ok(())
    }

    /// Attributes, and the epoch in which they were asked for.
    pub(super) async fn known(&self, caller: Caller, inode: u64) -> Result<(Metadata, u64)> {
        let epoch = self.cache.epoch();
        match self.cache.attributes(inode) {
            Some(metadata) => Ok((metadata, epoch)),
            None => self.fresh(caller, inode).await,
        }
    }

    /// As [`Vfs::known`], from the master.
    pub(super) async fn fresh(&self, caller: Caller, inode: u64) -> Result<(Metadata, u64)> {
        let epoch = self.cache.epoch();
        let calls = self.asking(caller);
        let question = async { calls.stat(InodeId(inode)).await.map(|metadata| (metadata, epoch)) };
        // Epoch 0 is never sure.
        let remembered = || self.cache.remembered(inode).map(|metadata| (metadata, 0));
        let answer = self.ask(question, remembered).await;
        let (metadata, epoch) = answer.map_err(|error| self.missing(inode, error))?;
        Ok((self.learn(epoch, &metadata), epoch))
    }

    /// The inode is gone, not a name: the kernel then looks the name up again.
    fn missing(&self, inode: u64, error: Error) -> Error {
        if error.code != Code::NotFound {
            return error;
        }
        Error::new(Code::Stale, format!("inode {inode} was removed"))
    }

    /// What was written before comes before what is set now. Errors stay for the open handles.
    pub(super) async fn settle(&self, inode: u64) {
        let content = self.cache.peek(inode, |node| node.content.clone()).flatten();
        if let Some(content) = content
            && let Err(error) = self.outcome(inode, content.settle().await)
        {
            tracing::debug!(inode, %error, "written bytes did not arrive before attributes were set");
        }
    }

    fn attr(&self, epoch: u64, metadata: Metadata) -> Attr {
        let (_, ttl) = self.ttls(self.cache.is_sure(epoch));
        Attr {
            metadata: self.shown(metadata),
            ttl,
        }
    }
}

fn rest_of(set: &Set, kill_privileges: bool) -> SetAttributes {
    SetAttributes {
        mode: set.mode,
        uid: set.uid,
        gid: set.gid,
        size: None,
        atime: set.atime,
        mtime: set.mtime,
        goal: None,
        kill_privileges,
    }
}
