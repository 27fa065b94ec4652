//! What everything in a chunkserver stands on: the world, the replicas, the session's word, and a way to complain.

use crate::budget::Budget;
use crate::chain::Chains;
use crate::fence::Fence;
use crate::metrics::Meters;
use crate::report::Trouble;
use crate::store::{self, Replica, Store};
use dfs_proto::Result;
use dfs_proto::world::World;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Shared by the doors, the chains and the session; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// The seams.
    pub(crate) world: World,
    /// All replicas.
    pub(crate) store: Arc<Store>,
    /// Chunks that are being written.
    pub(crate) chains: Arc<Chains>,
    /// What the session allows.
    pub(crate) fence: Arc<Fence>,
    /// For what nobody waits for.
    pub(crate) budget: Arc<Budget>,
    /// Reports for the master; see [`Ground::complain`].
    pub(crate) troubles: mpsc::Sender<Trouble>,
    /// What is counted.
    pub(crate) meters: Arc<Meters>,
}

impl Ground {
    /// Works on a replica on the pool.
    ///
    /// # Errors
    /// The work's, about this chunk and from this node.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        replica: &Arc<Replica>,
        work: impl FnOnce(&Arc<Replica>) -> store::Result<T> + Send + 'static,
    ) -> Result<T> {
        let worked_on = replica.clone();
        let outcome = self.world.pool.run(move || work(&worked_on)).await;
        outcome.map_err(|error| {
            let (chunk, promised) = (replica.handle(), replica.state().promised);
            if let store::Error::Fenced = error {
                let disk = replica.home().id;
                self.complain(Trouble::DiskFailed {
                    disk,
                    message: error.to_string(),
                });
            }
            dfs_proto::Error::from(error)
                .on_chunk(chunk, promised)
                .on_node(self.fence.node())
        })
    }

    /// Tells the master, unless it has not heard what was told before: then this is dropped, and a log line stays.
    pub(crate) fn complain(&self, trouble: Trouble) {
        if let Trouble::BadBlock { .. } = trouble {
            self.meters.bad_blocks.add(1);
        }
        if let Err(error) = self.troubles.try_send(trouble) {
            tracing::warn!(%error, "a report for the master was dropped");
        }
    }
}
