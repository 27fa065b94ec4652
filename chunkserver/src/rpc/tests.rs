//! Three chunkservers in one process, over loopback TCP, and a client that speaks frames.

mod links;

use super::serve;
use crate::budget::{BUSY_BYTES_A_SECOND, Budget};
use crate::chain::Chains;
use crate::fence::Fence;
use crate::ground::Ground;
use crate::report::Trouble;
use crate::store::{Options, Store};
use bytes::Bytes;
use dfs_proto::capability::{Capability, Key, Keys, Member, Operations};
use dfs_proto::checksum::of_pieces;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::limits::{BLOCK_BYTES, Parameters};
use dfs_proto::net::{BoxStream, Dial as _, Listen as _, Tcp};
use dfs_proto::pb::{self, from_server, to_server};
use dfs_proto::world::World;
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Version};
use dfs_stdx::blocking::Pool;
use dfs_stdx::disk::MemDisk;
use dfs_stdx::{Clock, Rng};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const CHUNK: ChunkHandle = ChunkHandle(0xc0ffee);
/// Longest wait for anything here.
const SOON: Duration = Duration::from_secs(10);

fn key() -> Key {
    Key {
        id: 1,
        secret: [7; 32],
    }
}

struct Node {
    ground: Ground,
    member: Member,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    troubles: mpsc::Receiver<Trouble>,
}

async fn node(number: u32) -> Node {
    let disk = Arc::new(MemDisk::new());
    let options = Options {
        dirs: vec!["/data".into()],
        ..Options::default()
    };
    let rng = Rng::seeded(u64::from(number));
    let store = Arc::new(Store::open(disk.clone(), &options, &rng).unwrap());
    let fence = Fence::new();
    fence.begin(NodeId(number));
    fence.set_keys(Keys(vec![key()]));
    fence.set_parameters(Parameters {
        time_divisor: 10,
        ..Parameters::default()
    });
    fence.extend(tokio::time::Instant::now() + Duration::from_secs(1_000));
    fence.mark_all_compared();
    let (tell, troubles) = mpsc::channel(100);
    let world = World {
        dial: Arc::new(Tcp),
        listen: Arc::new(Tcp),
        disk,
        clock: Clock::system(),
        rng,
        pool: Pool::threads("disk", 2),
    };
    let ground = Ground {
        budget: Arc::new(Budget::new(Clock::system(), BUSY_BYTES_A_SECOND)),
        world,
        store,
        chains: Arc::new(Chains::default()),
        fence,
        troubles: tell,
        meters: Arc::default(),
    };
    let listener = Tcp.listen("127.0.0.1:0").await.unwrap();
    let member = Member {
        node: NodeId(number),
        addr: listener.local_addr(),
        ..Member::default()
    };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(ground.clone(), listener, stop.clone()));
    Node {
        ground,
        member,
        stop,
        served,
        troubles,
    }
}

impl Node {
    /// Ends every connection, as a killed process does.
    async fn kill(&mut self) {
        self.stop.cancel();
        (&mut self.served).await.unwrap();
    }
}

async fn nodes(count: u32) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(node(number).await);
    }
    nodes
}

fn capability(nodes: &[Node], version: u32) -> Capability {
    Capability {
        chunk: CHUNK,
        version: Version(version),
        operations: Operations::READ | Operations::WRITE | Operations::PULL,
        expires_unix_ms: u64::MAX,
        members: nodes.iter().map(|n| n.member.clone()).collect(),
        goal: 3,
        ..Capability::default()
    }
}

struct Client {
    reader: FrameReader<ReadHalf<BoxStream>>,
    writer: FrameWriter<WriteHalf<BoxStream>>,
}

type Answer = Result<(from_server::Body, Bytes), Error>;

impl Client {
    async fn connect(addr: &str) -> Client {
        let (reader, writer) = tokio::io::split(Tcp.dial(addr).await.unwrap());
        let mut writer = FrameWriter::new(writer);
        writer.send_preamble().await.unwrap();
        Client {
            reader: FrameReader::new(reader),
            writer,
        }
    }

    async fn send(&mut self, id: u64, body: to_server::Body, payload: Bytes) {
        let message = pb::ToServer { id, body: Some(body) };
        self.writer.send(&message, payload).await.unwrap();
    }

    async fn hear(&mut self) -> Answer {
        let next = timeout(SOON, self.reader.next::<pb::FromServer>()).await;
        let (reply, payload) = next
            .expect("an answer comes soon")
            .unwrap()
            .expect("the connection lives");
        match (reply.error, reply.body) {
            (Some(error), _) => Err(error.into()),
            (None, Some(body)) => Ok((body, payload)),
            (None, None) => panic!("an empty answer"),
        }
    }

