//! What other chunkservers fetch for sync and copy: a replica's table and its blocks.
//!
//! A table, and blocks by it, are given only by a replica that is ready for the version of the capability; a member
//! that has promised it but is not ready gives single blocks that the source lacks, if asked so. A replica that has
//! lost power since it was ready refuses: it is not the source that was chosen.

use super::passes::check;
use crate::ground::Ground;
use crate::report::Trouble;
use crate::store::read::PulledBlock;
use crate::store::{Kind, Replica, Table};
use bytes::{Bytes, BytesMut};
use dfs_proto::capability::{Capability, Operations};
use dfs_proto::limits::BLOCK_BYTES;
use dfs_proto::{Code, Error, Result, pb};
use std::sync::Arc;

/// Blocks given in one answer: the payload's limit.
const BLOCKS_MAX: u32 = 16;

/// Answers [`pb::Table`].
///
/// # Errors
/// `PermissionDenied`; `NotYet` if this replica is not ready for the version, `Stale` if it has promised more,
/// `Unavailable` if it has lost power or its disk failed.
pub(crate) async fn table(ground: &Ground, request: pb::Table) -> Result<pb::TableReply> {
    let capability = check(ground, request.capability.as_ref(), Operations::PULL)?;
    let replica = ready(ground, &capability)?;
    let table: Table = ground.on_disk(&replica, |r| r.table()).await?;
    Ok(pb::TableReply {
        length: table.length,
        checksums: table
            .crcs
            .iter()
            .flat_map(|c| c.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
        writers: table
            .writers
            .iter()
            .map(|w| pb::Writer {
                writer: w.writer.0,
                sequence: w.sequence,
                offset: w.offset,
            })
            .collect(),
        loss: table.loss.0,
        digest: table.digest(),
    })
}

/// Answers [`pb::Pull`].
///
/// # Errors
/// As [`table`].
pub(crate) async fn pull(ground: &Ground, request: pb::Pull) -> Result<(pb::PullReply, Bytes)> {
    let capability = check(ground, request.capability.as_ref(), Operations::PULL)?;
    if request.blocks == 0 || request.blocks > BLOCKS_MAX {
        return Err(Error::new(
            Code::InvalidArgument,
            "1 to 16 blocks can be pulled at once",
        ));
    }
    let replica = if request.adopted {
        adopted(ground, &capability)?
    } else {
        ready(ground, &capability)?
    };
    let (first, count) = (request.first_block, request.blocks);
    if request.background {
        ground.budget.take(u64::from(count) * BLOCK_BYTES).await;
    }
    let blocks = ground
        .on_disk(&replica, move |r| r.read_blocks(first, count))
        .await?;
    if !request.adopted && !replica.state().restarted {
        complain(ground, &capability, &blocks);
    }
    Ok(reply(&blocks))
}

fn error(ground: &Ground, capability: &Capability, code: Code, message: &str) -> Error {
    Error::new(code, message)
        .on_chunk(capability.chunk, capability.version)
        .on_node(ground.fence.node())
}

/// The replica, if it has promised exactly the capability's version and its disk can be used.
fn adopted(ground: &Ground, capability: &Capability) -> Result<Arc<Replica>> {
    let refused = |code, message| Err(error(ground, capability, code, message));
    let Some(replica) = ground.store.get(capability.chunk) else {
        return refused(Code::NotYet, "no replica here");
    };
    let state = replica.state();
    if state.promised > capability.version {
        return refused(Code::Stale, "a newer version is promised");
    }
    if state.promised < capability.version {
        return refused(Code::NotYet, "the version is not promised yet");
    }
    match state.kind {
        Kind::Intact | Kind::Lost => Ok(replica),
        Kind::Broken => refused(Code::Unavailable, "the disk has failed"),
    }
}

/// The replica, if it is ready for the capability's version.
fn ready(ground: &Ground, capability: &Capability) -> Result<Arc<Replica>> {
    let replica = adopted(ground, capability)?;
    let state = replica.state();
    if state.kind != Kind::Intact && state.synced >= capability.version {
        return Err(error(
            ground,
            capability,
            Code::Unavailable,
            "power was lost since",
        ));
    }
    if state.synced < capability.version {
        return Err(error(
            ground,
            capability,
            Code::NotYet,
            "not ready for the version yet",
        ));
    }
    Ok(replica)
}

fn complain(ground: &Ground, capability: &Capability, blocks: &[PulledBlock]) {
    for bad in blocks.iter().filter(|b| b.bytes.is_none()) {
        ground.complain(Trouble::BadBlock {
            chunk: capability.chunk,
            version: capability.version,
            message: format!("block {} fails its checksum", bad.block),
        });
    }
}

fn reply(blocks: &[PulledBlock]) -> (pb::PullReply, Bytes) {
    let mut reply = pb::PullReply::default();
    let mut payload = BytesMut::new();
    for block in blocks {
        let bytes = block.bytes.clone().unwrap_or_default();
        if block.bytes.is_none() {
            reply.bad.push(block.block);
        }
        reply.checksums.push(block.crc);
        reply
            .lengths
            .push(u32::try_from(bytes.len()).expect("a block is small"));
        payload.extend_from_slice(&bytes);
    }
    (reply, payload.freeze())
}
