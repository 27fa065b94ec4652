//! The session with the master: register, show every replica, show signs of life, take orders.
//!
//! In order: dial a master (another one, or whom it names, if it is not the leader); register; the session begins; the
//! inventory goes up page by page, and a replica is served once its page was compared and what it must promise is
//! durable; heartbeats go up all the while, and each answer makes the session live until [`Timings::session_self`] after
//! that heartbeat was *sent*. The end of the stream, or silence, ends the session at once: what is served after it is
//! marked detached (protocol.md, section 5). Orders are handed to [`Orders`], which answers them itself.

use crate::fence::Fence;
use crate::orders::Orders;
use crate::report::{Comparison, Line as Shown, Report, Told, Trouble};
use crate::rpc::master::{Reports, Stream};
use crate::server::Server;
use dfs_proto::limits::Timings;
use dfs_proto::{Code, Error, Result};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Replicas in one page of the inventory: a message far below its limit, a comparison far below a second.
const PAGE_REPLICAS: usize = 4_096;
/// Longest wait for a master to accept the stream and register us.
const REGISTER_DEADLINE: Duration = Duration::from_secs(5);
/// First and longest wait before a master is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Keeps a session with the master for as long as the server lives.
pub(crate) struct Sessions {
    server: Arc<Server>,
    orders: Arc<Orders>,
    masters: Vec<String>,
    troubles: mpsc::Receiver<Trouble>,
}

/// Why a session is over, and whether it ever began.
struct Ended {
    error: Error,
    began: bool,
}

impl Sessions {
    /// With one of `masters`, which are tried in turn; what `troubles` brings is reported.
    pub(crate) fn new(
        server: Arc<Server>,
        orders: Arc<Orders>,
        masters: Vec<String>,
        troubles: mpsc::Receiver<Trouble>,
    ) -> Sessions {
        Sessions {
            server,
            orders,
            masters,
            troubles,
        }
    }

