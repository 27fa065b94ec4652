//! What the change stream needs of the connection: the session, and where the master is.

use super::Master;
use dfs_proto::net::Dial;
use dfs_proto::{ClientId, Code, Error, Result};
use std::sync::Arc;
use tokio::time::Instant;

impl Master {
    /// The way to it.
    pub(crate) fn dial(&self) -> Arc<dyn Dial> {
        self.inner.dial.clone()
    }

    /// The session, a new one if the master has forgotten the old one, and the master that is asked just now.
    pub(crate) async fn seat(&self, deadline: Instant) -> Result<(ClientId, String)> {
        let session = self.inner.live_session(deadline).await?;
        Ok((session.opened.client, self.inner.peer().0))
    }

    /// The stream of this session could not be had there: the next try is with another session, or another master.
    pub(crate) fn leave_seat(&self, client: ClientId, addr: &str, error: &Error) {
        let session = self.inner.session();
        if error.code == Code::SessionExpired && session.opened.client == client {
            session.end();
        }
        let mut peers = self.inner.peers.lock().expect("no panic while held");
        if peers.all[peers.current].0 == addr {
            peers.turn(&self.inner.dial, error);
        }
    }
}
