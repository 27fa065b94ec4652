//! The mark: how far the log is known to have been synced.
//!
//! By its checksum alone, a flipped bit in the last record looks like a write that was never finished. So after each
//! sync its index is written beside the log, without a sync of its own: a lower bound of what was acknowledged, never
//! ahead of it. After a crash of the process it is exact; after a power cut it may be seconds old, and only for a
//! record younger than it that sentence stays true.

use super::format::{MARK_SLOT_BYTES, MARK_SLOT_STRIDE, MarkSlot};
use dfs_proto::ids::ClusterId;
use dfs_stdx::disk::{Disk, File, Open, Result};
use std::path::Path;
use std::sync::Arc;

/// Name of the mark in the log's folder.
pub(super) const NAME: &str = "mark";

/// Two slots, written in turn, so that a torn write leaves the other.
#[derive(Debug)]
pub(super) struct Mark {
    file: Arc<dyn File>,
    cluster: ClusterId,
    turn: u64,
    broken: bool,
}

impl Mark {
    /// Opens the mark; also tells the last index that was certainly synced, 0 if it does not know.
    pub(super) fn open(disk: &dyn Disk, folder: &Path, cluster: ClusterId) -> Result<(Mark, u64)> {
        let file = disk.open(&folder.join(NAME), Open::Always)?;
        let mut synced = [0; 2];
        for (turn, synced) in (0..).zip(&mut synced) {
            let mut bytes = [0; MARK_SLOT_BYTES];
            let count = file.read_at(&mut bytes, turn * MARK_SLOT_STRIDE)?;
            let slot = MarkSlot::decode(&bytes[..count]).filter(|slot| slot.cluster == cluster);
            *synced = slot.map_or(0, |slot| slot.synced);
        }
        let turn = u64::from(synced[0] > synced[1]);
        Ok((
            Mark {
                file,
                cluster,
                turn,
                broken: false,
            },
            synced[0].max(synced[1]),
        ))
    }

    /// Notes that everything up to `synced` is. An old mark stays true: a failure is said once and survived.
    pub(super) fn note(&mut self, synced: u64) {
        if self.broken {
            return;
        }
        let bytes = MarkSlot {
            cluster: self.cluster,
            synced,
        }
        .encode();
        match self.file.write_at(&bytes, self.turn * MARK_SLOT_STRIDE) {
            Ok(()) => self.turn ^= 1,
            Err(error) => {
                tracing::warn!(%error, "how far the log is synced is no longer noted");
                self.broken = true;
            }
        }
    }
}
