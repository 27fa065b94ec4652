//! Blocks that are used again: fresh memory costs a page fault for each 4 KiB.

use super::BLOCK_BYTES;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

/// Blocks kept for another use: more are never under way for one file.
const KEPT_MAX: usize = 32;

/// A small stock of blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A block that returns to the stock when its last [`Bytes`] is dropped.
struct Block {
    data: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut free = self.home.free.lock().expect("no panic while it is held");
        if free.len() < KEPT_MAX {
            free.push(std::mem::take(&mut self.data));
        }
    }
}

impl Buffers {
    /// The next block of a file: full unless the file ends; empty at its end.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn read(&self, file: impl AsFd) -> io::Result<Bytes> {
        let kept = self.free.lock().expect("no panic while it is held").pop();
        let mut data = kept.unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES));
        data.clear();
        while data.len() < BLOCK_BYTES {
            match rustix::io::read(&file, spare_capacity(&mut data)) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Bytes::from_owner(Block {
            data,
            home: self.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    #[test]
    fn a_file_is_read_in_whole_blocks_and_its_memory_used_again() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..BLOCK_BYTES + 5).map(|i| (i % 251) as u8).collect();
        file.write_all(&content).unwrap();
        file.rewind().unwrap();
        let buffers = Buffers::default();
        let first = buffers.read(&file).unwrap();
        assert_eq!(&first[..], &content[..BLOCK_BYTES]);
        let place = first.as_ptr();
        drop(first);
        let second = buffers.read(&file).unwrap();
        assert_eq!((&second[..], second.as_ptr()), (&content[BLOCK_BYTES..], place));
        assert!(buffers.read(&file).unwrap().is_empty());
    }
}
