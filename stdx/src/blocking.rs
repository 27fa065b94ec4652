//! The pool for blocking work: a bounded number of threads, or inline for simulation.
//!
//! Jobs start in the order they were given. When the queue is full, [`Pool::run`] waits for room: the caller
//! slows down, the queue does not grow. A caller that stops waiting does not stop a job that was queued.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, oneshot};

/// Jobs that may wait per thread: enough that a thread never idles between two, few enough to notice overload.
const QUEUED_PER_THREAD_MAX: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// Where blocking work runs. Clones share the threads, which end with the last clone.
#[derive(Clone, Debug)]
pub struct Pool {
    /// `None`: in place.
    threads: Option<Arc<Threads>>,
}

#[derive(Debug)]
struct Threads {
    jobs: SyncSender<Job>,
    /// One permit for each place in the queue and each thread, so that giving a job never blocks.
    places: Arc<Semaphore>,
}

impl Pool {
    /// `count` threads (at least one) called `name`.
    ///
    /// # Panics
    /// If the system has no room for another thread.
    #[must_use]
    pub fn threads(name: &str, count: usize) -> Self {
        let count = count.max(1);
        let places = count * (1 + QUEUED_PER_THREAD_MAX);
        let (jobs, queue) = sync_channel(places);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..count {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || work(&queue))
                .expect("the system can start a thread");
        }
        let threads = Threads {
            jobs,
            places: Arc::new(Semaphore::new(places)),
        };
        Pool {
            threads: Some(Arc::new(threads)),
        }
    }

    /// No threads: work is done where it is asked for, so that a simulation stays deterministic.
    #[must_use]
    pub fn inline() -> Self {
        Pool { threads: None }
    }

    /// Runs the work and returns what it returned. Cancelled while waiting for room, the work is never done;
    /// cancelled later, it is done and its result dropped.
    ///
    /// # Panics
    /// If the work does (which ends the process in every profile but tests').
    pub async fn run<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let Some(threads) = &self.threads else {
            return work();
        };
        let place = threads
            .places
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (reply, result) = oneshot::channel();
        let job = Box::new(move || {
            // The caller may be gone: then nobody wants the result.
            let _ = reply.send(work());
            drop(place);
        });
        threads
            .jobs
            .send(job)
            .expect("the threads live as long as the pool");
        result.await.expect("the work does not panic")
    }
}

/// A thread's life: one job after another until the last pool is dropped.
fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().expect("no panic while the queue is held").recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
