//! A client of the data transport that does what a test says, right or wrong.

use bytes::Bytes;
use dfs_proto::checksum::of_pieces;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Dial as _, Tcp};
use dfs_proto::pb::{self, from_server, to_server};
use dfs_proto::{Code, Error};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};

pub(crate) struct Client {
    reader: FrameReader<ReadHalf<BoxStream>>,
    writer: FrameWriter<WriteHalf<BoxStream>>,
    sequence: u64,
}

impl Client {
    pub(crate) async fn dial(addr: &str) -> Client {
        let (reader, writer) = tokio::io::split(Tcp.dial(addr).await.unwrap());
        let mut writer = FrameWriter::new(writer);
        writer.send_preamble().await.unwrap();
        Client {
            reader: FrameReader::new(reader),
            writer,
            sequence: 0,
        }
    }

    pub(crate) async fn call(&mut self, body: to_server::Body) -> Result<(from_server::Body, Bytes), Error> {
        self.send(body, Bytes::new()).await;
        self.receive().await
    }

    async fn send(&mut self, body: to_server::Body, payload: Bytes) {
        let message = pb::ToServer {
            id: 1,
            body: Some(body),
        };
        self.writer.send(&message, payload).await.unwrap();
    }

    async fn receive(&mut self) -> Result<(from_server::Body, Bytes), Error> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.reader.next());
        let gone = || Error::new(Code::Unavailable, "the connection ended");
        let (reply, payload): (pb::FromServer, Bytes) = next
            .await
            .expect("every call is answered")
            .map_err(|_| gone())?
            .ok_or_else(gone)?;
        match (reply.error, reply.body) {
            (Some(error), _) => Err(error.into()),
            (None, Some(body)) => Ok((body, payload)),
            (None, None) => panic!("an answer without a body"),
        }
    }

    /// Opens a writing stream.
    pub(crate) async fn open(
        &mut self,
        capability: pb::Signed,
        writer: u64,
    ) -> Result<pb::WriteOpened, Error> {
        let open = pb::WriteOpen {
            capability: Some(capability),
            writer,
            ..pb::WriteOpen::default()
        };
        match self.call(to_server::Body::WriteOpen(open)).await?.0 {
            from_server::Body::WriteOpened(opened) => Ok(opened),
            other => panic!("{other:?}"),
        }
    }

    /// Writes one packet and waits for its acknowledgement.
    pub(crate) async fn write(&mut self, offset: u64, bytes: &[u8], sync: bool) -> Result<pb::Ack, Error> {
        self.sequence += 1;
        let packet = pb::Packet {
            sequence: self.sequence,
            offset,
            checksums: of_pieces(offset, bytes),
            sync,
            ..pb::Packet::default()
        };
        let wanted = self.sequence;
        self.send(to_server::Body::Packet(packet), Bytes::copy_from_slice(bytes))
            .await;
        loop {
            match self.receive().await?.0 {
                from_server::Body::Ack(ack) if ack.sequence >= wanted => return Ok(ack),
                from_server::Body::Ack(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn read(
        &mut self,
        capability: pb::Signed,
        offset: u64,
        length: u32,
    ) -> Result<(pb::ReadReply, Bytes), Error> {
        let read = pb::Read {
            capability: Some(capability),
            offset,
            length,
            stale_ok: false,
            ..pb::Read::default()
        };
        match self.call(to_server::Body::Read(read)).await? {
            (from_server::Body::Read(reply), payload) => Ok((reply, payload)),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn probe(&mut self, capability: pb::Signed) -> pb::ReplicaState {
        let probe = pb::Probe {
            capabilities: vec![capability],
            verify: true,
            ..pb::Probe::default()
        };
        match self.call(to_server::Body::Probe(probe)).await.unwrap().0 {
            from_server::Body::Probe(mut reply) => reply.replicas.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn promised(&mut self, capability: pb::Signed) -> pb::PromisedReply {
        let promised = pb::Promised {
            capability: Some(capability),
        };
        match self.call(to_server::Body::Promised(promised)).await.unwrap().0 {
            from_server::Body::Promised(reply) => reply,
            other => panic!("{other:?}"),
        }
    }
}
