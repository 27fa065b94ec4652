//! The desk where every request is answered, exactly once.
//!
//! A request is a future of the file system. It is polled once in the thread that took it from the kernel: what the
//! caches know is answered there, without another thread. What has to wait is parked and goes on in the runtime; if it waits long, a
//! signal of the program ends the wait (not the work), and a deadline ends it in any case, with a line in the log.

use crate::errno::{errno, is_trouble};
use crate::interrupt::{Interrupts, PATIENCE, Pending};
use crate::parked::{Lately, Parked, Rest};
use crate::stats::{Operation, Stats};
use dfs_proto::{Error, Result};
use dfs_stdx::clock::{Clock, Instant};
use fuser::Errno;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// No request waits longer, but one for a lock. The calls inside have shorter deadlines, which say more.
const DEADLINE: Duration = Duration::from_secs(90);

/// A way to say no to the kernel.
pub(crate) trait Refuse: Send + 'static {
    /// Answers with an error.
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ident)*) => {
        $(impl Refuse for fuser::$reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse! {
    ReplyAttr ReplyCreate ReplyData ReplyDirectory ReplyDirectoryPlus ReplyEmpty ReplyEntry ReplyLock ReplyLseek
    ReplyOpen ReplyStatfs ReplyWrite ReplyXattr
}

/// A request, for the books.
#[derive(Debug)]
pub(crate) struct Asked {
    operation: Operation,
    inode: u64,
    thread: u32,
    started: Instant,
    /// What has to be pending for the program's wait to end.
    ended_by: Pending,
    /// Waits for others as long as they like, and can be told to stop.
    patient: Option<CancellationToken>,
}

impl Asked {
    /// Half of a change cannot be taken back: only the end of the program ends its wait.
    #[must_use]
    pub(crate) fn until_killed(mut self) -> Asked {
        self.ended_by = Pending::Fatal;
        self
    }

    /// Has no deadline, and stops when the token says so.
    #[must_use]
    pub(crate) fn until_cancelled(mut self, token: CancellationToken) -> Asked {
        self.patient = Some(token);
        self
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    runtime: Handle,
    clock: Clock,
    stats: Arc<Stats>,
    interrupts: Interrupts,
    lately: Lately,
}

impl Desk {
    /// A desk whose long requests go on in `runtime`.
    #[must_use]
    pub(crate) fn new(runtime: Handle, clock: Clock, stats: Arc<Stats>) -> Desk {
        let interrupts = Interrupts::default();
        runtime.spawn(interrupts.clone().watch());
        let lately = Lately::default();
        runtime.spawn(lately.clone().watch());
        Desk {
            runtime,
            clock,
            stats,
            interrupts,
            lately,
        }
    }

    /// The mount's counters.
    #[must_use]
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// A request begins.
    #[must_use]
    pub(crate) fn asked(&self, operation: Operation, inode: u64, request: &fuser::Request) -> Asked {
        Asked {
            operation,
            inode,
            thread: request.pid(),
            started: self.clock.now(),
            ended_by: Pending::Caught,
            patient: None,
        }
    }

    /// Does something brief where the file system may start work of its own.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.runtime.enter();
        work()
    }

    /// Answers a request with what `work` comes to.
    pub(crate) fn serve<R: Refuse, T: Send + 'static>(
        &self,
        asked: Asked,
        reply: R,
        work: impl Future<Output = Result<T>> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        let parked = Parked::new(&self.runtime);
        let waker = Waker::from(parked.clone());
        let mut work = Box::pin(work);
        let entered = self.runtime.enter();
        match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => self.answer(&asked, reply, result, answer),
            Poll::Pending => {
                drop(entered);
                let waiting = Waiting::one_more(&self.stats);
                let desk = self.clone();
                self.lately.note(&parked);
                parked.park(Box::new(Served {
                    desk,
                    asked,
                    reply,
                    work,
                    answer,
                    waiting,
                }));
            }
        }
    }

    /// Answers a request that is done already.
    pub(crate) fn answer<R: Refuse, T>(
        &self,
        asked: &Asked,
        reply: R,
        result: Result<T>,
        answer: impl FnOnce(R, T),
    ) {
        let took = asked.started.elapsed();
        match result {
            Ok(value) => {
                self.stats.answered(asked.operation, took, false);
                answer(reply, value);
            }
            Err(error) => {
                self.stats.answered(asked.operation, took, true);
                if is_trouble(error.code) {
                    explain(asked, &error, took);
                }
                reply.refuse(errno(error.code));
            }
        }
    }

    fn give_up(&self, asked: &Asked, why: Errno) {
        let took = asked.started.elapsed();
        self.stats.answered(asked.operation, took, true);
        if why == Errno::EINTR {
            self.stats.interrupted.add(1);
            tracing::debug!(
                operation = asked.operation.name(),
                inode = asked.inode,
                ?took,
                "interrupted"
            );
        } else {
            self.stats.timed_out.add(1);
            tracing::error!(
                operation = asked.operation.name(),
                inode = asked.inode,
                ?took,
                "given up at its deadline: ETIMEDOUT"
            );
        }
    }
}

/// An EIO without a reason does not exist.
fn explain(asked: &Asked, error: &Error, took: Duration) {
    let chunk = error
        .chunk
        .map(|(chunk, version)| format!("{chunk} version {version}"));
    let node = error.node.map(|node| node.to_string());
    tracing::warn!(
        operation = asked.operation.name(),
        inode = asked.inode,
        errno = errno(error.code).code(),
        code = error.code.name(),
        chunk,
        node,
        ?took,
        why = %error,
        "a request failed"
    );
}

