//! A fake chunkserver: speaks the frames, keeps bytes in the shared state.

use super::{Chunk, Cluster, Faults};
use bytes::Bytes;
use dfs_proto::capability::peek;
use dfs_proto::checksum::{of_pieces, verify_pieces};
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Listen as _};
use dfs_proto::{Code, Error, NodeId, Result, pb};
use pb::from_server::Body as Answer;
use pb::to_server::Body as Ask;

pub(super) async fn serve(cluster: &Cluster, node: u32) {
    let mut door = cluster.net.listen(&addr(node)).await.unwrap();
    let cluster = cluster.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = door.accept().await.unwrap();
            tokio::spawn(converse(cluster.clone(), node, stream));
        }
    });
}

pub(super) fn addr(node: u32) -> String {
    format!("node{node}:1")
}

/// A write stream's capability and writer.
struct Writing {
    capability: dfs_proto::capability::Capability,
    writer: u64,
}

async fn converse(cluster: Cluster, node: u32, stream: BoxStream) {
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
    reader.expect_preamble().await.unwrap();
    let mut writing = None;
    let mut stream = 0;
    let faults = || cluster.state().faults.get(&node).cloned().unwrap_or_default();
    loop {
        if faults().dead {
            return;
        }
        let Ok(Some((message, payload))) = reader.next::<pb::ToServer>().await else {
            return;
        };
        let Faults { dead, hangs, .. } = faults();
        if dead {
            return;
        }
        if hangs {
            continue;
        }
        let id = match &message.body {
            Some(Ask::StreamClose(close)) if close.unanswered => {
                writing = None;
                continue;
            }
            Some(Ask::WriteOpen(_)) => {
                stream = message.id;
                stream
            }
            Some(Ask::Packet(_) | Ask::StreamClose(_)) => stream,
            _ => message.id,
        };
        let Some(outcome) = answer(&cluster, node, message, payload, &mut writing) else {
            return;
        };
        let (body, error, payload) = match outcome {
            Ok((body, payload)) => (Some(body), None, payload),
            Err(error) => (None, Some(error.into()), Bytes::new()),
        };
        if writer
            .send(&pb::FromServer { id, error, body }, payload)
            .await
            .is_err()
        {
            return;
        }
    }
}

/// `None`: the connection ends here.
fn answer(
    cluster: &Cluster,
    node: u32,
    message: pb::ToServer,
    payload: Bytes,
    writing: &mut Option<Writing>,
) -> Option<Result<(Answer, Bytes)>> {
    let plain = |body| Some(Ok((body, Bytes::new())));
    match message.body.unwrap() {
        Ask::Read(read) => Some(answer_read(cluster, node, &read)),
        Ask::Promised(p) => {
            let capability = peek(&p.capability.unwrap()).unwrap();
            let state = cluster.state();
            let more = state.faults.get(&node).map_or(0, |f| f.promised_more);
            let present = state.faults.get(&node).is_none_or(|f| !f.forgetful);
            let known = state.chunks.get(&capability.chunk.0).map_or(0, |c| c.version) + more;
            let promised = if present { known } else { 0 };
            plain(Answer::Promised(pb::PromisedReply { promised, present }))
        }
        Ask::Probe(probe) => {
            let state = cluster.state();
            let replicas = probe
                .capabilities
                .iter()
                .map(|c| probed(&state.chunks, node, c))
                .collect();
            plain(Answer::Probe(pb::ProbeReply { replicas }))
        }
        Ask::WriteOpen(open) => {
            let capability = peek(&open.capability.unwrap()).unwrap();
            let state = cluster.state();
            let chunk = &state.chunks[&capability.chunk.0];
            if chunk.version != capability.version.0 {
                return Some(Err(Code::Stale.into()));
            }
            assert_eq!(chunk.members[0], node, "the stream goes to the head");
            let opened = pb::WriteOpened {
                last_sequence: chunk.writers.get(&open.writer).copied().unwrap_or(0),
                length: chunk.replicas.get(&node).map_or(0, |r| r.len() as u64),
            };
            *writing = Some(Writing {
                capability,
                writer: open.writer,
            });
            plain(Answer::WriteOpened(opened))
        }
        Ask::Packet(packet) => {
            let outcome = apply(cluster, writing.as_ref().unwrap(), &packet, &payload);
            let mut state = cluster.state();
            if let Some(left) = state.faults.get_mut(&node).and_then(|f| f.drops_after.as_mut()) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    state.faults.get_mut(&node).unwrap().dead = true;
                    return None;
                }
            }
            Some(outcome.map(|ack| (Answer::Ack(ack), Bytes::new())))
        }
        Ask::StreamClose(close) => {
            assert!(!close.unanswered, "it needs no answer");
            *writing = None;
            plain(Answer::StreamClosed(pb::StreamClosed {}))
        }
        Ask::Table(_) | Ask::Pull(_) | Ask::ChainOpen(_) | Ask::ChainPacket(_) | Ask::ChainCommitted(_) => {
            panic!("a client does not ask this")
        }
    }
}

