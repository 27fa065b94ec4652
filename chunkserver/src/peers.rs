//! The data transport from the calling side: tables and blocks of other chunkservers' replicas.
//!
//! Calls are reads, so one that fails on a kept connection is made again on a fresh one. A connection carries one call
//! at a time; a few idle ones are kept for each peer. This file is also where these calls' messages stop.

pub(crate) mod chain;

use crate::store::Target;
use crate::store::format::Writer;
use bytes::Bytes;
use dfs_proto::capability::Member;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Dial};
use dfs_proto::pb::{self, from_server, to_server};
use dfs_proto::span::block_length;
use dfs_proto::{Code, Error, NodeId, Result, Version, WriterId};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};

/// Idle connections kept for a peer: enough for the transfers that run at once with it.
const IDLE_PER_PEER_MAX: usize = 4;
/// Blocks asked for in one call: a payload of a mebibyte.
pub(crate) const BLOCKS_PER_PULL: u32 = 16;

/// A signed capability, handed on as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pass(pub(crate) pb::Signed);

/// What another replica claims to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Bytes.
    pub(crate) length: u64,
    /// One CRC a block in use.
    pub(crate) checksums: Vec<u32>,
    /// Oldest use first.
    pub(crate) writers: Vec<Writer>,
    /// The newest version whose source had lost power.
    pub(crate) loss: Version,
    /// Digest of length, checksums and writers.
    pub(crate) digest: u64,
}

impl Claims {
    /// True if the block is one of those claimed.
    pub(crate) fn fit(&self, pulled: &PulledBlock) -> bool {
        self.checksums.get(pulled.block as usize) == Some(&pulled.checksum)
            && pulled.bytes.len() as u64 == block_length(u64::from(pulled.block), self.length)
    }

    /// A replica with these claims, ready for `version` (`None`: only a base).
    pub(crate) fn target(&self, version: Option<Version>, loss: Version) -> Target {
        Target {
            version,
            loss,
            length: self.length,
            crcs: self.checksums.clone(),
            writers: self.writers.clone(),
        }
    }
}

/// One block as another replica sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PulledBlock {
    /// Its number.
    pub(crate) block: u32,
    /// Its bytes; they fit `checksum`.
    pub(crate) bytes: Bytes,
    /// CRC-32 of the bytes.
    pub(crate) checksum: u32,
}

/// What one pull brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// Verified blocks.
    pub(crate) blocks: Vec<PulledBlock>,
    /// Blocks that fail their checksum over there.
    pub(crate) bad: Vec<u32>,
}

/// A run of blocks to pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first block.
    pub(crate) first: u32,
    /// How many, at most [`BLOCKS_PER_PULL`].
    pub(crate) count: u32,
}

impl Run {
    /// Of a replica that is ready for the version.
    pub(crate) fn of_ready(self) -> Wanted {
        Wanted {
            run: self,
            adopted: false,
            background: false,
        }
    }

    /// As [`Run::of_ready`], for a copy that nobody waits for.
    pub(crate) fn of_ready_in_background(self) -> Wanted {
        Wanted {
            background: true,
            ..self.of_ready()
        }
    }

    /// Of one that need only have promised the version: blocks that the source lacks.
    pub(crate) fn of_adopted(self) -> Wanted {
        Wanted {
            run: self,
            adopted: true,
            background: false,
        }
    }
}

/// Blocks to pull, and from what kind of replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    run: Run,
    adopted: bool,
    background: bool,
}

/// The other chunkservers.
#[derive(Debug)]
pub(crate) struct Peers {
    dial: Arc<dyn Dial>,
    idle: Mutex<BTreeMap<String, Vec<Connection>>>,
}

struct Connection {
    reader: FrameReader<ReadHalf<BoxStream>>,
    writer: FrameWriter<WriteHalf<BoxStream>>,
    next_id: u64,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({} calls)", self.next_id)
    }
}

type Answer = (pb::FromServer, Bytes);

impl Peers {
    /// Reaches them by `dial`.
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Peers {
        Peers {
            dial,
            idle: Mutex::default(),
        }
    }

    /// The table of `peer`'s replica at the version of the pass.
    ///
    /// # Errors
    /// The peer's (`NotYet` while it is not ready, `Stale` once it has promised more), or its connection's.
    pub(crate) async fn table(&self, peer: &Member, pass: &Pass, deadline: Duration) -> Result<Claims> {
        let body = to_server::Body::Table(pb::Table {
            capability: Some(pass.0.clone()),
        });
        match self.call(peer, body, deadline).await? {
            (from_server::Body::Table(reply), _) => claims(reply).map_err(|e| e.on_node(peer.node)),
            _ => Err(unexpected(peer.node)),
        }
    }

