//! What was written and is not on its way yet: segments of a file that do not overlap, each within one packet's place.
//!
//! A write that touches a segment's end, or lies in it, goes into its buffer. One that comes before it starts a segment
//! of its own, unless both are in one block; neighbours are put together when they are taken.

use super::buffer::{Buffer, Pool};
use bytes::Bytes;
use dfs_proto::limits::{BLOCK_BYTES, PACKET_BYTES_MAX};
use std::collections::BTreeMap;
use std::ops::Range;

const PACKET: u64 = PACKET_BYTES_MAX as u64;

/// One stretch of bytes.
#[derive(Debug)]
struct Segment {
    buffer: Buffer,
    /// The number of the oldest write in it.
    first: u64,
}

/// A segment on its way out.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

/// Which segments are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// Those that fill their packet's place to its end.
    Full,
    /// Also those with a write up to this number.
    UpTo(u64),
}

/// The segments of one file, by offset.
#[derive(Debug)]
pub(super) struct Dirty {
    chunk_bytes: u64,
    segments: BTreeMap<u64, Segment>,
    bytes: u64,
    /// Segments that reach the end of their packet's place.
    full: usize,
}

impl Segment {
    fn len(&self) -> u64 {
        self.buffer.len() as u64
    }
}

impl Dirty {
    pub(super) fn new(chunk_bytes: u64) -> Dirty {
        Dirty {
            chunk_bytes,
            segments: BTreeMap::new(),
            bytes: 0,
            full: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn has_full(&self) -> bool {
        self.full > 0
    }

    /// Where the last segment ends.
    pub(super) fn end(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(o, s)| o + s.len())
    }

    /// The number of the oldest write.
    pub(super) fn first(&self) -> Option<u64> {
        self.segments.values().map(|s| s.first).min()
    }

    /// Where the packet's place that holds this offset ends.
    fn place_end(&self, offset: u64) -> u64 {
        let chunk = offset - offset % self.chunk_bytes;
        let packet = chunk + ((offset - chunk) / PACKET + 1) * PACKET;
        packet.min(chunk + self.chunk_bytes)
    }

    /// Takes the bytes in.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], number: u64, pool: &Pool) {
        let mut at = 0;
        while at < data.len() {
            let from = offset + at as u64;
            let room = usize::try_from(self.place_end(from) - from).expect("at most a packet");
            let length = room.min(data.len() - at);
            self.write_part(from, &data[at..at + length], number, pool);
            at += length;
        }
    }

    /// Of one packet's place.
    fn write_part(&mut self, offset: u64, data: &[u8], number: u64, pool: &Pool) {
        let place_end = self.place_end(offset);
        let end = offset + data.len() as u64;
        let before = self.segments.range(..=offset).next_back();
        let before = before.filter(|(o, s)| *o + s.len() >= offset && self.place_end(**o) == place_end);
        let start = before.map_or(offset, |(o, _)| *o);
        let mut grown = match self.take_out(start) {
            Some(segment) => segment,
            None => Segment {
                buffer: Buffer::new(pool),
                first: number,
            },
        };
        let at = usize::try_from(offset - start).expect("at most a packet");
        grown.buffer.write(at, data);
        self.swallow(&mut grown, start, end, place_end);
        self.put(start, grown, place_end);
    }

    /// Takes in what the segment now overlaps, and a neighbour behind it in the same block.
    fn swallow(&mut self, grown: &mut Segment, start: u64, written_end: u64, place_end: u64) {
        while let Some((next, behind)) = self.segments.range(start..place_end).next().map(|(o, s)| (*o, s)) {
            let end = start + grown.len();
            let same_block = next / BLOCK_BYTES == (written_end - 1) / BLOCK_BYTES;
            if next > end || next == end && !same_block {
                return;
            }
            let first = behind.first;
            let behind = self.take_out(next).expect("just seen");
            grown.first = grown.first.min(first);
            let behind_end = next + behind.len();
            if behind_end > end {
                let rest = usize::try_from(end - next).expect("at most a packet");
                let at = grown.buffer.len();
                grown.buffer.write(at, &behind.buffer.as_slice()[rest..]);
            }
        }
    }

    fn put(&mut self, offset: u64, segment: Segment, place_end: u64) {
        self.bytes += segment.len();
        self.full += usize::from(offset + segment.len() == place_end);
        let old = self.segments.insert(offset, segment);
        assert!(old.is_none(), "taken out before");
    }

    fn take_out(&mut self, offset: u64) -> Option<Segment> {
        let segment = self.segments.remove(&offset)?;
        self.bytes -= segment.len();
        self.full -= usize::from(offset + segment.len() == self.place_end(offset));
        Some(segment)
    }

    /// The next segment to send, at or behind `from`; neighbours in the same packet's place come with it.
    pub(super) fn take(&mut self, which: Which, from: u64) -> Option<Taken> {
        if matches!(which, Which::Full) && self.full == 0 {
            return None;
        }
        let wanted = |o: u64, s: &Segment| match which {
            Which::Full => o + s.len() == self.place_end(o),
            Which::UpTo(number) => s.first <= number,
        };
        let found = self.segments.range(from..).find(|(o, s)| wanted(**o, s));
        let mut offset = *found?.0;
        let place_end = self.place_end(offset);
        while let Some((o, _)) = self
            .segments
            .range(..offset)
            .next_back()
            .filter(|(o, s)| **o + s.len() == offset && self.place_end(**o) == place_end)
        {
            offset = *o;
        }
        let mut all = self.take_out(offset).expect("just found");
        while offset + all.len() < place_end {
            let Some(next) = self.take_out(offset + all.len()) else {
                break;
            };
            let at = all.buffer.len();
            all.buffer.write(at, next.buffer.as_slice());
        }
        Some(Taken {
            offset,
            bytes: all.buffer.freeze(),
        })
    }

