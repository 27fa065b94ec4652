//! Connections that carry one stream after the other, and packets that come late.

use super::*;

fn of_chunk(capability: &Capability, chunk: u64) -> Capability {
    Capability {
        chunk: ChunkHandle(chunk),
        ..capability.clone()
    }
}

impl Client {
    /// Ends the stream in order.
    async fn close(&mut self) {
        self.send(
            2,
            to_server::Body::StreamClose(pb::StreamClose::default()),
            Bytes::new(),
        )
        .await;
        while !matches!(self.hear().await.unwrap().0, from_server::Body::StreamClosed(_)) {}
    }

    /// Ends a stream on which everything is answered.
    async fn leave(&mut self) {
        let close = pb::StreamClose { unanswered: true };
        self.send(2, to_server::Body::StreamClose(close), Bytes::new())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_chunks_follow_each_other_on_the_same_connections() {
    let nodes = nodes(3).await;
    let capability = capability(&nodes, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    for n in 0..30 {
        let capability = of_chunk(&capability, 0x100 + n);
        client.open(&capability, 5).await.unwrap();
        client.packet(1, 0, b"small", n % 2 == 0).await;
        assert_eq!(client.acked(1).await.unwrap(), 5);
        match n % 3 {
            0 => client.close().await,
            _ => client.leave().await,
        }
        let capability = Capability {
            length: 5,
            ..capability
        };
        let mut reader = Client::connect(&nodes[2].member.addr).await;
        let (_, bytes) = reader.read(&capability, 0, 9).await.unwrap();
        assert_eq!(&bytes[..], b"small");
    }
    for node in &nodes[..2] {
        // The last stream's end is answered before its link is put back.
        let chains = &node.ground.chains;
        let back = async {
            while chains.links_idle() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, back).await.unwrap();
        let links = chains.links_idle();
        assert!((1..=5).contains(&links), "{links} links for 30 chunks");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_comes_back_at_once_goes_on() {
    let nodes = nodes(3).await;
    let capability = capability(&nodes, 1);
    for n in 0..30 {
        let mut client = Client::connect(&nodes[0].member.addr).await;
        client.open(&capability, 5 + n).await.unwrap();
        client.packet(1, n * 5, b"bytes", false).await;
        assert_eq!(client.acked(1).await.unwrap(), n * 5 + 5);
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_may_follow_the_opening_without_waiting() {
    let nodes = nodes(3).await;
    let capability = capability(&nodes, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    let open = pb::WriteOpen {
        capability: Some(key().sign(&capability)),
        writer: 5,
        ..pb::WriteOpen::default()
    };
    client
        .send(1, to_server::Body::WriteOpen(open), Bytes::new())
        .await;
    client.packet(1, 0, b"first", false).await;
    let opened = client.hear().await.unwrap().0;
    assert!(matches!(opened, from_server::Body::WriteOpened(_)), "{opened:?}");
    assert_eq!(client.acked(1).await.unwrap(), 5);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packet_one_that_comes_after_a_new_session_creates_nothing() {
    let nodes = nodes(1).await;
    let capability = capability(&nodes, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    client.open(&capability, 5).await.unwrap();
    nodes[0].ground.fence.set_first_new(ChunkHandle(CHUNK.0 + 1));
    client.packet(1, 0, b"late", false).await;
    assert_eq!(client.acked(1).await.unwrap_err().code, Code::Unavailable);
    assert!(nodes[0].ground.store.get(CHUNK).is_none());
}
