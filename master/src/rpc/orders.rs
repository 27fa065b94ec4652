//! Orders on their way down a session, and what comes back up.

use crate::desk::Desk;
use crate::live::servers::Ordered;
use crate::plan::order::{Adopted, Answer, Kind, Order, Ready};
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Version, pb};
use pb::order::Body;
use pb::order_done::Result as Told;

/// The message for an order, with places and tokens.
pub(super) fn down(desk: &Desk, ordered: Ordered) -> pb::Down {
    let chunk = ordered.chunk;
    let body = match ordered.order {
        Order::Adopt {
            version,
            members,
            truncate,
            active,
        } => Body::Adopt(pb::Adopt {
            active: active.0,
            chunk: chunk.0,
            version: version.0,
            members: places(desk, &members),
            truncate,
        }),
        Order::Sync(s) => Body::Sync(pb::Sync {
            chunk: chunk.0,
            version: s.version.0,
            source_node: s.source.0,
            others: places(desk, &s.others),
            pull: Some(desk.signing_key().sign(&desk.pull(chunk, s.version, &s.members))),
            source_lost: s.lost,
            truncate: s.truncate,
        }),
        Order::Activated { version } => Body::Activated(pb::Activated {
            chunk: chunk.0,
            version: version.0,
        }),
        Order::Copy { version, from } => Body::Copy(pb::Copy {
            chunk: chunk.0,
            version: version.0,
            from: places(desk, &from),
            pull: Some(desk.signing_key().sign(&desk.pull(chunk, version, &from))),
        }),
        Order::Delete { version } => Body::Delete(pb::Delete {
            chunk: chunk.0,
            version: version.0,
        }),
    };
    pb::Down {
        body: Some(pb::down::Body::Order(pb::Order {
            id: ordered.id,
            body: Some(body),
        })),
    }
}

fn places(desk: &Desk, nodes: &[NodeId]) -> Vec<pb::Member> {
    let places = desk.live.lock().servers.places(nodes.iter().copied());
    places.into_iter().map(Into::into).collect()
}

/// What an answer says.
pub(super) fn answer(done: pb::OrderDone) -> Answer {
    if let Some(error) = done.error {
        return Answer::Failed(error.into());
    }
    match done.result {
        Some(Told::Adopted(a)) => Answer::Adopted(Adopted {
            promised: Version(a.promised),
            synced: Version(a.synced),
            absent: a.absent,
            kind: kind(a.kind),
            restarted: a.restarted,
            length: a.length,
            fsynced_length: a.fsynced_length,
            digest: a.digest,
        }),
        Some(Told::Ready(r)) => Answer::Ready(Ready {
            length: r.length,
            digest: r.digest,
            loss: Version(r.loss),
        }),
        Some(Told::Copied(_)) => Answer::Copied,
        Some(Told::Deleted(_)) => Answer::Deleted,
        None => Answer::Failed(
            Error::new(Code::InvalidArgument, "an answer without a result")
                .on_chunk(ChunkHandle(done.chunk), Version(0)),
        ),
    }
}

/// What cannot be read counts as unreadable.
pub(super) fn kind(kind: i32) -> Kind {
    match pb::ReplicaKind::try_from(kind) {
        Ok(pb::ReplicaKind::ReplicaIntact) => Kind::Intact,
        Ok(pb::ReplicaKind::ReplicaLost) => Kind::Lost,
        Ok(pb::ReplicaKind::ReplicaBroken | pb::ReplicaKind::ReplicaUnspecified) | Err(_) => Kind::Broken,
    }
}