    /// Calls with each part of the range that is here, in order.
    pub(super) fn visit(&self, range: Range<u64>, mut each: impl FnMut(u64, &[u8])) {
        let before = self.segments.range(..range.start).next_back();
        let inside = self.segments.range(range.start..range.end);
        for (offset, segment) in before.into_iter().chain(inside) {
            let from = range.start.max(*offset);
            let to = range.end.min(offset + segment.len());
            if from < to {
                let index = |p: u64| usize::try_from(p - offset).expect("at most a packet");
                each(from, &segment.buffer.as_slice()[index(from)..index(to)]);
            }
        }
    }

    /// Forgets what is written in the range.
    pub(super) fn remove(&mut self, range: Range<u64>, pool: &Pool) {
        let before = self.segments.range(..range.start).next_back();
        let start = before
            .filter(|(o, s)| *o + s.len() > range.start)
            .map_or(range.start, |(o, _)| *o);
        let touched: Vec<u64> = self.segments.range(start..range.end).map(|(o, _)| *o).collect();
        for offset in touched {
            let mut segment = self.take_out(offset).expect("just seen");
            let (end, place_end) = (offset + segment.len(), self.place_end(offset));
            let index = |p: u64| usize::try_from(p - offset).expect("at most a packet");
            if end > range.end {
                let mut rest = Buffer::new(pool);
                rest.write(0, &segment.buffer.as_slice()[index(range.end)..]);
                let rest = Segment {
                    buffer: rest,
                    first: segment.first,
                };
                self.put(range.end, rest, place_end);
            }
            if offset < range.start {
                segment.buffer.truncate(index(range.start));
                self.put(offset, segment, place_end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u64 = 3 * PACKET / 2;

    fn contents(dirty: &Dirty) -> BTreeMap<u64, u8> {
        let mut all = BTreeMap::new();
        dirty.visit(0..u64::MAX, |offset, bytes| {
            for (i, byte) in bytes.iter().enumerate() {
                assert!(all.insert(offset + i as u64, *byte).is_none(), "an overlap");
            }
        });
        assert_eq!(dirty.bytes(), all.len() as u64);
        all
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, u16, u8),
        Remove(u64, u64),
        Take(bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Near the edges of packets and chunks, so that they are crossed often.
        let offset = prop_oneof![0u64..600, PACKET - 300..PACKET + 300, CHUNK - 300..CHUNK + 300];
        let step = prop_oneof![
            4 => (offset.clone(), 1u16..400, any::<u8>()).prop_map(|(o, l, b)| Step::Write(o, l, b)),
            1 => (offset, 1u64..500).prop_map(|(o, l)| Step::Remove(o, l)),
            1 => any::<bool>().prop_map(Step::Take),
        ];
        proptest::collection::vec(step, 1..40)
    }

    proptest! {
        #[test]
        fn it_holds_what_was_written_last(steps in steps()) {
            let pool = Pool::default();
            let mut dirty = Dirty::new(CHUNK);
            let mut expected = BTreeMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write(offset, length, byte) => {

                        dirty.write(offset, &vec![byte; length.into()], number as u64, &pool);
                        expected.extend((offset..offset + u64::from(length)).map(|o| (o, byte)));
                    }
                    Step::Remove(offset, length) => {
                        dirty.remove(offset..offset + length, &pool);
                        expected.retain(|o, _| !(offset..offset + length).contains(o));
                    }
                    Step::Take(all) => {
                        let which = if all { Which::UpTo(u64::MAX) } else { Which::Full };
                        if let Some(taken) = dirty.take(which, 0) {
                            let end = taken.offset + taken.bytes.len() as u64;
                            prop_assert!(end <= dirty.place_end(taken.offset));
                            for (i, byte) in taken.bytes.iter().enumerate() {
                                prop_assert_eq!(expected.remove(&(taken.offset + i as u64)), Some(*byte));
                            }
                        }
                    }
                }
                prop_assert_eq!(&contents(&dirty), &expected);
                let full = dirty.segments.iter().filter(|(o, s)| *o + s.len() == dirty.place_end(**o)).count();
                prop_assert_eq!(dirty.full, full);
            }
            while dirty.take(Which::UpTo(u64::MAX), 0).is_some() {}
            prop_assert!(dirty.is_empty() && dirty.bytes() == 0);
        }
    }

    #[test]
    fn a_sequential_writer_fills_one_buffer_a_packet() {
        let pool = Pool::default();
        let mut dirty = Dirty::new(4 * PACKET);

        for block in 0..PACKET / 4_096 {
            assert!(!dirty.has_full());
            dirty.write(block * 4_096, &[7; 4_096], 1, &pool);
        }
        let taken = dirty.take(Which::Full, 0).unwrap();
        assert_eq!((taken.offset, taken.bytes.len()), (0, PACKET_BYTES_MAX));
        assert!(dirty.is_empty());
    }
}
