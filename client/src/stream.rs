//! A file with a position: tokio's traits over a [`Handle`], with readahead and with small writes put together.

use crate::ahead::Ahead;
use crate::file::Handle;
use crate::types::{Metadata, Stats};
use bytes::{Buf as _, Bytes, BytesMut};
use dfs_proto::checksum::{combine, crc};
use dfs_proto::limits::PACKET_BYTES_MAX;
use dfs_proto::span::pieces;
use dfs_proto::{Code, Error, Result};
use futures::future::BoxFuture;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

const PACKET: u64 = PACKET_BYTES_MAX as u64;

/// An open file with a position: tokio's `AsyncRead`, `AsyncWrite` and `AsyncSeek`.
///
/// Writes are sent as they come and acknowledged behind the caller's back: `flush` waits for all members,
/// [`File::sync_all`] for stable storage, [`File::close`] for both and for the length. Close what you wrote:
/// bytes that were not flushed or closed may be lost, as with `tokio::fs::File`.
///
/// ```no_run
/// # async fn run() -> dfs_client::Result<()> {
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// let client = dfs_client::Client::connect("127.0.0.1:7700").await?;
/// let mut file = client.create("/greeting").await?;
/// file.write_all(b"hello").await.expect("written");
/// file.close().await?;
/// let mut text = String::new();
/// client.open("/greeting").await?.read_to_string(&mut text).await.expect("read");
/// assert_eq!(text, "hello");
/// # Ok(())
/// # }
/// ```
pub struct File {
    handle: Handle,
    position: u64,
    ahead: Ahead,
    gathered: Gathered,
    /// Something that must end before anything else begins.
    work: Option<BoxFuture<'static, Result<()>>>,
    seek: Option<BoxFuture<'static, Result<u64>>>,
    /// `work` is a flush that was begun by `poll_flush`.
    flushing: bool,
    /// With `append`: where the next write goes.
    append_at: Option<u64>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({} at {})", self.handle.inode(), self.position)
    }
}

impl File {
    pub(crate) fn new(handle: Handle, append_at: Option<u64>) -> File {
        let depth_max = (handle.opened().core.settings.readahead_bytes / PACKET).clamp(1, 64);
        File {
            handle,
            position: 0,
            ahead: Ahead::new(usize::try_from(depth_max).expect("at most 64")),
            gathered: Gathered::default(),
            work: None,
            seek: None,
            flushing: false,
            append_at,
        }
    }

    /// The same open file by offset. Bytes that were not flushed are not there yet.
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
    ///
    /// # Errors
    /// As [`Handle::read_at`].
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>> {
        self.drain().await?;
        let bytes = std::future::poll_fn(|cx| self.ahead.poll_next(cx, &self.handle, self.position)).await?;
        self.position += bytes.len() as u64;
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// Writes the bytes at the position without a copy; best given 1 MiB at a time. As `AsyncWrite`, buffered.
    ///
    /// # Errors
    /// As [`Handle::queue_at`].
    pub async fn write_bytes(&mut self, data: Bytes) -> Result<()> {
        self.drain().await?;
        let at = self.append_at.unwrap_or(self.position);
        let length = data.len() as u64;
        self.handle.queue_at(at, data).await?;
        self.written(at, length);
        Ok(())
    }

    /// As [`Handle::read_at`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_at(&mut self, offset: u64, length: usize) -> Result<Bytes> {
        self.drain().await?;
        self.handle.read_at(offset, length).await
    }

