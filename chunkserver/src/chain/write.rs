//! One chunk's stream of packets at one version, as a pure machine: what came in, in which order, how far it got.
//!
//! A head numbers packets without gaps and is the first to know what is committed; a member takes numbers from above
//! and acknowledges up what itself and everything below it has applied. Waiting, sockets and disks are the actor's.

use dfs_proto::WriterId;
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

mod records;
pub(crate) use records::Record;

/// Packets under way in one chunk: more only fill memory.
const FLIGHT_MAX: usize = 64;
/// Bytes of packets under way after which no further one is taken.
const FLIGHT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A packet's place, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    /// Whose.
    pub(crate) writer: WriterId,
    /// The writer's sequence.
    pub(crate) sequence: u64,
    /// Where its bytes begin in the chunk.
    pub(crate) offset: u64,
    /// How many there are.
    pub(crate) length: u64,
    /// Acknowledged only when it is on stable storage.
    pub(crate) sync: bool,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Apply the packet here and forward it, under this number; `data`: false if only its fsync is wanted.
    Take {
        /// Its number.
        number: u64,
        /// False for a repeated packet that asks for an fsync.
        data: bool,
    },
    /// Tell the writer: all its packets up to this sequence are committed.
    Ack {
        /// Whom.
        writer: WriterId,
        /// Its sequence.
        sequence: u64,
        /// Where that one's bytes begin.
        offset: u64,
        /// Committed length of the chunk.
        length: u64,
    },
    /// Tell the member above: applied here and below, up to this number.
    AckUp(u64),
    /// Tell the member below: committed up to this number.
    Committed(u64),
    /// A packet came that is not the next one: leave the stream.
    Gap,
}

/// Who waits for whom when nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The link below.
    Below,
    /// The disk here.
    Here,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    heading: Heading,
    /// The chunk's length once it is applied.
    length: u64,
    since: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Newest sequence received.
    received: u64,
    /// Where its bytes begin.
    offset: u64,
    /// Its number.
    number: u64,
    /// Newest sequence committed.
    committed: u64,
    /// Where its bytes begin.
    committed_offset: u64,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Write {
    head: bool,
    tail: bool,
    next: u64,
    applied: u64,
    below: u64,
    committed: u64,
    told_up: u64,
    /// With all that was received.
    length: u64,
    committed_length: u64,
    flight: VecDeque<Flight>,
    flight_bytes: u64,
    writers: BTreeMap<WriterId, Known>,
}

impl Write {
    /// A stream that begins with number 1 on a chunk whose bytes are all committed.
    pub(crate) fn new(
        head: bool,
        tail: bool,
        length: u64,
        writers: impl Iterator<Item = (WriterId, u64, u64)>,
    ) -> Write {
        let known = |sequence, offset| Known {
            received: sequence,
            offset,
            number: 0,
            committed: sequence,
            committed_offset: offset,
        };
        Write {
            head,
            tail,
            next: 1,
            applied: 0,
            below: 0,
            committed: 0,
            told_up: 0,
            length,
            committed_length: length,
            flight: VecDeque::new(),
            flight_bytes: 0,
            writers: writers.map(|(w, s, o)| (w, known(s, o))).collect(),
        }
    }

    /// Numbers go on from `first`: only with nothing under way.
    ///
    /// # Panics
    /// If something is under way.
    pub(crate) fn restart(&mut self, first: u64) {
        assert!(
            self.is_quiet(),
            "a stream is opened anew only when nothing is uncommitted"
        );
        self.next = first;
        let before = first.saturating_sub(1);
        (self.applied, self.below, self.committed, self.told_up) = (before, before, before, before);
        self.writers.values_mut().for_each(|k| k.number = 0);
    }

    /// True if nothing received is uncommitted.
    #[must_use]
    pub(crate) fn is_quiet(&self) -> bool {
        self.flight.is_empty()
    }

