//! Requests that wait, without tasks of their own.
//!
//! A request is polled in the thread that took it from the kernel. If it has to wait it is parked, and whoever wakes it
//! has it go on in the runtime: mostly the task that read the master's answer, on whose worker it then goes on at once.
//! So nothing is woken only to find that there is nothing to do yet, and no timer is set for what is answered soon: one
//! task looks a few times a second for those that wait long.

use crate::interrupt::PATIENCE;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// How often is looked: what has been there twice has waited long.
const EVERY: Duration = Duration::from_millis(PATIENCE.as_millis() as u64 / 2);

/// What is left to do of a request.
pub(crate) trait Rest: Send {
    /// Goes on; gives back what has to wait on.
    fn go_on(self: Box<Self>, context: &mut Context<'_>) -> Option<Box<dyn Rest>>;

    /// It has waited long: all the rest of it, for a task of its own.
    fn at_length(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

enum Stage {
    /// Being polled; whether it was woken meanwhile.
    Going(bool),
    Waiting(Box<dyn Rest>),
    /// Answered, or someone else's.
    Left,
}

/// A request; it is its own waker.
pub(crate) struct Parked {
    runtime: Handle,
    stage: Mutex<Stage>,
}

impl Parked {
    /// Of a request that goes on in `runtime` if it has to wait.
    pub(crate) fn new(runtime: &Handle) -> Arc<Parked> {
        Arc::new(Parked {
            runtime: runtime.clone(),
            stage: Mutex::new(Stage::Going(false)),
        })
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has to wait, unless it was woken by now.
    pub(crate) fn park(self: &Arc<Self>, rest: Box<dyn Rest>) {
        let mut stage = self.stage();
        match *stage {
            Stage::Going(false) => *stage = Stage::Waiting(rest),
            // Not in a loop: what has used up its turn has to let others go first.
            Stage::Going(true) | Stage::Waiting(_) | Stage::Left => {
                *stage = Stage::Going(false);
                drop(stage);
                self.spawn(rest);
            }
        }
    }

    fn spawn(self: &Arc<Self>, rest: Box<dyn Rest>) {
        let parked = self.clone();
        self.runtime.spawn(async move { parked.go(rest) });
    }

    fn go(self: Arc<Self>, rest: Box<dyn Rest>) {
        let waker = Waker::from(self.clone());
        match rest.go_on(&mut Context::from_waker(&waker)) {
            Some(rest) => self.park(rest),
            None => *self.stage() = Stage::Left,
        }
    }

    /// What waits becomes a task. True if there is nothing more to look for.
    fn is_seen_to(&self) -> bool {
        let mut stage = self.stage();
        match std::mem::replace(&mut *stage, Stage::Left) {
            Stage::Waiting(rest) => {
                drop(stage);
                self.runtime.spawn(rest.at_length());
                true
            }
            Stage::Going(woken) => {
                *stage = Stage::Going(woken);
                false
            }
            Stage::Left => true,
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        let mut stage = self.stage();
        match std::mem::replace(&mut *stage, Stage::Left) {
            Stage::Waiting(rest) => {
                *stage = Stage::Going(false);
                drop(stage);
                self.spawn(rest);
            }
            Stage::Going(_) => *stage = Stage::Going(true),
            Stage::Left => {}
        }
    }
}

/// Those parked lately, to be looked for.
#[derive(Clone, Default)]
pub(crate) struct Lately {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Since the last look.
    young: Mutex<Vec<Weak<Parked>>>,
    more: Notify,
}

impl std::fmt::Debug for Lately {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lately").finish_non_exhaustive()
    }
}

impl Lately {
    fn young(&self) -> MutexGuard<'_, Vec<Weak<Parked>>> {
        self.shared.young.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is looked for.
    pub(crate) fn note(&self, parked: &Arc<Parked>) {
        let mut young = self.young();
        young.push(Arc::downgrade(parked));
        let is_first = young.len() == 1;
        drop(young);
        if is_first {
            self.shared.more.notify_one();
        }
    }

    /// Looks for ever.
    pub(crate) async fn watch(self) {
        let mut old: Vec<Weak<Parked>> = Vec::new();
        loop {
            if old.is_empty() && self.young().is_empty() {
                self.shared.more.notified().await;
                continue;
            }
            tokio::time::sleep(EVERY).await;
            old.retain(|one| one.upgrade().is_some_and(|parked| !parked.is_seen_to()));
            old.append(&mut self.young());
        }
    }
}