    /// Blocks of `peer`'s replica, verified.
    ///
    /// # Errors
    /// As [`Peers::table`]; `Corrupt` if what came does not verify.
    pub(crate) async fn pull(
        &self,
        peer: &Member,
        pass: &Pass,
        wanted: Wanted,
        deadline: Duration,
    ) -> Result<Pulled> {
        let Wanted {
            run,
            adopted,
            background,
        } = wanted;
        let body = to_server::Body::Pull(pb::Pull {
            capability: Some(pass.0.clone()),
            first_block: run.first,
            blocks: run.count,
            adopted,
            background,
        });
        match self.call(peer, body, deadline).await? {
            (from_server::Body::Pull(reply), payload) => {
                pulled(run, &reply, payload).map_err(|e| e.on_node(peer.node))
            }
            _ => Err(unexpected(peer.node)),
        }
    }

    async fn call(
        &self,
        peer: &Member,
        body: to_server::Body,
        deadline: Duration,
    ) -> Result<(from_server::Body, Bytes)> {
        let addr = &peer.addr;
        let (reply, payload) = match tokio::time::timeout(deadline, self.exchange(addr, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => {
                return Err(Error::new(Code::Unavailable, format!("{addr}: {e}")).on_node(peer.node));
            }
            Err(_) => {
                self.forget(addr);
                let error = Error::new(Code::TimedOut, format!("{addr} does not answer"));
                return Err(error.on_node(peer.node));
            }
        };
        match (reply.error, reply.body) {
            (Some(error), _) => {
                let error = Error::from(error);
                let node = error.node.unwrap_or(peer.node);
                Err(error.on_node(node))
            }
            (None, Some(body)) => Ok((body, payload)),
            (None, None) => Err(unexpected(peer.node)),
        }
    }

    async fn exchange(&self, addr: &str, body: to_server::Body) -> io::Result<Answer> {
        while let Some(mut kept) = self.take(addr) {
            if let Ok(answer) = kept.call(body.clone()).await {
                self.keep(addr, kept);
                return Ok(answer);
            }
        }
        let mut fresh = Connection::open(&*self.dial, addr).await?;
        let answer = fresh.call(body).await?;
        self.keep(addr, fresh);
        Ok(answer)
    }

    fn take(&self, addr: &str) -> Option<Connection> {
        let mut idle = self.idle.lock().expect("no panic while held");
        idle.get_mut(addr)?.pop()
    }

    /// Whatever made one connection hang holds for the kept ones too.
    fn forget(&self, addr: &str) {
        self.idle.lock().expect("no panic while held").remove(addr);
    }

    fn keep(&self, addr: &str, connection: Connection) {
        let mut idle = self.idle.lock().expect("no panic while held");
        let kept = idle.entry(addr.to_owned()).or_default();
        if kept.len() < IDLE_PER_PEER_MAX {
            kept.push(connection);
        }
    }
}

impl Connection {
    async fn open(dial: &dyn Dial, addr: &str) -> io::Result<Connection> {
        let (reader, writer) = tokio::io::split(dial.dial(addr).await?);
        let mut writer = FrameWriter::new(writer);
        writer.send_preamble().await?;
        Ok(Connection {
            reader: FrameReader::new(reader),
            writer,
            next_id: 0,
        })
    }

    async fn call(&mut self, body: to_server::Body) -> io::Result<Answer> {
        self.next_id += 1;
        let request = pb::ToServer {
            id: self.next_id,
            body: Some(body),
        };
        self.writer.send(&request, Bytes::new()).await?;
        let (reply, payload): Answer = self.reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if reply.id != self.next_id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer answered another call",
            ));
        }
        Ok((reply, payload))
    }
}

fn unexpected(node: NodeId) -> Error {
    Error::new(Code::Internal, "the peer answered with something else").on_node(node)
}

fn claims(reply: pb::TableReply) -> Result<Claims> {
    let blocks = dfs_proto::span::blocks_of(reply.length);
    if reply.checksums.len() as u64 != blocks * 4 {
        return Err(Error::new(Code::Corrupt, "a table that does not fit its length"));
    }
    Ok(Claims {
        length: reply.length,
        checksums: reply
            .checksums
            .chunks_exact(4)
            .map(|c| u32::from_le_bytes(c.try_into().expect("four bytes")))
            .collect(),
        writers: reply
            .writers
            .iter()
            .map(|w| Writer {
                writer: WriterId(w.writer),
                sequence: w.sequence,
                offset: w.offset,
            })
            .collect(),
        loss: Version(reply.loss),
        digest: reply.digest,
    })
}

