//! Records (protocol section 6): the head chooses where they begin, at the chunk's end, and seals the chunk with the
//! first one that does not fit. What a producer sent before is known by its sequence and never taken twice.
//!
//! The seal is a packet like any other, of a writer of its own ([`WriterId::SEAL`]): so it is applied and fsynced by
//! all members after everything before it, and goes wherever the writer table goes.

use super::{Effect, Heading, Write};
use dfs_proto::WriterId;
use dfs_proto::limits::PRODUCERS_MAX;
use dfs_stdx::clock::Instant;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// It has a number and a place: as [`Effect::Take`].
    Taken {
        /// Its number.
        number: u64,
        /// Where its bytes begin.
        offset: u64,
        /// False for a repeated one that asks for an fsync.
        data: bool,
    },
    /// It does not fit: the seal has this number and the chunk this length. Its producer hears when that is committed.
    Seals {
        /// The seal's number.
        number: u64,
        /// The chunk's final length.
        length: u64,
    },
    /// It was taken before and is committed.
    Known(Effect),
    /// It, or the seal, is under way: its producer hears when that is committed.
    Awaited,
    /// The chunk is sealed, and the record is not in it.
    Full,
}

impl Write {
    /// A record from a producer, at the head; what its heading says of an offset does not count.
    pub(crate) fn take_record(&mut self, record: Heading, chunk_bytes: u64, now: Instant) -> Record {
        let known = self.writers.get(&record.writer).copied();
        if let Some(known) = known.filter(|k| record.sequence <= k.received) {
            if record.sync {
                let again = Heading {
                    length: 0,
                    offset: known.offset,
                    ..record
                };
                return self.placed(again, now);
            }
            if record.sequence <= known.committed {
                return Record::Known(self.ack(record.writer, known));
            }
            return Record::Awaited;
        }
        if self.is_sealed() {
            return Record::Full;
        }
        if self.is_closed() {
            return Record::Awaited;
        }
        let room = known.is_some() || self.producers() < PRODUCERS_MAX;
        if room && self.length + record.length <= chunk_bytes {
            let offset = self.length;
            return self.placed(Heading { offset, ..record }, now);
        }
        let seal = Heading {
            writer: WriterId::SEAL,
            sequence: 1,
            offset: self.length,
            length: 0,
            sync: true,
        };
        let number = self.next;
        self.take(seal, false, now);
        Record::Seals {
            number,
            length: seal.offset,
        }
    }

    fn placed(&mut self, heading: Heading, now: Instant) -> Record {
        let number = self.next;
        self.take(heading, heading.length > 0, now);
        Record::Taken {
            number,
            offset: heading.offset,
            data: heading.length > 0,
        }
    }

    fn producers(&self) -> usize {
        self.writers.keys().filter(|w| w.is_producer()).count()
    }

    /// All members have the seal.
    #[must_use]
    pub(crate) fn is_sealed(&self) -> bool {
        self.committed_sequence(WriterId::SEAL) > 0
    }

