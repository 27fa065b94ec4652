//! Frames in: as many as a read brings are taken from it.

use bytes::{Buf as _, BytesMut};
use prost::Message;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _};

const PREFIX: usize = 4;
const READ_BUFFER: usize = 64 * 1024;
/// With less room than this for the next read, room is made.
const READ_BYTES_MIN: usize = 4 * 1024;
/// Byte fields of a message up to this long are copied: a name that is kept does not keep the whole buffer.
const COPIED_BYTES_MAX: usize = 4 * 1024;

/// Reads frames.
#[derive(Debug)]
pub struct FramesReader<R> {
    from: R,
    buffer: BytesMut,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FramesReader<R> {
    /// Reads messages of at most `bytes_max` from `from`.
    pub fn new(from: R, bytes_max: usize) -> Self {
        FramesReader {
            from,
            buffer: BytesMut::new(),
            bytes_max,
        }
    }

    /// The next message, if it is here already.
    ///
    /// # Errors
    /// `InvalidData` if it is over the limit or does not decode.
    pub fn here<M: Message + Default>(&mut self) -> io::Result<Option<M>> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > self.bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message over the limit",
            ));
        }
        if self.buffer.len() < PREFIX + length {
            // All of it in one piece: no more is reserved than was announced, and that is bounded.
            self.buffer.reserve(PREFIX + length - self.buffer.len());
            return Ok(None);
        }
        let message = if length <= COPIED_BYTES_MAX {
            let message = M::decode(&self.buffer[PREFIX..PREFIX + length]);
            self.buffer.advance(PREFIX + length);
            message
        } else {
            self.buffer.advance(PREFIX);
            M::decode(self.buffer.split_to(length).freeze())
        };
        Ok(Some(message.map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?))
    }

    /// Waits for more bytes; false at an orderly end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The stream's; `UnexpectedEof` in the middle of a message.
    pub async fn more(&mut self) -> io::Result<bool> {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
            self.buffer.reserve(READ_BUFFER);
        }
        if self.from.read_buf(&mut self.buffer).await? > 0 {
            return Ok(true);
        }
        if self.buffer.is_empty() {
            return Ok(false);
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
