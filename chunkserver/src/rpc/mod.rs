//! The data transport: frames in, frames out, over plain TCP. Decodes, checks the capability, asks, encodes.
//!
//! A connection carries requests until `WriteOpen` or `ChainOpen` turns it into a stream; `StreamClose` turns it back.
//! Reads that are in memory are answered in place; others go to the pool and are answered by id, in any order.

mod chain;
pub(crate) mod master;
mod parts;
mod passes;
pub(crate) mod probe;
pub(crate) mod pull;
mod read;
mod write;

use crate::chain::{Progress, Tell};
use crate::ground::Ground;
use crate::metrics::Request;
use bytes::Bytes;
use dfs_proto::capability::Capability;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Listener};
use dfs_proto::pb::{self, from_server, to_server};
use dfs_proto::{Code, Error, Result};
use passes::Passes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at once: each may hold a packet in memory.
const CONNECTIONS_MAX: usize = 1024;
/// Whoever does not say what it speaks within this is cut off.
const PREAMBLE_DEADLINE: Duration = Duration::from_secs(5);
/// Requests of one connection that are worked on at once.
const REQUESTS_MAX: usize = 16;
/// Readers on one connection that wait for bytes to come: each is a task that sleeps.
const FOLLOWERS_MAX: usize = 256;
/// Pause after an accept that failed: usually too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `stop` says so, then ends them all.
pub(crate) async fn serve(ground: Ground, mut listener: Box<dyn Listener>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let ground = ground.clone();
                connections.spawn(async move {
                    if let Err(error) = Connection::new(ground, stream).run().await {
                        tracing::debug!(%error, from, "connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    connections.shutdown().await;
}

/// The sending half, shared by everyone who answers on a connection.
#[derive(Clone)]
struct Replies(Arc<Mutex<FrameWriter<WriteHalf<BoxStream>>>>);

impl Replies {
    /// Answers request `id`.
    async fn send(&self, id: u64, answer: Result<(from_server::Body, Bytes)>) -> io::Result<()> {
        let (message, payload) = message(id, answer);
        self.0.lock().await.send(&message, payload).await
    }

    /// As [`Replies::send`], but it may leave with the next answer.
    async fn queue(&self, id: u64, body: from_server::Body) -> io::Result<()> {
        let (message, payload) = message(id, Ok((body, Bytes::new())));
        self.0.lock().await.queue(&message, payload).await
    }

    async fn flush(&self) -> io::Result<()> {
        self.0.lock().await.flush().await
    }

    /// Sends a word of stream `id`, while it is open, if that can be done at once.
    fn try_tell(&self, id: u64, open: &AtomicBool, body: from_server::Body) -> bool {
        let Ok(mut writer) = self.0.try_lock() else {
            return false;
        };
        if !open.load(Ordering::Acquire) {
            return true;
        }
        if !writer.has_room() {
            return false;
        }
        let (message, payload) = message(id, Ok((body, Bytes::new())));
        writer.put(&message, payload);
        // What is left behind leaves with what the connection's task sends when it hears that this failed.
        matches!(writer.try_flush(), Ok(true))
    }
}

fn message(id: u64, answer: Result<(from_server::Body, Bytes)>) -> (pb::FromServer, Bytes) {
    let (error, body, payload) = match answer {
        Ok((body, payload)) => (None, Some(body), payload),
        Err(error) => (Some(error.into()), None, Bytes::new()),
    };
    (pb::FromServer { id, error, body }, payload)
}

struct Connection {
    ground: Ground,
    reader: FrameReader<ReadHalf<BoxStream>>,
    replies: Replies,
    passes: Passes,
    working: Arc<Semaphore>,
    following: Arc<Semaphore>,
    /// Requests that went to the pool; they end with the connection.
    tasks: JoinSet<()>,
}

impl Connection {
    fn new(ground: Ground, stream: BoxStream) -> Connection {
        let (reader, writer) = tokio::io::split(stream);
        Connection {
            ground,
            reader: FrameReader::new(reader),
            replies: Replies(Arc::new(Mutex::new(FrameWriter::new(writer)))),
            passes: Passes::default(),
            working: Arc::new(Semaphore::new(REQUESTS_MAX)),
            following: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            tasks: JoinSet::new(),
        }
    }

    async fn run(mut self) -> io::Result<()> {
        tokio::time::timeout(PREAMBLE_DEADLINE, self.reader.expect_preamble()).await??;
        while let Some((message, _)) = self.reader.next::<pb::ToServer>().await? {
            self.request(message).await?;
            while self.tasks.try_join_next().is_some() {}
        }
        Ok(())
    }

    async fn request(&mut self, message: pb::ToServer) -> io::Result<()> {
        use to_server::Body;
        let id = message.id;
        let Some(body) = message.body else {
            return self
                .replies
                .send(id, Err(Error::new(Code::InvalidArgument, "an empty request")))
                .await;
        };
        match body {
            Body::Read(request) => self.read(id, request).await,
            Body::Probe(request) => {
                let ground = self.ground.clone();
                self.later(id, Request::Probe, async move {
                    probe::probe(&ground, request)
                        .await
                        .map(|r| (from_server::Body::Probe(r), Bytes::new()))
                })
                .await
            }
            Body::Table(request) => {
                let ground = self.ground.clone();
                self.later(id, Request::Table, async move {
                    pull::table(&ground, request)
                        .await
                        .map(|r| (from_server::Body::Table(r), Bytes::new()))
                })
                .await
            }
            Body::Pull(request) => {
                let ground = self.ground.clone();
                self.later(id, Request::Pull, async move {
                    pull::pull(&ground, request)
                        .await
                        .map(|(r, p)| (from_server::Body::Pull(r), p))
                })
                .await
            }
            Body::Promised(request) => {
                let begun = self.ground.world.clock.now();
                let answer = probe::promised(&self.ground, &request)
                    .map(|r| (from_server::Body::Promised(r), Bytes::new()));
                (self.ground.meters).answered(Request::Promised, begun.elapsed(), &answer);
                self.replies.send(id, answer).await
            }
            Body::WriteOpen(request) => self.write_stream(id, request).await,
            Body::ChainOpen(request) => self.chain_stream(id, request).await,
            // Its stream was refused or has ended: what is still on the way is dropped.
            Body::Packet(_) | Body::ChainPacket(_) | Body::ChainCommitted(_) => Ok(()),
            Body::StreamClose(close) if close.unanswered => Ok(()),
            Body::StreamClose(_) => {
                let closed = from_server::Body::StreamClosed(pb::StreamClosed {});
                self.replies.send(id, Ok((closed, Bytes::new()))).await
            }
        }
    }

    /// Reads: what is in memory is answered in place.
    async fn read(&mut self, id: u64, request: pb::Read) -> io::Result<()> {
        let begun = self.ground.world.clock.now();
        let checked = self
            .passes
            .check(&self.ground, request.capability.as_ref(), read::ALLOWED);
        let answer = match checked {
            Err(error) => Err(error),
            Ok(capability) if request.wait_ms > 0 => return self.follow(id, capability, request).await,
            Ok(capability) => match read::at_once(&self.ground, &capability, &request) {
                Some(answer) => answer,
                None => {
                    let ground = self.ground.clone();
                    let patient = async move { read::patiently(&ground, &capability, &request).await };
                    return self.later(id, Request::Read, patient).await;
                }
            },
        };
        (self.ground.meters).answered(Request::Read, begun.elapsed(), &answer);
        self.replies.send(id, answer).await
    }

    /// A reader who waits for what is not written yet: it takes no other request's place.
    async fn follow(&mut self, id: u64, capability: Arc<Capability>, request: pb::Read) -> io::Result<()> {
        let Ok(place) = self.following.clone().try_acquire_owned() else {
            let error = Error::new(Code::Busy, "too many readers wait on one connection");
            return self.replies.send(id, Err(error)).await;
        };
        let (ground, replies) = (self.ground.clone(), self.replies.clone());
        self.tasks.spawn(async move {
            let answer = read::when_there(&ground, &capability, &request).await;
            // A connection that is gone is noticed by its reader.
            let _ = replies.send(id, answer).await;
            drop(place);
        });
        Ok(())
    }

    /// Works on a request beside the connection, as far as there is room.
    async fn later(
        &mut self,
        id: u64,
        request: Request,
        work: impl Future<Output = Result<(from_server::Body, Bytes)>> + Send + 'static,
    ) -> io::Result<()> {
        let room = self
            .working
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (replies, meters) = (self.replies.clone(), self.ground.meters.clone());
        let clock = self.ground.world.clock.clone();
        self.tasks.spawn(async move {
            let begun = clock.now();
            let answer = work.await;
            meters.answered(request, begun.elapsed(), &answer);
            // A connection that is gone is noticed by its reader.
            let _ = replies.send(id, answer).await;
            drop(room);
        });
        Ok(())
    }
}

/// A stream's way back to whoever feeds it. What can be told at once is told by the chunk's task itself; the rest,
/// and the end, by the connection's task.
struct Teller {
    replies: Replies,
    id: u64,
    body: fn(&Progress) -> from_server::Body,
    /// False from the moment the other side hears that the stream is closed.
    open: Arc<AtomicBool>,
}

impl Teller {
    fn new(replies: Replies, id: u64, body: fn(&Progress) -> from_server::Body) -> Teller {
        let open = Arc::new(AtomicBool::new(true));
        Teller {
            replies,
            id,
            body,
            open,
        }
    }

    /// For the chunk's task.
    fn at_once(&self) -> Tell {
        let (replies, id, body, open) = (self.replies.clone(), self.id, self.body, self.open.clone());
        Tell(Arc::new(move |progress| {
            replies.try_tell(id, &open, body(progress))
        }))
    }

    /// Says how far the stream is, or that it has ended; false after its end.
    async fn tell(&self, progress: &mut watch::Receiver<Progress>, alive: bool) -> io::Result<bool> {
        let now = progress.borrow_and_update().clone();
        let body = (self.body)(&now);
        let end = now
            .end
            .or_else(|| (!alive).then(|| Error::new(Code::Unavailable, "the stream has ended")));
        if end.is_none() || now.upto > 0 {
            self.replies.queue(self.id, body).await?;
        }
        match end {
            Some(error) => self.replies.send(self.id, Err(error)).await.map(|()| false),
            None => self.replies.flush().await.map(|()| true),
        }
    }

    /// Nothing is told from here on.
    fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

impl Connection {
    /// The next frame of a stream; what its task cannot tell itself is told meanwhile.
    async fn next_of_stream(
        &mut self,
        teller: &Teller,
        progress: &mut Option<watch::Receiver<Progress>>,
    ) -> io::Result<(pb::ToServer, Bytes)> {
        self.ground.budget.foreground();
        loop {
            let Some(told) = progress else {
                let frame = self.reader.next().await?;
                return frame.ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
            };
            tokio::select! {
                biased;
                changed = told.changed() => {
                    if !teller.tell(told, changed.is_ok()).await? {
                        *progress = None;
                    }
                }
                frame = self.reader.next() => {
                    return frame?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }

    /// Answers the opening of a stream: with its first acknowledgement, if that is soon.
    async fn opened(&mut self, id: u64, body: from_server::Body) -> io::Result<()> {
        self.replies.queue(id, body).await?;
        match self.reader.has_next() {
            true => Ok(()),
            false => self.replies.flush().await,
        }
    }
}

#[cfg(test)]
mod tests;
