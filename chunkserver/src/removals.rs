//! Deletions wait for the one under way and then go together: a thousand of them cost the syncs of one.

use crate::store;
use dfs_proto::{ChunkHandle, Code, Error, Result, Version};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::{Mutex as Turn, oneshot};

/// Deletions that go together: others want the disk, too.
const TOGETHER_MAX: usize = 256;

/// One that waits.
#[derive(Debug)]
struct Waiting {
    chunk: ChunkHandle,
    version: Version,
    done: oneshot::Sender<store::Result<()>>,
}

/// The deletions of a server.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    waiting: Mutex<Vec<Waiting>>,
    turn: Turn<()>,
}

impl Removals {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().expect("no panic while they are held")
    }

    /// Deletes one, with all that wait, by `remove`.
    ///
    /// # Errors
    /// Its own of what `remove` says.
    pub(crate) async fn remove<F>(
        &self,
        chunk: ChunkHandle,
        version: Version,
        remove: impl FnOnce(Vec<(ChunkHandle, Version)>) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Vec<(ChunkHandle, store::Result<()>)>>,
    {
        let (done, mut outcome) = oneshot::channel();
        self.waiting().push(Waiting { chunk, version, done });
        let turn = self.turn.lock().await;
        // Whoever had the turn before may have taken this one along.
        if let Ok(outcome) = outcome.try_recv() {
            return outcome.map_err(Error::from);
        }
        let mut together = {
            let mut waiting = self.waiting();
            let mine = waiting
                .iter()
                .position(|w| (w.chunk, w.version) == (chunk, version));
            if let Some(mine) = mine {
                waiting.swap(0, mine);
            }
            let count = waiting.len().min(TOGETHER_MAX);
            waiting.drain(..count).collect::<Vec<_>>()
        };
        let outcomes = remove(together.iter().map(|w| (w.chunk, w.version)).collect()).await;
        drop(turn);
        for (chunk, outcome) in outcomes {
            if let Some(place) = together.iter().position(|w| w.chunk == chunk) {
                // One that was given up needs no answer.
                let _ = together.swap_remove(place).done.send(outcome);
            }
        }
        drop(together);
        match outcome.await {
            Ok(outcome) => outcome.map_err(Error::from),
            Err(_) => Err(Error::new(Code::Unavailable, "the deletion was given up")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn what_waits_goes_together_and_each_hears_of_its_own() {
        let (removals, calls) = (Arc::new(Removals::default()), Arc::new(AtomicUsize::new(0)));
        let one = |n: u64| {
            let (removals, calls) = (removals.clone(), calls.clone());
            async move {
                let remove = |wanted: Vec<(ChunkHandle, Version)>| async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    let outcome = |(chunk, _): (ChunkHandle, Version)| {
                        let missing = chunk.0 == 7;
                        (
                            chunk,
                            if missing {
                                Err(store::Error::NotFound(chunk))
                            } else {
                                Ok(())
                            },
                        )
                    };
                    wanted.into_iter().map(outcome).collect()
                };
                removals.remove(ChunkHandle(n), Version(1), remove).await
            }
        };
        let outcomes = futures::future::join_all((0..100).map(one)).await;
        for (n, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.is_err(), n == 7, "{n}: {outcome:?}");
        }
        let calls = calls.load(Ordering::SeqCst);
        assert!(calls <= 2, "{calls} calls for a hundred deletions");
    }
}