fn probed(
    chunks: &std::collections::BTreeMap<u64, Chunk>,
    node: u32,
    capability: &pb::Signed,
) -> pb::ReplicaState {
    let handle = peek(capability).unwrap().chunk.0;
    let replica = chunks.get(&handle).and_then(|c| c.replicas.get(&node));
    pb::ReplicaState {
        chunk: handle,
        present: replica.is_some(),
        length: replica.map_or(0, |r| r.len() as u64),
        ..pb::ReplicaState::default()
    }
}

fn apply(cluster: &Cluster, to: &Writing, packet: &pb::Packet, payload: &Bytes) -> Result<pb::Ack> {
    assert!(
        verify_pieces(packet.offset, payload, &packet.checksums),
        "checksums of packets fit"
    );
    let mut state = cluster.state();
    let dead = |n: &u32, s: &super::State| s.faults.get(n).is_some_and(|f| f.dead);
    let members = state.chunks[&to.capability.chunk.0].members.clone();
    if state.chunks[&to.capability.chunk.0].version != to.capability.version.0 {
        return Err(Code::Stale.into());
    }
    if let Some(gone) = members.iter().find(|n| dead(n, &state)) {
        return Err(Error::new(Code::Unavailable, "the link broke").on_node(NodeId(*gone)));
    }
    state.applied_packets += 1;
    state.synced_packets += u32::from(packet.sync);
    let chunk = state.chunks.get_mut(&to.capability.chunk.0).unwrap();
    let last = chunk.writers.entry(to.writer).or_default();
    if packet.sequence > *last {
        *last = packet.sequence;
        for member in &members {
            let replica = chunk.replicas.entry(*member).or_default();
            let start = usize::try_from(packet.offset).unwrap();
            let end = start + payload.len();
            if !payload.is_empty() && replica.len() < end {
                replica.resize(end, 0);
            }
            if !payload.is_empty() {
                replica[start..end].copy_from_slice(payload);
            }
        }
    }
    let length = chunk.replicas.get(&members[0]).map_or(0, |r| r.len() as u64);
    Ok(pb::Ack {
        sequence: packet.sequence,
        length,
        ..pb::Ack::default()
    })
}

fn answer_read(cluster: &Cluster, node: u32, read: &pb::Read) -> Result<(Answer, Bytes)> {
    let capability = peek(read.capability.as_ref().unwrap()).unwrap();
    let mut state = cluster.state();
    *state.reads.entry(node).or_default() += 1;
    let faults = state.faults.get(&node).cloned().unwrap_or_default();
    let chunk = state.chunks.get(&capability.chunk.0).ok_or(Code::NotFound)?;
    if chunk.version != capability.version.0 || !chunk.members.contains(&node) {
        return Err(Code::Stale.into());
    }
    let replica = chunk.replicas.get(&node).ok_or(Code::NotFound)?;
    let length = replica.len() as u64 - faults.short;
    let start = read.offset.min(length);
    let end = (read.offset + u64::from(read.length)).min(length);
    let mut bytes = replica[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].to_vec();
    let checksums = of_pieces(start, &bytes);
    if faults.flips && !bytes.is_empty() {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    let reply = pb::ReadReply {
        chunk_length: length,
        detached: faults.detached,
        checksums,
        ..pb::ReadReply::default()
    };
    Ok((Answer::Read(reply), bytes.into()))
}
