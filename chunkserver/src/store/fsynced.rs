//! What the last fsync made sure of, found out after a power cut.
//!
//! The newer slot may be on the disk though its fsync never ended: the kernel writes pages back as it likes. It
//! counts if it is marked *durable*, if the older slot is damaged (which is only rewritten after the newer one's fsync
//! ended), or if all blocks that it covers beyond the older one verify. Its writers count only if nothing was
//! overwritten since the older one: for appends, bytes that verify were written; for overwrites nobody can tell, and
//! a table ahead of its data would acknowledge a retry that is not there.

use super::core::Core;
use super::error::Result;
use super::format::Found;
use super::read::block_verifies;
use dfs_proto::limits::BLOCK_BYTES;
use dfs_proto::span::blocks_of;

/// Takes a lost replica back to its last fsync, in memory; the header follows with its next change.
/// True if the newer slot counted, false if the older one did.
pub(super) fn go_back(core: &mut Core) -> Result<bool> {
    core.slot.intents.clear();
    let (length, tail_crc, writers) = match &core.other {
        _ if core.slot.durable => return Ok(true),
        Found::Damaged => return Ok(true),
        Found::Blank => (0, 0, Vec::new()),
        Found::Slot(older) => (older.length, older.tail_crc, older.writers.clone()),
    };
    let newer_counts = core.slot.length <= length || verifies_beyond(core, length)?;
    if core.slot.overwrote || !newer_counts {
        core.slot.writers = writers;
    }
    if !newer_counts {
        core.slot.length = length;
        core.slot.tail_crc = tail_crc;
        core.body = None;
    }
    Ok(newer_counts)
}

/// True if every block that has a byte at or beyond `length` verifies.
fn verifies_beyond(core: &mut Core, length: u64) -> Result<bool> {
    let body = core.load()?;
    for block in length / BLOCK_BYTES..blocks_of(core.slot.length) {
        if !block_verifies(&body, core.slot.length, block)? {
            return Ok(false);
        }
    }
    Ok(true)
}
