//! What mounts share through the master: files removed while open, locks, turns to append.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use dfs_master::{Config, Master, View};
use dfs_proto::limits::Parameters;
use dfs_proto::net::{self, Tcp};
use dfs_proto::pb::mutate_reply::Result as Told;
use dfs_proto::pb::mutate_request::Change;
use dfs_proto::pb::namespace_client::NamespaceClient;
use dfs_proto::pb::query_reply::Result as Answer;
use dfs_proto::pb::query_request::Query;
use dfs_proto::pb::watch_client::WatchClient;
use dfs_proto::pb::{self, event, from_mount, to_mount};
use dfs_proto::{Code, Error, World};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const BOUND: Duration = Duration::from_secs(10);

async fn start(folder: &Path) -> Master {
    let config = Config {
        listen: "127.0.0.1:0".into(),
        advertise: None,
        data_dir: folder.to_owned(),
        parameters: Parameters::default(),
        view: View::Memory,
        checkpoint_every: 10_000,
        repair_after: None,
    };
    Master::start(config, World::real("test", 2)).await.unwrap()
}

/// A mount with its stream.
struct Mount {
    names: NamespaceClient<Channel>,
    client: u64,
    sequence: u64,
    up: mpsc::Sender<pb::FromMount>,
    down: Streaming<pb::ToMount>,
}

impl Mount {
    async fn new(addr: &str, nonce: u64) -> Mount {
        let channel = net::channel(Arc::new(Tcp), addr, Some(BOUND));
        let mut names = NamespaceClient::new(channel);
        let open = pb::OpenSessionRequest {
            nonce,
            mount: true,
            ..pb::OpenSessionRequest::default()
        };
        let client = names.open_session(open).await.unwrap().into_inner().client;
        let (up, said) = mpsc::channel(16);
        up.send(said_by(from_mount::Body::Hello(pb::Hello { client })))
            .await
            .unwrap();
        let mut stub = WatchClient::new(net::channel(Arc::new(Tcp), addr, None));
        let mut down = stub.watch(ReceiverStream::new(said)).await.unwrap().into_inner();
        down.message().await.unwrap().expect("a welcome");
        Mount {
            names,
            client,
            sequence: 0,
            up,
            down,
        }
    }

    async fn change(&mut self, change: Change) -> Result<pb::MutateReply, Error> {
        self.sequence += 1;
        let request = pb::MutateRequest {
            id: Some(pb::RequestId {
                client: self.client,
                sequence: self.sequence,
                lowest_unanswered: self.sequence,
            }),
            caller: Some(pb::Caller::default()),
            change: Some(change),
        };
        Ok(self.names.mutate(request).await?.into_inner())
    }

    async fn ask(&mut self, query: Query) -> Result<Answer, Error> {
        self.ask_as(0, query).await
    }

    async fn ask_as(&mut self, uid: u32, query: Query) -> Result<Answer, Error> {
        let request = pb::QueryRequest {
            client: self.client,
            caller: Some(pb::Caller {
                uid,
                gid: uid,
                ..pb::Caller::default()
            }),
            query: Some(query),
        };
        let reply = self.names.query(request).await?.into_inner();
        Ok(reply.result.expect("an answer"))
    }

    async fn makes(&mut self, name: &str) -> u64 {
        let make = pb::Make {
            parent: 1,
            name: name.to_owned().into(),
            kind: pb::Kind::File.into(),
            mode: 0o644,
            ..pb::Make::default()
        };
        let reply = self.change(Change::Make(make)).await.unwrap();
        assert_eq!(reply.touched[0].inode, 1, "the directory");
        match reply.result {
            Some(Told::Made(made)) => made.attributes.unwrap().inode,
            other => panic!("{other:?}"),
        }
    }

    async fn unlinks(&mut self, name: &str, keep: bool) -> pb::Attributes {
        let unlink = pb::Unlink {
            parent: 1,
            name: name.to_owned().into(),
            keep,
        };
        self.change(Change::Unlink(unlink))
            .await
            .unwrap()
            .touched
            .swap_remove(0)
    }

