//! The data transport's frames: a small message and a payload, over any byte stream.
//!
//! ```text
//! offset  size  field
//! 0       4     header length h, little-endian, at most 256 KiB
//! 4       4     payload length p, little-endian, at most 1 MiB + 64 KiB
//! 8       h     header: one protobuf message of chunk.proto
//! 8 + h   p     payload
//! ```
//! Whoever dials sends [`PREAMBLE`] first. The payload is received into a buffer of its own and handed on as [`Bytes`]:
//! a middle replica forwards the buffer it received. There is no checksum here: payloads carry theirs in the header,
//! end to end, and a damaged header fails to decode or carries a capability that does not verify.

use bytes::{Buf, Bytes, BytesMut};
use dfs_stdx::buffers::{self, Buffer};
use prost::Message;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a dialler sends first: protocol and version.
pub const PREAMBLE: &[u8; 8] = b"dfsdata\x01";
/// Largest header, bytes: 256 capabilities of a probe fit.
pub const HEADER_BYTES_MAX: usize = 256 * 1024;
/// Largest payload, bytes: a packet, or 16 blocks.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;
const PREFIX: usize = 8;
const READ_BUFFER: usize = 8 * 1024;
/// Payloads up to it are copied behind their header, so that several frames leave in one write.
const COPIED_BYTES_MAX: usize = 16 * 1024;
/// Queued bytes that are sent before more is queued.
const QUEUED_BYTES_MAX: usize = 64 * 1024;

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    partial: Option<Partial>,
}

/// A frame whose header is there and whose payload is on its way.
#[derive(Debug)]
struct Partial {
    header: BytesMut,
    payload: Buffer,
    filled: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> Self {
        FrameReader {
            from,
            buffer: BytesMut::with_capacity(READ_BUFFER),
            partial: None,
        }
    }

