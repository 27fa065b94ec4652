//! The stream from the member above.

use super::parts::Gathering;
use super::write::check;
use super::{Connection, Teller, passes};
use crate::chain::{self, Handle, Incoming, Progress, Upstream};
use crate::store::Packet;
use bytes::Bytes;
use dfs_proto::pb::{self, from_server, to_server};
use dfs_proto::{Code, Error, WriterId};
use std::io;
use tokio::sync::watch;

impl Connection {
    /// Serves one link, until it is closed.
    pub(super) async fn chain_stream(&mut self, id: u64, open: pb::ChainOpen) -> io::Result<()> {
        let incarnation = open.incarnation;
        let upstream = Upstream {
            incarnation,
            first: open.first,
            fresh: open.fresh,
        };
        let teller = Teller::new(self.replies.clone(), id, |p| {
            from_server::Body::ChainAck(pb::ChainAck { number: p.upto })
        });
        let opened = match passes::opening(&self.ground, open.capability) {
            Ok(opening) => chain::open_upstream(&self.ground, &opening, upstream, teller.at_once()).await,
            Err(error) => Err(error),
        };
        let (task, progress) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.replies.send(id, Err(error)).await,
        };
        let opened = from_server::Body::ChainOpened(pb::ChainOpened {});
        self.opened(id, opened).await?;
        let outcome = self.links(&teller, progress, incarnation, &task).await;
        teller.close();
        if outcome.is_err() {
            task.upstream_gone(incarnation).await;
        }
        let Some(closing) = outcome? else {
            return Ok(());
        };
        let closed = from_server::Body::StreamClosed(pb::StreamClosed {});
        self.replies.send(closing, Ok((closed, Bytes::new()))).await
    }

    /// Feeds what comes until the member above closes the stream; the id of its wish, if it wants an answer.
    async fn links(
        &mut self,
        teller: &Teller,
        progress: watch::Receiver<Progress>,
        incarnation: u64,
        task: &Handle,
    ) -> io::Result<Option<u64>> {
        let chunk_bytes = self.ground.fence.parameters().chunk_bytes;
        let mut ended = false;
        let mut parts = Gathering::new(chunk_bytes);
        let mut progress = Some(progress);
        loop {
            let (message, payload) = self.next_of_stream(teller, &mut progress).await?;
            let incoming = match message.body {
                Some(to_server::Body::ChainPacket(head)) => {
                    let (number, sync, committed) = (head.number, head.sync, head.committed);
                    let more = head.more;
                    let packet = Packet {
                        writer: WriterId(head.writer),
                        sequence: head.sequence,
                        offset: head.offset,
                        data: payload,
                        checksums: head.checksums,
                    };
                    if let Err(error) = check(&packet, chunk_bytes) {
                        // It was right when it left the head: the link damages bytes.
                        let error =
                            Error::new(Code::Unavailable, error.message).on_node(self.ground.fence.node());
                        self.replies.send(teller.id, Err(error)).await?;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "a damaged packet"));
                    }
                    self.ground.meters.packet(packet.data.len());
                    let whole = parts.add(packet, more);
                    let Some(packet) = whole.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? else {
                        continue;
                    };
                    Incoming::Chain {
                        incarnation,
                        number,
                        packet,
                        sync,
                        committed,
                    }
                }
                Some(to_server::Body::ChainCommitted(committed)) => Incoming::Committed {
                    incarnation,
                    number: committed.committed,
                },
                Some(to_server::Body::StreamClose(close)) => {
                    if !ended {
                        task.feed(Incoming::Closed { incarnation }).await;
                    }
                    return Ok((!close.unanswered).then_some(message.id));
                }
                Some(_) | None => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a packet")),
            };
            // Whoever fed an ended stream hears why.
            ended = ended || !task.feed(incoming).await;
        }
    }
}
