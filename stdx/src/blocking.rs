//! The pool for blocking work: a bounded number of threads, or inline for simulation.
//!
//! Jobs start in the order they were given. When the queue is full, [`Pool::run`] waits for room: the caller
//! slows down, the queue does not grow. A caller that stops waiting does not stop a job that was queued.

use crate::clock::Clock;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Jobs that may wait per thread: enough that a thread never idles between two, few enough to notice overload.
const QUEUED_PER_THREAD_MAX: usize = 16;

/// Brief work that took longer shows that the disk makes callers wait.
const BRIEF: Duration = Duration::from_millis(5);
/// After that, brief work goes to the threads so many times before it is tried in place again.
const DISTRUST: u64 = 64;
/// What was too long for a [`Habit`] again and again is tried in place after so many times at the latest.
const DISTRUST_MAX: u64 = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// Where blocking work runs. Clones share the threads, which end with the last clone.
#[derive(Clone, Debug)]
pub struct Pool {
    /// `None`: in place.
    threads: Option<Arc<Threads>>,
}

#[derive(Debug)]
struct Threads {
    queue: Arc<Queue>,
    /// One permit for each place in the queue and each thread, so that giving a job never blocks.
    places: Arc<Semaphore>,
    places_max: usize,
    /// Brief work is being done in place: one at a time, so that a disk that hangs takes one of the runtime's workers.
    in_place: AtomicBool,
    /// Brief work goes to the threads as often.
    distrust: AtomicU64,
    clock: Clock,
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
        let queue = Arc::new(Queue::default());
        for _ in 0..count {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || work(&queue))
                .expect("the system can start a thread");
        }
        let threads = Threads {
            queue,
            places: Arc::new(Semaphore::new(places)),
            places_max: places,
            in_place: AtomicBool::new(false),
            distrust: AtomicU64::new(0),
            clock: Clock::system(),
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
        threads.queue.push(job);
        result.await.expect("the work does not panic")
    }
}

impl Pool {
    /// Jobs that are being done or wait for a thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let threads = self.threads.as_ref();
        threads.map_or(0, |t| t.places_max - t.places.available_permits())
    }

    /// As [`Pool::run`], for work that hardly ever waits: a few small writes to the page cache. It is done where it is
    /// asked for, which saves two changes of thread, unless other such work is being done in place now or the last
    /// one took long.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub async fn run_brief<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match &self.threads {
            Some(threads) if !threads.may_be_in_place() => self.run(work).await,
            Some(threads) => {
                let begun = threads.clock.now();
                let outcome = work();
                if begun.elapsed() > BRIEF {
                    threads.distrust.store(DISTRUST, Ordering::Relaxed);
                }
                threads.in_place.store(false, Ordering::Release);
                outcome
            }
            None => work(),
        }
    }

    /// As [`Pool::run`], for work that one caller does again and again, one after another: in place as long as that is
    /// brief, as its habit says.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub async fn run_by_habit<T, F>(&self, habit: &mut Habit, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match &self.threads {
            Some(threads) if habit.is_trusted() => {
                let begun = threads.clock.now();
                let outcome = work();
                habit.took(begun.elapsed());
                outcome
            }
            Some(_) => self.run(work).await,
            None => work(),
        }
    }
}

/// What a caller knows of its own work: how long it takes in place. What took long goes to the threads for a while, the
/// longer the more often it did.
#[derive(Clone, Debug)]
pub struct Habit {
    limit: Duration,
    /// Goes to the threads so many times more.
    distrust: u64,
    /// And so many times when it is too long the next time.
    next: u64,
}

impl Habit {
    /// Of work that may keep one of the runtime's workers for `limit`.
    #[must_use]
    pub fn within(limit: Duration) -> Habit {
        Habit {
            limit,
            distrust: 0,
            next: DISTRUST,
        }
    }

    fn is_trusted(&mut self) -> bool {
        let is_trusted = self.distrust == 0;
        self.distrust = self.distrust.saturating_sub(1);
        is_trusted
    }

