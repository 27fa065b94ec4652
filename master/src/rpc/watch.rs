//! The stream a mount keeps: what others changed goes down, acknowledgements come up.
//!
//! When it ends, the mount drops what it keeps and opens another. One that was ended from the mount's side, with signs of
//! life up to the last moment, and is not followed by another, tells of a process that is gone: its session ends soon, and
//! with it its locks and turns. A stream that falls silent tells of a cut line and ends nothing but itself.

use super::{Door, Served, convert, stopped};
use crate::live::watch::{Event, Message};
use crate::state;
use dfs_proto::{ClientId, Code, Error, InodeId, pb};
use dfs_stdx::clock::Instant;
use futures::{Stream, StreamExt as _};
use pb::query_reply::Result as Told;
use pb::query_request::Query;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::{Request, Response, Status, Streaming};

/// A stream's first message comes within this.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Signs of life a side may miss before it counts as gone.
const MISSED_MAX: u32 = 3;
/// Inodes in one message of a mount.
const INODES_MAX: usize = 4_096;
/// Events in one message of what a mount may not have heard.
const REMINDED_MAX: usize = 1_024;

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Door);

type Sent = Result<pb::ToMount, Status>;

#[tonic::async_trait]
impl pb::watch_server::Watch for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Sent> + Send>>;

    async fn watch(&self, request: Request<Streaming<pb::FromMount>>) -> Served<Self::WatchStream> {
        let (door, mut up) = (self.0.clone(), request.into_inner());
        let client = hello(&mut up).await?;
        door.gate.heard(client)?;
        let Some((number, messages)) = door.desk.live.watch.attach(client) else {
            return Err(convert::invalid("only a mount's session is told of changes").into());
        };
        remind(&door, client).await?;
        let every = door.desk.timings.heartbeat_every;
        let welcome = message(pb::to_mount::Body::Welcome(pb::Welcome {
            alive_every_ms: milliseconds(every),
            silent_after_ms: milliseconds(every * MISSED_MAX),
        }));
        let down = down(door.clone(), messages, every);
        let listener = Listener { door, client, number };
        tokio::spawn(listener.run(up));
        Ok(Response::new(Box::pin(
            futures::stream::iter([Ok(welcome)]).chain(down),
        )))
    }
}

async fn hello(up: &mut Streaming<pb::FromMount>) -> Result<ClientId, Status> {
    let late = |_| Error::new(Code::TimedOut, "a change stream begins with Hello");
    match timeout(HELLO_WITHIN, up.message()).await.map_err(late)?? {
        Some(pb::FromMount {
            body: Some(pb::from_mount::Body::Hello(hello)),
        }) => Ok(ClientId(hello.client)),
        Some(_) | None => Err(convert::invalid("a change stream begins with Hello").into()),
    }
}

/// What the session may not have heard while it had no stream: turns that are wanted back, and removed files it holds.
async fn remind(door: &Door, client: ClientId) -> Result<(), Error> {
    let live = &door.desk.live;
    let recalled = live.lock().turns.recalled_from(client);
    let recalled = recalled.into_iter().map(Event::Recall);
    let held = door
        .desk
        .read(move |read| {
            let held = state::held(read, client).into_iter();
            let held = held.filter_map(|inode| state::get_attributes(read, inode).ok());
            held.collect::<Vec<_>>()
        })
        .await?;
    let held = held.into_iter().map(|attributes| Event::Unlinked {
        inode: InodeId(attributes.inode),
        held: Some(attributes),
    });
    let all: Vec<Event> = recalled.chain(held).collect();
    for some in all.chunks(REMINDED_MAX) {
        live.watch.tell_all(client, some.to_vec());
    }
    Ok(())
}

/// Messages as they come, and a sign of life when none did; ends when it is cut, or the master stops.
fn down(door: Door, messages: mpsc::Receiver<Message>, every: Duration) -> impl Stream<Item = Sent> + Send {
    futures::stream::unfold((door, messages), move |(mut door, mut messages)| async move {
        let next = tokio::select! {
            biased;
            () = stopped(&mut door.stopping) => None,
            next = timeout(every, messages.recv()) => match next {
                Ok(Some(next)) => Some(events(next)),
                Ok(None) => None,
                Err(_) => Some(message(pb::to_mount::Body::Alive(pb::StillHere {}))),
            },
        };
        next.map(|next| (Ok(next), (door, messages)))
    })
}

/// The master's ear for one stream.
struct Listener {
    door: Door,
    client: ClientId,
    number: u64,
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The mount's side ended it.
    Peer,
    /// It was silent, or it is we who ended it.
    Other,
}

impl Listener {
    async fn run(mut self, mut up: Streaming<pb::FromMount>) {
        let desk = self.door.desk.clone();
        let every = desk.timings.heartbeat_every;
        let mut heard = desk.now();
        let why = self.listen(&mut up, &mut heard).await;
        let was_its = desk.live.watch.detach(self.client, self.number);
        let now = desk.now();
        tracing::debug!(client = %self.client, stream = self.number, ?why, "a change stream is over");
        if was_its && why == Why::Peer && now < heard + every * 2 {
            self.bury(now).await;
        }
    }

