//! What a handle offers to an owner that keeps bytes of its own, as a mount does: who knows the file's end, is told of
//! other clients' changes, and waits for its writes itself.

use crate::convert;
use crate::file::{Gift, Handle};
use crate::inodes::Inodes;
use crate::settings::OpenOptions;
use crate::types::{Metadata, SetAttributes};
use crate::write::{Delivery, Writer};
use bytes::Bytes;
use dfs_proto::Result;

impl Inodes {
    /// A handle on a file whose attributes are known: nobody is asked. What may be done with it is the caller's to judge.
    #[must_use]
    pub fn attach(&self, metadata: &Metadata, options: OpenOptions) -> Handle {
        Handle::new(
            &self.core,
            metadata,
            self.caller.clone(),
            options,
            Gift::default(),
        )
    }

    /// The clock by which commits tell times: nanoseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        self.core.mtime_ns()
    }

    /// As [`Inodes::attach`], with the grant that came to another handle when it created the file.
    #[must_use]
    pub fn attach_created(&self, metadata: &Metadata, options: OpenOptions, created: &Handle) -> Handle {
        let gift = Gift {
            located: None,
            grant: created.maybe_writer().and_then(Writer::take_first),
        };
        Handle::new(&self.core, metadata, self.caller.clone(), options, gift)
    }
}

#[expect(clippy::missing_errors_doc, reason = "as those of read_at and write_at")]
impl Handle {
    /// As [`Handle::queue_at`], and tells how to wait until every member has the bytes.
    pub async fn send_at(&self, offset: u64, data: Bytes) -> Result<Delivery> {
        self.writer()?.send(offset, data, false).await
    }

    /// As [`Handle::send_at`], and the chunk becomes durable with it: `sync_all` comes next, and finds that done.
    pub async fn send_last_at(&self, offset: u64, data: Bytes) -> Result<Delivery> {
        self.writer()?.send(offset, data, true).await
    }

    /// The bytes of a range that lies within the file, which the caller knows. What this handle has written is seen
    /// when it was delivered.
    pub async fn read_within(&self, offset: u64, length: u64) -> Result<Bytes> {
        self.reader().read_within(offset, length).await
    }

    /// Tells the master the lengths that all delivered bytes led to, and the time of the last write.
    pub async fn commit(&self) -> Result<()> {
        match self.maybe_writer() {
            Some(writer) => writer.settle().await.map(drop),
            None => Ok(()),
        }
    }

    /// As [`Handle::commit`], and gives all grants back until the next write. Nothing becomes durable by it.
    pub async fn rest(&self) -> Result<()> {
        match self.maybe_writer() {
            Some(writer) => writer.rest().await,
            None => Ok(()),
        }
    }

    /// The last write was made then: commits say so. Nanoseconds since 1970-01-01 UTC.
    pub fn written_at(&self, ns: i64) {
        if let Some(writer) = self.maybe_writer() {
            writer.written_at(ns);
        }
    }

    /// The file as the newest commit left it, if there was one since this was last asked.
    #[must_use]
    pub fn committed(&self) -> Option<Metadata> {
        self.maybe_writer().and_then(Writer::committed)
    }

    /// The failure that the next flush would report; it will not.
    #[must_use]
    pub fn take_problem(&self) -> Option<dfs_proto::Error> {
        self.maybe_writer().and_then(Writer::take_problem)
    }

    /// Sets the size and other attributes in one call, after all that was delivered is committed.
    pub async fn resize(&self, set: SetAttributes) -> Result<Metadata> {
        let writer = self.writer()?;
        writer.pause().await?;
        let opened = self.opened();
        let change = convert::set_attributes(opened.inode, &set, true);
        let changed = opened.core.master.change(&opened.caller, change).await;
        if let Some(size) = set.size {
            writer.cut(size).await;
        }
        self.forget();
        convert::attributes_changed(changed?)
    }

    /// Attributes as the master has them, without what was not committed.
    pub async fn attributes(&self) -> Result<Metadata> {
        let opened = self.opened();
        let query = convert::get_attributes(opened.inode);
        convert::attributes(opened.core.master.query(&opened.caller, query).await?)
    }

    /// Another client changed the file: nothing that is known of its chunks is used again without asking.
    pub fn forget(&self) {
        self.reader().locations.forget();
    }

    /// Nobody tells of other clients' changes for now: what is known of the file's chunks serves only while the master
    /// cannot be asked.
    pub fn unsure(&self) {
        self.reader().locations.unsure();
    }

    /// Where chunks are in a range, as the master knows it now: (offset, committed bytes), in order. Elsewhere, and
    /// behind those bytes, are holes.
    pub async fn chunks_in(&self, range: std::ops::Range<u64>) -> Result<Vec<(u64, u64)>> {
        self.reader().chunks(range).await
    }
}
