//! The one place that calls the master.
//!
//! A change is sent under a request id of the client session, and sent again **with the same id** until it is
//! answered or the deadline passes: it takes effect exactly once. What to do about a failure is decided by its
//! retry class alone. When the master has forgotten the session, a new one is opened; a change that may already
//! have been made under the old one ends in an error, unless making it twice does no harm.

use crate::convert::{self, AdminStub, Answered, Change, Changed, Opened, Query};
use crate::session::{Session, Ticket, Writing};
use crate::settings::Settings;
use crate::types::{Caller, ChunkAccount, ChunkState, Glance, Node, NodeAccount, Status};
use dfs_proto::calls::Line;
use dfs_proto::limits::Timings;
use dfs_proto::net::{Dial, channel};
use dfs_proto::{ChunkHandle, Code, Error, InodeId, NodeId, Result, Retry};
use dfs_stdx::backoff::Backoff;
use dfs_stdx::{Clock, Rng};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// First and longest wait between two tries: short, because a restarted master is back within a second.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_CAP: Duration = Duration::from_millis(200);
/// Masters that were learnt from hints are kept up to so many.
const MASTERS_MAX: usize = 16;

/// The connection to the master; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Master {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dial: Arc<dyn Dial>,
    clock: Clock,
    rng: Rng,
    name: String,
    host: String,
    mount: bool,
    call_deadline: Duration,
    /// Never held across an await.
    peers: Mutex<Peers>,
    session: Mutex<Arc<Session>>,
    /// Held while a session is opened, so that only one is.
    opening: tokio::sync::Mutex<()>,
    writing: Writing,
    timings: Timings,
}

/// The masters, and which of them is asked.
#[derive(Debug)]
struct Peers {
    all: Vec<(String, Line, AdminStub)>,
    current: usize,
}

impl Master {
    /// Finds the master, trying until the deadline. A session is opened by the first change, for a mount at once.
    pub(crate) async fn connect(
        settings: &Settings,
        dial: Arc<dyn Dial>,
        clock: Clock,
        rng: Rng,
    ) -> Result<Master> {
        let mut peers = Peers {
            all: Vec::new(),
            current: 0,
        };
        for addr in &settings.masters {
            peers.add(&dial, addr);
        }
        let deadline = clock.now() + settings.call_deadline;
        let mut backoff = Backoff::new(rng.clone(), BACKOFF_FIRST, BACKOFF_CAP, deadline);
        let described = loop {
            match describe(&peers, deadline).await {
                Ok(described) => break described,
                Err(error) => peers.after(&dial, error, &mut backoff).await?,
            }
        };
        let inner = Arc::new(Inner {
            dial,
            clock,
            rng,
            name: settings.name.clone(),
            host: settings.host.clone(),
            mount: settings.mount,
            call_deadline: settings.call_deadline,
            peers: Mutex::new(peers),
            session: Mutex::new(Session::none(described)),
            opening: tokio::sync::Mutex::new(()),
            writing: Writing::default(),
            timings: described.parameters.timings(),
        });
        if settings.mount {
            inner.live_session(deadline).await?;
        }
        tokio::spawn(keep_alive(Arc::downgrade(&inner), described.lease / 3));
        Ok(Master { inner })
    }

    /// The cluster's durations.
    pub(crate) fn timings(&self) -> &Timings {
        &self.inner.timings
    }

    /// Largest record of this cluster, bytes.
    pub(crate) fn record_bytes_max(&self) -> u64 {
        self.inner.session().opened.parameters.record_bytes_max()
    }

