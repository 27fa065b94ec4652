//! Committed commands to the state, over a store in memory: until the log drives it, nothing outlives the process.

use crate::command::{Command, Reply};
use crate::state;
use crate::store::{MemoryStore, Read, Store, Txn, View};
use dfs_proto::{Code, Error, Result};
use std::sync::{Arc, Mutex};

/// The way to the hard state; clones share it.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Mutex<MemoryStore>>);

impl Handle {
    /// An empty state in memory.
    #[must_use]
    pub fn memory() -> Handle {
        Handle(Arc::new(Mutex::new(MemoryStore::new())))
    }

    /// Applies a command and returns what came of it.
    ///
    /// # Errors
    /// The state's refusal, or the store's failure.
    pub async fn propose(&self, command: Command) -> Result<Reply> {
        let mut store = self.0.lock().expect("no panic while the store is held");
        let index = store.applied() + 1;
        let (outcome, batch) = {
            let view = View::new(&*store);
            let mut txn = Txn::new(&view);
            let outcome = state::apply(&mut txn, index, &command);
            (outcome, txn.into_batch())
        };
        store
            .commit(&batch, index)
            .map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        outcome
    }

    /// Asks the state.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read<T, F>(&self, ask: F) -> Result<T>
    where
        F: FnOnce(&dyn Read) -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(self.read_indexed(ask).await?.1)
    }

    /// Asks the state, and says as of which command.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read_indexed<T, F>(&self, ask: F) -> Result<(u64, T)>
    where
        F: FnOnce(&dyn Read) -> T + Send + 'static,
        T: Send + 'static,
    {
        let store = self.0.lock().expect("no panic while the store is held");
        let view = View::new(&*store);
        let answer = ask(&view);
        view.finish()
            .map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        Ok((store.applied(), answer))
    }

    /// The log's term.
    #[must_use]
    pub fn term(&self) -> u64 {
        1
    }
}
