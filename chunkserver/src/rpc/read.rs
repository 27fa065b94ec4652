//! Serving reads: committed, verified bytes of the newest version this replica knows active and belongs to.

use crate::chain::gate::Gate;
use crate::ground::Ground;
use crate::report::Trouble;
use crate::store::read::Read;
use crate::store::{self, Kind, Replica};
use bytes::Bytes;
use dfs_proto::capability::{Capability, Operations};
use dfs_proto::limits::PACKET_BYTES_MAX;
use dfs_proto::pb::{self, from_server};
use dfs_proto::{Code, Error, Result, WriterId};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What a read needs.
pub(super) const ALLOWED: Operations = Operations::READ;
/// How long a member waits for a commit before it sends the reader to the head.
const COMMIT_PATIENCE: Duration = Duration::from_millis(50);
/// How long a reader who follows a file is kept waiting: then it hears at least whether this replica still counts.
const FOLLOW_PATIENCE_MAX: Duration = Duration::from_secs(5);
/// How often a read is made again because its bytes were overwritten meanwhile.
const TRIES: usize = 4;

type Answer = Result<(from_server::Body, Bytes)>;

/// Answers without waiting for anything, or `None`.
pub(super) fn at_once(ground: &Ground, capability: &Capability, request: &pb::Read) -> Option<Answer> {
    ground.budget.foreground();
    let (replica, range) = match admit(ground, capability, request) {
        Ok(admitted) => admitted,
        Err(error) => return Some(Err(error)),
    };
    let held = replica.state().length;
    let length = match ground.chains.gate(capability.chunk) {
        Some(gate) => gate.readable(&range, held)?,
        None => held,
    };
    if length < least(ground, capability, &range, held) {
        return None;
    }
    let read = replica.try_read(range.start..range.end.min(length))?;
    still_committed(ground, capability, &range, length).then(|| Ok(reply(ground, capability, length, read)))
}

/// Answers after waiting for a commit, a lock, the disk.
pub(super) async fn patiently(ground: &Ground, capability: &Capability, request: &pb::Read) -> Answer {
    for _ in 0..TRIES {
        let (replica, range) = admit(ground, capability, request)?;
        let length = committed(ground, capability, &replica, &range).await?;
        let clipped = range.start..range.end.min(length);
        let outcome = ground.world.pool.run(move || replica.read(clipped)).await;
        let read = outcome.map_err(|error| failed(ground, capability, &error))?;
        if still_committed(ground, capability, &range, length) {
            return Ok(reply(ground, capability, length, read));
        }
    }
    Err(not_yet(ground, capability))
}

/// How much must be committed before the range is read: what the reader knows of, and at any member but the head, which
/// knows what is committed, what is held of the range when the question comes. All that was ever acknowledged is held,
/// but such a member may not have heard yet that it is committed: a shorter answer would make a hole of it.
fn least(ground: &Ground, capability: &Capability, range: &Range<u64>, held: u64) -> u64 {
    let asked = if is_head(ground, capability) { 0 } else { range.end };
    asked.max(capability.length).min(held)
}

fn is_head(ground: &Ground, capability: &Capability) -> bool {
    capability.members.first().map(|m| m.node) == Some(ground.fence.node())
}

/// Answers when a byte at the offset is committed, when the chunk's length has become final, or when the reader's
/// patience is over: so whoever follows a file is told at once, and asks nothing in vain.
pub(super) async fn when_there(ground: &Ground, capability: &Capability, request: &pb::Read) -> Answer {
    let patience = Duration::from_millis(u64::from(request.wait_ms)).min(FOLLOW_PATIENCE_MAX);
    let gate = ground.chains.gate_or_new(capability.chunk);
    let is_sealed = || {
        let replica = ground.store.get(capability.chunk);
        gate.is_sealed(replica.is_some_and(|r| r.writer(WriterId::SEAL).is_some()))
    };
    let here = request.offset..request.offset;
    let is_enough = || match serving(ground, capability) {
        Ok(replica) => {
            let length = gate.readable(&here, replica.state().length);
            length.is_some_and(|length| length > request.offset) || is_sealed()
        }
        // Nobody has written to it yet: its first packet makes the replica.
        Err(error) => error.code != Code::NotFound || capability.length > 0,
    };
    gate.changes(is_enough, patience).await;
    // What is committed now, and no more: who follows is not kept waiting for what is still on its way.
    let held = ground.store.get(capability.chunk).map_or(0, |r| r.state().length);
    let end = gate.readable(&here, held).unwrap_or(0);
    let length = u64::from(request.length).min(end.saturating_sub(request.offset));
    let request = pb::Read {
        length: u32::try_from(length).expect("no more than was asked for"),
        ..request.clone()
    };
    let (mut body, bytes) = patiently(ground, capability, &request).await?;
    if let from_server::Body::Read(reply) = &mut body {
        reply.sealed = is_sealed();
    }
    Ok((body, bytes))
}

