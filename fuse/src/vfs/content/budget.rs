//! Room for what programs have written and not every member has, over all files of a mount.

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Bytes that may be taken, and how to wait for them.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    max: u64,
    freed: Notify,
}

impl Budget {
    pub(super) fn new(max: u64) -> Budget {
        Budget {
            used: AtomicU64::new(0),
            max,
            freed: Notify::new(),
        }
    }

    /// Takes them if there is room; one alone may be larger than all.
    pub(super) fn try_take(&self, bytes: u64) -> bool {
        let fits = |used: u64| (used == 0 || used + bytes <= self.max).then_some(used + bytes);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .is_ok()
    }

    /// Waits until there is room; `pressed` is called whenever there is none.
    pub(super) async fn take(&self, bytes: u64, pressed: impl Fn()) {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.try_take(bytes) {
                return;
            }
            pressed();
            freed.await;
        }
    }

    pub(super) fn give(&self, bytes: u64) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::AcqRel);
            self.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_until_there_is_room() {
        let budget = Budget::new(100);
        assert!(budget.try_take(60) && !budget.try_take(60));
        let waits = async {
            budget.take(60, || {}).await;
            budget.give(60);
        };
        let frees = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            budget.give(60);
        };
        tokio::time::timeout(Duration::from_secs(2), async { tokio::join!(waits, frees) })
            .await
            .unwrap();
        assert!(budget.try_take(1_000));
    }
}
