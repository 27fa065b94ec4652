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
use prost::Message;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a dialler sends first: protocol and version.
pub const PREAMBLE: &[u8; 8] = b"dfsdata\x01";
/// Largest header, bytes: 256 capabilities of a probe fit.
pub const HEADER_BYTES_MAX: usize = 256 * 1024;
/// Largest payload, bytes: a packet, or 16 blocks.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;
const PREFIX: usize = 8;
const READ_BUFFER: usize = 16 * 1024;

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> Self {
        FrameReader {
            from,
            buffer: BytesMut::with_capacity(READ_BUFFER),
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

    /// The next frame; `None` at an orderly end. Dropping the future between frames loses nothing,
    /// within a frame it loses the frame: give a reader a task of its own.
    ///
    /// # Errors
    /// `InvalidData` if a length is over its limit or the header does not decode; else the stream's.
    pub async fn next<M: Message + Default>(&mut self) -> io::Result<Option<(M, Bytes)>> {
        if !self.fill(PREFIX).await? {
            return Ok(None);
        }
        let header = self.buffer.get_u32_le() as usize;
        let payload = self.buffer.get_u32_le() as usize;
        if header > HEADER_BYTES_MAX || payload > PAYLOAD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame over the limit",
            ));
        }
        if !self.fill(header).await? && header > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = M::decode(self.buffer.split_to(header))
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(Some((message, self.payload(payload).await?)))
    }

    async fn payload(&mut self, length: usize) -> io::Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut payload = BytesMut::with_capacity(length);
        payload.extend_from_slice(&self.buffer.split_to(length.min(self.buffer.len())));
        let mut rest = (&mut self.from).take((length - payload.len()) as u64);
        while payload.len() < length {
            if rest.read_buf(&mut payload).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(payload.freeze())
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
    head: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `to`, unbuffered: one vectored write a frame.
    pub fn new(to: W) -> Self {
        FrameWriter {
            to,
            head: BytesMut::with_capacity(1024),
        }
    }

    /// Sends [`PREAMBLE`].
    ///
    /// # Errors
    /// The stream's.
    pub async fn send_preamble(&mut self) -> io::Result<()> {
        self.to.write_all(PREAMBLE).await
    }

    /// Sends one frame. Not cancel-safe: a dropped future may leave half a frame behind, so the connection is lost.
    ///
    /// # Errors
    /// The stream's.
    pub async fn send<M: Message>(&mut self, message: &M, payload: Bytes) -> io::Result<()> {
        let header = message.encoded_len();
        assert!(
            header <= HEADER_BYTES_MAX && payload.len() <= PAYLOAD_BYTES_MAX,
            "senders keep the limits"
        );
        self.head.clear();
        self.head
            .extend_from_slice(&u32::try_from(header).expect("checked").to_le_bytes());
        self.head
            .extend_from_slice(&u32::try_from(payload.len()).expect("checked").to_le_bytes());
        message.encode(&mut self.head).expect("BytesMut grows");
        if payload.is_empty() {
            return self.to.write_all(&self.head).await;
        }
        self.to
            .write_all_buf(&mut Buf::chain(&self.head[..], payload))
            .await
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