/// A request that could not be answered at once.
struct Served<R, W, A> {
    desk: Desk,
    asked: Asked,
    reply: R,
    work: Pin<Box<W>>,
    answer: A,
    waiting: Waiting,
}

impl<R, T, W, A> Rest for Served<R, W, A>
where
    R: Refuse,
    T: Send + 'static,
    W: Future<Output = Result<T>> + Send + 'static,
    A: FnOnce(R, T) + Send + 'static,
{
    fn go_on(mut self: Box<Self>, context: &mut Context<'_>) -> Option<Box<dyn Rest>> {
        match self.work.as_mut().poll(context) {
            Poll::Ready(result) => {
                let served = *self;
                served
                    .desk
                    .answer(&served.asked, served.reply, result, served.answer);
                None
            }
            Poll::Pending => Some(self),
        }
    }

    fn at_length(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.wait())
    }
}

impl<R, T, W, A> Served<R, W, A>
where
    R: Refuse,
    T: Send + 'static,
    W: Future<Output = Result<T>> + Send + 'static,
    A: FnOnce(R, T) + Send + 'static,
{
    /// It has waited for a while: it goes on until it is done, the program gets a signal, or its deadline passes.
    async fn wait(self: Box<Self>) {
        let Served {
            desk,
            asked,
            reply,
            mut work,
            answer,
            waiting,
        } = *self;
        let _waiting = waiting;
        let mut signals = desk.interrupts.register(asked.thread, asked.ended_by);
        let why = tokio::select! {
            result = &mut work => return desk.answer(&asked, reply, result, answer),
            () = signals.signalled() => Errno::EINTR,
            () = tokio::time::sleep(DEADLINE), if asked.patient.is_none() => Errno::ETIMEDOUT,
        };
        drop(signals);
        if let Some(token) = &asked.patient {
            token.cancel();
            if let Ok(result) = tokio::time::timeout(PATIENCE, &mut work).await {
                return desk.answer(&asked, reply, result, answer);
            }
        }
        desk.give_up(&asked, why);
        reply.refuse(why);
        // Half of a change must not be left behind in the caches: what was begun is brought to its end.
        let _ = work.await;
    }
}

/// Counts while it lives.
struct Waiting(Arc<Stats>);

impl Waiting {
    fn one_more(stats: &Arc<Stats>) -> Waiting {
        stats.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(stats.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::Code;
    use std::sync::mpsc;

    struct Reply(mpsc::Sender<std::result::Result<u32, Errno>>);

    impl Refuse for Reply {
        fn refuse(self, errno: Errno) {
            self.0.send(Err(errno)).unwrap();
        }
    }

    fn desk() -> Desk {
        let clock = Clock::system();
        let stats = Arc::new(Stats::new("", "", &clock));
        Desk::new(Handle::current(), clock, stats)
    }

    fn asked(desk: &Desk) -> Asked {
        Asked {
            operation: Operation::Read,
            inode: 7,
            thread: 0,
            started: desk.clock.now(),
            ended_by: Pending::Caught,
            patient: None,
        }
    }

    fn answer(reply: Reply, value: u32) {
        reply.0.send(Ok(value)).unwrap();
    }

    #[tokio::test]
    async fn what_is_known_is_answered_in_the_same_thread_at_once() {
        let (desk, (sender, receiver)) = (desk(), mpsc::channel());
        desk.serve(asked(&desk), Reply(sender), async { Ok(5) }, answer);
        assert_eq!(receiver.try_recv().unwrap(), Ok(5));
        assert_eq!(desk.stats.of(Operation::Read).took.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_to_wait_is_answered_later() {
        let (desk, (sender, receiver)) = (desk(), mpsc::channel());
        let work = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err(Code::NotFound.into())
        };
        desk.serve(asked(&desk), Reply(sender), work, answer);
        assert!(receiver.try_recv().is_err());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(receiver.try_recv().unwrap(), Err(Errno::ENOENT));
    }

    #[tokio::test(start_paused = true)]
    async fn no_request_outlives_its_deadline_and_its_work_is_brought_to_an_end() {
        let (desk, (sender, receiver)) = (desk(), mpsc::channel());
        let (done, ended) = mpsc::channel();
        let work = async move {
            tokio::time::sleep(DEADLINE * 2).await;
            done.send(()).unwrap();
            Ok(1)
        };
        desk.serve(asked(&desk), Reply(sender), work, answer);
        tokio::time::sleep(DEADLINE + Duration::from_secs(1)).await;
        assert_eq!(receiver.try_recv().unwrap(), Err(Errno::ETIMEDOUT));
        assert!(ended.try_recv().is_err());
        tokio::time::sleep(DEADLINE).await;
        ended.try_recv().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_lock_has_no_deadline() {
        let (desk, (sender, receiver)) = (desk(), mpsc::channel());
        let token = CancellationToken::new();
        let work = async {
            tokio::time::sleep(DEADLINE * 3).await;
            Ok(2)
        };
        desk.serve(asked(&desk).until_cancelled(token), Reply(sender), work, answer);
        tokio::time::sleep(DEADLINE * 3 + Duration::from_secs(1)).await;
        assert_eq!(receiver.try_recv().unwrap(), Ok(2));
    }
}
