//! Names: finding, making, moving and removing them.

mod finding;
mod moving;

use super::cache::Own;
use super::handles::Create;
use super::{Caller, Entry, Opened, Vfs};
use dfs_client::{Code, Error, InodeId, Kind, Made, Make, Metadata, OpenOptions, Result};
use std::sync::Arc;

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// Makes a directory, symlink, special file or empty file; the mode is after umask.
    pub async fn make(&self, caller: Caller, parent: u64, name: &[u8], make: Make) -> Result<Entry> {
        let _changing = self.cache.changing(parent);
        let epoch = self.cache.epoch();
        let target: Option<Arc<[u8]>> = (make.kind == Kind::Symlink).then(|| make.target.as_slice().into());
        let made = self.acting(caller).make(InodeId(parent), name, make).await;
        let made = made.map_err(|error| self.doubt(parent, name, error))?;
        let entry = self.made(epoch, (parent, name), &made);
        if let Some(target) = target {
            self.cache
                .at(made.metadata.inode.0, |node| node.target = Some(target));
        }
        Ok(entry)
    }

    /// Makes a regular file and opens it.
    pub async fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        how: Create,
    ) -> Result<(Entry, Opened)> {
        let _changing = self.cache.changing(parent);
        let epoch = self.cache.epoch();
        let mut options = OpenOptions::new()
            // The bytes are shared by all handles, whatever they were opened for.
            .read(true)
            .write(true)
            .mode(how.mode)
            .truncate(how.truncates())
            .create(true)
            .create_new(how.is_exclusive())
            .sync_on_close(false);
        if self.cache.expects_bytes(parent) && how.writes() {
            options = options.expected_len(1);
        }
        let made = self.acting(caller).create(InodeId(parent), name, options).await;
        let (made, handle) = made.map_err(|error| self.doubt(parent, name, error))?;
        let inode = made.metadata.inode.0;
        let entry = self.made(epoch, (parent, name), &made);
        self.cache.at(inode, |node| node.opens += 1);
        let content = match made.created {
            true => super::content::Content::created(&self.contents, &made.metadata, handle),
            false => {
                let content = self.content(&made.metadata);
                // The master may have cut it.
                content.changed(&made.metadata);
                content
            }
        };
        let opened = self.opened(content, how.flags(), made.created.then_some(parent));
        Ok((entry, opened))
    }

    /// Another name for a file.
    pub async fn link(&self, caller: Caller, inode: u64, parent: u64, name: &[u8]) -> Result<Entry> {
        let _changing = self.cache.changing(parent);
        let epoch = self.cache.epoch();
        let linked = self
            .acting(caller)
            .link(InodeId(inode), InodeId(parent), name)
            .await;
        let linked = linked.map_err(|error| self.doubt(parent, name, error))?;
        Ok(self.made(epoch, (parent, name), &linked))
    }

    /// Removes a name that is not a directory.
    pub async fn unlink(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<()> {
        let _changing = self.cache.changing(parent);
        let epoch = self.cache.epoch();
        let keep = self.is_open_here(parent, name);
        let touched = self.acting(caller).unlink(InodeId(parent), name, keep).await;
        let touched = touched.map_err(|error| self.doubt(parent, name, error))?;
        self.removed(epoch, (parent, name), &touched, keep);
        Ok(())
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<()> {
        let _changing = self.cache.changing(parent);
        let epoch = self.cache.epoch();
        let touched = self.acting(caller).remove_dir(InodeId(parent), name).await;
        let touched = touched.map_err(|error| self.doubt(parent, name, error))?;
        self.removed(epoch, (parent, name), &touched, false);
        Ok(())
    }

    fn removed(&self, epoch: u64, (parent, name): (u64, &[u8]), touched: &[Metadata], kept: bool) {
        self.learn_all(epoch, touched);
        self.cache
            .own_name(own(epoch, parent, touched), parent, name, None);
        self.unlinked(touched, kept);
    }

    /// Of what was changed, that which has no name any more.
    fn unlinked(&self, touched: &[Metadata], kept: bool) {
        for metadata in touched.iter().filter(|metadata| metadata.nlink == 0) {
            let inode = metadata.inode;
            let release = self.cache.at(inode.0, |node| {
                node.held = kept && node.opens > 0;
                node.gone = !node.held;
                if node.opens == 0 {
                    node.content = None;
                }
                kept && !node.held
            });
            if metadata.is_dir() {
                self.cache.clear_directory(inode.0);
            }
            if release {
                self.orphans.add([inode]);
            }
        }
    }

    /// True if what the name leads to is open here, or may be.
    fn is_open_here(&self, parent: u64, name: &[u8]) -> bool {
        match self.cache.find(parent, name) {
            super::cache::Leads::To(inode, _) => self.cache.peek(inode, |node| node.opens > 0) == Some(true),
            super::cache::Leads::Nowhere | super::cache::Leads::Unknown => self.files.any(),
        }
    }

    /// Keeps what the answer to making a name said.
    fn made(&self, epoch: u64, (parent, name): (u64, &[u8]), made: &Made) -> Entry {
        let Made {
            metadata,
            created,
            touched,
        } = made;
        let inode = metadata.inode.0;
        self.learn_all(epoch, touched);
        let metadata = self.learn(epoch, metadata);
        let to = Some((inode, metadata.kind));
        self.cache.own_name(own(epoch, parent, touched), parent, name, to);
        if *created {
            self.cache.new_inode(epoch, &metadata);
        }
        self.entry(epoch, metadata)
    }

    pub(super) fn learn_all(&self, epoch: u64, touched: &[Metadata]) {
        for metadata in touched {
            self.cache.learn(epoch, metadata);
        }
    }

    /// An entry for the kernel, which counts as a lookup.
    pub(super) fn entry(&self, epoch: u64, metadata: Metadata) -> Entry {
        self.cache.at(metadata.inode.0, |node| node.lookups += 1);
        let (entry_ttl, attr_ttl) = self.ttls(self.cache.is_sure(epoch));
        Entry {
            metadata: self.shown(metadata),
            generation: 0,
            entry_ttl,
            attr_ttl,
        }
    }

    /// The master refused because a name is not as it was believed to be: nothing of the kind is believed any more.
    fn doubt(&self, parent: u64, name: &[u8], error: Error) -> Error {
        if matches!(
            error.code,
            Code::NotFound | Code::AlreadyExists | Code::NotEmpty | Code::NotADirectory
        ) {
            self.cache.own_name(
                Own {
                    epoch: self.cache.epoch(),
                    at: None,
                },
                parent,
                name,
                None,
            );
        }
        error
    }
}

/// Where and when an own change took place.
fn own(epoch: u64, parent: u64, touched: &[Metadata]) -> Own {
    let directory = touched.iter().find(|metadata| metadata.inode.0 == parent);
    Own {
        epoch,
        at: directory.map(|metadata| metadata.change),
    }
}
