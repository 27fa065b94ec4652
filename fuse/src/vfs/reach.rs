//! Whether the master can be reached: what is remembered answers while it cannot.

use super::{Vfs, lock};
use dfs_client::{Code, Result};
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// While the change stream is lost, the master is given so long to answer a question that memory can answer too.
const TRY: Duration = Duration::from_millis(300);
/// When it did not, memory answers at once for so long.
const BELIEVE: Duration = Duration::from_secs(1);

/// How the change stream is, and with it the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not there yet, or lost a moment ago.
    Unsure,
    /// It stands.
    Watching,
    /// Lost for some time.
    Away,
}

/// The state, for all to follow.
#[derive(Debug)]
pub(super) struct Reach {
    state: watch::Sender<State>,
    /// The master did not answer a moment ago: until then nobody tries it for long.
    silent_until: Mutex<Option<Instant>>,
}

impl Reach {
    pub(super) fn new() -> Reach {
        Reach {
            state: watch::Sender::new(State::Unsure),
            silent_until: Mutex::new(None),
        }
    }

    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(super) async fn watching(&self) {
        let mut state = self.state.subscribe();
        state
            .wait_for(|state| *state == State::Watching)
            .await
            .expect("we have the sender");
    }

    /// Ready when there is no use in waiting for the master any longer.
    async fn hopeless(&self) {
        let mut state = self.state.subscribe();
        let away = state.wait_for(|state| *state == State::Away).await;
        drop(away.expect("we have the sender"));
        let hoped = lock(&self.silent_until).is_none_or(|until| until <= Instant::now());
        if hoped {
            sleep(TRY).await;
            *lock(&self.silent_until) = Some(Instant::now() + BELIEVE);
        }
    }
}

/// The question got no answer.
fn is_silence(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::TimedOut | Code::NotLeader)
}

impl Vfs {
    /// Asks the master. While it is away, what is remembered is better than an error.
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T>>,
        remembered: impl Fn() -> Option<T>,
    ) -> Result<T> {
        tokio::pin!(question);
        tokio::select! {
            biased;
            answer = &mut question => match answer {
                Err(error) if is_silence(error.code) => remembered().ok_or(error),
                answer => answer,
            },
            () = self.reach.hopeless() => match remembered() {
                Some(old) => Ok(old),
                None => question.await,
            },
        }
    }
}
