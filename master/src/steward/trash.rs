//! What is due in the trash goes for good: a few names in one command, then a pause as long as the command took. A tree of
//! a million files takes minutes, and whoever else asks for something meanwhile waits for a few names at most.

use super::Steward;
use crate::command::{Purge, PurgeStep, Reply};
use crate::live::dying::Mark;
use crate::state::{self, Walk};
use dfs_proto::{InodeId, Result};
use std::sync::Arc;
use std::time::Duration;

/// Names in one command.
const STEP_NAMES: usize = 16;
/// The shortest pause between two commands.
const PAUSE: Duration = Duration::from_millis(1);

/// Where the removal is.
#[derive(Debug, Default)]
struct Removal {
    /// Up to this entry nothing can be done now; with the time since when it is due.
    after: Option<(i64, u64)>,
    /// What is being removed, and where to go on in it.
    within: Option<((i64, u64), Option<Walk>)>,
}

/// Rounds for ever.
pub(super) async fn rounds(steward: Arc<Steward>) {
    let desk = steward.desk.clone();
    let mut removal = Removal::default();
    loop {
        let begun = desk.now();
        match round(&steward, &mut removal).await {
            Ok(true) => {
                steward.wake_collect();
                tokio::time::sleep(desk.now().saturating_duration_since(begun).max(PAUSE)).await;
                continue;
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "what is due in the trash could not be removed"),
        }
        removal = Removal::default();
        tokio::select! {
            biased;
            () = steward.wake_trash.notified() => {}
            () = tokio::time::sleep(desk.timings.heartbeat_every * 2) => {}
        }
    }
}

/// Removes a few names. False: nothing more is due.
async fn round(steward: &Arc<Steward>, removal: &mut Removal) -> Result<bool> {
    let desk = &steward.desk;
    let (due, walk) = match removal.within.take() {
        Some(within) => within,
        None => {
            let (now_ns, after) = (desk.wall_ns(), removal.after);
            let due = desk.read(move |read| state::trash_due(read, now_ns, after, 1));
            match due.await?.first() {
                Some(due) => (*due, None),
                None => return Ok(false),
            }
        }
    };
    let entry = due.1;
    let (mut steps, walk) = desk
        .read(move |read| state::purgeable(read, entry, walk, STEP_NAMES))
        .await?;
    let marks = keep_open(steward, &mut steps);
    let reply = desk.propose(Purge { entry, steps }).await?;
    drop(marks);
    match (walk, reply) {
        (Some(walk), _) => removal.within = Some((due, Some(walk))),
        // A long file, or what was added meanwhile: once more from its top.
        (None, Reply::Purged(purged)) if purged.gone > 0 => {}
        (None, _) => removal.after = Some(due),
    }
    Ok(true)
}

/// Whoever has one of them open keeps it. Nobody new is told about them until the marks are dropped.
fn keep_open(steward: &Steward, steps: &mut [PurgeStep]) -> Vec<Mark> {
    let live = &steward.desk.live;
    let marks = steps.iter().map(|s| live.dying.mark(InodeId(s.inode))).collect();
    for step in steps {
        let holders = live.watch.holders_of(InodeId(step.inode), steward.desk.now());
        step.holders = holders.into_iter().map(|c| c.0).collect();
    }
    marks
}
