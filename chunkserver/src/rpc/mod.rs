//! The data transport: frames in, frames out, over plain TCP. Decodes, checks the capability, asks, encodes.
//!
//! A connection carries requests until `WriteOpen` or `ChainOpen` turns it into a stream; `StreamClose` turns it back.
//! Reads that are in memory are answered in place; others go to the pool and are answered by id, in any order.

mod chain;
pub(crate) mod master;
mod passes;
pub(crate) mod probe;
pub(crate) mod pull;
mod read;
mod write;

use crate::ground::Ground;
use bytes::Bytes;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Listener};
use dfs_proto::pb::{self, from_server, to_server};
use dfs_proto::{Code, Error, Result};
use passes::Passes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{Mutex, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at once: each may hold a packet in memory.
const CONNECTIONS_MAX: usize = 1024;
/// Whoever does not say what it speaks within this is cut off.
const PREAMBLE_DEADLINE: Duration = Duration::from_secs(5);
/// Requests of one connection that are worked on at once.
const REQUESTS_MAX: usize = 16;
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
        let (message, payload) = match answer {
            Ok((body, payload)) => {
                let message = pb::FromServer {
                    id,
                    error: None,
                    body: Some(body),
                };
                (message, payload)
            }
            Err(error) => {
                let message = pb::FromServer {
                    id,
                    error: Some(error.into()),
                    body: None,
                };
                (message, Bytes::new())
            }
        };
        self.0.lock().await.send(&message, payload).await
    }
}

struct Connection {
    ground: Ground,
    reader: FrameReader<ReadHalf<BoxStream>>,
    replies: Replies,
    passes: Passes,
    working: Arc<Semaphore>,
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
            Body::Read(request) => {
                match self
                    .passes
                    .check(&self.ground, request.capability.as_ref(), read::ALLOWED)
                {
                    Err(error) => self.replies.send(id, Err(error)).await,
                    Ok(capability) => match read::at_once(&self.ground, &capability, &request) {
                        Some(answer) => self.replies.send(id, answer).await,
                        None => {
                            let ground = self.ground.clone();
                            self.later(id, async move {
                                read::patiently(&ground, &capability, &request).await
                            })
                            .await
                        }
                    },
                }
            }
            Body::Probe(request) => {
                let ground = self.ground.clone();
                self.later(id, async move {
                    probe::probe(&ground, request)
                        .await
                        .map(|r| (from_server::Body::Probe(r), Bytes::new()))
                })
                .await
            }
            Body::Table(request) => {
                let ground = self.ground.clone();
                self.later(id, async move {
                    pull::table(&ground, request)
                        .await
                        .map(|r| (from_server::Body::Table(r), Bytes::new()))
                })
                .await
            }
            Body::Pull(request) => {
                let ground = self.ground.clone();
                self.later(id, async move {
                    pull::pull(&ground, request)
                        .await
                        .map(|(r, p)| (from_server::Body::Pull(r), p))
                })
                .await
            }
            Body::Promised(request) => {
                let answer = probe::promised(&self.ground, &request)
                    .map(|r| (from_server::Body::Promised(r), Bytes::new()));
                self.replies.send(id, answer).await
            }
            Body::WriteOpen(request) => self.write_stream(id, request).await,
            Body::ChainOpen(request) => self.chain_stream(id, request).await,
            // Its stream was refused or has ended: what is still on the way is dropped.
            Body::Packet(_) | Body::ChainPacket(_) | Body::ChainCommitted(_) => Ok(()),
            Body::StreamClose(_) => {
                let closed = from_server::Body::StreamClosed(pb::StreamClosed {});
                self.replies.send(id, Ok((closed, Bytes::new()))).await
            }
        }
    }

    /// Works on a request beside the connection, as far as there is room.
    async fn later(
        &mut self,
        id: u64,
        work: impl Future<Output = Result<(from_server::Body, Bytes)>> + Send + 'static,
    ) -> io::Result<()> {
        let room = self
            .working
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let replies = self.replies.clone();
        self.tasks.spawn(async move {
            let answer = work.await;
            // A connection that is gone is noticed by its reader.
            let _ = replies.send(id, answer).await;
            drop(room);
        });
        Ok(())
    }
}

/// Sends what a stream's progress says until it ends or is stopped, never leaving half a frame.
struct Pump {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Pump {
    /// `told` is what the other side knows. Not what stands in `progress` when the task first runs: by then an
    /// acknowledgement may be there, which would never be sent.
    fn start(
        replies: Replies,
        id: u64,
        mut progress: watch::Receiver<crate::chain::Progress>,
        mut told: u64,
        body: impl Fn(&crate::chain::Progress) -> from_server::Body + Send + 'static,
    ) -> Pump {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            loop {
                let alive = tokio::select! {
                    biased;
                    changed = progress.changed() => changed.is_ok(),
                    _ = &mut stopped => return,
                };
                let now = progress.borrow_and_update().clone();
                // A repeated packet is acknowledged again, though nothing new is.
                if now.upto > told || now.end.is_none() && alive {
                    told = now.upto;
                    if replies.send(id, Ok((body(&now), Bytes::new()))).await.is_err() {
                        return;
                    }
                }
                let end = now
                    .end
                    .or_else(|| (!alive).then(|| Error::new(Code::Unavailable, "the stream has ended")));
                if let Some(error) = end {
                    // A connection that is gone is noticed by its reader.
                    let _ = replies.send(id, Err(error)).await;
                    return;
                }
            }
        });
        Pump { stop, task }
    }

    /// Ends it between two frames.
    async fn stop(self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod tests;
