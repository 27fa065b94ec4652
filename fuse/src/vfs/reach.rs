//! Whether the master can be reached: what is remembered answers while it cannot.

use super::Vfs;
use dfs_client::{Code, Result};
use std::future::Future;
use tokio::sync::watch;

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
}

impl Reach {
    pub(super) fn new() -> Reach {
        Reach {
            state: watch::Sender::new(State::Unsure),
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

    async fn away(&self) {
        let mut state = self.state.subscribe();
        state
            .wait_for(|state| *state == State::Away)
            .await
            .expect("we have the sender");
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
            () = self.reach.away() => match remembered() {
                Some(old) => Ok(old),
                None => question.await,
            },
            answer = &mut question => match answer {
                Err(error) if is_silence(error.code) => remembered().ok_or(error),
                answer => answer,
            },
        }
    }
}