    async fn is_there(&mut self, inode: u64) -> bool {
        match self.ask(Query::GetAttributes(pb::GetAttributes { inode })).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.code, Code::NotFound);
                false
            }
        }
    }

    async fn releases(&mut self, inode: u64) {
        let release = pb::Release { inodes: vec![inode] };
        self.change(Change::Release(release)).await.unwrap();
    }

    async fn locks(&mut self, inode: u64, owner: u64, (start, kind): (u64, pb::LockKind)) -> pb::Locked {
        let lock = pb::Lock {
            inode,
            owner,
            start,
            end: start + 9,
            kind: kind.into(),
            wait: true,
            ..pb::Lock::default()
        };
        match self.change(Change::Lock(lock)).await.unwrap().result {
            Some(Told::Locked(locked)) => locked,
            other => panic!("{other:?}"),
        }
    }

    async fn turn(&mut self, inode: u64) -> bool {
        match self
            .ask(Query::AppendTurn(pb::AppendTurn { inode }))
            .await
            .unwrap()
        {
            Answer::Turn(turn) => turn.yours,
            other => panic!("{other:?}"),
        }
    }

    /// The next event of this kind; everything is acknowledged.
    async fn hears(&mut self, wanted: impl Fn(&event::Body) -> bool) {
        let found = async {
            loop {
                let message = self.down.message().await.unwrap().expect("the stream stands");
                let Some(to_mount::Body::Events(events)) = message.body else {
                    self.says(from_mount::Body::Alive(pb::StillHere {})).await;
                    continue;
                };
                let sequence = events.sequence;
                self.says(from_mount::Body::Ack(pb::Acknowledged { sequence }))
                    .await;
                if events.events.iter().any(|e| e.body.as_ref().is_some_and(&wanted)) {
                    return;
                }
            }
        };
        tokio::time::timeout(BOUND, found).await.expect("it is told");
    }

    async fn says(&self, body: from_mount::Body) {
        self.up.send(said_by(body)).await.unwrap();
    }
}

fn said_by(body: from_mount::Body) -> pb::FromMount {
    pb::FromMount { body: Some(body) }
}

#[tokio::test]
async fn a_removed_file_stays_until_every_mount_that_may_have_it_open_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let master = start(folder.path()).await;
    let (mut ann, mut bob) = (
        Mount::new(master.addr(), 1).await,
        Mount::new(master.addr(), 2).await,
    );
    let file = ann.makes("f").await;
    assert!(bob.is_there(file).await, "from now on it may have it open");
    let gone = ann.unlinks("f", true).await;
    assert_eq!((gone.inode, gone.nlink), (file, 0));
    bob.hears(|e| matches!(e, event::Body::Unlinked(u) if u.inode == file && u.held.is_some()))
        .await;
    ann.releases(file).await;
    assert!(bob.is_there(file).await);
    bob.releases(file).await;
    assert!(!bob.is_there(file).await);
}

#[tokio::test]
async fn a_mount_that_comes_back_is_told_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let master = start(folder.path()).await;
    let (mut ann, mut bob) = (
        Mount::new(master.addr(), 1).await,
        Mount::new(master.addr(), 2).await,
    );
    let file = ann.makes("f").await;
    assert!(bob.is_there(file).await);
    ann.unlinks("f", false).await;
    let removed =
        |e: &event::Body| matches!(e, event::Body::Unlinked(u) if u.inode == file && u.held.is_some());
    bob.hears(removed).await;
    let mut bob = Mount::new(master.addr(), 2).await;
    bob.hears(removed).await;
    bob.releases(file).await;
    assert!(!bob.is_there(file).await);
}

#[tokio::test]
async fn a_removed_file_goes_with_the_session_that_kept_it() {
    let folder = tempfile::tempdir().unwrap();
    let master = start(folder.path()).await;
    let (mut ann, mut bob) = (
        Mount::new(master.addr(), 1).await,
        Mount::new(master.addr(), 2).await,
    );
    let file = ann.makes("f").await;
    ann.unlinks("f", true).await;
    let close = pb::CloseSessionRequest { client: ann.client };
    assert!(ann.is_there(file).await);
    ann.names.close_session(close).await.unwrap();
    bob.releases(file).await;
    assert!(!bob.is_there(file).await);
}

