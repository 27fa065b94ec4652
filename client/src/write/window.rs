//! The packets of one chunk that are not acknowledged yet: pure bookkeeping of tickets and sequences.
//!
//! A *ticket* is the order in which the application gave a packet or asked for a sync; a *sequence* is the number the
//! chunk's members know it by. They part ways only when a sync has to be asked again after a failover: it gets a new
//! sequence, at the end, and keeps its ticket.

use bytes::Bytes;
use dfs_proto::limits::{PACKET_BYTES_MAX, WINDOW_PACKETS};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Small packets under way: members apply several at a time.
const SMALL_PACKETS: usize = 64;

/// One packet's content.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// In the chunk.
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
    /// Made when the application wrote.
    pub(crate) checksums: Vec<u32>,
    /// Answered only when everything up to it is on stable storage.
    pub(crate) sync: bool,
}

/// A packet that waits for its acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: u64,
    pub(crate) sequence: u64,
    pub(crate) packet: Packet,
    /// When it was sent on the present stream.
    sent: Option<Instant>,
}

/// All of them, in order of their sequences.
#[derive(Debug, Default)]
pub(crate) struct Window {
    waiting: VecDeque<Waiting>,
    last_sequence: u64,
    last_ticket: u64,
    synced_ticket: u64,
}

impl Window {
    /// Takes a packet; its ticket is above all before.
    pub(crate) fn push(&mut self, ticket: u64, packet: Packet) {
        assert!(ticket > self.last_ticket, "tickets rise");
        self.last_ticket = ticket;
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        self.waiting.push_back(Waiting {
            ticket,
            sequence,
            packet,
            sent: None,
        });
    }

    /// A ticket that is answered without a packet.
    pub(crate) fn skip(&mut self, ticket: u64) {
        assert!(ticket > self.last_ticket, "tickets rise");
        self.last_ticket = ticket;
    }

    /// Where the furthest of the packets ends in the chunk.
    pub(crate) fn end(&self) -> u64 {
        let ends = self
            .waiting
            .iter()
            .map(|w| w.packet.offset + w.packet.data.len() as u64);
        ends.max().unwrap_or(0)
    }

