//! The asking end: one connection to one master, opened when first used and again after every failure.

use super::{
    ANSWER_BYTES_MAX, Answer, Ask, CALLS_MAX, FramesReader, Outbox, PING_DEADLINE, PREAMBLE,
    REQUEST_BYTES_MAX, SILENCE_MAX,
};
use crate::net::{BoxStream, DIAL_DEADLINE, Dial};
use crate::{Code, Error, Result, pb};
use prost::Message as _;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::ReadHalf;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

/// Calls to one master; clones share the connection.
#[derive(Clone, Debug)]
pub struct Line {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dial: Arc<dyn Dial>,
    addr: String,
    /// Never held across an await.
    current: Mutex<Option<Arc<Connection>>>,
    /// Held while a connection is opened, so that only one is.
    opening: tokio::sync::Mutex<()>,
}

impl Line {
    /// To "host:port"; nothing is dialled yet.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, addr: &str) -> Line {
        Line {
            shared: Arc::new(Shared {
                dial,
                addr: addr.to_owned(),
                current: Mutex::new(None),
                opening: tokio::sync::Mutex::new(()),
            }),
        }
    }

    /// Asks, and waits for the answer for as long as the connection lives: bound it by a deadline. Dropping the future
    /// takes nothing back that was sent.
    ///
    /// # Errors
    /// `Unavailable` if the connection cannot be made or fails (the call may have been carried out all the same);
    /// `InvalidArgument` for a request over the limit; else the master's.
    pub async fn call(&self, ask: Ask) -> Result<Answer> {
        let connection = match self.shared.open() {
            Some(connection) => connection,
            None => self.shared.connect().await?,
        };
        connection.call(ask).await
    }
}

impl Shared {
    /// The connection, if there is one that works.
    fn open(&self) -> Option<Arc<Connection>> {
        let current = self.current.lock().expect("no panic while held");
        current.as_ref().filter(|c| !c.calls.is_broken()).cloned()
    }

    async fn connect(&self) -> Result<Arc<Connection>> {
        let _one = self.opening.lock().await;
        if let Some(connection) = self.open() {
            return Ok(connection);
        }
        let dialled = tokio::time::timeout(DIAL_DEADLINE, self.dial.dial(&self.addr)).await;
        let stream = dialled
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| unavailable(&self.addr, &error))?;
        let connection = Arc::new(Connection::start(&self.addr, stream));
        *self.current.lock().expect("no panic while held") = Some(connection.clone());
        Ok(connection)
    }
}

fn unavailable(addr: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Unavailable, format!("the master at {addr}: {why}"))
}

#[derive(Debug)]
struct Connection {
    calls: Arc<Calls>,
    outbox: Outbox,
    places: Semaphore,
    reader: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

type Waiter = oneshot::Sender<Result<Answer>>;

/// Who waits for which answer.
#[derive(Debug)]
struct Calls {
    addr: String,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    waiters: BTreeMap<u64, Waiter>,
    /// Nobody may start to wait any more.
    broken: bool,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic while held")
    }

    fn is_broken(&self) -> bool {
        self.lock().broken
    }

    fn fail(&self, why: &dyn std::fmt::Display) {
        let waiters = {
            let mut waiting = self.lock();
            waiting.broken = true;
            std::mem::take(&mut waiting.waiters)
        };
        for (_, waiter) in waiters {
            // A caller that has gone away needs no answer.
            let _ = waiter.send(Err(unavailable(&self.addr, why)));
        }
    }

    fn answer(&self, message: pb::FromMaster) {
        let Some(waiter) = self.lock().waiters.remove(&message.id) else {
            return;
        };
        let answer = match (message.error, message.body) {
            (Some(error), _) => Err(error.into()),
            (None, Some(body)) => Ok(body),
            (None, None) => Err(Error::new(
                Code::Internal,
                "the master answered nothing, or something unknown",
            )),
        };
        // A caller that has gone away needs no answer.
        let _ = waiter.send(answer);
    }
}

