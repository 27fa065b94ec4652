//! One mount's stream: numbered messages in a bounded queue, and how far they were acknowledged.

use super::Event;
use dfs_stdx::clock::Instant;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

/// Messages that may wait for a slow stream: more, and it is cut.
const QUEUE_MAX: usize = 4_096;

/// What one change did, for one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// From 1.
    pub sequence: u64,
    /// In order, to be dealt with as one.
    pub events: Vec<Event>,
}

/// The sending end. Dropped, the stream ends, and nobody waits for it.
#[derive(Debug)]
pub(super) struct Line {
    number: u64,
    queue: mpsc::Sender<Message>,
    sent: u64,
    acked: watch::Sender<u64>,
    /// Since when it is late, and with what: it is not waited for until that is acknowledged.
    late: Option<(Instant, u64)>,
}

impl Line {
    pub(super) fn new(number: u64) -> (Line, mpsc::Receiver<Message>) {
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        let line = Line {
            number,
            queue,
            sent: 0,
            acked: watch::Sender::new(0),
            late: None,
        };
        (line, messages)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The message's number, or why the stream is over.
    pub(super) fn send(&mut self, events: Vec<Event>) -> Result<u64, &'static str> {
        let sequence = self.sent + 1;
        match self.queue.try_send(Message { sequence, events }) {
            Ok(()) => {
                self.sent = sequence;
                Ok(sequence)
            }
            Err(TrySendError::Full(_)) => Err("its queue is full"),
            Err(TrySendError::Closed(_)) => Err("nobody reads it"),
        }
    }

    pub(super) fn ack(&mut self, sequence: u64) {
        // More than was sent cannot have been dealt with.
        let sequence = sequence.min(self.sent);
        self.acked.send_if_modified(|acked| {
            let is_more = sequence > *acked;
            *acked = sequence.max(*acked);
            is_more
        });
        self.late = self.late.filter(|(_, what)| *what > sequence);
    }

    pub(super) fn acked(&self) -> watch::Receiver<u64> {
        self.acked.subscribe()
    }

    pub(super) fn note_late(&mut self, sequence: u64, now: Instant) {
        if *self.acked.borrow() < sequence {
            let since = self.late.map_or(now, |(since, _)| since);
            self.late = Some((since, self.sent));
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.late.is_some()
    }

    /// Since it was first late without having caught up.
    pub(super) fn behind_for(&self, now: Instant) -> Duration {
        let since = self.late.map_or(now, |(since, _)| since);
        now.saturating_duration_since(since)
    }
}