    /// As [`Handle::write_at`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_at(&mut self, offset: u64, data: Bytes) -> Result<()> {
        self.drain().await?;
        self.ahead.forget();
        self.handle.write_at(offset, data).await
    }

    /// As [`Handle::sync_all`].
    ///
    /// # Errors
    /// As there.
    pub async fn sync_all(&mut self) -> Result<()> {
        self.drain().await?;
        self.handle.sync_all().await
    }

    /// As [`Handle::stat`].
    ///
    /// # Errors
    /// As there.
    pub async fn stat(&mut self) -> Result<Metadata> {
        self.drain().await?;
        self.handle.stat().await
    }

    /// As [`Handle::len`].
    ///
    /// # Errors
    /// As there.
    pub async fn len(&mut self) -> Result<u64> {
        self.drain().await?;
        self.handle.len().await
    }

    /// As [`Handle::set_len`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_len(&mut self, size: u64) -> Result<()> {
        self.drain().await?;
        self.ahead.forget();
        self.handle.set_len(size).await
    }

    /// As [`Handle::close`].
    ///
    /// # Errors
    /// As there.
    pub async fn close(mut self) -> Result<()> {
        let drained = self.drain().await;
        self.handle.close().await.and(drained)
    }

    /// As [`Handle::stats`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// Gives what small writes have gathered to the handle.
    async fn drain(&mut self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_drain(cx)).await
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            ready!(self.poll_work(cx))?;
            if self.gathered.bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.send_gathered();
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(work) = &mut self.work else {
            return Poll::Ready(Ok(()));
        };
        let done = ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(done)
    }

    fn send_gathered(&mut self) {
        let Gathered {
            offset,
            bytes,
            checksums,
        } = std::mem::take(&mut self.gathered);
        let handle = self.handle.clone();
        self.work = Some(Box::pin(async move {
            handle.queue_packet(offset, bytes.freeze(), checksums).await
        }));
    }

    fn written(&mut self, at: u64, length: u64) {
        self.ahead.forget();
        self.position = at + length;
        if let Some(end) = &mut self.append_at {
            *end = at + length;
        }
    }

    /// Bytes until the next packet edge.
    fn room(&self, at: u64) -> usize {
        let chunk = self.handle.chunk_bytes();
        let in_chunk = at % chunk;
        let room = (PACKET - in_chunk % PACKET).min(chunk - in_chunk);
        usize::try_from(room).expect("at most a packet")
    }
}

/// Small writes on their way to becoming a packet, with checksums made as they came.
#[derive(Debug, Default)]
struct Gathered {
    offset: u64,
    bytes: BytesMut,
    checksums: Vec<u32>,
}

impl Gathered {
    /// Adds bytes of a chunk; `in_chunk` is where they begin in it.
    fn add(&mut self, in_chunk: u64, bytes: &[u8]) {
        for piece in pieces(in_chunk, bytes.len() as u64) {
            let sum = crc(&bytes[piece.range()]);
            match self.checksums.last_mut() {
                Some(last) if piece.in_block > 0 => *last = combine(*last, sum, piece.length),
                Some(_) | None => self.checksums.push(sum),
            }
        }
        self.bytes.extend_from_slice(bytes);
    }
}

