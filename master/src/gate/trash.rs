//! Whole trees at once: who may do it is found out before the log, for a tree may have a million names.

use super::mounts::told;
use super::{Answer, Gate};
use crate::command::{self, Caller, RequestId};
use crate::state;
use dfs_proto::{ClientId, InodeId, Result};

/// Names looked at while the state is held.
const PAGE_NAMES: usize = 2_048;

impl Gate {
    pub(super) async fn discard(
        &self,
        id: RequestId,
        caller: Caller,
        mut discard: command::Discard,
    ) -> Result<Answer> {
        if discard.recursive && !caller.is_root() {
            self.may_empty(&caller, &discard).await?;
        }
        let place = (discard.parent, discard.name.as_slice());
        let keepers = self.keepers(ClientId(id.client), place, false).await?;
        (discard.holders, discard.dying) = told(keepers.as_ref());
        let keep = self.desk.timings.trash_keep;
        discard.keep_ns = u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX);
        let answer = self.change_kept(id, caller, discard, keepers).await;
        self.steward.wake_trash();
        answer
    }

    /// What `rm -r` would be refused on its way down is refused before anything is removed.
    async fn may_empty(&self, caller: &Caller, discard: &command::Discard) -> Result<()> {
        let (parent, name) = (InodeId(discard.parent), discard.name.clone());
        let top = self
            .desk
            .read(move |read| state::directory_in(read, parent, &name));
        let mut left: Vec<InodeId> = top.await?.into_iter().collect();
        while let Some(directory) = left.pop() {
            let mut from = None;
            loop {
                let (caller, start) = (caller.clone(), from.take());
                let page = self
                    .desk
                    .read(move |read| state::may_empty(read, &caller, directory, start, PAGE_NAMES))
                    .await??;
                left.extend(page.directories);
                from = page.next;
                if from.is_none() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}
