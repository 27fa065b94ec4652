//! Buffers that are used again: a fresh mebibyte costs more in page faults and zeros than the bytes that go into it.
//!
//! A buffer comes back when the last reader of its bytes drops them, whoever that is. Their content is what was there
//! before: whoever takes one fills it before he shows it. What is kept is bounded; beyond it buffers are freed.

use bytes::Bytes;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Lengths of kept buffers: a block or two, and a packet with room for a header.
const CLASSES: [usize; 2] = [128 * 1024, 1024 * 1024 + 64 * 1024];
/// Shorter ones are not worth keeping.
const KEPT_MIN: usize = 16 * 1024;
/// Kept of each length.
const KEPT_MAX: usize = 16;

static KEPT: [Mutex<Vec<Vec<u8>>>; 2] = [const { Mutex::new(Vec::new()) }; 2];

/// Bytes to be filled; see [`take`].
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    length: usize,
}

/// A buffer of `length` bytes with any content.
#[must_use]
pub fn take(length: usize) -> Buffer {
    let class = CLASSES.iter().position(|c| (KEPT_MIN..=*c).contains(&length));
    let kept = class.and_then(|c| KEPT[c].lock().expect("no panic while held").pop());
    let size = class.map_or(length, |c| CLASSES[c]);
    Buffer {
        bytes: kept.unwrap_or_else(|| vec![0; size]),
        length,
    }
}

impl Buffer {
    /// The bytes, to be shared.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(class) = CLASSES.iter().position(|c| *c == self.bytes.len()) else {
            return;
        };
        if let Ok(mut kept) = KEPT[class].lock()
            && kept.len() < KEPT_MAX
        {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_its_length_and_comes_back_with_its_last_reader() {
        for length in [
            0,
            1,
            KEPT_MIN - 1,
            KEPT_MIN,
            CLASSES[0],
            CLASSES[0] + 1,
            CLASSES[1],
            CLASSES[1] + 1,
        ] {
            let mut buffer = take(length);
            buffer.fill(7);
            let bytes = buffer.freeze();
            assert_eq!((bytes.len(), bytes.iter().all(|b| *b == 7)), (length, true));
            let part = bytes.slice(..length / 2);
            drop(bytes);
            assert!(part.iter().all(|b| *b == 7));
        }
        let many: Vec<Buffer> = (0..2 * KEPT_MAX).map(|_| take(CLASSES[0])).collect();
        drop(many);
        assert!(KEPT[0].lock().unwrap().len() <= KEPT_MAX);
    }
}
