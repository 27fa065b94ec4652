//! Judgment: values in, orders out. Nothing here waits, knows a clock or asks anyone.
//!
//! [`placement`] says where a new replica goes, [`members`] who is in the next version of a chunk,
//! [`reconfigure`] drives that version from its proposal to its activation, [`repair`] says what a chunk needs, by
//! [`domains`] among others, [`lanes`] which copies go on at once, [`collect`] what may be deleted, [`explain`] why it
//! is as it is. The steward carries the answers out, at its own pace.

pub mod collect;
pub mod domains;
pub mod explain;
pub mod lanes;
pub mod members;
pub mod order;
pub mod placement;
pub mod reconfigure;
pub mod repair;

use dfs_proto::NodeId;

/// How a chunkserver's session stands, as far as the master can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// Connected: orders reach it. The number differs from every other session's.
    Connected(u64),
    /// Not connected, but it may still hold itself for live, and serve reads.
    Doubtful,
    /// Over: it serves nothing until it has been compared anew.
    Ended,
}

impl Session {
    /// True if orders reach it.
    #[must_use]
    pub fn is_connected(self) -> bool {
        matches!(self, Session::Connected(_))
    }
}

/// Looks up sessions; a function so that a test is a closure.
pub type Sessions<'a> = &'a dyn Fn(NodeId) -> Session;