#[tokio::test]
async fn what_a_file_is_opened_for_is_asked_once() {
    let folder = tempfile::tempdir().unwrap();
    let master = start(folder.path()).await;
    let mut ann = Mount::new(master.addr(), 1).await;
    let inode = ann.makes("f").await;
    let access = |mask| Query::Access(pb::Access { inode, mask });
    let resolve = |access| {
        Query::Resolve(pb::Resolve {
            path: "/f".into(),
            access,
            ..pb::Resolve::default()
        })
    };
    let locate = |by_handle| {
        Query::Locate(pb::Locate {
            inode,
            by_handle,
            ..pb::Locate::default()
        })
    };
    for allowed in [access(4), resolve(4), resolve(0), locate(false)] {
        assert!(ann.ask_as(10, allowed).await.is_ok());
    }
    for refused in [access(2), access(6), resolve(2)] {
        let error = ann.ask_as(10, refused).await.unwrap_err();
        assert_eq!(error.code, Code::PermissionDenied);
    }
    let close = pb::SetAttributes {
        inode,
        mode: Some(0),
        ..pb::SetAttributes::default()
    };
    ann.change(Change::SetAttributes(close)).await.unwrap();
    let error = ann.ask_as(10, locate(false)).await.unwrap_err();
    assert_eq!(error.code, Code::PermissionDenied);
    assert!(ann.ask_as(10, locate(true)).await.is_ok(), "it was opened before");
}

#[tokio::test]
async fn a_lock_that_is_waited_for_is_told_when_it_is_free() {
    use pb::LockKind::{Exclusive, Unlock};
    let folder = tempfile::tempdir().unwrap();
    let master = start(folder.path()).await;
    let (mut ann, mut bob) = (
        Mount::new(master.addr(), 1).await,
        Mount::new(master.addr(), 2).await,
    );
    let file = ann.makes("f").await;
    assert_eq!(ann.locks(file, 1, (0, Exclusive)).await, pb::Locked::default());
    assert_eq!(bob.locks(file, 1, (10, Exclusive)).await, pb::Locked::default());
    let in_the_way = bob.locks(file, 1, (0, Exclusive)).await;
    assert_eq!(in_the_way.conflict.unwrap().client, ann.client);
    let ring = ann.locks(file, 1, (10, Exclusive)).await;
    assert!(ring.deadlock, "each would wait for the other");
    ann.locks(file, 1, (0, Unlock)).await;
    bob.hears(|e| *e == event::Body::LockFreed(file)).await;
    assert_eq!(bob.locks(file, 1, (0, Exclusive)).await, pb::Locked::default());
    assert!(ann.locks(file, 2, (10, Exclusive)).await.conflict.is_some());
    let close = pb::CloseSessionRequest { client: bob.client };
    bob.names.close_session(close).await.unwrap();
    ann.hears(|e| *e == event::Body::LockFreed(file)).await;
    assert_eq!(ann.locks(file, 2, (10, Exclusive)).await, pb::Locked::default());
}

#[tokio::test]
async fn a_turn_to_append_is_recalled_for_the_next_and_ends_with_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let master = start(folder.path()).await;
    let (mut ann, mut bob) = (
        Mount::new(master.addr(), 1).await,
        Mount::new(master.addr(), 2).await,
    );
    let file = ann.makes("f").await;
    assert!(ann.turn(file).await && ann.turn(file).await);
    let gives_back = async {
        ann.hears(|e| *e == event::Body::Recall(file)).await;
        ann.ask(Query::AppendDone(pb::AppendDone { inode: file }))
            .await
            .unwrap();
    };
    let (yours, ()) = tokio::join!(bob.turn(file), gives_back);
    assert!(yours);
    let close = pb::CloseSessionRequest { client: bob.client };
    let (yours, closed) = tokio::join!(ann.turn(file), bob.names.close_session(close));
    assert!(yours && closed.is_ok());
    let of_nothing = ann.ask(Query::AppendTurn(pb::AppendTurn { inode: 99 })).await;
    assert_eq!(of_nothing.unwrap_err().code, Code::NotFound);
}