    /// True if another packet may be sent before any is acknowledged: a few large ones, or many small ones.
    pub(crate) fn has_room(&self) -> bool {
        let bytes = |waiting: &VecDeque<Waiting>| waiting.iter().map(|w| w.packet.data.len()).sum::<usize>();
        match self.waiting.len() {
            few if few < WINDOW_PACKETS => true,
            many => many < SMALL_PACKETS && bytes(&self.waiting) < PACKET_BYTES_MAX,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The first packet that was not sent on this stream, marked as sent.
    pub(crate) fn next_to_send(&mut self, now: Instant) -> Option<Waiting> {
        let next = self.waiting.iter_mut().find(|w| w.sent.is_none())?;
        next.sent = Some(now);
        Some(next.clone())
    }

    /// Since when the head owes an acknowledgement.
    pub(crate) fn oldest_sent(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|w| w.sent).min()
    }

    /// All up to `sequence` are committed (and synced, where asked). True if that was news.
    pub(crate) fn acknowledged(&mut self, sequence: u64, now: Instant) -> bool {
        let before = self.waiting.len();
        while self.waiting.front().is_some_and(|w| w.sequence <= sequence) {
            let done = self.waiting.pop_front().expect("just seen");
            if done.packet.sync {
                self.synced_ticket = self.synced_ticket.max(done.ticket);
            }
        }
        let news = self.waiting.len() < before;
        if news {
            // The head is at work: what is left has its full time again.
            self.waiting
                .iter_mut()
                .filter_map(|w| w.sent.as_mut())
                .for_each(|at| *at = now);
        }
        news
    }

    /// A new stream begins: data up to `committed` is there; the rest, and every sync, is to be sent. True if some data
    /// was found to be there.
    pub(crate) fn reopened(&mut self, committed: u64) -> bool {
        let (mut again, mut arrived) = (Vec::new(), false);
        self.waiting.retain_mut(|w| {
            w.sent = None;
            if w.sequence > committed {
                return true;
            }
            arrived |= !w.packet.data.is_empty();
            if w.packet.sync {
                again.push((w.ticket, w.packet.clone()));
            }
            false
        });
        // A writer that was forgotten or is new knows nothing; sequences never fall behind what the chunk has seen.
        self.last_sequence = self.last_sequence.max(committed);
        for (ticket, packet) in again {
            let packet = Packet {
                data: Bytes::new(),
                checksums: Vec::new(),
                ..packet
            };
            self.last_sequence += 1;
            let sequence = self.last_sequence;
            self.waiting.push_back(Waiting {
                ticket,
                sequence,
                packet,
                sent: None,
            });
        }
        arrived
    }

    /// Gives up all that waits; the tickets of the data among it.
    pub(crate) fn give_up(&mut self) -> Vec<u64> {
        let syncs = self
            .waiting
            .iter()
            .filter(|w| w.packet.sync)
            .map(|w| w.ticket)
            .max();
        self.synced_ticket = self.synced_ticket.max(syncs.unwrap_or_default());
        self.waiting
            .drain(..)
            .filter(|w| !w.packet.data.is_empty())
            .map(|w| w.ticket)
            .collect()
    }

    /// All tickets up to it are acknowledged.
    pub(crate) fn acked_ticket(&self) -> u64 {
        self.waiting
            .iter()
            .map(|w| w.ticket)
            .min()
            .map_or(self.last_ticket, |lowest| lowest - 1)
    }

    /// Everything given before this ticket is acknowledged.
    pub(crate) fn has_none_before(&self, ticket: u64) -> bool {
        self.waiting.iter().all(|w| w.ticket >= ticket)
    }

    /// All up to it were applied and synced by every member.
    pub(crate) fn synced_ticket(&self) -> u64 {
        self.synced_ticket.min(self.acked_ticket())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sync: bool) -> Packet {
        let data = if sync {
            Bytes::new()
        } else {
            Bytes::from_static(b"x")
        };
        Packet {
            offset: 0,
            data,
            checksums: Vec::new(),
            sync,
        }
    }

    fn window(syncs: &[bool]) -> Window {
        let mut w = Window::default();
        for (i, sync) in syncs.iter().enumerate() {
            w.push(i as u64 + 1, packet(*sync));
        }
        w
    }

    fn send_all(w: &mut Window) -> Vec<(u64, u64)> {
        let now = Instant::now();
        std::iter::from_fn(|| w.next_to_send(now))
            .map(|w| (w.ticket, w.sequence))
            .collect()
    }

    #[tokio::test]
    async fn acknowledgements_are_cumulative() {
        let mut w = window(&[false, false, true]);
        assert_eq!(send_all(&mut w), [(1, 1), (2, 2), (3, 3)]);
        assert!(w.acknowledged(2, Instant::now()));
        assert!(!w.acknowledged(2, Instant::now()));
        assert_eq!((w.acked_ticket(), w.synced_ticket(), w.len()), (2, 0, 1));
        w.acknowledged(3, Instant::now());
        assert_eq!((w.acked_ticket(), w.synced_ticket()), (3, 3));
        assert!(w.is_empty() && w.oldest_sent().is_none());
    }

    #[tokio::test]
    async fn after_a_failover_the_rest_is_sent_again_with_the_same_sequences() {
        let mut w = window(&[false, false, false]);
        send_all(&mut w);
        assert!(w.reopened(1));
        assert_eq!(w.acked_ticket(), 1);
        assert_eq!(send_all(&mut w), [(2, 2), (3, 3)]);
    }

    #[tokio::test]
    async fn a_sync_is_asked_again_though_its_sequence_is_known_there() {
        let mut w = window(&[false, true, false]);
        send_all(&mut w);
        assert!(w.reopened(2));
        assert_eq!(send_all(&mut w), [(3, 3), (2, 4)]);
        assert_eq!((w.acked_ticket(), w.synced_ticket()), (1, 0));
        w.acknowledged(4, Instant::now());
        assert_eq!((w.acked_ticket(), w.synced_ticket()), (3, 2));
        assert!(!w.reopened(4), "no data was on its way");
    }

    #[tokio::test]
    async fn what_is_given_up_is_named() {
        let mut w = window(&[false, true, false]);
        assert_eq!(w.give_up(), [1, 3]);
        assert!(w.is_empty());
        assert_eq!(w.acked_ticket(), 3);
    }
}