/// The length readers may see, once all of the range below it is committed.
async fn committed(
    ground: &Ground,
    capability: &Capability,
    replica: &Replica,
    range: &Range<u64>,
) -> Result<u64> {
    let length = replica.state().length;
    let Some(gate) = ground.chains.gate(capability.chunk) else {
        return Ok(length);
    };
    let patience = if is_head(ground, capability) {
        ground.fence.parameters().timings().ack_deadline
    } else {
        COMMIT_PATIENCE
    };
    let bounds = (least(ground, capability, range, length), length);
    let readable = gate.wait_readable(range, bounds, patience).await;
    readable.ok_or_else(|| not_yet(ground, capability))
}

fn not_yet(ground: &Ground, capability: &Capability) -> Error {
    Error::new(Code::NotYet, "the bytes are not committed yet")
        .on_chunk(capability.chunk, capability.version)
        .on_node(ground.fence.node())
}

/// False if a packet may have been applied to the range between the look at the gate and the reading of the bytes:
/// it is uncommitted, and the next reader at another member would see the bytes of before.
fn still_committed(ground: &Ground, capability: &Capability, range: &Range<u64>, length: u64) -> bool {
    let gate = ground.chains.gate(capability.chunk);
    let committed = gate.is_none_or(|gate| gate.readable(range, length).is_some());
    committed && serving(ground, capability).is_ok()
}

/// The replica and the range, if it may be read at this version.
fn admit(ground: &Ground, capability: &Capability, request: &pb::Read) -> Result<(Arc<Replica>, Range<u64>)> {
    if request.length as usize > PACKET_BYTES_MAX {
        return Err(Error::new(
            Code::InvalidArgument,
            "a read of more than a mebibyte",
        ));
    }
    let range = request.offset..request.offset.saturating_add(u64::from(request.length));
    Ok((serving(ground, capability)?, range))
}

/// The replica, if it would serve a read under this capability.
fn serving(ground: &Ground, capability: &Capability) -> Result<Arc<Replica>> {
    let (chunk, version) = (capability.chunk, capability.version);
    let mine = ground.fence.node();
    let refuse = |code: Code, why: &str| Error::new(code, why).on_chunk(chunk, version).on_node(mine);
    let replica = ground
        .store
        .get(chunk)
        .ok_or_else(|| refuse(Code::NotFound, "no replica here"))?;
    let state = replica.state();
    let active = ground.fence.active(chunk);
    if active > version {
        return Err(Error::new(Code::Stale, "a newer version is active")
            .on_chunk(chunk, active)
            .on_node(mine));
    }
    if state.promised > version && !state.members.contains(&mine) {
        return Err(Error::new(Code::Stale, "a newer version is promised")
            .on_chunk(chunk, state.promised)
            .on_node(mine));
    }
    if state.promised < version || state.synced < version {
        return Err(refuse(Code::NotYet, "the replica is not ready for this version"));
    }
    let knows = |gate: Arc<Gate>| gate.knows_what_came_with(state.synced);
    if state.synced > version && !ground.chains.gate(chunk).is_some_and(knows) {
        return Err(refuse(Code::NotYet, "what a sync brought waits for its version"));
    }
    match (state.kind, state.restarted) {
        (Kind::Intact, false) => Ok(replica),
        (Kind::Intact, true) => Err(refuse(
            Code::Unavailable,
            "the replica restarted while it was written",
        )),
        (Kind::Lost, _) => Err(refuse(
            Code::Unavailable,
            "the replica has lost power while it was written",
        )),
        (Kind::Broken, _) => Err(refuse(Code::Corrupt, "the replica's disk failed")),
    }
}

/// The session is asked after the bytes were read.
fn reply(ground: &Ground, capability: &Capability, length: u64, read: Read) -> (from_server::Body, Bytes) {
    let fenced = ground.fence.is_live(ground.world.clock.now()) && ground.fence.is_compared(capability.chunk);
    let reply = pb::ReadReply {
        chunk_length: length,
        detached: !fenced,
        checksums: read.checksums,
        sealed: false,
    };
    ground.meters.read_bytes.add(read.bytes.len() as u64);
    (from_server::Body::Read(reply), read.bytes)
}

fn failed(ground: &Ground, capability: &Capability, error: &store::Error) -> Error {
    if matches!(error, store::Error::Corrupt { .. } | store::Error::Disk(_)) {
        ground.complain(Trouble::BadBlock {
            chunk: capability.chunk,
            version: capability.version,
            message: error.to_string(),
        });
    }
    let code = match error {
        store::Error::NotFound(_) => Code::NotYet,
        store::Error::Fenced | store::Error::OutOfStream => Code::Unavailable,
        store::Error::Disk(_)
        | store::Error::Full
        | store::Error::Corrupt { .. }
        | store::Error::Stale(_)
        | store::Error::Exists(_)
        | store::Error::Refused(_) => Code::Corrupt,
    };
    Error::new(code, error.to_string())
        .on_chunk(capability.chunk, capability.version)
        .on_node(ground.fence.node())
}
