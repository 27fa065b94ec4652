//! The frames of the data plane.

use super::Token;
use crate::types::ReplicaState;
use bytes::Bytes;
use dfs_proto::{ChunkHandle, Code, Error, Result, Version, WriterId, pb};
use pb::from_server::Body as Answer;
use pb::to_server::Body as Ask;
use std::time::Duration;

/// A request or a packet on its way to a chunkserver; its payload travels beside it.
pub(crate) type ToServer = pb::ToServer;
/// What a chunkserver sent.
pub(crate) type FromServer = pb::FromServer;

/// What a read answered.
#[derive(Clone, Debug)]
pub(crate) struct ReadAnswer {
    pub(crate) chunk_length: u64,
    pub(crate) detached: bool,
    pub(crate) checksums: Vec<u32>,
    pub(crate) bytes: Bytes,
    /// The chunk's length is final; told only to who waits.
    pub(crate) sealed: bool,
}

/// What a head says on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) sequence: u64,
    pub(crate) length: u64,
    /// Where the newest one begins in the chunk.
    pub(crate) offset: u64,
    /// The chunk takes no more records.
    pub(crate) sealed: bool,
}

/// A packet's header.
#[derive(Clone, Debug)]
pub(crate) struct PacketHeader {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) checksums: Vec<u32>,
    pub(crate) sync: bool,
    /// Another part of the same record follows.
    pub(crate) more: bool,
}

fn ask(body: Ask) -> ToServer {
    ToServer {
        id: 0,
        body: Some(body),
    }
}

fn unexpected() -> Error {
    Error::new(Code::Internal, "the chunkserver answered something else")
}

pub(crate) fn read(token: &Token, offset: u64, length: u32, stale_ok: bool) -> ToServer {
    ask(Ask::Read(pb::Read {
        capability: Some(token.clone()),
        offset,
        length,
        stale_ok,
        wait_ms: 0,
    }))
}

/// As [`read`]; answered when there is something at the offset, or after a while.
pub(crate) fn follow(token: &Token, offset: u64, length: u32, wait: Duration) -> ToServer {
    ask(Ask::Read(pb::Read {
        capability: Some(token.clone()),
        offset,
        length,
        stale_ok: false,
        wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
    }))
}

pub(crate) fn promised(token: &Token) -> ToServer {
    ask(Ask::Promised(pb::Promised {
        capability: Some(token.clone()),
    }))
}

pub(crate) fn probe(tokens: Vec<Token>, verify: bool) -> ToServer {
    ask(Ask::Probe(pb::Probe {
        capabilities: tokens,
        verify,
        producer: 0,
    }))
}

/// What does the writer table of this chunk say of a producer?
pub(crate) fn ask_producer(token: &Token, producer: u64) -> ToServer {
    ask(Ask::Probe(pb::Probe {
        capabilities: vec![token.clone()],
        verify: false,
        producer,
    }))
}

/// The producer's last record in the chunk: its sequence and where it begins; `None`: it has none there.
///
/// # Errors
/// The server's; `Unavailable` if its replica does not count.
pub(crate) fn producer_answer(from: FromServer) -> Result<Option<(u64, u64)>> {
    let Answer::Probe(probe) = body(from)? else {
        return Err(unexpected());
    };
    match probe.replicas.first() {
        Some(state) if state.serving => {
            let last = (state.producer_sequence, u64::from(state.producer_offset));
            Ok((state.producer_sequence > 0).then_some(last))
        }
        _ => Err(Error::new(Code::Unavailable, "the replica does not serve")),
    }
}

/// Opens a producer's stream of records.
pub(crate) fn records_open(token: &Token, producer: u64) -> ToServer {
    ask(Ask::WriteOpen(pb::WriteOpen {
        capability: Some(token.clone()),
        writer: producer,
        records: true,
    }))
}

/// All that is said on the stream carries its `id`.
pub(crate) fn write_open(id: u64, token: &Token, writer: WriterId) -> ToServer {
    let open = Ask::WriteOpen(pb::WriteOpen {
        capability: Some(token.clone()),
        writer: writer.0,
        records: false,
    });
    ToServer { id, body: Some(open) }
}

pub(crate) fn packet(header: PacketHeader) -> ToServer {
    ask(Ask::Packet(pb::Packet {
        sequence: header.sequence,
        offset: header.offset,
        checksums: header.checksums,
        sync: header.sync,
        more: header.more,
    }))
}

/// Ends a stream on which all is answered.
pub(crate) fn stream_close() -> ToServer {
    ask(Ask::StreamClose(pb::StreamClose { unanswered: true }))
}

/// The body, or the error the server sent instead.
fn body(from: FromServer) -> Result<Answer> {
    match (from.error, from.body) {
        (Some(error), _) => Err(error.into()),
        (None, Some(body)) => Ok(body),
        (None, None) => Err(unexpected()),
    }
}

pub(crate) fn read_answer(from: FromServer, payload: Bytes) -> Result<ReadAnswer> {
    match body(from)? {
        Answer::Read(r) => Ok(ReadAnswer {
            chunk_length: r.chunk_length,
            detached: r.detached,
            checksums: r.checksums,
            bytes: payload,
            sealed: r.sealed,
        }),
        _ => Err(unexpected()),
    }
}

pub(crate) fn promised_answer(from: FromServer) -> Result<Version> {
    match body(from)? {
        // Who has lost its replica has lost its promise with it, and cannot vouch for anything.
        Answer::Promised(p) if !p.present && p.promised == 0 => {
            Err(Error::new(Code::Unavailable, "a member has no replica"))
        }
        Answer::Promised(p) => Ok(Version(p.promised)),
        _ => Err(unexpected()),
    }
}

pub(crate) fn probe_answer(from: FromServer) -> Result<Vec<(ChunkHandle, ReplicaState)>> {
    let state = |r: pb::ReplicaState| {
        let state = ReplicaState {
            present: r.present,
            promised: Version(r.promised),
            synced: Version(r.synced),
            length: r.length,
            digest: r.digest,
            serving: r.serving,
            bad_blocks: r.bad_blocks,
        };
        (ChunkHandle(r.chunk), state)
    };
    match body(from)? {
        Answer::Probe(p) => Ok(p.replicas.into_iter().map(state).collect()),
        _ => Err(unexpected()),
    }
}

/// What a head says on a stream of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It takes the stream.
    Opened(Acked),
    /// Committed up to here.
    Acked(Acked),
    /// The stream is closed.
    Closed,
}

/// The answer to opening a stream.
pub(crate) fn write_opened(from: FromServer) -> Result<Acked> {
    match heard(from)? {
        Heard::Opened(opened) => Ok(opened),
        Heard::Acked(_) | Heard::Closed => Err(unexpected()),
    }
}

pub(crate) fn heard(from: FromServer) -> Result<Heard> {
    match body(from)? {
        Answer::WriteOpened(w) => Ok(Heard::Opened(Acked {
            sequence: w.last_sequence,
            length: w.length,
            offset: 0,
            sealed: false,
        })),
        Answer::Ack(a) => Ok(Heard::Acked(Acked {
            sequence: a.sequence,
            length: a.length,
            offset: a.offset,
            sealed: a.sealed,
        })),
        Answer::StreamClosed(_) => Ok(Heard::Closed),
        _ => Err(unexpected()),
    }
}
