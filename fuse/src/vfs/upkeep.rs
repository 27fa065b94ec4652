//! Bounds what the mount remembers.

use super::{Vfs, lock};
use std::sync::Arc;
use std::time::Duration;

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// Closed files whose bytes stay at hand.
const CLOSED_MAX: usize = 16_384;

/// The task that does it.
pub(super) async fn keep(vfs: Arc<Vfs>) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = vfs.stopping.cancelled() => return,
            _ = every.tick() => {}
        }
        vfs.cache.tick();
        vfs.drop_closed();
        let names = vfs.cache.evict_names(vfs.options.names_max);
        vfs.notices.send(names).await;
        let inodes = vfs.cache.evict_inodes(vfs.options.inodes_max);
        vfs.control.forget(inodes);
    }
}

impl Vfs {
    /// Of files that are closed for long only their attributes stay.
    fn drop_closed(&self) {
        let surplus: Vec<u64> = {
            let mut closed = lock(&self.files.closed);
            let count = closed.len().saturating_sub(CLOSED_MAX);
            closed.drain(..count).collect()
        };
        for inode in surplus {
            let busy = self.cache.peek(inode, |node| {
                let idle = node.content.as_ref().is_none_or(|content| content.is_idle());
                if node.opens == 0 && idle {
                    node.drop_content();
                }
                node.opens == 0 && !idle
            });
            if busy == Some(true) {
                lock(&self.files.closed).push_back(inode);
            }
        }
    }
}
