//! The client session's bookkeeping: which sequences are unanswered, which chunks are being written.

use crate::convert::{Opened, RequestNumber};
use dfs_proto::limits::REQUESTS_OUTSTANDING_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One session with the master. Its numbers are never reused; a new session starts from 1.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) opened: Opened,
    numbers: Mutex<Numbers>,
    /// One permit for each request that may be unanswered.
    room: Arc<Semaphore>,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    unanswered: BTreeSet<u64>,
}

/// A drawn sequence; given back when the request is answered or given up.
#[derive(Debug)]
pub(crate) struct Ticket {
    session: Arc<Session>,
    sequence: u64,
    _room: OwnedSemaphorePermit,
}

impl Session {
    pub(crate) fn new(opened: Opened) -> Arc<Session> {
        let room = usize::try_from(REQUESTS_OUTSTANDING_MAX).expect("a small constant");
        Arc::new(Session {
            opened,
            numbers: Mutex::default(),
            room: Arc::new(Semaphore::new(room)),
            ended: AtomicBool::new(false),
        })
    }

    /// In place of one until the first change asks for one: as if it had ended.
    pub(crate) fn none(described: Opened) -> Arc<Session> {
        let session = Session::new(described);
        session.end();
        session
    }

    /// A new request's number; waits while too many are unanswered.
    pub(crate) async fn ticket(self: &Arc<Self>) -> Ticket {
        let room = self
            .room
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let mut numbers = self.numbers.lock().expect("no panic while numbering");
        numbers.last += 1;
        let sequence = numbers.last;
        numbers.unanswered.insert(sequence);
        drop(numbers);
        Ticket {
            session: self.clone(),
            sequence,
            _room: room,
        }
    }

    /// The master has forgotten it.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn lowest_unanswered(&self) -> u64 {
        let numbers = self.numbers.lock().expect("no panic while numbering");
        numbers.unanswered.first().copied().unwrap_or(numbers.last + 1)
    }
}

impl Ticket {
    /// The request's id, with what may be forgotten as of now.
    pub(crate) fn number(&self) -> RequestNumber {
        RequestNumber {
            client: self.session.opened.client,
            sequence: self.sequence,
            lowest_unanswered: self.session.lowest_unanswered(),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut numbers = self.session.numbers.lock().expect("no panic while numbering");
        numbers.unanswered.remove(&self.sequence);
    }
}

/// Chunks this client streams to, counted by handle: their grants are renewed with the session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writing(Arc<Mutex<BTreeMap<u64, u32>>>);

impl Writing {
    pub(crate) fn begin(&self, chunk: u64) {
        *self
            .0
            .lock()
            .expect("no panic while counting")
            .entry(chunk)
            .or_default() += 1;
    }

    pub(crate) fn end(&self, chunk: u64) {
        let mut all = self.0.lock().expect("no panic while counting");
        if let Some(count) = all.get_mut(&chunk) {
            *count -= 1;
            if *count == 0 {
                all.remove(&chunk);
            }
        }
    }

    pub(crate) fn chunks(&self) -> Vec<u64> {
        self.0
            .lock()
            .expect("no panic while counting")
            .keys()
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::ClientId;
    use dfs_proto::limits::Parameters;
    use std::time::Duration;

    fn session() -> Arc<Session> {
        Session::new(Opened {
            client: ClientId(7),
            lease: Duration::from_secs(30),
            parameters: Parameters::default(),
        })
    }

    #[tokio::test]
    async fn the_lowest_unanswered_sequence_waits_for_the_slowest_request() {
        let s = session();
        let (a, b) = (s.ticket().await, s.ticket().await);
        assert_eq!((a.number().sequence, b.number().sequence), (1, 2));
        drop(b);
        assert_eq!(a.number().lowest_unanswered, 1);
        drop(a);
        let c = s.ticket().await;
        assert_eq!((c.number().sequence, c.number().lowest_unanswered), (3, 3));
    }

    #[tokio::test]
    async fn no_more_than_the_limit_are_outstanding() {
        let s = session();
        let mut all = Vec::new();
        for _ in 0..REQUESTS_OUTSTANDING_MAX {
            all.push(s.ticket().await);
        }
        assert!(
            tokio::time::timeout(Duration::from_millis(1), s.ticket())
                .await
                .is_err()
        );
        all.pop();
        s.ticket().await;
    }

    #[test]
    fn a_chunk_is_being_written_until_its_last_writer_ends() {
        let writing = Writing::default();
        writing.begin(5);
        writing.begin(5);
        writing.end(5);
        assert_eq!(writing.chunks(), [5]);
        writing.end(5);
        assert!(writing.chunks().is_empty());
    }
}
