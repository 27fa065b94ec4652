//! Frames out: queued by anyone, written at once by whoever finds the connection free.
//!
//! Sending never waits. The frames of all senders lie in one buffer; the first sender writes in place, others leave
//! theirs to it. If the connection takes no more, a task of its own goes on. So a small request costs one write and
//! no change of threads, several cost one write together, and no frame is ever cut because its sender went away.

use super::QUEUED_BYTES_MAX;
use crate::net::BoxStream;
use bytes::{Buf as _, BufMut as _, BytesMut};
use prost::Message;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::sync::Notify;

/// A buffer that grew beyond this is given back when it is empty.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The sending end of a connection; clones share it.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Bytes left, or nothing will any more.
    moved: Notify,
}

struct State {
    queue: BytesMut,
    /// The connection, while nobody writes.
    idle: Option<WriteHalf<BoxStream>>,
    /// Bytes in the hands of the one who writes.
    writing: usize,
    broken: Option<io::ErrorKind>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("queued", &self.queued()).finish()
    }
}

impl Outbox {
    /// Over the sending half of a connection; `first` leaves before any frame.
    #[must_use]
    pub fn new(to: WriteHalf<BoxStream>, first: &[u8]) -> Outbox {
        let state = State {
            queue: BytesMut::from(first),
            idle: Some(to),
            writing: 0,
            broken: None,
        };
        Outbox {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                moved: Notify::new(),
            }),
        }
    }

    /// Queues a frame; [`Outbox::flush`] sends it.
    ///
    /// # Errors
    /// If the connection is broken.
    ///
    /// # Panics
    /// If the message is longer than a frame may be: senders keep the limits.
    pub fn push(&self, message: &impl Message) -> io::Result<()> {
        let length = u32::try_from(message.encoded_len()).expect("senders keep the limits");
        let mut state = self.shared.lock();
        if let Some(kind) = state.broken {
            return Err(kind.into());
        }
        state.queue.put_u32_le(length);
        message.encode(&mut state.queue).expect("BytesMut grows");
        Ok(())
    }

    /// Sends what is queued, as far as it goes without waiting; the rest follows by itself.
    pub fn flush(&self) {
        let Some((mut to, mut bytes)) = self.shared.take(BytesMut::new()) else {
            return;
        };
        loop {
            match write_now(&mut to, &mut bytes) {
                Ok(()) if bytes.is_empty() => match self.shared.next(to, bytes) {
                    Some(more) => (to, bytes) = more,
                    None => return,
                },
                Ok(()) => {
                    let shared = self.shared.clone();
                    tokio::spawn(write_on(shared, to, bytes));
                    return;
                }
                Err(error) => return self.shared.fail(error.kind()),
            }
        }
    }

    /// Bytes that have not left yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        let state = self.shared.lock();
        state.queue.len() + state.writing
    }

    /// True if more should not be queued.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued() > QUEUED_BYTES_MAX
    }

    /// Lets go of the connection: nothing can be sent any more.
    pub fn close(&self) {
        self.shared.fail(io::ErrorKind::BrokenPipe);
    }

    /// Why nothing can be sent any more.
    #[must_use]
    pub fn broken(&self) -> Option<io::ErrorKind> {
        self.shared.lock().broken
    }

    /// Waits until it is not full, or broken.
    pub async fn room(&self) {
        self.until(|state| state.queue.len() + state.writing <= QUEUED_BYTES_MAX)
            .await;
    }

    /// Waits until everything has left, or nothing can.
    pub async fn drained(&self) {
        self.until(|state| state.queue.is_empty() && state.writing == 0)
            .await;
    }

    /// Waits until nothing can be sent any more.
    pub async fn failed(&self) -> io::ErrorKind {
        self.until(|_| false).await;
        self.broken().unwrap_or(io::ErrorKind::BrokenPipe)
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let mut moved = std::pin::pin!(self.shared.moved.notified());
            moved.as_mut().enable();
            {
                let state = self.shared.lock();
                if state.broken.is_some() || reached(&state) {
                    return;
                }
            }
            moved.await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// The connection and what is queued, if nobody writes and there is something to write.
    fn take(&self, spare: BytesMut) -> Option<(WriteHalf<BoxStream>, BytesMut)> {
        let mut state = self.lock();
        if state.queue.is_empty() {
            return None;
        }
        let to = state.idle.take()?;
        let bytes = std::mem::replace(&mut state.queue, spare);
        state.writing = bytes.len();
        Some((to, bytes))
    }

    /// Everything taken was written: takes on, or lays the connection down.
    fn next(&self, to: WriteHalf<BoxStream>, spare: BytesMut) -> Option<(WriteHalf<BoxStream>, BytesMut)> {
        let mut state = self.lock();
        let wrote_much = state.writing > KEPT_BYTES_MAX;
        if !state.queue.is_empty() {
            let bytes = std::mem::take(&mut state.queue);
            state.writing = bytes.len();
            drop(state);
            self.moved.notify_waiters();
            return Some((to, bytes));
        }
        state.writing = 0;
        if state.broken.is_some() {
            return None;
        }
        state.idle = Some(to);
        if !wrote_much {
            state.queue = spare;
        }
        drop(state);
        self.moved.notify_waiters();
        None
    }

    fn fail(&self, kind: io::ErrorKind) {
        let mut state = self.lock();
        state.broken.get_or_insert(kind);
        state.writing = 0;
        state.queue = BytesMut::new();
        state.idle = None;
        drop(state);
        self.moved.notify_waiters();
    }
}

/// Writes as much as the connection takes now.
fn write_now(to: &mut WriteHalf<BoxStream>, bytes: &mut BytesMut) -> io::Result<()> {
    let mut cx = Context::from_waker(Waker::noop());
    while !bytes.is_empty() {
        match Pin::new(&mut *to).poll_write(&mut cx, bytes) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => bytes.advance(count),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(()),
        }
    }
    match Pin::new(to).poll_flush(&mut cx) {
        Poll::Ready(flushed) => flushed,
        // Nothing of ours is held back by a socket; whatever is, leaves with the next write.
        Poll::Pending => Ok(()),
    }
}

/// Writes on where [`write_now`] could not.
async fn write_on(shared: Arc<Shared>, mut to: WriteHalf<BoxStream>, mut bytes: BytesMut) {
    loop {
        let written = async {
            to.write_all_buf(&mut bytes).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return shared.fail(error.kind());
        }
        match shared.next(to, bytes) {
            Some(more) => (to, bytes) = more,
            None => return,
        }
    }
}
