//! What others may ask about replicas without reading them: what is promised, and what is held.

use super::passes::check;
use crate::ground::Ground;
use crate::report::Trouble;
use crate::store::{Kind, Replica};
use dfs_proto::capability::{Capability, Operations};
use dfs_proto::{Code, Error, Result, WriterId, pb};
use std::sync::Arc;

/// Chunks in one probe: its header stays below the frame's limit.
const PROBED_MAX: usize = 256;

/// Answers [`pb::Promised`]: what a detached replica's client asks the other members.
///
/// # Errors
/// `PermissionDenied`.
pub(crate) fn promised(ground: &Ground, request: &pb::Promised) -> Result<pb::PromisedReply> {
    let capability = check(ground, request.capability.as_ref(), Operations::READ)?;
    Ok(pb::PromisedReply {
        promised: ground.store.promised(capability.chunk).0,
        present: ground.store.get(capability.chunk).is_some(),
    })
}

/// Answers [`pb::Probe`].
///
/// # Errors
/// `PermissionDenied`, `InvalidArgument` for too many chunks; the disk's.
pub(crate) async fn probe(ground: &Ground, request: pb::Probe) -> Result<pb::ProbeReply> {
    if request.capabilities.len() > PROBED_MAX {
        return Err(Error::new(
            Code::InvalidArgument,
            "at most 256 chunks can be probed at once",
        ));
    }
    let mut reply = pb::ProbeReply::default();
    for signed in &request.capabilities {
        let capability = check(ground, Some(signed), Operations::READ)?;
        let state = match ground.store.get(capability.chunk) {
            Some(replica) => {
                let state = state(ground, &capability, &replica, request.verify).await?;
                with_producer(state, &replica, request.producer)
            }
            None => pb::ReplicaState {
                chunk: capability.chunk.0,
                promised: ground.store.promised(capability.chunk).0,
                ..pb::ReplicaState::default()
            },
        };
        reply.replicas.push(state);
    }
    Ok(reply)
}

/// What the writer table says of a producer's last record.
fn with_producer(state: pb::ReplicaState, replica: &Replica, producer: u64) -> pb::ReplicaState {
    let known = WriterId::of_producer(producer).and_then(|w| replica.writer(w));
    match known {
        Some(last) => pb::ReplicaState {
            producer_sequence: last.sequence,
            producer_offset: last.offset,
            ..state
        },
        None => state,
    }
}

async fn state(
    ground: &Ground,
    capability: &Capability,
    replica: &Arc<Replica>,
    verify: bool,
) -> Result<pb::ReplicaState> {
    let look = move |r: &Arc<Replica>| {
        let bad = if verify { r.bad_blocks()? } else { Vec::new() };
        Ok((r.table()?, bad))
    };
    let (table, bad_blocks) = ground.on_disk(replica, look).await?;
    let state = replica.state();
    // What is torn heals when the replica becomes ready; all else that fails is rot, and somebody has to know.
    if let Some(block) = bad_blocks
        .first()
        .filter(|_| state.kind == Kind::Intact && !state.restarted)
    {
        ground.complain(Trouble::BadBlock {
            chunk: capability.chunk,
            version: state.promised,
            message: format!("block {block} fails its checksum"),
        });
    }
    let serving = state.kind == Kind::Intact
        && !state.restarted
        && state.promised == capability.version
        && ground.fence.is_compared(capability.chunk)
        && ground.fence.is_live(ground.world.clock.now());
    Ok(pb::ReplicaState {
        chunk: capability.chunk.0,
        present: true,
        promised: state.promised.0,
        synced: state.synced.0,
        length: table.length,
        digest: table.digest(),
        serving,
        bad_blocks,
        ..pb::ReplicaState::default()
    })
}
