//! Capabilities as they come over a connection: verified once, remembered while they are used.

use crate::chain::Opening;
use crate::ground::Ground;
use crate::peers::Pass;
use bytes::Bytes;
use dfs_proto::capability::{Capability, Operations};
use dfs_proto::pb;
use dfs_proto::{Code, Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;

/// Verified capabilities a connection remembers: a reader works on a few chunks at a time.
const REMEMBERED_MAX: usize = 16;
/// Members a capability may name.
const MEMBERS_MAX: usize = dfs_proto::limits::GOAL_MAX as usize;

/// The last capabilities of a connection that verified.
#[derive(Debug, Default)]
pub(super) struct Passes {
    known: VecDeque<(pb::Signed, Arc<Capability>)>,
}

impl Passes {
    /// The capability, if it is good and allows `wanted`.
    pub(super) fn check(
        &mut self,
        ground: &Ground,
        signed: Option<&pb::Signed>,
        wanted: Operations,
    ) -> Result<Arc<Capability>> {
        let known = signed.and_then(|signed| self.known.iter().find(|(s, _)| s == signed));
        if let Some((_, capability)) = known
            && capability.expires_unix_ms >= now_unix_ms(ground)
            && capability.operations.contains(wanted)
        {
            return Ok(capability.clone());
        }
        let capability = Arc::new(check(ground, signed, wanted)?);
        if self.known.len() == REMEMBERED_MAX {
            self.known.pop_front();
        }
        // A copy, so that the frame it came in is not kept.
        let signed = signed.expect("it verified");
        let copy = pb::Signed {
            capability: Bytes::copy_from_slice(&signed.capability),
            key: signed.key,
            mac: Bytes::copy_from_slice(&signed.mac),
        };
        self.known.push_back((copy, capability.clone()));
        Ok(capability)
    }
}

fn now_unix_ms(ground: &Ground) -> u64 {
    ground.world.clock.wall_ns() / 1_000_000
}

/// The capability, verified; one that is not for pulling alone also tells that its version is active.
pub(super) fn check(ground: &Ground, signed: Option<&pb::Signed>, wanted: Operations) -> Result<Capability> {
    let unsigned = pb::Signed::default();
    let keys = ground.fence.keys();
    let capability = keys.verify(signed.unwrap_or(&unsigned), wanted, now_unix_ms(ground))?;
    if capability.members.is_empty() || capability.members.len() > MEMBERS_MAX {
        return Err(Error::new(
            Code::InvalidArgument,
            "a capability without members, or with too many",
        ));
    }
    if capability.operations != Operations::PULL {
        ground.fence.note_active(capability.chunk, capability.version);
        ground.chains.activated(capability.chunk, capability.version);
    }
    Ok(capability)
}

/// A stream's opening: this server has to be a member.
pub(super) fn opening(ground: &Ground, signed: Option<pb::Signed>) -> Result<Opening> {
    let capability = check(ground, signed.as_ref(), Operations::WRITE)?;
    let mine = ground.fence.node();
    let place = capability
        .members
        .iter()
        .position(|m| m.node == mine)
        .ok_or_else(|| {
            Error::new(Code::Stale, format!("node {mine} is no member"))
                .on_chunk(capability.chunk, capability.version)
                .on_node(mine)
        })?;
    Ok(Opening {
        capability,
        pass: Pass(signed.expect("it verified")),
        place,
    })
}
