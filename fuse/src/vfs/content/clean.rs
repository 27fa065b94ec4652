//! What was read or has landed, kept for reading again: one bounded cache for all files of a mount.
//!
//! Stretches of bytes are kept as they came; nothing is copied. The least recently used go first, and those of large
//! files before those of small ones, as long as the small ones take no more than half.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// What an entry costs beside its bytes.
const ENTRY_BYTES: u64 = 256;

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    class: Class,
    used: u64,
}

/// How dear bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Of a small file: many round trips are saved by few bytes.
    Small,
    /// Of a large one.
    Large,
}

/// The entries of one class in the order of their last use.
#[derive(Debug, Default)]
struct Order {
    by_use: BTreeMap<u64, (u64, u64)>,
    bytes: u64,
}

/// The cache.
#[derive(Debug)]
pub(super) struct Clean {
    files: BTreeMap<u64, BTreeMap<u64, Entry>>,
    small: Order,
    large: Order,
    bytes_max: u64,
    uses: u64,
}

impl Clean {
    pub(super) fn new(bytes_max: u64) -> Clean {
        Clean {
            files: BTreeMap::new(),
            small: Order::default(),
            large: Order::default(),
            bytes_max,
            uses: 0,
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.small.bytes + self.large.bytes
    }

    fn order(&mut self, class: Class) -> &mut Order {
        match class {
            Class::Small => &mut self.small,
            Class::Large => &mut self.large,
        }
    }

    /// Keeps the bytes; what was kept of their range before is dropped.
    pub(super) fn insert(&mut self, file: u64, offset: u64, bytes: Bytes, class: Class) {
        if bytes.is_empty() {
            return;
        }
        self.remove(file, offset..offset + bytes.len() as u64);
        self.uses += 1;
        let used = self.uses;
        let order = self.order(class);
        order.bytes += bytes.len() as u64 + ENTRY_BYTES;
        order.by_use.insert(used, (file, offset));
        let entry = Entry { bytes, class, used };
        self.files.entry(file).or_default().insert(offset, entry);
        while self.small.bytes + self.large.bytes > self.bytes_max {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let small_first = self.small.bytes > self.bytes_max / 2 || self.large.by_use.is_empty();
        let order = if small_first { &self.small } else { &self.large };
        let (_, (file, offset)) = order.by_use.first_key_value().expect("bytes are of entries");
        let (file, offset) = (*file, *offset);
        self.take_out(file, offset);
    }

    fn take_out(&mut self, file: u64, offset: u64) {
        let entries = self.files.get_mut(&file).expect("known by its use");
        let entry = entries.remove(&offset).expect("known by its use");
        if entries.is_empty() {
            self.files.remove(&file);
        }
        let order = self.order(entry.class);
        order.by_use.remove(&entry.used).expect("each entry has a use");
        order.bytes -= entry.bytes.len() as u64 + ENTRY_BYTES;
    }

    /// Calls with each part of the range that is here, in order.
    pub(super) fn visit(&mut self, file: u64, range: Range<u64>, mut each: impl FnMut(u64, Bytes)) {
        let Some(entries) = self.files.get_mut(&file) else {
            return;
        };
        let first = entries
            .range(..=range.start)
            .next_back()
            .map_or(range.start, |(o, _)| *o);
        for (offset, entry) in entries.range_mut(first.min(range.start)..range.end) {
            let from = range.start.max(*offset);
            let to = range.end.min(offset + entry.bytes.len() as u64);
            if from >= to {
                continue;
            }
            let index = |p: u64| usize::try_from(p - offset).expect("a buffer is addressable");
            each(from, entry.bytes.slice(index(from)..index(to)));
            self.uses += 1;
            let order = match entry.class {
                Class::Small => &mut self.small,
                Class::Large => &mut self.large,
            };
            order.by_use.remove(&entry.used);
            order.by_use.insert(self.uses, (file, *offset));
            entry.used = self.uses;
        }
    }

    /// Drops all that has a byte in the range.
    pub(super) fn remove(&mut self, file: u64, range: Range<u64>) {
        let Some(entries) = self.files.get(&file) else {
            return;
        };
        let before = entries.range(..range.start).next_back();
        let before = before.filter(|(o, e)| *o + e.bytes.len() as u64 > range.start);
        let start = before.map_or(range.start, |(o, _)| *o);
        let touched: Vec<u64> = entries.range(start..range.end).map(|(o, _)| *o).collect();
        for offset in touched {
            self.take_out(file, offset);
        }
    }

    /// Drops all of a file.
    pub(super) fn remove_file(&mut self, file: u64) {
        self.remove(file, 0..u64::MAX);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Clean::new(self.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8, length: usize) -> Bytes {
        Bytes::from(vec![byte; length])
    }

    fn found(cache: &mut Clean, file: u64, range: Range<u64>) -> Vec<(u64, usize, u8)> {
        let mut all = Vec::new();
        cache.visit(file, range, |offset, b| all.push((offset, b.len(), b[0])));
        all
    }

    #[test]
    fn parts_of_a_range_are_found_in_order() {
        let mut cache = Clean::new(1 << 20);
        cache.insert(1, 100, bytes(2, 50), Class::Large);
        cache.insert(1, 0, bytes(1, 50), Class::Large);
        cache.insert(2, 0, bytes(9, 500), Class::Large);
        assert_eq!(found(&mut cache, 1, 10..120), [(10, 40, 1), (100, 20, 2)]);
        assert_eq!(found(&mut cache, 1, 50..100), []);
        cache.insert(1, 40, bytes(3, 70), Class::Large);
        assert_eq!(found(&mut cache, 1, 0..1000), [(40, 70, 3)]);
        cache.remove_file(1);
        assert_eq!(found(&mut cache, 1, 0..1000), []);
        cache.clear();
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn the_least_recently_used_goes_first_and_small_files_stay() {
        let mut cache = Clean::new(10 * (1000 + ENTRY_BYTES));
        cache.insert(7, 0, bytes(7, 1000), Class::Small);
        for file in 0..20 {
            cache.insert(100 + file, 0, bytes(1, 1000), Class::Large);
            found(&mut cache, 100, 0..1);
        }
        assert_eq!(found(&mut cache, 7, 0..1000).len(), 1);
        assert_eq!(found(&mut cache, 100, 0..1000).len(), 1);
        assert_eq!(found(&mut cache, 101, 0..1000).len(), 0);
        for file in 0..20 {
            cache.insert(200 + file, 0, bytes(1, 1000), Class::Small);
        }
        assert!(cache.small.bytes <= cache.bytes_max && found(&mut cache, 7, 0..1).is_empty());
    }

    #[test]
    fn more_than_fits_is_not_kept() {
        let mut cache = Clean::new(100);
        cache.insert(1, 0, bytes(1, 1000), Class::Large);
        assert_eq!(cache.bytes(), 0);
    }
}
