//! What a command sees of the world: the tables, who asks, and when.

use dfs_proto::ClientId;

use crate::command::Caller;
use crate::store::Txn;

/// The surroundings of one command.
pub(super) struct Context<'t, 'b> {
    /// Reads and writes of this command; dropped if it is refused.
    pub(super) txn: &'t mut Txn<'b>,
    /// Whose rights count.
    pub(super) caller: Caller,
    /// The session it came from.
    pub(super) client: Option<ClientId>,
    /// The command's time, since 1970.
    pub(super) now_ns: i64,
    /// The command's place in the log.
    pub(super) index: u64,
}
