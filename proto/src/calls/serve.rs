//! The answering end of one connection.
//!
//! One task reads, works and answers. What can be answered without waiting is answered in place, as it is read; a call
//! that waits goes on beside the others. Answers that become ready together leave in one write.

use super::{ANSWER_BYTES_MAX, CALLER_SILENCE_MAX, CALLS_MAX, FramesReader, Outbox, REQUEST_BYTES_MAX};
use crate::net::BoxStream;
use crate::{Code, Error, Result, pb};
use futures::stream::{FuturesUnordered, StreamExt as _};
use prost::Message as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::ReadHalf;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// What is asked.
pub type Ask = pb::to_master::Body;
/// What is answered.
pub type Answer = pb::from_master::Body;

/// Who answers.
pub trait Service: Clone + Send + Sync + 'static {
    /// One call. Dropped when its caller goes away. Bounds its own time.
    fn call(&self, ask: Ask) -> impl Future<Output = Result<Answer>> + Send;
}

type Answered = (u64, Result<Answer>);
type Call = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// A connection whose preamble was read.
struct Connection<S> {
    service: S,
    reader: FramesReader<ReadHalf<BoxStream>>,
    outbox: Outbox,
    calls: FuturesUnordered<Call>,
    heard: Instant,
    silence: Pin<Box<Sleep>>,
    /// No more is taken in; what is under way is finished.
    ending: bool,
}

/// Answers calls until the caller ends the connection, or `stop` does once those under way are answered.
///
/// # Errors
/// The stream's; `InvalidData` for what is no call; `TimedOut` for a caller that says nothing any more.
pub async fn serve<S: Service>(service: S, stream: BoxStream, stop: CancellationToken) -> io::Result<()> {
    let (reader, writer) = tokio::io::split(stream);
    let connection = Connection {
        service,
        reader: FramesReader::new(reader, REQUEST_BYTES_MAX),
        outbox: Outbox::new(writer, &[]),
        calls: FuturesUnordered::new(),
        heard: Instant::now(),
        silence: Box::pin(tokio::time::sleep(CALLER_SILENCE_MAX)),
        ending: false,
    };
    connection.run(stop).await
}

impl<S: Service> Connection<S> {
    async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        loop {
            self.take_in()?;
            self.outbox.flush();
            if self.ending && self.calls.is_empty() {
                self.outbox.drained().await;
                return Ok(());
            }
            let has_room = self.has_room();
            tokio::select! {
                biased;
                Some((id, answer)) = self.calls.next(), if !self.calls.is_empty() => self.answer(id, answer)?,
                more = self.reader.more(), if has_room && !self.ending => {
                    if !more? {
                        return Ok(());
                    }
                    self.heard = Instant::now();
                }
                () = self.outbox.room(), if self.outbox.is_full() => {}
                kind = self.outbox.failed() => return Err(kind.into()),
                () = &mut self.silence => self.listen()?,
                () = stop.cancelled(), if !self.ending => self.ending = true,
            }
            self.answer_ready()?;
        }
    }

    fn has_room(&self) -> bool {
        self.calls.len() < CALLS_MAX && !self.outbox.is_full()
    }

    /// Works on what was read, as far as there is room.
    fn take_in(&mut self) -> io::Result<()> {
        while !self.ending && self.has_room() {
            let Some(message) = self.reader.here::<pb::ToMaster>()? else {
                break;
            };
            self.begin(message)?;
        }
        Ok(())
    }

    fn begin(&mut self, message: pb::ToMaster) -> io::Result<()> {
        let id = message.id;
        let Some(ask) = message.body else {
            let unknown = Error::new(Code::InvalidArgument, "nothing is asked, or something unknown");
            return self.answer(id, Err(unknown));
        };
        if matches!(ask, Ask::Ping(_)) {
            return self.answer(id, Ok(Answer::Ping(pb::Ping {})));
        }
        let service = self.service.clone();
        let mut call: Call = Box::pin(async move { (id, service.call(ask).await) });
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready((id, answer)) => self.answer(id, answer),
            // It is polled again there, and then knows whom to wake.
            Poll::Pending => {
                self.calls.push(call);
                Ok(())
            }
        }
    }

    /// Everything else that has become ready meanwhile.
    fn answer_ready(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some((id, answer))) = self.calls.poll_next_unpin(&mut cx) {
            self.answer(id, answer)?;
        }
        Ok(())
    }

    fn answer(&self, id: u64, answer: Result<Answer>) -> io::Result<()> {
        let mut message = match answer {
            Ok(body) => pb::FromMaster {
                id,
                error: None,
                body: Some(body),
            },
            Err(error) => failed(id, error),
        };
        if message.encoded_len() > ANSWER_BYTES_MAX {
            message = failed(
                id,
                Error::new(Code::TooLarge, "the answer does not fit a message"),
            );
        }
        self.outbox.push(&message)
    }

    /// The timer ran out: was there really nothing?
    fn listen(&mut self) -> io::Result<()> {
        let due = self.heard + CALLER_SILENCE_MAX;
        if due <= Instant::now() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the caller is silent"));
        }
        self.silence.as_mut().reset(due);
        Ok(())
    }
}

fn failed(id: u64, error: Error) -> pb::FromMaster {
    pb::FromMaster {
        id,
        error: Some(error.into()),
        body: None,
    }
}