    async fn ask(&mut self, body: to_server::Body) -> Answer {
        self.send(1, body, Bytes::new()).await;
        self.hear().await
    }

    async fn open(&mut self, capability: &Capability, writer: u64) -> Result<pb::WriteOpened, Error> {
        let open = pb::WriteOpen {
            capability: Some(key().sign(capability)),
            writer,
            ..pb::WriteOpen::default()
        };
        match self.ask(to_server::Body::WriteOpen(open)).await? {
            (from_server::Body::WriteOpened(opened), _) => Ok(opened),
            other => panic!("{other:?}"),
        }
    }

    async fn packet(&mut self, sequence: u64, offset: u64, data: &[u8], sync: bool) {
        let packet = pb::Packet {
            sequence,
            offset,
            checksums: of_pieces(offset, data),
            sync,
            ..pb::Packet::default()
        };
        self.send(1, to_server::Body::Packet(packet), Bytes::copy_from_slice(data))
            .await;
    }

    /// Waits until the sequence is acknowledged; the committed length.
    async fn acked(&mut self, sequence: u64) -> Result<u64, Error> {
        loop {
            match self.hear().await? {
                (from_server::Body::Ack(ack), _) if ack.sequence >= sequence => return Ok(ack.length),
                (from_server::Body::Ack(_), _) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn read(
        &mut self,
        capability: &Capability,
        offset: u64,
        length: u32,
    ) -> Result<(pb::ReadReply, Bytes), Error> {
        let read = pb::Read {
            capability: Some(key().sign(capability)),
            offset,
            length,
            stale_ok: false,
            ..pb::Read::default()
        };
        match self.ask(to_server::Body::Read(read)).await? {
            (from_server::Body::Read(reply), bytes) => {
                assert_eq!(reply.checksums, of_pieces(offset, &bytes));
                Ok((reply, bytes))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let rng = Rng::seeded(seed);
    (0..length).map(|_| rng.below(256) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_to_the_head_is_read_from_every_member() {
    let nodes = nodes(3).await;
    let capability = capability(&nodes, 1);
    let data = bytes(3 * 1024 * 1024 + 777, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    let opened = client.open(&capability, 5).await.unwrap();
    assert_eq!((opened.last_sequence, opened.length), (0, 0));
    let mut sequence = 0;
    for (n, part) in data.chunks(1024 * 1024).enumerate() {
        sequence += 1;
        client.packet(sequence, n as u64 * 1024 * 1024, part, false).await;
    }
    client.packet(sequence + 1, 0, &[], true).await;
    assert_eq!(client.acked(sequence + 1).await.unwrap(), data.len() as u64);
    // An overwrite in the middle, over a block's edge.
    let patch = bytes(100, 2);
    client.packet(sequence + 2, BLOCK_BYTES - 50, &patch, false).await;
    client.acked(sequence + 2).await.unwrap();
    let mut expected = data.clone();
    expected[BLOCK_BYTES as usize - 50..BLOCK_BYTES as usize + 50].copy_from_slice(&patch);
    let mut digests = Vec::new();
    for node in &nodes {
        let mut reader = Client::connect(&node.member.addr).await;
        for (n, part) in expected.chunks(1024 * 1024).enumerate() {
            let read = reader
                .read(&capability, n as u64 * 1024 * 1024, 1024 * 1024)
                .await;
            let (reply, got) = read.unwrap();
            assert!(got == part, "part {n} of {}", node.member.node);
            assert!(!reply.detached);
            assert_eq!(reply.chunk_length, data.len() as u64);
        }
        digests.push(node.ground.store.get(CHUNK).unwrap().digest().unwrap());
    }
    assert!(digests.iter().all(|d| *d == digests[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growth_that_was_acknowledged_is_read_from_every_member_at_once() {
    let nodes = nodes(3).await;
    let young = capability(&nodes, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    client.open(&young, 5).await.unwrap();
    let mut readers = Vec::new();
    for node in &nodes {
        readers.push(Client::connect(&node.member.addr).await);
    }
    // Members hear of a commit a moment after the writer. The readers' capability knows of no bytes at all.
    for sequence in 1..=100 {
        client
            .packet(sequence, 10 * (sequence - 1), &[7; 10], false)
            .await;
        client.acked(sequence).await.unwrap();
        for reader in &mut readers {
            // On a busy machine a member may give up waiting for the word, and say so; a shorter answer it never gives.
            let read = async {
                loop {
                    match reader.read(&young, 0, 2_000).await {
                        Err(error) if error.code == Code::NotYet => {}
                        answer => return answer.unwrap().1,
                    }
                }
            };
            let got = timeout(SOON, read).await.unwrap();
            assert_eq!(got.len() as u64, 10 * sequence);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_member_ends_the_stream_with_its_name() {
    let mut nodes = nodes(3).await;
    let capability = capability(&nodes, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    client.open(&capability, 5).await.unwrap();
    client.packet(1, 0, &bytes(1000, 1), false).await;
    client.acked(1).await.unwrap();
    nodes[1].kill().await;
    client.packet(2, 1000, &bytes(1000, 2), false).await;
    let error = client.acked(2).await.unwrap_err();
    assert_eq!((error.code, error.node), (Code::Unavailable, Some(NodeId(2))));
    let trouble = timeout(SOON, nodes[0].troubles.recv()).await.unwrap();
    assert_eq!(
        trouble,
        Some(Trouble::LinkBroken {
            chunk: CHUNK,
            version: Version(1),
            suspect: NodeId(2)
        })
    );
    // This version takes nothing more at the head, and what was not committed is not read.
    let mut again = Client::connect(&nodes[0].member.addr).await;
    assert_eq!(
        again.open(&capability, 6).await.unwrap_err().node,
        Some(NodeId(2))
    );
    let (reply, got) = again.read(&capability, 0, 5000).await.unwrap();
    assert_eq!((reply.chunk_length, got.len()), (1000, 1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_named_by_its_neighbour() {
    let mut nodes = nodes(3).await;
    let mut capability = capability(&nodes, 1);
    // The tail accepts connections and never answers.
    let silent = Tcp.listen("127.0.0.1:0").await.unwrap();
    capability.members[2].addr = silent.local_addr();
    let mut client = Client::connect(&nodes[0].member.addr).await;
    client.open(&capability, 5).await.unwrap();
    client.packet(1, 0, &bytes(1000, 1), false).await;
    let error = client.acked(1).await.unwrap_err();
    assert_eq!((error.code, error.node), (Code::Unavailable, Some(NodeId(3))));
    assert!(nodes[1].troubles.recv().await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_on_another_connection_takes_effect_once() {
    let nodes = nodes(2).await;
    let capability = capability(&nodes, 1);
    let mut first = Client::connect(&nodes[0].member.addr).await;
    first.open(&capability, 5).await.unwrap();
    first.packet(1, 0, b"one", false).await;
    first.acked(1).await.unwrap();
    drop(first);
    let mut other = Client::connect(&nodes[0].member.addr).await;
    other.open(&capability, 6).await.unwrap();
    other.packet(1, 0, b"two", false).await;
    other.acked(1).await.unwrap();
    let mut again = Client::connect(&nodes[0].member.addr).await;
    assert_eq!(again.open(&capability, 5).await.unwrap().last_sequence, 1);
    again.packet(1, 0, b"one", false).await;
    again.acked(1).await.unwrap();
    assert_eq!(&again_read(&nodes[1], &capability).await[..], b"two");
}

async fn again_read(node: &Node, capability: &Capability) -> Bytes {
    let mut client = Client::connect(&node.member.addr).await;
    client.read(capability, 0, 100).await.unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_drains_the_stream_and_hides_what_was_not_committed() {
    let nodes = nodes(2).await;
    let capability = capability(&nodes, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    client.open(&capability, 5).await.unwrap();
    client.packet(1, 0, b"committed", false).await;
    client.acked(1).await.unwrap();
    nodes[0].ground.chains.drain(CHUNK, Version(2)).await;
    client.packet(2, 0, b"too late", false).await;
    assert_eq!(client.acked(2).await.unwrap_err().code, Code::Stale);
    let mut again = Client::connect(&nodes[0].member.addr).await;
    assert_eq!(again.open(&capability, 5).await.unwrap_err().code, Code::Stale);
    assert_eq!(&again_read(&nodes[0], &capability).await[..], b"committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_member_takes_packet_one_of_version_one_and_nothing_else() {
    let nodes = nodes(2).await;
    let capability = capability(&nodes, 1);
    nodes[0]
        .ground
        .store
        .create(CHUNK, Version(1), Version(1), vec![NodeId(1), NodeId(2)])
        .unwrap();
    let mut client = Client::connect(&nodes[0].member.addr).await;
    client.open(&capability, 5).await.unwrap();
    client.packet(1, 0, b"bytes", false).await;
    let error = client.acked(1).await.unwrap_err();
    assert_eq!((error.code, error.node), (Code::Unavailable, Some(NodeId(2))));
    assert!(nodes[1].ground.store.get(CHUNK).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capability_that_is_forged_expired_or_for_others_moves_no_byte() {
    let nodes = nodes(1).await;
    let good = capability(&nodes, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    let expired = Capability {
        expires_unix_ms: 1,
        ..good.clone()
    };
    assert_eq!(
        client.open(&expired, 1).await.unwrap_err().code,
        Code::PermissionDenied
    );
    let read_only = Capability {
        operations: Operations::READ,
        ..good.clone()
    };
    assert_eq!(
        client.open(&read_only, 1).await.unwrap_err().code,
        Code::PermissionDenied
    );
    let mut elsewhere = good.clone();
    elsewhere.members[0].node = NodeId(9);
    assert_eq!(client.open(&elsewhere, 1).await.unwrap_err().code, Code::Stale);
    let mut forged = key().sign(&good);
    forged.mac = Bytes::from(vec![0; 32]);
    let read = pb::Read {
        capability: Some(forged),
        length: 1,
        ..pb::Read::default()
    };
    assert_eq!(
        client.ask(to_server::Body::Read(read)).await.unwrap_err().code,
        Code::PermissionDenied
    );
    assert!(nodes[0].ground.store.get(CHUNK).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_over_the_limits_are_refused_and_the_connection_goes_on() {
    let nodes = nodes(1).await;
    let capability = capability(&nodes, 1);
    let mut client = Client::connect(&nodes[0].member.addr).await;
    for (offset, damage, code) in [(1 << 40, false, Code::TooLarge), (0, true, Code::Corrupt)] {
        client.open(&capability, 5).await.unwrap();
        let mut checksums = of_pieces(offset, b"bytes");
        checksums[0] ^= u32::from(damage);
        let packet = pb::Packet {
            sequence: 1,
            offset,
            checksums,
            sync: false,
            ..pb::Packet::default()
        };
        client
            .send(1, to_server::Body::Packet(packet), Bytes::from_static(b"bytes"))
            .await;
        assert_eq!(client.acked(1).await.unwrap_err().code, code);
        let closed = client
            .ask(to_server::Body::StreamClose(pb::StreamClose::default()))
            .await
            .unwrap();
        assert!(matches!(closed.0, from_server::Body::StreamClosed(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_its_own_connection_only() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let nodes = nodes(1).await;
    let addr = &nodes[0].member.addr;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"dfsdata\x01\xff\xff\xff\xff\xff\xff\xff\xff",
        b"dfsdata\x01\x01\0\0\0\0\0\0\0\xff",
    ] {
        let mut stream = Tcp.dial(addr).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = timeout(SOON, stream.read_to_end(&mut rest))
            .await
            .expect("it is cut off");
    }
    let mut client = Client::connect(addr).await;
    client.open(&capability(&nodes, 1), 5).await.unwrap();
    client.packet(1, 0, b"still here", false).await;
    client.acked(1).await.unwrap();
}

/// Writes and gets an acknowledgement at version 1, then the head's replica is gone with the power.
async fn headless() -> (Vec<Node>, Capability) {
    let nodes = nodes(2).await;
    let capability = capability(&nodes, 1);
    let members = vec![NodeId(1), NodeId(2)];
    let kept = nodes[1]
        .ground
        .store
        .create(CHUNK, Version(1), Version(1), members);
    kept.unwrap();
    (nodes, capability)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_whose_replica_is_gone_does_not_create_another_one() {
    let (nodes, young) = headless().await;
    nodes[0].ground.fence.set_first_new(ChunkHandle(CHUNK.0 + 1));
    let grown = Capability {
        length: 1,
        ..young.clone()
    };
    let later = Capability {
        version: Version(2),
        ..young.clone()
    };
    for capability in [young, grown, later] {
        let mut client = Client::connect(&nodes[0].member.addr).await;
        let error = client.open(&capability, 5).await.unwrap_err();
        assert_eq!((error.code, error.node), (Code::Unavailable, Some(NodeId(1))));
    }
    assert!(
        nodes[0].ground.store.get(CHUNK).is_none(),
        "an empty replica would count for whole, and be the source"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sync_of_an_earlier_process_brought_is_not_read_at_an_older_version() {
    let nodes = nodes(1).await;
    let capability = capability(&nodes, 1);
    let ground = &nodes[0].ground;
    let members = vec![NodeId(1)];
    ground
        .store
        .create(CHUNK, Version(2), Version(2), members)
        .unwrap();
    let mut client = Client::connect(&nodes[0].member.addr).await;
    let error = client.read(&capability, 0, 9).await.unwrap_err();
    assert_eq!(error.code, Code::NotYet);
    ground
        .chains
        .gate_or_new(CHUNK)
        .hold(Version(2), std::iter::once(0..5).collect());
    assert!(client.read(&capability, 0, 9).await.is_ok());
}
