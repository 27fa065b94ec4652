//! An open file: positional calls on a [`Handle`], a position and tokio's traits on a [`File`].

use crate::types::{Metadata, SetAttributes, Stats};
use bytes::Bytes;
use dfs_proto::{InodeId, Result};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

/// An open file without a position; clones share it, and its calls may run at the same time.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) shared: Arc<()>,
}

impl Handle {
    /// Which file.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        todo!("{:?}", self.shared)
    }

    /// Up to `length` bytes from `offset`; fewer only at the end of the file. Sees all this handle has written.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        todo!("{offset}{length}")
    }

    /// Writes the bytes at `offset` and returns when every member has them: from then on every reader sees them.
    pub async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        todo!("{offset}{data:?}")
    }

    /// Sends the bytes on their way to `offset` and returns when there is room for more: see [`Handle::flush`].
    pub async fn queue_at(&self, offset: u64, data: Bytes) -> Result<()> {
        todo!("{offset}{data:?}")
    }

    /// Writes at the end of the file; returns the offset. The handle must be the only writer of the file.
    pub async fn append(&self, data: Bytes) -> Result<u64> {
        todo!("{data:?}")
    }

    /// Returns when every member has all that was written before.
    pub async fn flush(&self) -> Result<()> {
        todo!()
    }

    /// Returns when all that was written before is on stable storage of every member, length included (fsync).
    pub async fn sync_all(&self) -> Result<()> {
        todo!()
    }

    /// Attributes, with this handle's own writes in the size.
    pub async fn stat(&self) -> Result<Metadata> {
        todo!()
    }

    /// Bytes, with this handle's own writes.
    pub async fn len(&self) -> Result<u64> {
        todo!()
    }

    /// Cuts or extends the file (with zeros).
    pub async fn set_len(&self, size: u64) -> Result<()> {
        todo!("{size}")
    }

    /// Changes attributes after all that was written before has arrived.
    pub async fn set_attributes(&self, set: SetAttributes) -> Result<Metadata> {
        todo!("{set:?}")
    }

    /// Ends writing: everything acknowledged, durable unless the options say otherwise, the length committed.
    /// A handle that is dropped instead ends in the background, and its errors are lost.
    pub async fn close(&self) -> Result<()> {
        todo!()
    }

    /// What failures have cost this file.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }
}

/// An open file with a position: tokio's `AsyncRead`, `AsyncWrite` and `AsyncSeek`.
///
/// Writes are sent as they come and acknowledged behind the caller's back: `flush` waits for all members,
/// [`File::sync_all`] for stable storage, [`File::close`] for both and for the length. Close what you wrote.
#[derive(Debug)]
pub struct File {
    handle: Handle,
    position: u64,
}

impl File {
    /// The same open file by offset.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where the next read or write begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes without a copy, as many as come together (up to 1 MiB); `None` at the end.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>> {
        todo!()
    }

    /// Writes the bytes at the position without a copy; best given 1 MiB at a time. As `AsyncWrite`, buffered.
    pub async fn write_bytes(&mut self, data: Bytes) -> Result<()> {
        todo!("{data:?}")
    }

    /// As [`Handle::read_at`].
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.handle.read_at(offset, length).await
    }

    /// As [`Handle::write_at`].
    pub async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        self.handle.write_at(offset, data).await
    }

    /// As [`Handle::sync_all`].
    pub async fn sync_all(&mut self) -> Result<()> {
        self.handle.sync_all().await
    }

    /// As [`Handle::stat`].
    pub async fn stat(&self) -> Result<Metadata> {
        self.handle.stat().await
    }

    /// As [`Handle::len`].
    pub async fn len(&self) -> Result<u64> {
        self.handle.len().await
    }

    /// As [`Handle::set_len`].
    pub async fn set_len(&mut self, size: u64) -> Result<()> {
        self.handle.set_len(size).await
    }

    /// As [`Handle::close`].
    pub async fn close(self) -> Result<()> {
        self.handle.close().await
    }

    /// As [`Handle::stats`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }
}

impl AsyncRead for File {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

impl AsyncWrite for File {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        todo!()
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

impl AsyncSeek for File {
    fn start_seek(self: Pin<&mut Self>, _: io::SeekFrom) -> io::Result<()> {
        todo!()
    }
    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        todo!()
    }
}
