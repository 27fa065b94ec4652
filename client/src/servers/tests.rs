//! Connections that end in the middle of requests.

use super::*;
use crate::convert::data;
use crate::fake::{Cluster, Net};
use dfs_proto::net::Listen as _;

fn member(addr: &str) -> Member {
    Member {
        node: NodeId(9),
        addr: addr.into(),
        ..Member::default()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_is_named() {
    let servers = Servers::new(Arc::new(Net::default()));
    let error = servers
        .request(&member("nowhere:1"), data::stream_close(), soon())
        .await
        .unwrap_err();
    assert_eq!((error.code, error.node), (Code::Unavailable, Some(NodeId(9))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_late() {
    let cluster = Cluster::start(1).await;
    cluster.fault(1, |f| f.hangs = true);
    let servers = Servers::new(Arc::new(cluster.net.clone()));
    let error = servers
        .request(&member("node1:1"), data::stream_close(), soon())
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_all_its_requests_and_the_next_one_gets_another() {
    let net = Net::default();
    let mut door = net.listen("door:1").await.unwrap();
    let servers = Servers::new(Arc::new(net));
    let ask = || async {
        servers
            .request(&member("door:1"), data::stream_close(), soon())
            .await
    };
    let close = async {
        let (stream, _) = door.accept().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(stream);
        let (stream, _) = door.accept().await.unwrap();
        let (reader, writer) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
        reader.expect_preamble().await.unwrap();
        let (asked, _) = reader.next::<ToServer>().await.unwrap().unwrap();
        writer
            .send(
                &FromServer {
                    id: asked.id,
                    ..FromServer::default()
                },
                Bytes::new(),
            )
            .await
            .unwrap();
        (reader, writer)
    };
    let work = async {
        assert_eq!(ask().await.unwrap_err().code, Code::Unavailable);
        ask().await.unwrap();
    };
    tokio::join!(close, work);
}
