//! Room, from memory: it is asked for in the background, and `df` never hangs.

use super::{Room, Vfs, lock};
use dfs_client::InodeId;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Younger than this it is not asked for again.
const FRESH: Duration = Duration::from_secs(1);
/// Longest wait for the master.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// What was last heard, and when that was asked for.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<(Option<Instant>, Room)>);

impl Vfs {
    /// Room as it was last heard of; waits a moment for something newer.
    pub async fn statfs(&self) -> Room {
        let (asked, room) = *lock(&self.room.0);
        if asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return room;
        }
        self.refresh_room().await;
        lock(&self.room.0).1
    }

    pub(super) async fn refresh_room(&self) {
        lock(&self.room.0).0 = Some(Instant::now());
        let Ok(Ok(space)) = timeout(WAIT_MAX, self.client.statfs()).await else {
            return;
        };
        // A byte takes room once for each replica.
        let goal = self
            .cache
            .remembered(InodeId::ROOT.0)
            .map_or(1, |root| root.goal.max(1));
        lock(&self.room.0).1 = Room {
            capacity_bytes: space.capacity_bytes / u64::from(goal),
            free_bytes: space.free_bytes / u64::from(goal),
            inodes: space.files + space.directories,
        };
    }
}
