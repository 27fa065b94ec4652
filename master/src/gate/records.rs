//! Where the next record goes: asked without the log, unless a chunk is full or there is none.

use super::{Answer, Gate, NextChunk, goal_of, unexpected};
use crate::command::{self, Caller, Reply, RequestId};
use crate::state;
use dfs_proto::{ClientId, Result};

impl Gate {
    pub(super) async fn next_chunk(&self, id: RequestId, caller: Caller, ask: NextChunk) -> Result<Answer> {
        let (client, inode, full) = (ClientId(id.client), ask.inode, ask.full);
        let asker = (!ask.by_handle).then(|| caller.clone());
        let (slot, goal) = self
            .desk
            .read(move |read| {
                let slot = state::record_slot(read, asker.as_ref(), inode, full)?;
                Ok::<_, dfs_proto::Error>((slot, goal_of(read, inode)?))
            })
            .await??;
        if let Some(slot) = slot {
            return self.give(client, slot).await.map(Answer::Granted);
        }
        let members = self.place(client, goal, ask.avoid)?;
        let next = command::NextChunk {
            inode: inode.0,
            full: full.0,
            version: ask.version.0,
            length: ask.length,
            members: members.iter().map(|n| n.0).collect(),
            by_handle: ask.by_handle,
        };
        match self.log(id, caller, next).await? {
            Reply::Allocated(slot) => self.give(client, slot).await.map(Answer::Granted),
            other => Err(unexpected(&other)),
        }
    }
}
