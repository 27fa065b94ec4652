//! Data connections to chunkservers: pooled by address, requests answered by id in any order.
//!
//! A connection has one reader task, which hands each answer to the request that waits for it. Requests are small
//! and written in place, under a lock; a caller that is dropped in the middle of a frame takes the connection
//! with it, since half a frame cannot be taken back. When a connection fails, all its requests fail with
//! [`Code::Unavailable`] naming the server.

use crate::convert::data::{FromServer, ToServer};
use bytes::Bytes;
use dfs_proto::capability::Member;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Dial};
use dfs_proto::{Code, Error, NodeId, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// Connections for requests to one server: a second one helps while the first one carries much.
const CONNECTIONS_MAX: usize = 4;
/// Requests on each connection before another is opened.
const REQUESTS_BEFORE_ANOTHER: usize = 4;
/// A connection nobody used for so long is closed when the next one is opened.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Write streams kept for the next chunk on the same server.
const IDLE_STREAMS_MAX: usize = 16;
/// An idle write stream older than this is not trusted to be still there.
const IDLE_STREAM_AGE_MAX: Duration = Duration::from_secs(3);

/// All connections of a client; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dial: Arc<dyn Dial>,
    /// Never held across an await.
    pools: Mutex<BTreeMap<String, Pool>>,
}

#[derive(Debug, Default)]
struct Pool {
    connections: Vec<Arc<Connection>>,
    streams: Vec<(Stream, Instant)>,
}

type Waiting = BTreeMap<u64, oneshot::Sender<Result<(FromServer, Bytes)>>>;

struct Connection {
    writer: tokio::sync::Mutex<FrameWriter<WriteHalf<BoxStream>>>,
    shared: Arc<Shared>,
    reader: AbortHandle,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.shared.node)
    }
}

struct Shared {
    node: NodeId,
    addr: String,
    next: AtomicU64,
    broken: AtomicBool,
    waiting: Mutex<Waiting>,
    used: Mutex<Instant>,
}

impl Servers {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Servers {
        Servers {
            inner: Arc::new(Inner {
                dial,
                pools: Mutex::default(),
            }),
        }
    }

    /// Asks one thing of a server and waits for the answer until the deadline.
    ///
    /// # Errors
    /// `Unavailable` or `TimedOut` naming the server; what the server answers is the caller's to judge.
    pub(crate) async fn request(
        &self,
        to: &Member,
        ask: ToServer,
        deadline: Instant,
    ) -> Result<(FromServer, Bytes)> {
        let late = |_| timed_out(to);
        let connection = timeout_at(deadline, self.connection(to)).await.map_err(late)??;
        timeout_at(deadline, connection.request(ask))
            .await
            .map_err(late)?
    }

    /// A connection of one's own, for a write stream.
    pub(crate) async fn stream(&self, to: &Member) -> Result<Stream> {
        let idle = self.with_pool(&to.addr, |pool| {
            pool.streams
                .retain_mut(|(s, since)| since.elapsed() < IDLE_STREAM_AGE_MAX && s.reader.is_quiet());
            pool.streams.pop()
        });
        match idle {
            Some((stream, _)) => Ok(stream),
            None => self.fresh_stream(to).await,
        }
    }

    /// As [`Servers::stream`], certainly not one that was used before.
    pub(crate) async fn fresh_stream(&self, to: &Member) -> Result<Stream> {
        let (reader, writer) = self.open(to).await?;
        Ok(Stream {
            addr: to.addr.clone(),
            node: to.node,
            reader,
            writer,
            number: 1,
            reused: false,
        })
    }

    /// Takes back a stream that was closed in order.
    pub(crate) fn give_back(&self, mut stream: Stream) {
        stream.reused = true;
        stream.number += 1;
        self.with_pool(&stream.addr.clone(), |pool| {
            if pool.streams.len() < IDLE_STREAMS_MAX {
                pool.streams.push((stream, Instant::now()));
            }
        });
    }

    fn with_pool<T>(&self, addr: &str, use_it: impl FnOnce(&mut Pool) -> T) -> T {
        let mut pools = self.inner.pools.lock().expect("no panic while held");
        use_it(pools.entry(addr.to_owned()).or_default())
    }

    /// The least busy connection, or a new one.
    async fn connection(&self, to: &Member) -> Result<Arc<Connection>> {
        let found = self.with_pool(&to.addr, |pool| {
            pool.connections.retain(|c| !c.shared.is_broken());
            let least = pool.connections.iter().min_by_key(|c| c.shared.load())?;
            let enough =
                least.shared.load() < REQUESTS_BEFORE_ANOTHER || pool.connections.len() >= CONNECTIONS_MAX;
            enough.then(|| least.clone())
        });
        if let Some(connection) = found {
            return Ok(connection);
        }
        let (reader, writer) = self.open(to).await?;
        let connection = Arc::new(Connection::start(to, reader, writer));
        self.with_pool(&to.addr, |pool| {
            pool.connections.retain(|c| !c.shared.is_idle());
            pool.connections.push(connection.clone());
        });
        Ok(connection)
    }

    async fn open(
        &self,
        to: &Member,
    ) -> Result<(
        FrameReader<ReadHalf<BoxStream>>,
        FrameWriter<WriteHalf<BoxStream>>,
    )> {
        let stream = self
            .inner
            .dial
            .dial(&to.addr)
            .await
            .map_err(|e| unavailable(to.node, &to.addr, &e))?;
        let (reader, writer) = tokio::io::split(stream);
        let mut writer = FrameWriter::new(writer);
        writer
            .send_preamble()
            .await
            .map_err(|e| unavailable(to.node, &to.addr, &e))?;
        Ok((FrameReader::new(reader), writer))
    }
}

