//! The change stream's messages.

use super::{kind, metadata, unexpected};
use crate::types::Change;
use dfs_proto::net::{DECODED_BYTES_MAX, Dial, channel};
use dfs_proto::pb::watch_client::WatchClient;
use dfs_proto::pb::{self, event, from_mount, to_mount};
use dfs_proto::{ClientId, Code, Error, InodeId, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Messages that may wait for the transport.
const UP_MAX: usize = 16;

/// What a watching client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Hello(ClientId),
    Ack(u64),
    Forget(Vec<InodeId>),
    Keep(Vec<InodeId>),
    Alive,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Welcome {
        alive_every: Duration,
        silent_after: Duration,
    },
    Changes(u64, Vec<Change>),
    Alive,
}

/// An open change stream.
pub(crate) struct Line {
    up: mpsc::Sender<pb::FromMount>,
    down: Streaming<pb::ToMount>,
}

impl Line {
    /// Dials `master` on a connection of its own, so that its end is the end of this process or of the stream.
    pub(crate) async fn open(dial: Arc<dyn Dial>, master: &str, client: ClientId) -> Result<Line> {
        let (up, said) = mpsc::channel(UP_MAX);
        up.try_send(message(Said::Hello(client)))
            .expect("an empty queue has room");
        let mut stub =
            WatchClient::new(channel(dial, master, None)).max_decoding_message_size(DECODED_BYTES_MAX);
        let down = stub.watch(ReceiverStream::new(said)).await?.into_inner();
        Ok(Line { up, down })
    }

    /// Waits until something can be said.
    pub(crate) async fn room(&self) -> Result<Room> {
        let room = self.up.clone().reserve_owned().await;
        room.map(Room).map_err(|_| ended())
    }

    /// The next thing the master says; its silence for good is an error. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Told> {
        told(self.down.message().await?.ok_or_else(ended)?)
    }
}

/// The right to say one thing.
pub(crate) struct Room(mpsc::OwnedPermit<pb::FromMount>);

impl Room {
    pub(crate) fn say(self, said: Said) {
        self.0.send(message(said));
    }
}

fn ended() -> Error {
    Error::new(Code::Unavailable, "the change stream has ended")
}

fn message(said: Said) -> pb::FromMount {
    let body = match said {
        Said::Hello(client) => from_mount::Body::Hello(pb::Hello { client: client.0 }),
        Said::Ack(sequence) => from_mount::Body::Ack(pb::Acknowledged { sequence }),
        Said::Forget(inodes) => from_mount::Body::Forget(numbers(&inodes)),
        Said::Keep(inodes) => from_mount::Body::Keep(numbers(&inodes)),
        Said::Alive => from_mount::Body::Alive(pb::StillHere {}),
    };
    pb::FromMount { body: Some(body) }
}

fn numbers(inodes: &[InodeId]) -> pb::Inodes {
    pb::Inodes {
        inodes: inodes.iter().map(|i| i.0).collect(),
    }
}

fn told(message: pb::ToMount) -> Result<Told> {
    let body = message.body.ok_or_else(|| unexpected("a message"))?;
    Ok(match body {
        to_mount::Body::Welcome(w) => Told::Welcome {
            alive_every: Duration::from_millis(u64::from(w.alive_every_ms.max(1))),
            silent_after: Duration::from_millis(u64::from(w.silent_after_ms.max(1))),
        },
        to_mount::Body::Events(e) => {
            let list = e.events.into_iter().map(change).collect::<Result<_>>()?;
            Told::Changes(e.sequence, list)
        }
        to_mount::Body::Alive(_) => Told::Alive,
    })
}

fn change(event: pb::Event) -> Result<Change> {
    let body = event.body.ok_or_else(|| unexpected("an event"))?;
    Ok(match body {
        event::Body::Changed(attributes) => Change::Attributes(metadata(Some(attributes))?),
        event::Body::Entry(e) => Change::Entry {
            parent: InodeId(e.parent),
            now: match e.inode {
                0 => None,
                inode => Some((InodeId(inode), kind(e.kind())?)),
            },
            name: e.name.into(),
        },
        event::Body::Unlinked(u) => Change::Unlinked {
            inode: InodeId(u.inode),
            held: u.held.map(|held| metadata(Some(held))).transpose()?,
        },
        event::Body::Recall(inode) => Change::Recall {
            inode: InodeId(inode),
        },
        event::Body::LockFreed(inode) => Change::LockFreed {
            inode: InodeId(inode),
        },
        event::Body::Forgotten(gone) => Change::Forgotten {
            inodes: gone.inodes.into_iter().map(InodeId).collect(),
        },
    })
}