    /// One session after the other until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut turn = 0;
        let mut hint: Option<String> = None;
        let mut wait = REDIAL.0;
        loop {
            let master = hint
                .take()
                .unwrap_or_else(|| self.masters[turn % self.masters.len()].clone());
            let ended = tokio::select! {
                ended = self.session(&master) => ended,
                () = stop.cancelled() => return,
            };
            note_end(&master, &ended);
            hint = ended.error.leader;
            turn += usize::from(hint.is_none());
            wait = if ended.began {
                REDIAL.0
            } else {
                wait.saturating_mul(2).min(REDIAL.1)
            };
            let jittered = wait.mul_f64(0.5 + self.server.ground.world.rng.unit() / 2.0);
            tokio::select! {
                () = sleep(jittered) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn session(&mut self, master: &str) -> Ended {
        let mut live = match self.begin(master).await {
            Ok(live) => live,
            Err(error) => return Ended { error, began: false },
        };
        loop {
            if let Err(error) = self.step(&mut live).await {
                return Ended { error, began: true };
            }
        }
    }

    /// Up to the moment the session has begun.
    async fn begin(&mut self, master: &str) -> Result<Live> {
        let late = |_| Error::new(Code::TimedOut, "the master does not answer");
        let register = self.server.register();
        let opening = Stream::open(self.server.ground.world.dial.clone(), master, register);
        let mut line = timeout(REGISTER_DEADLINE, opening).await.map_err(late)??;
        let registered = match timeout(REGISTER_DEADLINE, line.next()).await.map_err(late)?? {
            Some(Told::Registered(registered)) => registered,
            Some(Told::Refused(error)) => return Err(error),
            Some(_) | None => {
                return Err(Error::new(Code::Unavailable, "the master did not register us"));
            }
        };
        let timings = registered.parameters.timings();
        let (node, cluster) = (registered.node, registered.cluster);
        self.server.enter(registered).await?;
        tracing::info!(%node, %cluster, "registered with the master");
        let fence = self.server.ground.fence.clone();
        // Before the replicas are listed: one that is born meanwhile counts as compared.
        let number = fence.begin(node);
        let replicas = self.server.inventory();
        Ok(Live {
            fence,
            reports: line.reports(),
            line,
            number,
            timings,
            sequence: 0,
            sent: BTreeMap::new(),
            silent_after: self.server.ground.world.clock.now() + timings.session_master,
            pages: pages(&replicas),
        })
    }

    /// Waits for the next thing to happen and does it.
    async fn step(&mut self, live: &mut Live) -> Result<()> {
        if live.sequence == 0 {
            live.send_page().await?;
            return live.send_heartbeat(&self.server).await;
        }
        let next_heartbeat = live.next_heartbeat();
        tokio::select! {
            biased;
            told = live.line.next() => match told? {
                Some(told) => self.hear(live, told).await,
                None => Err(Error::new(Code::Unavailable, "the master ended the session")),
            },
            () = sleep_until(next_heartbeat) => live.send_heartbeat(&self.server).await,
            () = sleep_until(live.silent_after) => {
                Err(Error::new(Code::TimedOut, "the master is silent"))
            }
            Some(trouble) = self.troubles.recv() => live.send(Report::Trouble(trouble)).await,
        }
    }

    async fn hear(&mut self, live: &mut Live, told: Told) -> Result<()> {
        match told {
            Told::Heartbeat { sequence } => {
                live.answered(sequence, &self.server);
                Ok(())
            }
            Told::Compared { chunks, last } => {
                for comparison in chunks {
                    self.compared(live.number, comparison);
                }
                if last { Ok(()) } else { live.send_page().await }
            }
            Told::Order(order) => {
                self.orders.take(order, live.number, live.reports.clone());
                Ok(())
            }
            Told::Keys(keys) => {
                self.server.ground.fence.set_keys(keys);
                Ok(())
            }
            Told::Registered(_) => Err(Error::new(Code::Internal, "the master registered us twice")),
            Told::Refused(error) => Err(error),
        }
    }

    /// What must be promised first is promised before the replica is served.
    fn compared(&self, session: u64, comparison: Comparison) {
        self.server.activated(comparison.chunk, comparison.active);
        if comparison.promise.0 == 0 {
            self.server
                .ground
                .fence
                .mark_compared_in(session, comparison.chunk);
        } else {
            self.orders.promise(session, comparison.chunk, comparison.promise);
        }
    }
}

fn note_end(master: &str, ended: &Ended) {
    let error = &ended.error;
    match error.code {
        Code::PermissionDenied | Code::AlreadyExists | Code::InvalidArgument => {
            tracing::error!(master, %error, "the master refuses this server");
        }
        _ if ended.began => tracing::warn!(master, %error, "the session with the master has ended"),
        _ => tracing::debug!(master, %error, "no session with this master"),
    }
}

/// A session under way.
struct Live {
    fence: Arc<Fence>,
    line: Stream,
    reports: Reports,
    /// The fence's number of this session.
    number: u64,
    timings: Timings,
    /// Of the last heartbeat sent.
    sequence: u64,
    /// When the unanswered ones were sent.
    sent: BTreeMap<u64, Instant>,
    /// The session is over if nothing was answered by then.
    silent_after: Instant,
    pages: VecDeque<(Vec<Shown>, bool)>,
}

impl Drop for Live {
    /// Before the stream is closed: for the master its end means that nothing is served any more.
    fn drop(&mut self) {
        self.fence.end();
    }
}

impl Live {
    fn next_heartbeat(&self) -> Instant {
        let newest = self.sent.last_key_value().map(|(_, at)| *at);
        let base = newest.unwrap_or(self.silent_after - self.timings.session_master);
        base + self.timings.heartbeat_every
    }

    async fn send_heartbeat(&mut self, server: &Server) -> Result<()> {
        self.sequence += 1;
        let heartbeat = server.heartbeat(self.sequence);
        self.sent.insert(self.sequence, server.ground.world.clock.now());
        self.send(Report::Heartbeat(heartbeat)).await
    }

    /// The session is live from the sending of this heartbeat on. The newest entry stays: it paces the next one.
    fn answered(&mut self, sequence: u64, server: &Server) {
        let Some(at) = self.sent.get(&sequence).copied() else {
            return;
        };
        self.sent.retain(|s, _| *s > sequence || *s == self.sequence);
        server.ground.fence.extend(at + self.timings.session_self);
        self.silent_after = self.silent_after.max(at + self.timings.session_master);
    }

    async fn send_page(&mut self) -> Result<()> {
        match self.pages.pop_front() {
            Some((replicas, last)) => self.send(Report::Inventory { replicas, last }).await,
            None => Ok(()),
        }
    }

    /// A full queue for this long means that the master does not read.
    async fn send(&self, report: Report) -> Result<()> {
        timeout(self.timings.session_self, self.reports.send(report))
            .await
            .unwrap_or_else(|_| Err(Error::new(Code::TimedOut, "the master does not read")))
    }
}

/// At least one page, the last one marked.
fn pages(replicas: &[Shown]) -> VecDeque<(Vec<Shown>, bool)> {
    let mut pages: VecDeque<_> = replicas
        .chunks(PAGE_REPLICAS)
        .map(|page| (page.to_vec(), false))
        .collect();
    if pages.is_empty() {
        pages.push_back((Vec::new(), false));
    }
    if let Some(last) = pages.back_mut() {
        last.1 = true;
    }
    pages
}
