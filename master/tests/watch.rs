//! The change stream from the master's side: who may open one, and what its end means for the session.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use dfs_master::{Config, Master, View};
use dfs_proto::limits::Parameters;
use dfs_proto::net::{self, Tcp};
use dfs_proto::pb::namespace_client::NamespaceClient;
use dfs_proto::pb::watch_client::WatchClient;
use dfs_proto::pb::{self, from_mount, to_mount};
use dfs_proto::{Code, Error, World};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const BOUND: Duration = Duration::from_secs(10);
/// The test profile's: a mount whose stream ended has so long to open another.
const GRACE: Duration = Duration::from_millis(500);

struct Cluster {
    master: Master,
    names: NamespaceClient<Channel>,
    _folder: tempfile::TempDir,
}

/// A mount's end of a stream.
struct Line {
    up: mpsc::Sender<pb::FromMount>,
    down: Streaming<pb::ToMount>,
}

impl Cluster {
    async fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            listen: "127.0.0.1:0".into(),
            advertise: None,
            data_dir: folder.path().to_owned(),
            parameters: Parameters {
                time_divisor: 10,
                ..Parameters::default()
            },
            view: View::Memory,
            checkpoint_every: 10_000,
            repair_after: None,
        };
        let master = Master::start(config, World::real("test", 2)).await.unwrap();
        let names = NamespaceClient::new(net::channel(Arc::new(Tcp), master.addr(), Some(BOUND)));
        Cluster {
            master,
            names,
            _folder: folder,
        }
    }

    async fn session(&mut self, nonce: u64, mount: bool) -> u64 {
        let open = pb::OpenSessionRequest {
            nonce,
            mount,
            ..pb::OpenSessionRequest::default()
        };
        self.names.open_session(open).await.unwrap().into_inner().client
    }

    async fn line(&self, client: u64) -> Result<Line, Error> {
        let (up, said) = mpsc::channel(16);
        let hello = from_mount::Body::Hello(pb::Hello { client });
        up.send(message(hello)).await.unwrap();
        let mut stub = WatchClient::new(net::channel(Arc::new(Tcp), self.master.addr(), None));
        let mut down = stub.watch(ReceiverStream::new(said)).await?.into_inner();
        let first = down.message().await?.expect("a welcome");
        assert!(
            matches!(first.body, Some(to_mount::Body::Welcome(_))),
            "{first:?}"
        );
        Ok(Line { up, down })
    }

    async fn is_live(&mut self, client: u64) -> bool {
        let renew = pb::RenewRequest {
            client,
            writing: Vec::new(),
        };
        match self.names.renew(renew).await.map_err(Error::from) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.code, Code::SessionExpired, "{error}");
                false
            }
        }
    }
}

fn message(body: from_mount::Body) -> pb::FromMount {
    pb::FromMount { body: Some(body) }
}

#[tokio::test]
async fn only_the_session_of_a_mount_has_a_stream() {
    let mut cluster = Cluster::start().await;
    let plain = cluster.session(1, false).await;
    assert_eq!(
        cluster.line(plain).await.err().unwrap().code,
        Code::InvalidArgument
    );
    assert_eq!(cluster.line(999).await.err().unwrap().code, Code::SessionExpired);
    let mount = cluster.session(2, true).await;
    let mut first = cluster.line(mount).await.unwrap();
    let mut second = cluster.line(mount).await.unwrap();
    let ended = async { while first.down.message().await.is_ok_and(|m| m.is_some()) {} };
    tokio::time::timeout(BOUND, ended)
        .await
        .expect("the newest counts");
    let alive = second.down.message().await.unwrap().unwrap();
    assert_eq!(alive.body, Some(to_mount::Body::Alive(pb::StillHere {})));
}

#[tokio::test]
async fn the_session_of_a_mount_that_is_gone_ends_long_before_its_lease() {
    let mut cluster = Cluster::start().await;
    let (gone, back, plain) = (
        cluster.session(1, true).await,
        cluster.session(2, true).await,
        cluster.session(3, false).await,
    );
    let (one, two) = (
        cluster.line(gone).await.unwrap(),
        cluster.line(back).await.unwrap(),
    );
    drop((one, two));
    let returned = cluster.line(back).await.unwrap();
    tokio::time::sleep(GRACE * 2).await;
    assert!(!cluster.is_live(gone).await, "nothing was heard of it");
    assert!(cluster.is_live(back).await, "its stream came back");
    assert!(cluster.is_live(plain).await, "it never had one");
    drop(returned);
}

#[tokio::test]
async fn a_mount_whose_calls_go_on_lives_without_a_stream() {
    let mut cluster = Cluster::start().await;
    let mount = cluster.session(1, true).await;
    drop(cluster.line(mount).await.unwrap());
    let calls = async {
        for _ in 0..20 {
            tokio::time::sleep(GRACE / 10).await;
            assert!(cluster.is_live(mount).await);
        }
    };
    calls.await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_ends_no_session() {
    let mut cluster = Cluster::start().await;
    let mount = cluster.session(1, true).await;
    let mut line = cluster.line(mount).await.unwrap();
    // The master hangs up on whoever says nothing, and expects nothing of it.
    let ended = async { while line.down.message().await.is_ok_and(|m| m.is_some()) {} };
    tokio::time::timeout(BOUND, ended).await.expect("it hangs up");
    drop(line);
    tokio::time::sleep(GRACE * 2).await;
    assert!(cluster.is_live(mount).await);
}

#[tokio::test]
async fn nonsense_ends_the_stream_and_nothing_else() {
    let mut cluster = Cluster::start().await;
    let mount = cluster.session(1, true).await;
    for nonsense in [
        from_mount::Body::Hello(pb::Hello { client: mount }),
        from_mount::Body::Keep(pb::Inodes {
            inodes: (0..5_000).collect(),
        }),
    ] {
        let mut line = cluster.line(mount).await.unwrap();
        line.up.send(message(nonsense)).await.unwrap();
        let ended = async { while line.down.message().await.is_ok_and(|m| m.is_some()) {} };
        tokio::time::timeout(BOUND, ended).await.expect("it hangs up");
    }
    assert!(cluster.is_live(mount).await);
}
