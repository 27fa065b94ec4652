//! The content of one file, twice: as processes see it, and as a power cut would leave it.
//!
//! A write makes pages dirty in the live image; a sync copies them to the durable one. When power goes, a dirty
//! page may have reached the disk whole, in some of its sectors, or not at all; so may a change of the length.

use crate::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the kernel writes back as one, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;

/// What a disk writes as one, in bytes.
const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_BYTES];

#[derive(Clone, Debug, Default)]
struct Image {
    /// Pages that are not here are holes. Bytes after `length` in the last page are zero.
    pages: BTreeMap<u64, Arc<Page>>,
    length: u64,
}

/// A file's bytes, live and durable.
#[derive(Debug, Default)]
pub(super) struct Content {
    live: Image,
    durable: Image,
    dirty: BTreeSet<u64>,
}

/// The pieces of pages that `offset..offset + length` covers: page number, first byte in it, count.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let page_bytes = PAGE_BYTES as u64;
    let end = offset + length as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (page, from) = (at / page_bytes, at % page_bytes);
        let count = (page_bytes - from).min(end - at);
        at += count;
        Some((page, in_memory(from), in_memory(count)))
    })
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("less than a page")
}

impl Image {
    fn set_length(&mut self, length: u64) {
        if length < self.length {
            let kept = length.div_ceil(PAGE_BYTES as u64);
            self.pages.split_off(&kept);
            let tail = in_memory(length % PAGE_BYTES as u64);
            if tail > 0
                && let Some(last) = self.pages.get_mut(&(kept - 1))
            {
                Arc::make_mut(last)[tail..].fill(0);
            }
        }
        self.length = length;
    }

    fn put(&mut self, page: u64, bytes: Option<Arc<Page>>) {
        match bytes {
            Some(bytes) => self.pages.insert(page, bytes),
            None => self.pages.remove(&page),
        };
    }
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        self.live.length
    }

    /// Bytes of room the live image takes.
    pub(super) fn allocated_bytes(&self) -> u64 {
        (self.live.pages.len() * PAGE_BYTES) as u64
    }

    /// Bytes of room that writing there would take in addition.
    pub(super) fn growth_bytes(&self, offset: u64, length: usize) -> u64 {
        let new = pieces(offset, length).filter(|(page, ..)| !self.live.pages.contains_key(page));
        (new.count() * PAGE_BYTES) as u64
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let left = self.live.length.saturating_sub(offset);
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        for (page, from, n) in pieces(offset, count) {
            let into = &mut buffer[done..done + n];
            match self.live.pages.get(&page) {
                Some(bytes) => into.copy_from_slice(&bytes[from..from + n]),
                None => into.fill(0),
            }
            done += n;
        }
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        for (page, from, n) in pieces(offset, bytes.len()) {
            let slot = self
                .live
                .pages
                .entry(page)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(slot)[from..from + n].copy_from_slice(&bytes[done..done + n]);
            self.dirty.insert(page);
            done += n;
        }
        if !bytes.is_empty() {
            self.live.length = self.live.length.max(offset + bytes.len() as u64);
        }
    }

    pub(super) fn set_length(&mut self, length: u64) {
        let first_changed = length / PAGE_BYTES as u64;
        self.dirty
            .extend(self.live.pages.range(first_changed..).map(|(page, _)| *page));
        self.live.set_length(length);
    }

    /// What is live is durable from here on.
    pub(super) fn sync(&mut self) {
        self.durable.set_length(self.live.length);
        for page in std::mem::take(&mut self.dirty) {
            self.durable.put(page, self.live.pages.get(&page).cloned());
        }
    }

    /// A sync failed. As on Linux, the pages are clean now and have not reached the disk:
    /// a later sync succeeds and does not make them durable.
    pub(super) fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    /// Flips a bit, on the disk and in memory. False if the byte is beyond the end or in a hole.
    pub(super) fn rot(&mut self, offset: u64, bit: u8) -> bool {
        let (page, at) = (offset / PAGE_BYTES as u64, in_memory(offset % PAGE_BYTES as u64));
        if offset >= self.live.length || !self.live.pages.contains_key(&page) {
            return false;
        }
        for image in [&mut self.live, &mut self.durable] {
            if let Some(bytes) = image.pages.get_mut(&page) {
                Arc::make_mut(bytes)[at] ^= 1 << (bit % 8);
            }
        }
        true
    }

    /// Power goes. With chance, some of what is dirty had reached the disk.
    pub(super) fn power_cut(&mut self, chance: Option<&Rng>) {
        let dirty = std::mem::take(&mut self.dirty);
        if let Some(rng) = chance {
            for page in dirty {
                let torn = self.torn(page, rng);
                self.durable.put(page, torn);
            }
            let length = between(self.durable.length, self.live.length, rng);
            self.durable.length = self.durable.length.max(self.live.length);
            self.durable.set_length(length);
        }
        self.live = self.durable.clone();
    }

    /// A dirty page as power may leave it.
    fn torn(&self, page: u64, rng: &Rng) -> Option<Arc<Page>> {
        let (old, new) = (self.durable.pages.get(&page), self.live.pages.get(&page));
        match rng.below(3) {
            0 => old.cloned(),
            1 => new.cloned(),
            _ => {
                let new = new.map_or([0; PAGE_BYTES], |bytes| **bytes);
                let mut torn = old.map_or([0; PAGE_BYTES], |bytes| **bytes);
                for sector in (0..PAGE_BYTES).step_by(SECTOR_BYTES) {
                    if rng.below(2) == 0 {
                        torn[sector..sector + SECTOR_BYTES]
                            .copy_from_slice(&new[sector..sector + SECTOR_BYTES]);
                    }
                }
                Some(Arc::new(torn))
            }
        }
    }
}

/// One of the ends, or a number between them.
fn between(a: u64, b: u64, rng: &Rng) -> u64 {
    match rng.below(3) {
        0 => a,
        1 => b,
        _ => a.min(b) + rng.below(a.abs_diff(b) + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(content: &Content) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(content.length()).unwrap()];
        assert_eq!(content.read(&mut bytes, 0), bytes.len());
        bytes
    }

    #[test]
    fn a_cut_length_reads_as_zeros_when_it_grows_again() {
        let mut content = Content::default();
        content.write(&[7; 5000], 0);
        content.sync();
        content.set_length(10);
        content.set_length(6000);
        content.sync();
        content.power_cut(None);
        let mut expected = vec![7; 10];
        expected.resize(6000, 0);
        assert_eq!(all(&content), expected);
    }

    #[test]
    fn a_failed_sync_makes_nothing_durable_and_neither_does_the_next() {
        let mut content = Content::default();
        content.write(b"old", 0);
        content.sync();
        content.write(b"new", 0);
        content.fail_sync();
        content.sync();
        assert_eq!(all(&content), b"new");
        content.power_cut(None);
        assert_eq!(all(&content), b"old");
    }

    #[test]
    fn torn_pages_mix_old_and_new_by_sectors() {
        let mixed = (0..100).any(|seed| {
            let mut content = Content::default();
            content.write(&[1; PAGE_BYTES], 0);
            content.sync();
            content.write(&[2; PAGE_BYTES], 0);
            content.power_cut(Some(&Rng::seeded(seed)));
            let bytes = all(&content);
            for sector in bytes.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|b| *b == sector[0]), "a sector is never torn");
            }
            bytes.contains(&1) && bytes.contains(&2)
        });
        assert!(mixed, "no seed of 100 tore the page");
    }
}
