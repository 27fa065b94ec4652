//! Tells the kernel what it must drop, from threads of their own: a request's thread would wait for itself.
//!
//! The kernel locks a directory while a program changes it through us, and an invalidation of a name in it waits for
//! that lock. The change in turn may wait until another mount has confirmed an invalidation of its own that waits the
//! same way. So a notice counts as told after [`PATIENCE`] at the latest: what is late is only the name's, and only
//! while a change of that very directory is under way here.

use crate::stats::Stats;
use crate::vfs::{Invalidate, Notice, Vfs};
use fuser::{INodeNo, Notifier};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// Threads that tell the kernel; one that waits for a lock does not keep the others.
const THREADS: usize = 4;
/// Notices on their way to one thread.
const QUEUE_MAX: usize = 256;
/// A notice that takes longer counts as told.
const PATIENCE: Duration = Duration::from_millis(30);

/// Which notices are under way.
#[derive(Debug, Default)]
struct Ledger {
    /// Numbers of notices that were not told yet.
    open: BTreeSet<u64>,
    /// The last one begun.
    last: u64,
}

impl Ledger {
    fn begin(&mut self, number: u64) {
        self.open.insert(number);
        self.last = self.last.max(number);
    }

    /// One is told; returns up to which number all are.
    fn end(&mut self, number: u64) -> u64 {
        self.open.remove(&number);
        self.open.first().map_or(self.last, |first| first - 1)
    }
}

#[derive(Debug)]
struct Teller {
    vfs: Arc<Vfs>,
    kernel: Notifier,
    stats: Arc<Stats>,
    ledger: Mutex<Ledger>,
}

/// Starts telling; it ends with the file system.
///
/// # Errors
/// No thread could be made.
pub(crate) fn start(vfs: &Arc<Vfs>, kernel: &Notifier, stats: &Arc<Stats>) -> std::io::Result<()> {
    let Some(notices) = vfs.notices() else {
        return Ok(());
    };
    let teller = Arc::new(Teller {
        vfs: vfs.clone(),
        kernel: kernel.clone(),
        stats: stats.clone(),
        ledger: Mutex::default(),
    });
    let mut queues = Vec::with_capacity(THREADS);
    for number in 0..THREADS {
        let (sender, receiver) = mpsc::sync_channel(QUEUE_MAX);
        let teller = teller.clone();
        thread::Builder::new()
            .name(format!("dfs-notify-{number}"))
            .spawn(move || teller.tell_all(&receiver))?;
        queues.push(sender);
    }
    tokio::spawn(deal(teller, notices, queues));
    Ok(())
}

/// Gives each notice to the thread of its inode, so that those of one inode keep their order.
async fn deal(teller: Arc<Teller>, mut notices: Receiver<Notice>, queues: Vec<mpsc::SyncSender<Notice>>) {
    while let Some(notice) = notices.recv().await {
        let about = match notice.what {
            Invalidate::Inode { inode, .. } => inode,
            Invalidate::Entry { parent, .. } => parent,
        };
        let number = notice.number;
        teller.lock().begin(number);
        let queue = &queues[(about % queues.len() as u64) as usize];
        let mut next = Some(notice);
        while let Some(notice) = next.take() {
            match queue.try_send(notice) {
                Ok(()) => {}
                Err(mpsc::TrySendError::Full(notice)) => {
                    next = Some(notice);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return,
            }
        }
        let teller = teller.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            teller.told(number);
        });
    }
}

impl Teller {
    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_all(&self, notices: &mpsc::Receiver<Notice>) {
        while let Ok(notice) = notices.recv() {
            // The kernel does not know it any more, or is gone: then there is nothing to drop.
            if let Err(error) = self.tell(&notice.what) {
                tracing::debug!(%error, ?notice, "the kernel was not told");
            }
            self.stats.invalidations.add(1);
            self.told(notice.number);
        }
    }

    fn told(&self, number: u64) {
        let upto = self.lock().end(number);
        self.vfs.told(upto);
    }

    fn tell(&self, what: &Invalidate) -> std::io::Result<()> {
        match what {
            // A negative offset is about attributes only; length 0 is everything from the offset on.
            Invalidate::Inode { inode, data } => {
                let offset = if *data { 0 } else { -1 };
                self.kernel.inval_inode(INodeNo(*inode), offset, 0)
            }
            Invalidate::Entry { parent, name } => {
                self.kernel.inval_entry(INodeNo(*parent), OsStr::from_bytes(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_is_what_has_nothing_untold_before_it() {
        let mut ledger = Ledger::default();
        for number in 1..=3 {
            ledger.begin(number);
        }
        assert_eq!(ledger.end(2), 0);
        assert_eq!(ledger.end(1), 2);
        assert_eq!(ledger.end(3), 3);
        assert_eq!(ledger.end(3), 3, "told twice");
    }
}
