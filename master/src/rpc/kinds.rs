//! By which name a call is counted. What is asked for seldom is counted together.

use crate::metrics::Call;
use dfs_proto::pb::mutate_request::Change;
use dfs_proto::pb::query_request::Query;

/// A change's.
pub(super) fn of_change(change: Option<&Change>) -> Call {
    match change {
        Some(Change::Make(_)) => Call::Make,
        Some(Change::Link(_)) => Call::Link,
        Some(Change::Unlink(_)) => Call::Unlink,
        Some(Change::RemoveDirectory(_)) => Call::RemoveDirectory,
        Some(Change::Rename(_)) => Call::Rename,
        Some(Change::SetAttributes(_)) => Call::SetAttributes,
        Some(Change::SetXattr(_)) => Call::SetXattr,
        Some(Change::RemoveXattr(_)) => Call::RemoveXattr,
        Some(Change::Grant(_)) => Call::Grant,
        Some(Change::CommitLength(_)) => Call::CommitLength,
        Some(Change::Reconfigure(_)) => Call::Reconfigure,
        Some(Change::Release(_)) => Call::Release,
        Some(Change::Lock(_)) => Call::Lock,
        Some(Change::PunchHole(_)) => Call::PunchHole,
        Some(Change::NextChunk(_)) => Call::NextChunk,
        Some(Change::Discard(_) | Change::RestoreTrash(_) | Change::EmptyTrash(_) | Change::Retain(_))
        | None => Call::Other,
    }
}

/// A question's.
pub(super) fn of_query(query: Option<&Query>) -> Call {
    match query {
        Some(Query::Lookup(_)) => Call::Lookup,
        Some(Query::GetAttributes(_)) => Call::GetAttributes,
        Some(Query::ReadDirectory(_)) => Call::ReadDirectory,
        Some(Query::ReadLink(_)) => Call::ReadLink,
        Some(Query::GetXattr(_)) => Call::GetXattr,
        Some(Query::ListXattr(_)) => Call::ListXattr,
        Some(Query::Access(_)) => Call::Access,
        Some(Query::Locate(_)) => Call::Locate,
        Some(Query::Resolve(_)) => Call::Resolve,
        Some(Query::StatFs(_)) => Call::StatFs,
        Some(Query::TestLock(_)) => Call::TestLock,
        Some(Query::AppendTurn(_)) => Call::AppendTurn,
        Some(Query::AppendDone(_)) => Call::AppendDone,
        Some(Query::ListTrash(_) | Query::GetRetention(_)) | None => Call::Other,
    }
}
