//! Counts what failures cost.

use crate::types::Stats;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one file, which also count for the client.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    failovers: AtomicU64,
    longest_stall_us: AtomicU64,
    whole: Option<Arc<Meter>>,
}

impl Meter {
    /// Counters of a part: they count in the whole too.
    pub(crate) fn part_of(whole: &Arc<Meter>) -> Arc<Meter> {
        Arc::new(Meter {
            whole: Some(whole.clone()),
            ..Meter::default()
        })
    }

    /// Another member had to take over.
    pub(crate) fn failover(&self) {
        self.failovers.fetch_add(1, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.failover();
        }
    }

    /// No byte moved for so long though some were waiting to.
    pub(crate) fn stalled(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.longest_stall_us.fetch_max(us, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.stalled(time);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            failovers: self.failovers.load(Ordering::Relaxed),
            longest_stall: Duration::from_micros(self.longest_stall_us.load(Ordering::Relaxed)),
        }
    }
}
