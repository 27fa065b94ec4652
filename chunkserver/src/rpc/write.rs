//! A client's stream of packets to the head: plain ones with their offsets, or records, which are taken whole.

use super::parts::Gathering;
use super::{Connection, Teller, passes};
use crate::chain::{self, Handle, Incoming, Progress};
use crate::store::Packet;
use bytes::Bytes;
use dfs_proto::checksum::verify_pieces;
use dfs_proto::limits::PACKET_BYTES_MAX;
use dfs_proto::pb::{self, from_server, to_server};
use dfs_proto::{Code, Error, Result, WriterId};
use std::io;
use tokio::sync::watch;

impl Connection {
    /// Serves one write stream, until it is closed.
    pub(super) async fn write_stream(&mut self, id: u64, open: pb::WriteOpen) -> io::Result<()> {
        let writer = match open.records {
            true => WriterId::of_producer(open.writer),
            false => Some(WriterId::of_stream(open.writer)),
        };
        let Some(writer) = writer else {
            let error = Error::new(Code::InvalidArgument, "no number of a producer");
            return self.replies.send(id, Err(error)).await;
        };
        let teller = Teller::new(self.replies.clone(), id, |p| {
            from_server::Body::Ack(pb::Ack {
                sequence: p.upto,
                length: p.length,
                offset: p.offset,
                sealed: p.sealed,
            })
        });
        let opened = match passes::opening(&self.ground, open.capability) {
            Ok(opening) => chain::open_writer(&self.ground, &opening, writer, teller.at_once()).await,
            Err(error) => Err(error),
        };
        let (task, mut progress) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.replies.send(id, Err(error)).await,
        };
        let now = progress.borrow_and_update().clone();
        let opened = pb::WriteOpened {
            last_sequence: now.upto,
            length: now.length,
        };
        self.opened(id, from_server::Body::WriteOpened(opened)).await?;
        let outcome = self.packets(&teller, progress, writer, &task).await;
        teller.close();
        task.writer_gone(writer).await;
        let Some(closing) = outcome? else {
            return Ok(());
        };
        let closed = from_server::Body::StreamClosed(pb::StreamClosed {});
        self.replies.send(closing, Ok((closed, Bytes::new()))).await
    }

    /// Feeds packets until the client closes the stream; the id of its wish, if it wants an answer.
    async fn packets(
        &mut self,
        teller: &Teller,
        progress: watch::Receiver<Progress>,
        writer: WriterId,
        task: &Handle,
    ) -> io::Result<Option<u64>> {
        // After an error packets that were on their way are dropped until the client closes.
        let mut failed = false;
        let mut progress = Some(progress);
        let mut record = Gathering::new(self.ground.fence.parameters().record_bytes_max());
        loop {
            let (message, payload) = self.next_of_stream(teller, &mut progress).await?;
            match message.body {
                Some(to_server::Body::Packet(_)) if failed => {}
                Some(to_server::Body::Packet(head)) => {
                    match self.accepted(writer, head, payload, &mut record) {
                        Ok(None) => {}
                        // Whoever fed an ended stream hears why.
                        Ok(Some(incoming)) => failed = !task.feed(incoming).await,
                        Err(error) => {
                            failed = true;
                            self.replies.send(teller.id, Err(error)).await?;
                        }
                    }
                }
                Some(to_server::Body::StreamClose(close)) => {
                    return Ok((!close.unanswered).then_some(message.id));
                }
                Some(_) | None => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a packet")),
            }
        }
    }

    /// What came, if it is whole.
    fn accepted(
        &self,
        writer: WriterId,
        head: pb::Packet,
        data: Bytes,
        record: &mut Gathering,
    ) -> Result<Option<Incoming>> {
        let (sync, more) = (head.sync, head.more);
        let packet = Packet {
            writer,
            sequence: head.sequence,
            offset: head.offset,
            data,
            checksums: head.checksums,
        };
        if packet.data.is_empty() && (!sync || writer.is_producer()) {
            return Err(Error::new(
                Code::InvalidArgument,
                "a packet with neither bytes nor an fsync",
            ));
        }
        check(&packet, self.ground.fence.parameters().chunk_bytes)?;
        self.ground.meters.packet(packet.data.len());
        if !writer.is_producer() {
            return Ok(Some(Incoming::Client { packet, sync }));
        }
        let whole = record.add(packet, more)?;
        Ok(whole.map(|record| Incoming::Record { record, sync }))
    }
}

/// A packet's limits and checksums: the one time they are verified here.
pub(super) fn check(packet: &Packet, chunk_bytes: u64) -> Result<()> {
    let length = packet.data.len();
    if length > PACKET_BYTES_MAX || packet.sequence == 0 {
        return Err(Error::new(
            Code::InvalidArgument,
            "a packet over a mebibyte, or without a sequence",
        ));
    }
    if packet
        .offset
        .checked_add(length as u64)
        .is_none_or(|end| end > chunk_bytes)
    {
        return Err(Error::new(Code::TooLarge, "a packet beyond the chunk's end"));
    }
    if !verify_pieces(packet.offset, &packet.data, &packet.checksums) {
        return Err(Error::new(Code::Corrupt, "a packet that fails its checksums"));
    }
    Ok(())
}
