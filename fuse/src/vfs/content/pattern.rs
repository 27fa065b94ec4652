//! How a handle reads, and what it will read next: in sequence, in steps, or anyhow.

use std::ops::Range;

/// Reads of one stream come out of order by so much: the kernel has several under way.
const SLACK_BYTES: u64 = 512 * 1024;
/// The first reads of a stream are run ahead of by so much.
const AHEAD_BYTES_MIN: u64 = 256 * 1024;
/// Steps that are fetched ahead.
const STEPS_AHEAD: u64 = 4;
/// Ahead of a stream no less is asked for at once, unless the file ends.
const ASK_BYTES_MIN: u64 = 1024 * 1024;

/// What was seen of one handle's reads.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    /// Where the last read ended.
    next: u64,
    /// Bytes read in sequence.
    run: u64,
    /// All before it was asked for ahead of time.
    ahead: u64,
    /// Where the last read began, and how far from the one before.
    last: u64,
    step: u64,
    /// Equal steps seen.
    steps: u64,
}

impl Pattern {
    /// What to fetch ahead now that these bytes are read.
    pub(super) fn observe(&mut self, read: Range<u64>, size: u64, ahead_max: u64) -> Vec<Range<u64>> {
        let length = read.end - read.start;
        let in_sequence = read.start <= self.next + SLACK_BYTES && read.start + SLACK_BYTES >= self.next;
        let begins = self.run == 0 && read.start == 0;
        let follows = self.run > 0 && in_sequence || self.run == 0 && read.start == self.next;
        let step = read.start.saturating_sub(self.last);
        self.last = read.start;
        if begins || follows {
            self.run += length;
            self.next = self.next.max(read.end);
            self.steps = 0;
            return self.ahead_of_stream(size, ahead_max).into_iter().collect();
        }
        (self.next, self.run, self.ahead) = (read.end, 0, 0);
        self.steps = if step == self.step && step > 0 {
            self.steps + 1
        } else {
            0
        };
        self.step = step;
        if self.steps < 2 {
            return Vec::new();
        }
        (1..=STEPS_AHEAD)
            .map(|n| read.start + n * step)
            .filter(|start| *start < size)
            .map(|start| start..(start + length).min(size))
            .collect()
    }

    fn ahead_of_stream(&mut self, size: u64, ahead_max: u64) -> Option<Range<u64>> {
        let window = (self.run * 2).max(AHEAD_BYTES_MIN).min(ahead_max);
        let from = self.ahead.max(self.next);
        let to = (self.next + window).min(size);
        let enough = (window / 2).min(ASK_BYTES_MIN);
        if to <= from || to - from < enough && to < size {
            return None;
        }
        self.ahead = to;
        Some(from..to)
    }

    /// Only what lies before it could be asked for.
    pub(super) fn reached(&mut self, ahead: u64) {
        self.ahead = self.ahead.min(ahead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;

    #[test]
    fn a_stream_is_run_ahead_of_further_and_further() {
        let mut pattern = Pattern::default();
        let mut asked = 0;
        for n in 0..512 {
            let at = n * 128 * KIB;
            for range in pattern.observe(at..at + 128 * KIB, 64 * MIB, 8 * MIB) {
                assert!(range.start == asked.max(at + 128 * KIB) && range.end <= at + 128 * KIB + 8 * MIB);
                asked = range.end;
            }
            assert!(n < 128 || asked >= (at + 7 * MIB).min(64 * MIB), "{n}");
        }
        assert_eq!(asked, 64 * MIB);
    }

    #[test]
    fn random_reads_ask_for_nothing_and_equal_steps_for_the_next_ones() {
        let mut pattern = Pattern::default();
        for at in [50 * MIB, 3 * MIB, 90 * MIB, 20 * MIB] {
            assert!(pattern.observe(at..at + 4096, 100 * MIB, 8 * MIB).is_empty());
        }
        let mut asked = Vec::new();
        for n in 0..4 {
            asked = pattern.observe(
                30 * MIB + n * 5 * MIB..30 * MIB + n * 5 * MIB + 4096,
                100 * MIB,
                8 * MIB,
            );
        }
        assert_eq!(asked.first(), Some(&(50 * MIB..50 * MIB + 4096)));
        assert_eq!(asked.len(), 4);
    }
}