    fn took(&mut self, time: Duration) {
        if time <= self.limit {
            self.next = DISTRUST;
        } else {
            self.distrust = self.next;
            self.next = (self.next * 2).min(DISTRUST_MAX);
        }
    }
}

/// Jobs that wait for a thread.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// No more will come.
    ended: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic while the queue is held")
    }

    fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        // One thread for one job, and nobody else.
        self.more.notify_one();
    }

    /// The next job; `None` when there will be no more.
    fn next(&self) -> Option<Job> {
        let idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.ended;
        let waiting = self.more.wait_while(self.lock(), idle);
        waiting
            .expect("no panic while the queue is held")
            .jobs
            .pop_front()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.more.notify_all();
    }
}

impl Threads {
    /// True if the caller may work in place; it says so when it is done.
    fn may_be_in_place(&self) -> bool {
        let distrust = self.distrust.load(Ordering::Relaxed);
        if distrust > 0 {
            self.distrust.store(distrust - 1, Ordering::Relaxed);
            return false;
        }
        !self.in_place.swap(true, Ordering::Acquire)
    }
}

/// A thread's life: one job after another until the last pool is dropped.
fn work(queue: &Queue) {
    while let Some(job) = queue.next() {
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> std::thread::ThreadId {
        std::thread::current().id()
    }

    #[tokio::test]
    async fn brief_work_is_done_in_place_until_it_takes_long() {
        let pool = Pool::threads("test", 1);
        assert_eq!(pool.run_brief(here).await, here());
        assert_ne!(pool.run(here).await, here());
        let slow = || {
            let begun = Clock::system().now();
            while begun.elapsed() < BRIEF * 2 {
                std::hint::spin_loop();
            }
        };
        pool.run_brief(slow).await;
        for _ in 0..DISTRUST {
            assert_ne!(pool.run_brief(here).await, here());
        }
        assert_eq!(pool.run_brief(here).await, here(), "it gets another chance");
    }

    #[tokio::test]
    async fn a_habit_stays_in_place_until_it_takes_long_and_is_tried_again_ever_more_seldom() {
        let pool = Pool::threads("test", 1);
        let mut habit = Habit::within(Duration::from_secs(1));
        assert_eq!(pool.run_by_habit(&mut habit, here).await, here());
        for times in [DISTRUST, 2 * DISTRUST] {
            habit.took(Duration::from_secs(2));
            for _ in 0..times {
                assert_ne!(pool.run_by_habit(&mut habit, here).await, here());
            }
        }
        assert_eq!(pool.run_by_habit(&mut habit, here).await, here());
        habit.took(Duration::from_secs(2));
        assert_eq!(habit.distrust, DISTRUST, "it was brief in between");
    }

    #[tokio::test]
    async fn threads_end_with_their_pool_and_do_what_was_asked_before() {
        let pool = Pool::threads("test", 2);
        let (tell, told) = std::sync::mpsc::channel();
        for number in 0..8 {
            let tell = tell.clone();
            drop(tokio::spawn({
                let pool = pool.clone();
                async move { pool.run(move || tell.send(number)).await }
            }));
        }
        drop((pool, tell));
        tokio::task::yield_now().await;
        let mut done: Vec<u32> = told.iter().collect();
        done.sort_unstable();
        assert_eq!(done, (0..8).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn jobs_that_wait_are_counted() {
        let pool = Pool::threads("test", 1);
        let inner = pool.clone();
        assert_eq!(pool.run(move || inner.waiting()).await, 1);
        assert_eq!(Pool::inline().waiting(), 0);
    }

    #[tokio::test]
    async fn one_piece_of_brief_work_is_done_in_place_at_a_time() {
        let pool = Pool::threads("test", 1);
        let inner = pool.clone();
        let other = pool
            .run_brief(move || inner.threads.as_ref().map(|t| t.may_be_in_place()))
            .await;
        assert_eq!(other, Some(false));
    }
}