    /// Expects [`PREAMBLE`].
    ///
    /// # Errors
    /// `InvalidData` for anything else.
    pub async fn expect_preamble(&mut self) -> io::Result<()> {
        if self.fill(PREAMBLE.len()).await? && self.buffer.split_to(PREAMBLE.len()) == PREAMBLE[..] {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the peer does not speak this protocol",
        ))
    }

    /// The next frame; `None` at an orderly end. Cancel-safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// `InvalidData` if a length is over its limit or the header does not decode; else the stream's.
    pub async fn next<M: Message + Default>(&mut self) -> io::Result<Option<(M, Bytes)>> {
        if self.partial.is_none() && !self.begin().await? {
            return Ok(None);
        }
        let partial = self.partial.as_mut().expect("just begun");
        while partial.filled < partial.payload.len() {
            match self.from.read(&mut partial.payload[partial.filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => partial.filled += read,
            }
        }
        let Partial { header, payload, .. } = self.partial.take().expect("just filled");
        let message = M::decode(header).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let payload = match payload.len() {
            0 => Bytes::new(),
            _ => payload.freeze(),
        };
        Ok(Some((message, payload)))
    }

    /// True if a whole frame is here already: [`FrameReader::next`] will not wait.
    #[must_use]
    pub fn has_next(&self) -> bool {
        let length = |at: usize| {
            let bytes = self.buffer[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes) as usize
        };
        self.partial.is_none()
            && self.buffer.len() >= PREFIX
            && self.buffer.len() - PREFIX >= length(0).saturating_add(length(4))
    }

    /// True if the other side has neither closed the connection nor said anything: an idle connection that is
    /// still good, as far as is known here.
    pub fn is_quiet(&mut self) -> bool {
        if self.partial.is_some() || !self.buffer.is_empty() {
            return false;
        }
        let mut byte = [0];
        let mut into = tokio::io::ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.from)
            .poll_read(&mut context, &mut into)
            .is_pending()
    }

    /// Reads a frame's lengths and header; false at an end before them.
    async fn begin(&mut self) -> io::Result<bool> {
        if !self.fill(PREFIX).await? {
            return Ok(false);
        }
        let mut prefix = &self.buffer[..PREFIX];
        let (header, length) = (prefix.get_u32_le() as usize, prefix.get_u32_le() as usize);
        if header > HEADER_BYTES_MAX || length > PAYLOAD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame over the limit",
            ));
        }
        self.fill(PREFIX + header).await?;
        self.buffer.advance(PREFIX);
        let header = self.buffer.split_to(header);
        let filled = length.min(self.buffer.len());
        let mut payload = buffers::take(length);
        payload[..filled].copy_from_slice(&self.buffer.split_to(filled));
        self.partial = Some(Partial {
            header,
            payload,
            filled,
        });
        Ok(true)
    }

    /// Fills the buffer to at least `wanted` bytes; false at an end before the first of them.
    async fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() < wanted {
            self.buffer.reserve((wanted - self.buffer.len()).max(READ_BUFFER));
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(false);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(true)
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    to: W,
    /// Frames that are not sent yet, the first one perhaps in part.
    queued: BytesMut,
    /// Follows `queued`.
    payload: Bytes,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `to`, unbuffered: one vectored write a frame, unless frames are queued.
    pub fn new(to: W) -> Self {
        FrameWriter {
            to,
            queued: BytesMut::with_capacity(1024),
            payload: Bytes::new(),
        }
    }

    /// Sends [`PREAMBLE`].
    ///
    /// # Errors
    /// The stream's.
    pub async fn send_preamble(&mut self) -> io::Result<()> {
        self.to.write_all(PREAMBLE).await
    }

    /// Sends one frame, after those that are queued. Not cancel-safe: what a dropped future leaves goes out with the
    /// next frame or [`FrameWriter::flush`].
    ///
    /// # Errors
    /// The stream's.
    pub async fn send<M: Message>(&mut self, message: &M, payload: Bytes) -> io::Result<()> {
        self.queue(message, payload).await?;
        self.flush().await
    }

    /// Takes a frame to be sent with the next ones: they go out together. A large payload before it, or much that is
    /// queued, is waited for.
    ///
    /// # Errors
    /// The stream's.
    pub async fn queue<M: Message>(&mut self, message: &M, payload: Bytes) -> io::Result<()> {
        if !self.has_room() {
            self.flush().await?;
        }
        self.put(message, payload);
        Ok(())
    }

    /// True if [`FrameWriter::put`] may be called.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.payload.is_empty() && self.queued.len() < QUEUED_BYTES_MAX
    }

    /// True if nothing is left for [`FrameWriter::flush`].
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.payload.is_empty() && self.queued.is_empty()
    }

    /// As [`FrameWriter::queue`], where there is room.
    ///
    /// # Panics
    /// If there is none.
    pub fn put<M: Message>(&mut self, message: &M, payload: Bytes) {
        assert!(self.has_room(), "the caller asked for room");
        let header = message.encoded_len();
        assert!(
            header <= HEADER_BYTES_MAX && payload.len() <= PAYLOAD_BYTES_MAX,
            "senders keep the limits"
        );
        for length in [header, payload.len()] {
            let length = u32::try_from(length).expect("checked");
            self.queued.extend_from_slice(&length.to_le_bytes());
        }
        message.encode(&mut self.queued).expect("BytesMut grows");
        if payload.len() <= COPIED_BYTES_MAX {
            self.queued.extend_from_slice(&payload);
        } else {
            self.payload = payload;
        }
    }

    /// Sends what is queued, as far as that can be done without waiting; true if nothing is left.
    ///
    /// # Errors
    /// The stream's.
    pub fn try_flush(&mut self) -> io::Result<bool> {
        let mut context = Context::from_waker(Waker::noop());
        match self.poll_flush(&mut context) {
            Poll::Ready(done) => done.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Sends all that is queued. Cancel-safe.
    ///
    /// # Errors
    /// The stream's.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_flush(context)).await
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.queued.is_empty() || !self.payload.is_empty() {
            let to = Pin::new(&mut self.to);
            let written = if self.payload.is_empty() {
                to.poll_write(context, &self.queued)
            } else {
                let both = [IoSlice::new(&self.queued), IoSlice::new(&self.payload)];
                let from = usize::from(self.queued.is_empty());
                to.poll_write_vectored(context, &both[from..])
            };
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let head = written.min(self.queued.len());
            self.queued.advance(head);
            self.payload.advance(written - head);
        }
        self.queued.clear();
        Poll::Ready(Ok(()))
    }

    /// Ends the stream in this direction.
    ///
    /// # Errors
    /// The stream's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.to.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use futures::FutureExt as _;

    async fn through(bytes: Vec<u8>) -> io::Result<Option<(pb::ToServer, Bytes)>> {
        FrameReader::new(&bytes[..]).next().await
    }

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent() {
        let (a, b) = tokio::io::duplex(1000);
        let sender = tokio::spawn(async move {
            let mut writer = FrameWriter::new(a);
            writer.send_preamble().await.unwrap();
            for n in 0..20u64 {
                let payload = Bytes::from(vec![n as u8; n as usize * 5_000]);
                writer
                    .send(
                        &pb::ToServer {
                            id: n,
                            ..Default::default()
                        },
                        payload,
                    )
                    .await
                    .unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        let mut reader = FrameReader::new(b);
        reader.expect_preamble().await.unwrap();
        for n in 0..20u64 {
            let (message, payload): (pb::ToServer, _) = reader.next().await.unwrap().unwrap();
            assert_eq!(
                (message.id, payload),
                (n, Bytes::from(vec![n as u8; n as usize * 5_000]))
            );
        }
        assert!(reader.next::<pb::ToServer>().await.unwrap().is_none());
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn queued_frames_leave_together_and_in_order() {
        let (a, b) = tokio::io::duplex(1 << 20);
        let (mut writer, mut reader) = (FrameWriter::new(a), FrameReader::new(b));
        let frame = |id| pb::ToServer {
            id,
            ..Default::default()
        };
        for id in 1..=3u64 {
            let payload = Bytes::from(vec![id as u8; if id == 2 { 100_000 } else { 10 }]);
            writer.queue(&frame(id), payload).await.unwrap();
        }
        assert!(
            reader.next::<pb::ToServer>().now_or_never().is_some(),
            "the large one took the first along"
        );
        writer.put(&frame(4), Bytes::new());
        assert!(writer.try_flush().unwrap());
        for id in 2..=4u64 {
            let (message, payload): (pb::ToServer, _) = reader.next().await.unwrap().unwrap();
            assert_eq!(
                (message.id, payload.len()),
                (id, [100_000, 10, 0][id as usize - 2])
            );
            assert_eq!(reader.has_next(), id == 3);
        }
        assert!(reader.is_quiet());
        drop(writer);
        assert!(!reader.is_quiet());
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_loses_nothing() {
        let (mut a, b) = tokio::io::duplex(1 << 20);
        let mut bytes = Vec::new();
        FrameWriter::new(&mut bytes)
            .send(
                &pb::ToServer {
                    id: 7,
                    ..Default::default()
                },
                Bytes::from(vec![5; 1000]),
            )
            .await
            .unwrap();
        let mut reader = FrameReader::new(b);
        for byte in &bytes {
            assert!(reader.next::<pb::ToServer>().now_or_never().is_none());
            a.write_all(&[*byte]).await.unwrap();
        }
        let (message, payload): (pb::ToServer, _) = reader.next().await.unwrap().unwrap();
        assert_eq!((message.id, payload.len()), (7, 1000));
    }

    #[tokio::test]
    async fn lengths_over_the_limit_are_refused_before_anything_is_allocated() {
        let error = through([[255u8; 4], [255; 4]].concat()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error() {
        assert_eq!(
            through(vec![1, 0, 0, 0]).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        let cut = [vec![0, 0, 0, 0, 9, 0, 0, 0], vec![1; 5]].concat();
        assert_eq!(
            through(cut).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[tokio::test]
    async fn a_header_that_does_not_decode_is_refused() {
        let bytes = [vec![2, 0, 0, 0, 0, 0, 0, 0], vec![255, 255]].concat();
        assert_eq!(
            through(bytes).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[tokio::test]
    async fn another_protocol_is_refused() {
        let mut reader = FrameReader::new(&b"GET / HTTP/1.1"[..]);
        assert!(reader.expect_preamble().await.is_err());
    }
}
