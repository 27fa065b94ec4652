//! Readahead: the next parts of a file are under way while the application looks at this one.

use crate::file::Handle;
use bytes::Bytes;
use dfs_proto::Result;
use dfs_proto::limits::PACKET_BYTES_MAX;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, Stream as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::Instant;

const PACKET: u64 = PACKET_BYTES_MAX as u64;

/// Reads that run ahead of the application: more and more of them while it reads on.
pub(crate) struct Ahead {
    running: FuturesOrdered<BoxFuture<'static, (u64, usize, Result<Bytes>)>>,
    /// Bytes that have come and were not taken, and where they are.
    ready: Bytes,
    ready_at: u64,
    /// Where the next read begins.
    next: u64,
    depth: usize,
    depth_max: usize,
    waiting_since: Option<Instant>,
}

impl Ahead {
    pub(crate) fn new(depth_max: usize) -> Ahead {
        Ahead {
            running: FuturesOrdered::new(),
            ready: Bytes::new(),
            ready_at: 0,
            next: 0,
            depth: 1,
            depth_max,
            waiting_since: None,
        }
    }

    pub(crate) fn forget(&mut self) {
        self.running = FuturesOrdered::new();
        self.ready = Bytes::new();
        self.ready_at = u64::MAX;
        self.depth = 1;
    }

    /// The bytes at `position`: some of them, or none at the end of the file.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        handle: &Handle,
        position: u64,
    ) -> Poll<Result<Bytes>> {
        if self.ready_at != position {
            self.forget();
            (self.ready_at, self.next) = (position, position);
        }
        if self.ready.is_empty() {
            self.schedule(handle);
            let polled = Pin::new(&mut self.running).poll_next(cx);
            let Poll::Ready(next) = polled else {
                self.waiting_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            if let Some(since) = self.waiting_since.take() {
                handle.opened().meter.stalled(since.elapsed());
            }
            let (offset, wanted, bytes) = next.expect("at least one read is under way");
            let bytes = bytes.inspect_err(|_| self.forget())?;
            assert_eq!(offset, position, "reads come in order");
            self.depth = (self.depth * 2).min(self.depth_max);
            if bytes.len() < wanted {
                // The file ended there then; what was asked beyond does not count.
                self.running = FuturesOrdered::new();
                self.next = offset + bytes.len() as u64;
            }
            self.ready = bytes;
        }
        let bytes = std::mem::take(&mut self.ready);
        self.ready_at = position + bytes.len() as u64;
        Poll::Ready(Ok(bytes))
    }

    /// Keeps `depth` reads under way, as far as the file is known to reach; one at least.
    fn schedule(&mut self, handle: &Handle) {
        while self.running.len() < self.depth && (self.running.is_empty() || self.next < handle.known_size())
        {
            let offset = self.next;
            let length = PACKET - offset % PACKET;
            let handle = handle.clone();
            self.next += length;
            self.running.push_back(Box::pin(async move {
                let length = usize::try_from(length).expect("at most a packet");
                (offset, length, handle.read_quietly(offset, length).await)
            }));
        }
    }

    /// Takes back what the caller had no room for.
    pub(crate) fn put_back(&mut self, rest: Bytes) {
        self.ready_at -= rest.len() as u64;
        self.ready = rest;
    }
}