fn unavailable(node: NodeId, addr: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Unavailable, format!("chunkserver {node} at {addr}: {why}")).on_node(node)
}

fn timed_out(to: &Member) -> Error {
    Error::new(
        Code::TimedOut,
        format!("chunkserver {} at {} did not answer in time", to.node, to.addr),
    )
    .on_node(to.node)
}

impl Shared {
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn load(&self) -> usize {
        self.waiting.lock().expect("no panic while held").len()
    }

    fn is_idle(&self) -> bool {
        self.load() == 0 && self.used.lock().expect("no panic while held").elapsed() > IDLE_MAX
    }

    /// Fails everyone who waits; nobody may start to wait afterwards.
    fn fail(&self, why: &dyn std::fmt::Display) {
        let waiting = {
            let mut waiting = self.waiting.lock().expect("no panic while held");
            self.broken.store(true, Ordering::Relaxed);
            std::mem::take(&mut *waiting)
        };
        for (_, reply) in waiting {
            // A caller that has gone away needs no answer.
            let _ = reply.send(Err(unavailable(self.node, &self.addr, why)));
        }
    }
}

/// Takes a request that is no longer waited for off the list, and breaks the connection if it was cut in a frame.
struct Guard<'a> {
    shared: &'a Shared,
    id: u64,
    sending: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.shared
            .waiting
            .lock()
            .expect("no panic while held")
            .remove(&self.id);
        if self.sending {
            self.shared
                .fail(&"a request was given up in the middle of its frame");
        }
    }
}

impl Connection {
    fn start(
        to: &Member,
        reader: FrameReader<ReadHalf<BoxStream>>,
        writer: FrameWriter<WriteHalf<BoxStream>>,
    ) -> Connection {
        let shared = Arc::new(Shared {
            node: to.node,
            addr: to.addr.clone(),
            next: AtomicU64::new(1),
            broken: AtomicBool::new(false),
            waiting: Mutex::default(),
            used: Mutex::new(Instant::now()),
        });
        let reader = tokio::spawn(receive(reader, shared.clone())).abort_handle();
        Connection {
            writer: tokio::sync::Mutex::new(writer),
            shared,
            reader,
        }
    }

    async fn request(&self, mut ask: ToServer) -> Result<(FromServer, Bytes)> {
        let shared = &*self.shared;
        let (reply, answer) = oneshot::channel();
        ask.id = shared.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut waiting = shared.waiting.lock().expect("no panic while held");
            if shared.is_broken() {
                return Err(unavailable(shared.node, &shared.addr, &"the connection was lost"));
            }
            waiting.insert(ask.id, reply);
            *shared.used.lock().expect("no panic while held") = Instant::now();
        }
        let mut guard = Guard {
            shared,
            id: ask.id,
            sending: false,
        };
        {
            let mut writer = self.writer.lock().await;
            guard.sending = true;
            let sent = writer.send(&ask, Bytes::new()).await;
            guard.sending = false;
            if let Err(error) = sent {
                shared.fail(&error);
                return Err(unavailable(shared.node, &shared.addr, &error));
            }
        }
        answer
            .await
            .unwrap_or_else(|_| Err(unavailable(shared.node, &shared.addr, &"the connection was lost")))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A reader's life: hands out answers until the connection ends.
async fn receive(mut reader: FrameReader<ReadHalf<BoxStream>>, shared: Arc<Shared>) {
    loop {
        match reader.next::<FromServer>().await {
            Ok(Some((message, payload))) => {
                let reply = shared
                    .waiting
                    .lock()
                    .expect("no panic while held")
                    .remove(&message.id);
                if let Some(reply) = reply {
                    // A caller that has gone away needs no answer.
                    let _ = reply.send(Ok((message, payload)));
                }
            }
            Ok(None) => return shared.fail(&"the server closed the connection"),
            Err(error) => return shared.fail(&error),
        }
    }
}

/// A connection that carries one write stream at a time.
pub(crate) struct Stream {
    addr: String,
    pub(crate) node: NodeId,
    pub(crate) reader: FrameReader<ReadHalf<BoxStream>>,
    pub(crate) writer: FrameWriter<WriteHalf<BoxStream>>,
    /// Counts the streams it has carried: what is heard of an earlier one does not count.
    pub(crate) number: u64,
    /// It carried a stream before: the server may have closed it since.
    pub(crate) reused: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({} {})", self.node, self.addr)
    }
}

impl Stream {
    /// Sends one frame, bounded by the deadline: after an error the stream is of no use.
    pub(crate) async fn send(&mut self, ask: &ToServer, payload: Bytes, deadline: Instant) -> Result<()> {
        match timeout_at(deadline, self.writer.send(ask, payload)).await {
            Ok(sent) => sent.map_err(|e| unavailable(self.node, &self.addr, &e)),
            Err(_) => Err(unavailable(self.node, &self.addr, &"it does not take more bytes")),
        }
    }

    async fn heard(&mut self) -> std::io::Result<Option<FromServer>> {
        loop {
            match self.reader.next::<FromServer>().await? {
                Some((message, _)) if message.id == self.number => return Ok(Some(message)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next frame of this stream.
    pub(crate) async fn receive(&mut self) -> Result<FromServer> {
        match self.heard().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(unavailable(self.node, &self.addr, &"it closed the connection")),
            Err(error) => Err(unavailable(self.node, &self.addr, &error)),
        }
    }
}

#[cfg(test)]
mod tests;
