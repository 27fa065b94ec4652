//! Renaming.

use super::own;
use crate::vfs::cache::{Leads, Own};
use crate::vfs::{Caller, Vfs};
use dfs_client::{InodeId, Metadata, RenameMode, Result};

/// A directory and a name in it.
type Place<'a> = (u64, &'a [u8]);

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// Renames `from` (directory, name) to `to`.
    pub async fn rename(
        &self,
        caller: Caller,
        from: Place<'_>,
        to: Place<'_>,
        mode: RenameMode,
    ) -> Result<()> {
        let _changing = (self.cache.changing(from.0), self.cache.changing(to.0));
        let epoch = self.cache.epoch();
        let led = (self.cache.find(from.0, from.1), self.cache.find(to.0, to.1));
        let keep = self.is_open_here(to.0, to.1);
        let (source, target) = ((InodeId(from.0), from.1), (InodeId(to.0), to.1));
        let touched = self.acting(caller).rename(source, target, mode, keep).await;
        let touched = touched.map_err(|error| self.doubt(to.0, to.1, self.doubt(from.0, from.1, error)))?;
        self.learn_all(epoch, &touched);
        self.renamed(epoch, (from, to), (led, mode), &touched);
        self.unlinked(&touched, keep);
        Ok(())
    }

    fn renamed(
        &self,
        epoch: u64,
        (from, to): (Place<'_>, Place<'_>),
        (led, mode): ((Leads, Leads), RenameMode),
        touched: &[Metadata],
    ) {
        let unknown = Own { epoch, at: None };
        let (from_own, to_own) = (own(epoch, from.0, touched), own(epoch, to.0, touched));
        let changed = |inode: u64| touched.iter().any(|metadata| metadata.inode.0 == inode);
        match (led, mode) {
            // Otherwise another mount was faster, or both are names of one file and nothing happened.
            ((Leads::To(moved, kind), _), RenameMode::Replace | RenameMode::NoReplace) if changed(moved) => {
                self.cache.own_name(from_own, from.0, from.1, None);
                self.cache.own_name(to_own, to.0, to.1, Some((moved, kind)));
            }
            ((Leads::To(moved, kind), Leads::To(other, other_kind)), RenameMode::Exchange)
                if moved != other && changed(moved) && changed(other) =>
            {
                self.cache
                    .own_name(from_own, from.0, from.1, Some((other, other_kind)));
                self.cache.own_name(to_own, to.0, to.1, Some((moved, kind)));
            }
            (_, RenameMode::Replace | RenameMode::NoReplace | RenameMode::Exchange) => {
                self.cache.own_name(unknown, from.0, from.1, None);
                self.cache.own_name(unknown, to.0, to.1, None);
            }
        }
    }
}