    /// True if another packet may come in. The head bounds for all: a member that took no more when full would never
    /// read the packet behind, which is the one that says what is committed.
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        !self.head || (self.flight.len() < FLIGHT_MAX && self.flight_bytes < FLIGHT_BYTES_MAX)
    }

    /// Committed length, bytes.
    #[must_use]
    pub(crate) fn committed_length(&self) -> u64 {
        self.committed_length
    }

    /// A writer's newest committed sequence; 0 if none.
    #[must_use]
    pub(crate) fn committed_sequence(&self, writer: WriterId) -> u64 {
        self.writers.get(&writer).map_or(0, |k| k.committed)
    }

    /// Byte ranges that are received and not committed; the zeros of a gap are part of its packet.
    pub(crate) fn uncommitted(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut length = self.committed_length;
        self.flight.iter().map(move |f| {
            let start = f.heading.offset.min(length);
            length = f.length;
            start..f.heading.offset + f.heading.length
        })
    }

    /// A packet from a client, at the head.
    pub(crate) fn take_from_client(&mut self, heading: Heading, now: Instant) -> Option<Effect> {
        let known = self.writers.get(&heading.writer).copied().unwrap_or_default();
        if heading.sequence > known.received {
            return Some(self.take(heading, true, now));
        }
        if heading.sync {
            // Done before, perhaps at another version: its bytes are here, its fsync may not have been.
            let again = Heading { length: 0, ..heading };
            return Some(self.take(again, false, now));
        }
        // The first one's acknowledgement will do, if it is still to come.
        (heading.sequence <= known.committed).then(|| self.ack(heading.writer, known))
    }

    fn ack(&self, writer: WriterId, known: Known) -> Effect {
        Effect::Ack {
            writer,
            sequence: known.committed,
            offset: known.committed_offset,
            length: self.committed_length,
        }
    }

    /// A packet from the member above.
    pub(crate) fn take_from_above(&mut self, number: u64, heading: Heading, now: Instant) -> Effect {
        // The head's window, and what it has committed but not told: more is no stream of ours.
        if number != self.next || self.flight.len() >= 2 * FLIGHT_MAX {
            return Effect::Gap;
        }
        let data = heading.length > 0;
        self.take(heading, data, now)
    }

    fn take(&mut self, heading: Heading, data: bool, now: Instant) -> Effect {
        let number = self.next;
        self.next += 1;
        if heading.length > 0 {
            self.length = self.length.max(heading.offset + heading.length);
        }
        let known = self.writers.entry(heading.writer).or_default();
        if heading.sequence > known.received {
            (known.received, known.offset) = (heading.sequence, heading.offset);
        }
        known.number = number;
        self.flight_bytes += heading.length;
        self.flight.push_back(Flight {
            number,
            heading,
            length: self.length,
            since: now,
        });
        Effect::Take { number, data }
    }

    /// Everything up to `number` is applied here.
    pub(crate) fn applied(&mut self, number: u64, effects: &mut Vec<Effect>) {
        self.applied = self.applied.max(number);
        self.progress(effects);
    }

    /// Everything up to `number` is applied below. An acknowledgement of what was never sent counts for nothing.
    pub(crate) fn acked_below(&mut self, number: u64, effects: &mut Vec<Effect>) {
        if number < self.next {
            self.below = self.below.max(number);
            self.progress(effects);
        }
    }

    /// The member above says what is committed; more than is applied here cannot be.
    pub(crate) fn committed_above(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let number = number.min(self.done());
        if !self.head && number > self.committed {
            self.commit(number, effects);
        }
    }

    fn done(&self) -> u64 {
        if self.tail {
            self.applied
        } else {
            self.applied.min(self.below)
        }
    }

    fn progress(&mut self, effects: &mut Vec<Effect>) {
        let done = self.done();
        if self.head && done > self.committed {
            self.commit(done, effects);
        }
        if !self.head && done > self.told_up {
            self.told_up = done;
            effects.push(Effect::AckUp(done));
        }
    }

    fn commit(&mut self, number: u64, effects: &mut Vec<Effect>) {
        self.committed = number;
        let mut newest: Vec<(WriterId, Known)> = Vec::new();
        while let Some(flight) = self.flight.pop_front_if(|f| f.number <= number) {
            self.committed_length = flight.length;
            self.flight_bytes -= flight.heading.length;
            let Heading { writer, sequence, .. } = flight.heading;
            let known = self.writers.entry(writer).or_default();
            if sequence > known.committed {
                (known.committed, known.committed_offset) = (sequence, flight.heading.offset);
            }
            newest.retain(|(w, _)| *w != writer);
            newest.push((writer, *known));
        }
        if self.head {
            effects.extend(newest.into_iter().map(|(writer, known)| self.ack(writer, known)));
        }
        if !self.tail {
            effects.push(Effect::Committed(number));
        }
    }

    /// When the oldest packet under way is late, if there is one.
    #[must_use]
    pub(crate) fn late_at(&self, deadline: Duration) -> Option<Instant> {
        let waiting = self.flight.iter().find(|f| f.number > self.done());
        waiting.map(|f| f.since + deadline)
    }

    /// Who holds up a packet for longer than `deadline`.
    #[must_use]
    pub(crate) fn late(&self, now: Instant, deadline: Duration) -> Option<Late> {
        self.late_at(deadline).filter(|at| *at <= now)?;
        let here = self.applied <= self.done();
        Some(if here && (self.tail || self.below > self.applied) {
            Late::Here
        } else {
            Late::Below
        })
    }
}

#[cfg(test)]
mod tests;
