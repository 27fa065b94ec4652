//! Buffers for what programs write: large ones are used again, so that their pages are touched for the first time once.

use bytes::Bytes;
use dfs_proto::limits::PACKET_BYTES_MAX;
use std::sync::{Arc, Mutex};

/// Large buffers kept for the next write.
const KEPT_MAX: usize = 32;
/// A buffer that grows beyond it grows to a packet at once.
const SMALL_BYTES_MAX: usize = 128 * 1024;

/// The mount's buffers of one packet each; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().expect("no panic while held").pop();
        kept.unwrap_or_else(|| Vec::with_capacity(PACKET_BYTES_MAX))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() != PACKET_BYTES_MAX {
            return;
        }
        buffer.clear();
        let mut kept = self.0.lock().expect("no panic while held");
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}

/// Bytes that grow at their end and change in place, at most a packet.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Buffer {
    pub(super) fn new(pool: &Pool) -> Buffer {
        Buffer {
            bytes: Vec::new(),
            pool: pool.clone(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes at a position not behind the end.
    pub(super) fn write(&mut self, at: usize, data: &[u8]) {
        assert!(at <= self.bytes.len(), "no gap");
        self.reserve(at + data.len());
        let (over, more) = data.split_at(data.len().min(self.bytes.len() - at));
        self.bytes[at..at + over.len()].copy_from_slice(over);
        self.bytes.extend_from_slice(more);
    }

    fn reserve(&mut self, length: usize) {
        if length <= self.bytes.capacity() {
            return;
        }
        if length <= SMALL_BYTES_MAX {
            let double = (self.bytes.capacity() * 2).min(SMALL_BYTES_MAX);
            self.bytes.reserve_exact(length.max(double) - self.bytes.len());
            return;
        }
        assert!(length <= PACKET_BYTES_MAX, "at most a packet");
        let mut large = self.pool.take();
        large.extend_from_slice(&self.bytes);
        self.bytes = large;
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// The bytes without a copy; the buffer is used again when the last reference to them is gone.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_is_used_again() {
        let pool = Pool::default();
        let mut buffer = Buffer::new(&pool);
        buffer.write(0, &[1; 1000]);
        buffer.write(500, &vec![2; PACKET_BYTES_MAX - 500]);
        assert_eq!(buffer.len(), PACKET_BYTES_MAX);
        let bytes = buffer.freeze();
        assert_eq!((bytes[499], bytes[500]), (1, 2));
        let place = bytes.as_ptr();
        drop(bytes);
        let mut again = Buffer::new(&pool);
        again.write(0, &vec![3; SMALL_BYTES_MAX + 1]);
        assert_eq!(again.freeze().as_ptr(), place);
    }
}