/// Takes a call that is no longer waited for off the list.
struct Given<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        self.calls.lock().waiters.remove(&self.id);
    }
}

impl Connection {
    fn start(addr: &str, stream: BoxStream) -> Connection {
        let (reader, writer) = tokio::io::split(stream);
        let calls = Arc::new(Calls {
            addr: addr.to_owned(),
            waiting: Mutex::default(),
        });
        let outbox = Outbox::new(writer, PREAMBLE);
        let reader = FramesReader::new(reader, ANSWER_BYTES_MAX);
        let receiving = receive(reader, calls.clone(), outbox.clone());
        Connection {
            calls,
            outbox,
            places: Semaphore::new(CALLS_MAX),
            reader: tokio::spawn(receiving).abort_handle(),
        }
    }

    async fn call(&self, ask: Ask) -> Result<Answer> {
        let _place = self
            .places
            .acquire()
            .await
            .expect("the semaphore is never closed");
        if self.outbox.is_full() {
            self.outbox.room().await;
        }
        let (waiter, answer) = oneshot::channel();
        let id = {
            let mut waiting = self.calls.lock();
            if waiting.broken {
                return Err(unavailable(&self.calls.addr, &"the connection was lost"));
            }
            waiting.last += 1;
            let id = waiting.last;
            waiting.waiters.insert(id, waiter);
            id
        };
        let _given = Given {
            calls: &self.calls,
            id,
        };
        self.send(pb::ToMaster { id, body: Some(ask) })?;
        answer
            .await
            .unwrap_or_else(|_| Err(unavailable(&self.calls.addr, &"the connection was lost")))
    }

    fn send(&self, message: pb::ToMaster) -> Result<()> {
        if message.encoded_len() > REQUEST_BYTES_MAX {
            return Err(Error::new(
                Code::InvalidArgument,
                "the request does not fit a message",
            ));
        }
        self.outbox.push(&message).map_err(|error| {
            self.calls.fail(&error);
            unavailable(&self.calls.addr, &error)
        })?;
        self.outbox.flush();
        Ok(())
    }
}

/// A connection's life: hands out answers until it ends.
async fn receive(reader: FramesReader<ReadHalf<BoxStream>>, calls: Arc<Calls>, outbox: Outbox) {
    let why = match listen(reader, &calls, &outbox).await {
        Ok(()) => "it closed the connection".to_owned(),
        Err(error) => error.to_string(),
    };
    calls.fail(&why);
    outbox.close();
}

async fn listen(
    mut reader: FramesReader<ReadHalf<BoxStream>>,
    calls: &Calls,
    outbox: &Outbox,
) -> io::Result<()> {
    let mut heard = Instant::now();
    let mut asked = false;
    let mut silence = std::pin::pin!(tokio::time::sleep(SILENCE_MAX));
    loop {
        tokio::select! {
            biased;
            more = reader.more() => {
                if !more? {
                    return Ok(());
                }
                (heard, asked) = (Instant::now(), false);
            }
            kind = outbox.failed() => return Err(kind.into()),
            () = &mut silence => {
                let due = if asked { None } else { Some(heard + SILENCE_MAX) };
                asked = wake(silence.as_mut(), due, outbox)?;
            }
        }
        while let Some(message) = reader.here::<pb::FromMaster>()? {
            calls.answer(message);
        }
    }
}

/// The timer ran out: sleeps on if something was heard meanwhile, asks for a sign of life if not (then true);
/// gives up if that was done before.
fn wake(mut silence: std::pin::Pin<&mut Sleep>, due: Option<Instant>, outbox: &Outbox) -> io::Result<bool> {
    let now = Instant::now();
    match due {
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it does not answer any more",
        )),
        Some(due) if due > now => {
            silence.as_mut().reset(due);
            Ok(false)
        }
        Some(_) => {
            outbox.push(&pb::ToMaster {
                id: 0,
                body: Some(Ask::Ping(pb::Ping {})),
            })?;
            outbox.flush();
            silence.as_mut().reset(now + PING_DEADLINE);
            Ok(true)
        }
    }
}
