//! Load: sequential workers, each with a manifest of its own, and one pulse that tells what they are at.

use dfs_client::{Code, Error, Result, Retry};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use tokio::task::JoinSet;

/// What a worker can be at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    Create,
    Mkdir,
    Rename,
    Link,
    Remove,
    Append,
    Overwrite,
    Sync,
}

const ACTS: [Act; 8] = [
    Act::Create,
    Act::Mkdir,
    Act::Rename,
    Act::Link,
    Act::Remove,
    Act::Append,
    Act::Overwrite,
    Act::Sync,
];

/// What all workers are at, and whether they are to go on.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    stop: AtomicBool,
    under_way: [AtomicU64; ACTS.len()],
    answered: AtomicU64,
    failed: AtomicU64,
    cuts: AtomicU32,
}

impl Pulse {
    /// Counts the operation while it lasts, and how it ended.
    pub(crate) async fn during<T>(&self, act: Act, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let under_way = &self.under_way[act as usize];
        under_way.fetch_add(1, Ordering::Relaxed);
        let ended = operation.await;
        under_way.fetch_sub(1, Ordering::Relaxed);
        let count = if ended.is_ok() {
            &self.answered
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
        ended
    }

    /// Operations that ended well so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Operations that ended with an error so far.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How often the power of everything was cut so far.
    pub(crate) fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::SeqCst)
    }

    /// Notes a cut of everything: what is acknowledged from now on was acknowledged after it.
    pub(crate) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until so many more operations have been answered.
    pub(crate) async fn beats(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.answered() + more;
        let waited = super::nodes::within(45, async {
            while self.answered() < goal {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        });
        waited
            .await
            .map_err(|_| anyhow::anyhow!("the load stands still: {:?} under way", self.under_way()))
    }

    /// Operations under way now.
    pub(crate) fn under_way(&self) -> BTreeMap<Act, u64> {
        let now = ACTS
            .iter()
            .map(|act| (*act, self.under_way[*act as usize].load(Ordering::Relaxed)));
        now.filter(|(_, count)| *count > 0).collect()
    }
}

/// Faults that landed, and what was under way when they did.
#[derive(Debug, Default)]
pub(crate) struct Landed {
    faults: u64,
    hit: BTreeMap<Act, u64>,
}

impl Landed {
    /// Counts a fault that has landed now.
    pub(crate) fn count(&mut self, under_way: BTreeMap<Act, u64>) {
        self.faults += 1;
        for (act, count) in under_way {
            *self.hit.entry(act).or_default() += count;
        }
    }

    /// Says what landed; a run in which nothing was hit has proved nothing.
    pub(crate) fn report(&self, rig: &str, wanted: u64, more: &str) -> anyhow::Result<()> {
        println!(
            "{rig}: {} faults landed, operations hit: {:?}; {more}",
            self.faults, self.hit
        );
        anyhow::ensure!(
            self.faults >= wanted,
            "{rig}: only {} faults of {wanted} landed",
            self.faults
        );
        anyhow::ensure!(
            self.hit.values().sum::<u64>() > 0,
            "{rig}: no operation was under way at any fault"
        );
        Ok(())
    }
}

/// Something that works step by step until told to stop.
pub(crate) trait Worker: Send + 'static {
    /// One operation. An error is a broken promise; an operation without an answer is not.
    fn step(&mut self, pulse: &Pulse) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Workers at work.
pub(crate) struct Load<W> {
    pub(crate) pulse: Arc<Pulse>,
    tasks: JoinSet<anyhow::Result<W>>,
}

impl<W: Worker> Load<W> {
    /// Sets them to work.
    pub(crate) fn start(workers: Vec<W>, pulse: Arc<Pulse>) -> Load<W> {
        pulse.stop.store(false, Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        for mut worker in workers {
            let pulse = pulse.clone();
            tasks.spawn(async move {
                while !pulse.stopped() {
                    worker.step(&pulse).await?;
                }
                Ok(worker)
            });
        }
        Load { pulse, tasks }
    }

    /// Tells them to stop and waits for their last operations.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Vec<W>> {
        self.pulse.stop();
        let mut workers = Vec::new();
        super::nodes::within(90, async {
            while let Some(ended) = self.tasks.join_next().await {
                workers.push(ended??);
            }
            anyhow::Ok(())
        })
        .await??;
        Ok(workers)
    }
}

/// True if the error says that the operation was refused for what the names are: it has not happened, and will not.
pub(crate) fn is_refusal(error: &Error) -> bool {
    !matches!(error.code, Code::Internal | Code::SessionExpired | Code::Lost)
        && error.code.retry() == Retry::Never
}