    /// The cluster's chunk size, bytes.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.inner.session().opened.parameters.chunk_bytes
    }

    /// Chunks whose grants are renewed with the session.
    pub(crate) fn writing(&self) -> &Writing {
        &self.inner.writing
    }

    /// When a call that begins now ends.
    pub(crate) fn deadline(&self) -> Instant {
        self.inner.clock.now() + self.inner.call_deadline
    }

    /// Makes a change, exactly once, within the usual deadline.
    pub(crate) async fn change(&self, caller: &Caller, change: Change) -> Result<Changed> {
        self.change_by(caller, change, self.deadline()).await
    }

    /// Makes a change, exactly once, before the deadline.
    pub(crate) async fn change_by(
        &self,
        caller: &Caller,
        change: Change,
        deadline: Instant,
    ) -> Result<Changed> {
        let mut backoff = self.backoff(deadline);
        let may_repeat = convert::is_idempotent(&change);
        loop {
            let session = self.inner.live_session(deadline).await?;
            let ticket = timeout_at(deadline, session.ticket())
                .await
                .map_err(|_| late("too many requests are unanswered"))?;
            match self.change_once(caller, &change, &ticket, &mut backoff).await {
                Ok(reply) => return Ok(reply),
                Err((error, unsure)) if error.code == Code::SessionExpired => {
                    session.end();
                    if unsure && !may_repeat {
                        return Err(error);
                    }
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// One request id's life. With an error: whether the change may have been made all the same.
    async fn change_once(
        &self,
        caller: &Caller,
        change: &Change,
        ticket: &Ticket,
        backoff: &mut Backoff,
    ) -> std::result::Result<Changed, (Error, bool)> {
        let mut unsure = false;
        loop {
            let request = convert::mutate(ticket.number(), caller, change.clone());
            let (addr, line, _) = self.inner.peer();
            let error = match timeout_at(backoff.deadline(), line.call(request)).await {
                Ok(Ok(answer)) => return convert::changed(answer).map_err(|e| (e, true)),
                Ok(Err(error)) => error,
                Err(_) => return Err((late(&format!("{addr} did not answer")), true)),
            };
            match error.retry() {
                Retry::Never => return Err((error, unsure)),
                Retry::Other => unsure = true,
                Retry::Same | Retry::Leader => {}
                // Stale: the caller's knowledge is out of date, not ours.
                Retry::Refresh => return Err((error, unsure)),
            }
            self.inner
                .after(&addr, error, backoff)
                .await
                .map_err(|e| (e, unsure))?;
        }
    }

    /// Asks, within the usual deadline.
    pub(crate) async fn query(&self, caller: &Caller, query: Query) -> Result<Answered> {
        self.query_by(caller, query, self.deadline()).await
    }

    /// Asks, before the deadline.
    pub(crate) async fn query_by(
        &self,
        caller: &Caller,
        query: Query,
        deadline: Instant,
    ) -> Result<Answered> {
        let mut backoff = self.backoff(deadline);
        loop {
            let session = self.inner.session();
            let client = if session.has_ended() {
                Default::default()
            } else {
                session.opened.client
            };
            let request = convert::query(client, caller, query.clone());
            let (addr, line, _) = self.inner.peer();
            let error = match timeout_at(deadline, line.call(request)).await {
                Ok(Ok(answer)) => return convert::answered(answer),
                Ok(Err(error)) => error,
                Err(_) => return Err(late(&format!("{addr} did not answer"))),
            };
            if error.code == Code::SessionExpired && !session.has_ended() {
                session.end();
                continue;
            }
            self.inner.after(&addr, error, &mut backoff).await?;
        }
    }

    /// The master and its cluster.
    pub(crate) async fn status(&self) -> Result<Status> {
        let ask =
            |mut stub: AdminStub| async move { stub.status(convert::admin::status_request(false)).await };
        Ok(convert::admin::status(self.admin(ask).await?))
    }

    /// The cluster, without the work of counting its chunks anew.
    pub(crate) async fn glance(&self) -> Result<Glance> {
        let ask =
            |mut stub: AdminStub| async move { stub.status(convert::admin::status_request(true)).await };
        let mut status = self.admin(ask).await?;
        let queues = convert::admin::queues(status.queues.take().unwrap_or_default());
        Ok(Glance {
            status: convert::admin::status(status),
            queues,
            nodes: self.nodes().await?,
        })
    }

    /// All chunkservers.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>> {
        let ask = |mut stub: AdminStub| async move { stub.nodes(convert::admin::nodes_request()).await };
        Ok(convert::admin::nodes(self.admin(ask).await?))
    }

    /// A page of a file's chunks from `offset`, and where the next page begins (0: no more).
    pub(crate) async fn chunks(
        &self,
        caller: &Caller,
        inode: InodeId,
        offset: u64,
    ) -> Result<(Vec<ChunkState>, u64)> {
        let ask = |mut stub: AdminStub| {
            let request = convert::admin::chunks_request(caller, inode, offset);
            async move { stub.chunks(request).await }
        };
        convert::admin::chunks(self.admin(ask).await?)
    }

    /// Why a chunk is as it is.
    pub(crate) async fn explain_chunk(&self, chunk: ChunkHandle) -> Result<ChunkAccount> {
        let ask = |mut stub: AdminStub| {
            let request = convert::admin::explain_chunk_request(chunk);
            async move { stub.explain_chunk(request).await }
        };
        convert::admin::chunk_account(self.admin(ask).await?)
    }

    /// What rests on a chunkserver.
    pub(crate) async fn explain_node(&self, node: NodeId) -> Result<NodeAccount> {
        let ask = |mut stub: AdminStub| {
            let request = convert::admin::explain_node_request(node);
            async move { stub.explain_node(request).await }
        };
        Ok(convert::admin::node_account(self.admin(ask).await?))
    }

    async fn admin<T, F>(&self, ask: impl Fn(AdminStub) -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut backoff = self.backoff(self.deadline());
        loop {
            let (addr, _, stub) = self.inner.peer();
            let error = match timeout_at(backoff.deadline(), ask(stub)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => Error::from(status),
                Err(_) => return Err(late(&format!("{addr} did not answer"))),
            };
            self.inner.after(&addr, error, &mut backoff).await?;
        }
    }

    /// Ends the session at once; an error is only that the master did not hear of it.
    pub(crate) async fn disconnect(&self) -> Result<()> {
        let session = self.inner.session();
        if session.has_ended() {
            return Ok(());
        }
        session.end();
        let (_, line, _) = self.inner.peer();
        let deadline = self.inner.clock.now() + Duration::from_secs(2).min(self.inner.call_deadline);
        let request = convert::close_session(session.opened.client);
        match timeout_at(deadline, line.call(request)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(late("the master did not answer")),
        }
    }

    fn backoff(&self, deadline: Instant) -> Backoff {
        Backoff::new(self.inner.rng.clone(), BACKOFF_FIRST, BACKOFF_CAP, deadline)
    }
}

fn late(why: &str) -> Error {
    Error::new(Code::TimedOut, format!("the deadline passed: {why}"))
}

impl Peers {
    fn add(&mut self, dial: &Arc<dyn Dial>, addr: &str) {
        let admin = convert::admin_stub(channel(dial.clone(), addr, None));
        self.all
            .push((addr.to_owned(), Line::new(dial.clone(), addr), admin));
    }

    /// Chooses whom to ask after this error: the leader it names, or the next one if this one cannot be reached.
    fn turn(&mut self, dial: &Arc<dyn Dial>, error: &Error) {
        match (error.retry(), &error.leader) {
            (Retry::Leader, Some(leader)) if dfs_proto::net::is_address(leader) => {
                if !self.all.iter().any(|(a, ..)| a == leader) && self.all.len() < MASTERS_MAX {
                    self.add(dial, leader);
                }
                self.current = self
                    .all
                    .iter()
                    .position(|(a, ..)| a == leader)
                    .unwrap_or(self.current);
            }
            (Retry::Leader | Retry::Other, _) => self.current = (self.current + 1) % self.all.len(),
            (Retry::Never | Retry::Same | Retry::Refresh, _) => {}
        }
    }

    async fn after(&mut self, dial: &Arc<dyn Dial>, error: Error, backoff: &mut Backoff) -> Result<()> {
        if error.retry() == Retry::Never {
            return Err(error);
        }
        self.turn(dial, &error);
        backoff.wait().await.map_err(|_| error)
    }
}

async fn describe(peers: &Peers, deadline: Instant) -> Result<Opened> {
    let (_, line, _) = &peers.all[peers.current];
    let answer = timeout_at(deadline, line.call(convert::describe()))
        .await
        .map_err(|_| late("no answer"))??;
    convert::described(answer)
}

impl Inner {
    fn session(&self) -> Arc<Session> {
        self.session.lock().expect("no panic while held").clone()
    }

    fn peer(&self) -> (String, Line, AdminStub) {
        let peers = self.peers.lock().expect("no panic while held");
        peers.all[peers.current].clone()
    }

    /// Prepares the next try after `error` from `addr`, or gives the error back if there is none.
    async fn after(&self, addr: &str, error: Error, backoff: &mut Backoff) -> Result<()> {
        if matches!(error.retry(), Retry::Never | Retry::Refresh) {
            return Err(error);
        }
        tracing::debug!(master = addr, %error, "asking again");
        {
            let mut peers = self.peers.lock().expect("no panic while held");
            // Another call may already have turned away from it.
            if peers.all[peers.current].0 == addr {
                peers.turn(&self.dial, &error);
            }
        }
        backoff.wait().await.map_err(|_| error)
    }

    /// The session, a new one if there is none yet or the master has forgotten the old one.
    async fn live_session(&self, deadline: Instant) -> Result<Arc<Session>> {
        let session = self.session();
        if !session.has_ended() {
            return Ok(session);
        }
        let _one = timeout_at(deadline, self.opening.lock())
            .await
            .map_err(|_| late("no session"))?;
        let session = self.session();
        if !session.has_ended() {
            return Ok(session);
        }
        let opened = self.open_session(deadline).await?;
        let session = Session::new(opened);
        *self.session.lock().expect("no panic while held") = session.clone();
        tracing::debug!(client = %opened.client, "a new session with the master");
        Ok(session)
    }

    async fn open_session(&self, deadline: Instant) -> Result<Opened> {
        let nonce = self.rng.u64() | 1;
        let mut backoff = Backoff::new(self.rng.clone(), BACKOFF_FIRST, BACKOFF_CAP, deadline);
        loop {
            let (addr, line, _) = self.peer();
            let request = convert::open_session(nonce, &self.name, &self.host, self.mount);
            match timeout_at(deadline, line.call(request)).await {
                Ok(Ok(answer)) => return convert::opened(answer),
                Ok(Err(error)) => self.after(&addr, error, &mut backoff).await?,
                Err(_) => return Err(late(&format!("{addr} did not answer"))),
            }
        }
    }
}

/// Renews the session and the grants of chunks being written until the last handle is dropped.
async fn keep_alive(inner: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = inner.upgrade() else { return };
        let writing = inner.writing.chunks();
        let session = inner.session();
        if session.has_ended() && writing.is_empty() {
            continue;
        }
        let deadline = inner.clock.now() + every;
        let Ok(session) = inner.live_session(deadline).await else {
            continue;
        };
        let (addr, line, _) = inner.peer();
        let request = convert::renew(session.opened.client, writing);
        let error = match timeout_at(deadline, line.call(request)).await {
            Ok(Ok(_)) | Err(_) => continue,
            Ok(Err(error)) => error,
        };
        if error.code == Code::SessionExpired {
            session.end();
        } else {
            let mut peers = inner.peers.lock().expect("no panic while held");
            if peers.all[peers.current].0 == addr {
                peers.turn(&inner.dial, &error);
            }
        }
    }
}

mod seat;
#[cfg(test)]
mod tests;