/// Cuts the payload into the run's blocks and checks each.
fn pulled(run: Run, reply: &pb::PullReply, mut payload: Bytes) -> Result<Pulled> {
    let corrupt = || Error::new(Code::Corrupt, "pulled blocks do not verify");
    let sent = u32::try_from(reply.lengths.len()).map_err(|_| corrupt())?;
    if sent > run.count || reply.checksums.len() != reply.lengths.len() {
        return Err(corrupt());
    }
    let mut result = Pulled {
        blocks: Vec::with_capacity(reply.lengths.len()),
        bad: reply.bad.clone(),
    };
    for ((block, &length), &checksum) in (run.first..).zip(&reply.lengths).zip(&reply.checksums) {
        let length = length as usize;
        if length > payload.len() {
            return Err(corrupt());
        }
        let bytes = payload.split_to(length);
        if reply.bad.contains(&block) {
            continue;
        }
        if dfs_proto::checksum::crc(&bytes) != checksum {
            return Err(corrupt());
        }
        result.blocks.push(PulledBlock {
            block,
            bytes,
            checksum,
        });
    }
    if payload.is_empty() {
        Ok(result)
    } else {
        Err(corrupt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::checksum::crc;
    use dfs_proto::net::{Listen as _, Tcp};

    fn reply(blocks: &[&[u8]]) -> (pb::PullReply, Bytes) {
        let reply = pb::PullReply {
            checksums: blocks.iter().map(|b| crc(b)).collect(),
            lengths: blocks.iter().map(|b| b.len() as u32).collect(),
            bad: Vec::new(),
        };
        (reply, blocks.concat().into())
    }

    #[test]
    fn blocks_come_apart_as_they_were_put_together() {
        let (mut good, payload) = reply(&[b"abc", b"", b"de"]);
        good.bad = vec![8];
        let run = Run { first: 7, count: 3 };
        let result = pulled(run, &good, payload).unwrap();
        let blocks: Vec<(u32, &[u8])> = result.blocks.iter().map(|b| (b.block, &b.bytes[..])).collect();
        assert_eq!(blocks, [(7, &b"abc"[..]), (9, b"de")]);
        assert_eq!(result.bad, [8]);
    }

    #[test]
    fn a_flipped_bit_a_short_or_a_long_payload_is_refused() {
        let run = Run { first: 0, count: 2 };
        let (good, payload) = reply(&[b"abc", b"de"]);
        for wrong in [&b"abd"[..], b"abcd", b"abcdef", b"Abcde"] {
            let error = pulled(run, &good, Bytes::copy_from_slice(wrong)).unwrap_err();
            assert_eq!(error.code, Code::Corrupt);
        }
        assert!(pulled(Run { first: 0, count: 1 }, &good, payload).is_err());
    }

    #[test]
    fn a_table_must_fit_its_length() {
        let table = |length, checksums: usize| {
            claims(pb::TableReply {
                length,
                checksums: vec![1; checksums * 4].into(),
                ..Default::default()
            })
        };
        assert_eq!(table(65_537, 2).unwrap().checksums, [0x0101_0101; 2]);
        assert!(table(65_537, 1).is_err() && table(0, 1).is_err());
    }

    /// Answers `calls` table requests on each of two connections, then closes it.
    async fn server(listener: &mut Box<dyn dfs_proto::net::Listener>, calls: u64) {
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, writer) = tokio::io::split(stream);
            let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
            reader.expect_preamble().await.unwrap();
            for _ in 0..calls {
                let (request, _): (pb::ToServer, _) = reader.next().await.unwrap().unwrap();
                let body = Some(from_server::Body::Table(pb::TableReply {
                    digest: request.id,
                    ..Default::default()
                }));
                let reply = pb::FromServer {
                    id: request.id,
                    body,
                    error: None,
                };
                writer.send(&reply, Bytes::new()).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_is_replaced_unnoticed() {
        let mut listener = Tcp.listen("127.0.0.1:0").await.unwrap();
        let peer = Member {
            node: NodeId(1),
            addr: listener.local_addr(),
            ..Member::default()
        };
        let serving = tokio::spawn(async move { server(&mut listener, 2).await });
        let peers = Peers::new(Arc::new(Tcp));
        let mut digests = Vec::new();
        for _ in 0..4 {
            let claims = peers.table(&peer, &Pass::default(), Duration::from_secs(5)).await;
            digests.push(claims.unwrap().digest);
        }
        assert_eq!(digests, [1, 2, 1, 2]);
        serving.await.unwrap();
    }
}
