//! What the kernel must drop, on its way to the thread that tells it.

use super::{Invalidate, Notice, lock};
use std::sync::Mutex;
use tokio::sync::{mpsc, watch};

/// Notices that may wait for the kernel; beyond it the change stream waits.
const NOTICES_MAX: usize = 1_024;

/// The queue and how far it was worked off.
pub(super) struct Notices {
    sender: mpsc::Sender<Notice>,
    /// Until someone takes it there is no kernel.
    receiver: Mutex<Option<mpsc::Receiver<Notice>>>,
    /// The last number given; locked while sending, so that numbers are in the queue's order.
    last: Mutex<u64>,
    told: watch::Sender<u64>,
}

impl Notices {
    pub(super) fn new() -> Notices {
        let (sender, receiver) = mpsc::channel(NOTICES_MAX);
        Notices {
            sender,
            receiver: Mutex::new(Some(receiver)),
            last: Mutex::new(0),
            told: watch::Sender::new(0),
        }
    }

    pub(super) fn take(&self) -> Option<mpsc::Receiver<Notice>> {
        lock(&self.receiver).take()
    }

    pub(super) fn told(&self, number: u64) {
        self.told.send_if_modified(|told| {
            let is_news = *told < number;
            *told = number.max(*told);
            is_news
        });
    }

    /// Follows how far the kernel was told.
    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Sends them; returns the number of the last one, or one that was told long ago if there is none to tell.
    pub(super) async fn send(&self, all: Vec<Invalidate>) -> u64 {
        let mut number = 0;
        for what in all {
            let has_kernel = lock(&self.receiver).is_none();
            // An error: the kernel is gone, and nobody can be told.
            let Ok(room) = self.sender.reserve().await else {
                return 0;
            };
            if has_kernel {
                let mut last = lock(&self.last);
                *last += 1;
                number = *last;
                room.send(Notice { number, what });
            }
        }
        number
    }
}