fn to_io(error: Error) -> io::Error {
    let kind = match error.code {
        Code::NotFound => io::ErrorKind::NotFound,
        Code::PermissionDenied | Code::NotPermitted => io::ErrorKind::PermissionDenied,
        Code::AlreadyExists => io::ErrorKind::AlreadyExists,
        Code::InvalidArgument => io::ErrorKind::InvalidInput,
        Code::TimedOut => io::ErrorKind::TimedOut,
        Code::NoSpace => io::ErrorKind::StorageFull,
        Code::QuotaExceeded => io::ErrorKind::QuotaExceeded,
        Code::TooLarge => io::ErrorKind::FileTooLarge,
        Code::IsADirectory => io::ErrorKind::IsADirectory,
        Code::NotADirectory => io::ErrorKind::NotADirectory,
        Code::NotSupported => io::ErrorKind::Unsupported,
        Code::Busy => io::ErrorKind::ResourceBusy,
        Code::NotEmpty => io::ErrorKind::DirectoryNotEmpty,
        Code::Corrupt => io::ErrorKind::InvalidData,
        Code::NameTooLong
        | Code::NotLeader
        | Code::Stale
        | Code::NotYet
        | Code::Unavailable
        | Code::Internal
        | Code::TooManyLinks
        | Code::NoAttribute
        | Code::SessionExpired
        | Code::Lost
        | Code::LinkLimit => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for File {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_drain(cx)).map_err(to_io)?;
        let mut bytes = ready!(this.ahead.poll_next(cx, &this.handle, this.position)).map_err(to_io)?;
        let taken = bytes.len().min(into.remaining());
        into.put_slice(&bytes[..taken]);
        bytes.advance(taken);
        this.ahead.put_back(bytes);
        this.position += taken as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for File {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_work(cx)).map_err(to_io)?;
        let at = this.append_at.unwrap_or(this.position);
        let expected = this.gathered.offset + this.gathered.bytes.len() as u64;
        if !this.gathered.bytes.is_empty() && expected != at {
            ready!(this.poll_drain(cx)).map_err(to_io)?;
        }
        if this.gathered.bytes.is_empty() {
            this.gathered.offset = at;
        }
        let room = this.room(at);
        let taken = bytes.len().min(room);
        this.gathered.add(at % this.handle.chunk_bytes(), &bytes[..taken]);
        this.written(at, taken as u64);
        if taken == room {
            this.send_gathered();
            // Under way at once; whether it has ended is asked by the next call.
            if let Poll::Ready(Err(error)) = this.poll_work(cx) {
                return Poll::Ready(Err(to_io(error)));
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.gathered.bytes.is_empty() {
            ready!(this.poll_drain(cx)).map_err(to_io)?;
        }
        if !this.flushing {
            ready!(this.poll_work(cx)).map_err(to_io)?;
            let handle = this.handle.clone();
            this.work = Some(Box::pin(async move { handle.flush().await }));
            this.flushing = true;
        }
        let done = ready!(this.poll_work(cx));
        this.flushing = false;
        Poll::Ready(done.map_err(to_io))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let this = &mut *self;
        if !this.handle.is_closed() {
            let handle = this.handle.clone();
            this.work = Some(Box::pin(async move { handle.close().await }));
        }
        this.poll_work(cx).map_err(to_io)
    }
}

impl AsyncSeek for File {
    fn start_seek(mut self: Pin<&mut Self>, to: io::SeekFrom) -> io::Result<()> {
        let this = &mut *self;
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let handle = this.handle.clone();
        this.seek = Some(match to {
            io::SeekFrom::Start(offset) => Box::pin(async move { Ok(offset) }),
            io::SeekFrom::Current(by) => {
                let offset = this.position.checked_add_signed(by).ok_or_else(invalid)?;
                Box::pin(async move { Ok(offset) })
            }
            io::SeekFrom::End(by) => Box::pin(async move {
                let negative = || Error::new(Code::InvalidArgument, "a position before the file");
                handle.len().await?.checked_add_signed(by).ok_or_else(negative)
            }),
        });
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let this = &mut *self;
        ready!(this.poll_drain(cx)).map_err(to_io)?;
        if let Some(seek) = &mut this.seek {
            let to = ready!(seek.as_mut().poll(cx));
            this.seek = None;
            this.position = to.map_err(to_io)?;
        }
        Poll::Ready(Ok(this.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::checksum::of_pieces;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn checksums_made_as_bytes_come_are_those_of_the_packet(
            start in 0u64..200_000,
            lengths in proptest::collection::vec(1usize..90_000, 1..6),
        ) {
            let mut gathered = Gathered::default();
            let mut at = start;
            for (i, length) in lengths.iter().enumerate() {
                gathered.add(at, &vec![i as u8 + 1; *length]);
                at += *length as u64;
            }
            prop_assert_eq!(&gathered.checksums, &of_pieces(start, &gathered.bytes));
        }
    }

    #[test]
    fn every_error_keeps_its_type_inside_the_io_error() {
        for code in Code::ALL {
            let inner = to_io(Error::from(*code)).into_inner().expect("there is one");
            assert_eq!(inner.downcast_ref::<Error>().map(|e| e.code), Some(*code));
        }
    }
}