    /// The seal is taken, though perhaps not committed: the chunk does not grow any more.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.writers.contains_key(&WriterId::SEAL)
    }

    /// True if the packet would make a chunk longer whose length is final.
    #[must_use]
    pub(crate) fn is_beyond_the_seal(&self, heading: &Heading) -> bool {
        self.is_closed() && heading.length > 0 && heading.offset + heading.length > self.length
    }

    /// Where a writer's newest committed packet begins; 0 if there is none.
    #[must_use]
    pub(crate) fn committed_offset(&self, writer: WriterId) -> u64 {
        self.writers.get(&writer).map_or(0, |k| k.committed_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 100;

    fn producer(n: u64) -> WriterId {
        WriterId::of_producer(n).unwrap()
    }

    fn record(from: u64, sequence: u64, length: u64) -> Heading {
        Heading {
            writer: producer(from),
            sequence,
            offset: 77,
            length,
            sync: false,
        }
    }

    fn alone() -> Write {
        Write::new(true, true, 0, std::iter::empty())
    }

    fn put(w: &mut Write, heading: Heading) -> Record {
        w.take_record(heading, CHUNK, Instant::now())
    }

    fn commit(w: &mut Write, number: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        w.applied(number, &mut effects);
        effects
    }

    fn taken(number: u64, offset: u64) -> Record {
        Record::Taken {
            number,
            offset,
            data: true,
        }
    }

    #[test]
    fn the_head_puts_records_of_all_producers_one_behind_the_other() {
        let mut w = alone();
        assert_eq!(put(&mut w, record(1, 5, 10)), taken(1, 0));
        assert_eq!(put(&mut w, record(2, 1, 30)), taken(2, 10));
        assert_eq!(put(&mut w, record(1, 6, 60)), taken(3, 40));
        let offsets: Vec<_> = commit(&mut w, 3)
            .into_iter()
            .map(|e| match e {
                Effect::Ack { sequence, offset, .. } => (sequence, offset),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(offsets, [(1, 10), (6, 40)]);
    }

    #[test]
    fn a_repeated_record_is_answered_with_the_first_ones_offset() {
        let mut w = alone();
        put(&mut w, record(1, 1, 10));
        put(&mut w, record(2, 1, 10));
        assert_eq!(put(&mut w, record(2, 1, 10)), Record::Awaited);
        commit(&mut w, 2);
        let ack = Effect::Ack {
            writer: producer(2),
            sequence: 1,
            offset: 10,
            length: 20,
        };
        assert_eq!(put(&mut w, record(2, 1, 10)), Record::Known(ack));
        let mut again = Write::new(true, true, 20, [(producer(2), 1, 10)].into_iter());
        assert_eq!(
            put(&mut again, record(2, 1, 10)),
            Record::Known(ack),
            "at another version, too"
        );
    }

    #[test]
    fn a_repeated_record_that_asks_for_an_fsync_keeps_its_offset() {
        let mut w = alone();
        put(&mut w, record(1, 1, 10));
        put(&mut w, record(2, 1, 10));
        let again = Heading {
            sync: true,
            ..record(2, 1, 10)
        };
        let synced = Record::Taken {
            number: 3,
            offset: 10,
            data: false,
        };
        assert_eq!(put(&mut w, again), synced);
        let effects = commit(&mut w, 3);
        assert!(
            effects
                .iter()
                .any(|e| matches!(e, Effect::Ack { writer, offset: 10, .. } if *writer == producer(2)))
        );
    }

    #[test]
    fn a_record_that_does_not_fit_seals_the_chunk_and_is_full_only_when_all_have_the_seal() {
        let mut w = alone();
        put(&mut w, record(1, 1, 90));
        let seals = Record::Seals {
            number: 2,
            length: 90,
        };
        assert_eq!(put(&mut w, record(2, 1, 11)), seals);
        assert_eq!(
            put(&mut w, record(3, 1, 1)),
            Record::Awaited,
            "nothing comes behind a seal"
        );
        let behind = Heading {
            offset: 90,
            ..record(9, 1, 1)
        };
        assert!(w.is_beyond_the_seal(&behind));
        let effects = commit(&mut w, 2);
        let last = effects.last().copied();
        assert!(matches!(
            last,
            Some(Effect::Ack {
                writer: WriterId::SEAL,
                offset: 90,
                length: 90,
                ..
            })
        ));
        assert_eq!(put(&mut w, record(2, 1, 11)), Record::Full);
        assert!(matches!(put(&mut w, record(1, 1, 90)), Record::Known(_)));
    }

    #[test]
    fn a_sealed_chunk_takes_no_records_at_any_version() {
        let writers = [(WriterId::SEAL, 1, 40), (producer(1), 3, 30)];
        let mut w = Write::new(true, false, 40, writers.into_iter());
        assert_eq!(put(&mut w, record(1, 4, 1)), Record::Full);
        assert!(matches!(put(&mut w, record(1, 3, 10)), Record::Known(_)));
    }

    #[test]
    fn a_chunk_with_as_many_producers_as_it_can_remember_is_sealed_by_the_next_one() {
        let mut w = alone();
        for n in 1..=PRODUCERS_MAX as u64 {
            assert!(matches!(put(&mut w, record(n, 1, 1)), Record::Taken { .. }));
        }
        assert!(matches!(put(&mut w, record(3, 2, 1)), Record::Taken { .. }));
        assert!(matches!(put(&mut w, record(1_000, 1, 1)), Record::Seals { .. }));
    }

    #[test]
    fn a_member_learns_the_seal_as_a_packet() {
        let mut w = Write::new(false, true, 40, std::iter::empty());
        let seal = Heading {
            writer: WriterId::SEAL,
            sequence: 1,
            offset: 40,
            length: 0,
            sync: true,
        };
        let effect = w.take_from_above(1, seal, Instant::now());
        assert_eq!(
            effect,
            Effect::Take {
                number: 1,
                data: false
            }
        );
        assert!(w.is_closed() && !w.is_sealed());
        commit(&mut w, 1);
        let mut effects = Vec::new();
        w.committed_above(1, &mut effects);
        assert!(w.is_sealed());
    }
}