    async fn listen(&mut self, up: &mut Streaming<pb::FromMount>, heard: &mut Instant) -> Why {
        let desk = self.door.desk.clone();
        let every = desk.timings.heartbeat_every;
        loop {
            let next = tokio::select! {
                biased;
                () = stopped(&mut self.door.stopping) => return Why::Other,
                next = timeout(every, up.message()) => next,
            };
            let now = desk.now();
            if !desk.live.watch.keeps_up(self.client, self.number, now) {
                return Why::Other;
            }
            match next {
                Err(_) if now < *heard + every * MISSED_MAX => {}
                Err(_) => return Why::Other,
                Ok(Ok(Some(said))) => {
                    *heard = now;
                    if self.door.gate.heard(self.client).is_err() || !self.take(said) {
                        return Why::Other;
                    }
                }
                Ok(Ok(None) | Err(_)) => return Why::Peer,
            }
        }
    }

    /// False: what it said makes no sense.
    fn take(&self, said: pb::FromMount) -> bool {
        let watch = &self.door.desk.live.watch;
        match said.body {
            Some(pb::from_mount::Body::Ack(ack)) => watch.ack(self.client, self.number, ack.sequence),
            Some(pb::from_mount::Body::Forget(of)) if of.inodes.len() <= INODES_MAX => {
                let inodes: Vec<InodeId> = of.inodes.into_iter().map(InodeId).collect();
                watch.forget(self.client, &inodes);
                true
            }
            Some(pb::from_mount::Body::Keep(of)) if of.inodes.len() <= INODES_MAX => {
                watch.told(self.client, of.inodes.into_iter().map(InodeId));
                true
            }
            Some(pb::from_mount::Body::Alive(_)) => true,
            Some(
                pb::from_mount::Body::Hello(_)
                | pb::from_mount::Body::Forget(_)
                | pb::from_mount::Body::Keep(_),
            )
            | None => false,
        }
    }

    /// Ends the session if nothing is heard of it for a while.
    async fn bury(mut self, broke: Instant) {
        let grace = self.door.desk.timings.session_master;
        tokio::select! {
            () = stopped(&mut self.door.stopping) => return,
            () = sleep(grace) => {}
        }
        let (client, live) = (self.client, &self.door.desk.live);
        // A call of a living process comes later than what was still under way when its stream broke.
        let is_alive = live.lock().clients.was_heard_since(client, broke + grace / 2);
        if is_alive || !live.watch.is_away_since(client, self.number) {
            return;
        }
        tracing::info!(%client, "a mount is gone: its session ends");
        if let Err(error) = self.door.steward.end_client(client).await {
            tracing::warn!(%client, %error, "a client session could not be ended");
        }
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn message(body: pb::to_mount::Body) -> pb::ToMount {
    pb::ToMount { body: Some(body) }
}

fn events(message_of: Message) -> pb::ToMount {
    let events = message_of.events.into_iter().map(event).collect();
    message(pb::to_mount::Body::Events(pb::Events {
        sequence: message_of.sequence,
        events,
    }))
}

fn event(event: Event) -> pb::Event {
    use pb::event::Body;
    let body = match event {
        Event::Changed(attributes) => Body::Changed(convert::attributes(&attributes)),
        Event::Name { parent, name, now } => Body::Entry(pb::EntryChanged {
            parent: parent.0,
            name: name.into(),
            inode: now.map_or(0, |(inode, _)| inode.0),
            kind: now.map_or(0, |(_, kind)| kind as i32),
        }),
        Event::Unlinked { inode, held } => Body::Unlinked(pb::Unlinked {
            inode: inode.0,
            held: held.as_ref().map(convert::attributes),
        }),
        Event::Recall(inode) => Body::Recall(inode.0),
        Event::LockFreed(inode) => Body::LockFreed(inode.0),
        Event::Forgotten(inodes) => Body::Forgotten(pb::Inodes {
            inodes: inodes.into_iter().map(|inode| inode.0).collect(),
        }),
    };
    pb::Event { body: Some(body) }
}

/// The inode a question is about: that something is not there is kept too.
pub(super) fn asked(query: &Query) -> Option<InodeId> {
    let inode = match query {
        Query::Lookup(q) => q.parent,
        Query::GetAttributes(q) => q.inode,
        Query::ReadDirectory(q) => q.inode,
        Query::ReadLink(q) => q.inode,
        Query::GetXattr(q) => q.inode,
        Query::ListXattr(q) => q.inode,
        Query::Locate(q) => q.inode,
        Query::Access(q) => q.inode,
        Query::AppendTurn(q) => q.inode,
        Query::GetRetention(q) => q.inode,
        Query::Resolve(_)
        | Query::StatFs(_)
        | Query::TestLock(_)
        | Query::AppendDone(_)
        | Query::ListTrash(_) => return None,
    };
    Some(InodeId(inode))
}

/// Inodes an answer tells about, beside the one that was asked about.
pub(super) fn told(told: &Told) -> Vec<InodeId> {
    match told {
        Told::Attributes(a) => vec![InodeId(a.inode)],
        Told::Directory(page) => {
            let attributes = page.entries.iter().filter_map(|e| e.attributes.as_ref());
            attributes.map(|a| InodeId(a.inode)).collect()
        }
        Told::Resolved(_)
        | Told::Target(_)
        | Told::Value(_)
        | Told::Names(_)
        | Told::Space(_)
        | Told::Located(_)
        | Told::Locked(_)
        | Told::Turn(_)
        | Told::Trash(_)
        | Told::Retention(_) => Vec::new(),
    }
}
