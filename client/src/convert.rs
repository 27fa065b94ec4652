//! The one place where wire messages become this crate's types, and back.

use dfs_proto::pb;

/// A signed capability, as the master gave it: shown to chunkservers, opaque here.
pub(crate) type Token = pb::Signed;
