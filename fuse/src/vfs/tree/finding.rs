//! Finding what a name or a symlink leads to.

use crate::vfs::cache::Leads;
use crate::vfs::{Caller, Entry, Found, Vfs};
use dfs_client::{Code, InodeId, Metadata, Result};
use dfs_proto::name::NAME_BYTES_MAX;
use std::sync::Arc;
use std::time::Duration;

/// What a lookup at the master came to.
enum Asked {
    Found(Metadata),
    Nothing,
    /// The master is away; this was there when it was last heard.
    Remembered(Metadata),
    RememberedNothing,
}

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// The entry `name` of a directory.
    pub async fn lookup(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<Found> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Code::NameTooLong.into());
        }
        if matches!(name, b"." | b"..") {
            return self.lookup_dots(caller, parent, name).await;
        }
        if self.options.ask_permission {
            return self.lookup_asking(caller, parent, name).await;
        }
        match self.cache.find(parent, name) {
            Leads::Nowhere => {
                self.cache.note_nowhere(parent, name);
                return Ok(Found::Nothing(self.ttls(true).0));
            }
            Leads::To(inode, _) => {
                if let Some(found) = self.lookup_known(caller, inode).await? {
                    return Ok(found);
                }
            }
            Leads::Unknown => {}
        }
        self.lookup_asking(caller, parent, name).await
    }

    /// A name that surely leads to this inode. `None`: the master knows better.
    async fn lookup_known(&self, caller: Caller, inode: u64) -> Result<Option<Found>> {
        let epoch = self.cache.epoch();
        if let Some(metadata) = self.cache.attributes(inode) {
            return Ok(Some(Found::Entry(self.entry(epoch, metadata))));
        }
        match self.fresh(caller, inode).await {
            Ok((metadata, epoch)) => Ok(Some(Found::Entry(self.entry(epoch, metadata)))),
            Err(error) if matches!(error.code, Code::NotFound | Code::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn lookup_asking(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<Found> {
        let stamp = self.cache.stamp(parent);
        let calls = self.asking(caller);
        let question = async {
            match calls.lookup(InodeId(parent), name).await {
                Ok(metadata) => Ok(Asked::Found(metadata)),
                Err(error) if error.code == Code::NotFound => Ok(Asked::Nothing),
                Err(error) => Err(error),
            }
        };
        let remembered = || match self.cache.recall(parent, name) {
            Leads::To(inode, _) => self.cache.remembered(inode).map(Asked::Remembered),
            Leads::Nowhere => Some(Asked::RememberedNothing),
            Leads::Unknown => None,
        };
        Ok(match self.ask(question, remembered).await? {
            Asked::Found(metadata) => {
                let to = Some((metadata.inode.0, metadata.kind));
                let metadata = self.cache.learn(stamp.epoch(), &metadata);
                let kept = self.cache.learn_name(stamp, parent, name, to);
                let mut entry = self.entry(stamp.epoch(), metadata);
                if !kept {
                    entry.entry_ttl = Duration::ZERO;
                }
                Found::Entry(entry)
            }
            Asked::Nothing => {
                let kept = self.cache.learn_name(stamp, parent, name, None);
                Found::Nothing(self.ttls(kept).0)
            }
            // Epoch 0 is never sure.
            Asked::Remembered(metadata) => Found::Entry(self.entry(0, metadata)),
            Asked::RememberedNothing => Found::Nothing(Duration::ZERO),
        })
    }

    /// What NFS asks to find its way without names.
    async fn lookup_dots(&self, caller: Caller, inode: u64, name: &[u8]) -> Result<Found> {
        let leads = match name {
            b".." => self.parent(caller, inode).await?,
            _ => inode,
        };
        let found = self.lookup_known(caller, leads).await?;
        Ok(found.unwrap_or(Found::Nothing(Duration::ZERO)))
    }

    /// The directory that holds this one.
    pub(in crate::vfs) async fn parent(&self, caller: Caller, inode: u64) -> Result<u64> {
        let page = self.asking(caller).read_dir(InodeId(inode), 0, 1).await?;
        Ok(page.parent.0.max(InodeId::ROOT.0))
    }

    /// What a symlink says.
    pub async fn readlink(&self, caller: Caller, inode: u64) -> Result<Arc<[u8]>> {
        if let Some(target) = self.cache.peek(inode, |node| node.target.clone()).flatten() {
            return Ok(target);
        }
        let target: Arc<[u8]> = self.asking(caller).read_link(InodeId(inode)).await?.into();
        self.cache.at(inode, |node| node.target = Some(target.clone()));
        Ok(target)
    }

    /// The kernel gives back `count` lookups of an inode.
    pub fn forget(&self, inode: u64, count: u64) {
        self.cache.forget(inode, count);
    }

    /// An entry from memory alone, if that is sure.
    pub(in crate::vfs) fn remembered_entry(&self, inode: u64) -> Option<Entry> {
        let epoch = self.cache.epoch();
        self.cache
            .attributes(inode)
            .map(|metadata| self.entry(epoch, metadata))
    }
}
