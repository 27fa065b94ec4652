//! How a client behaves: whom it asks, who it is, how long it waits.

use crate::types::Caller;
use dfs_proto::net::is_address;
use dfs_proto::{Code, Error, Result};
use std::time::Duration;

/// Settings of a [`Client`](crate::Client). Start from [`Settings::new`] and change what you need.
#[derive(Clone, Debug)]
pub struct Settings {
    /// "host:port" of each master; any of them may be the leader.
    pub masters: Vec<String>,
    /// In whose name calls are made; [`Client::acting_as`](crate::Client::acting_as) changes it per handle.
    pub caller: Caller,
    /// What the operator's tools show: program and host.
    pub name: String,
    /// This machine's host label: replicas on it are read first. Empty: none.
    pub host: String,
    /// This machine's rack label: the second choice. Empty: none.
    pub rack: String,
    /// Every call ends within it, with a result or a typed error (contract C6).
    pub call_deadline: Duration,
    /// `close` of a written file makes it durable on every member first.
    pub sync_on_close: bool,
    /// Read from a replica that cannot reach the master without asking the others (may be old).
    pub stale_ok: bool,
    /// Bytes a sequential reader may have under way ahead of the application.
    pub readahead_bytes: u64,
    /// The session is a mount's: the master remembers what it was told about, for [`Client::watch`](crate::Client::watch),
    /// and ends the session soon after its change stream was closed.
    pub mount: bool,
}

impl Settings {
    /// The defaults for "host:port[,host:port]".
    ///
    /// # Errors
    /// `InvalidArgument` if an address is not "host:port".
    pub fn new(masters: &str) -> Result<Settings> {
        let masters: Vec<String> = masters
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect();
        if masters.is_empty() || !masters.iter().all(|m| is_address(m)) {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("{masters:?}: a master's address is host:port"),
            ));
        }
        Ok(Settings {
            masters,
            caller: Caller::default(),
            name: String::new(),
            host: String::new(),
            rack: String::new(),
            call_deadline: Duration::from_secs(30),
            sync_on_close: true,
            stale_ok: false,
            readahead_bytes: 8 * 1024 * 1024,
            mount: false,
        })
    }
}

/// How to open a file; see [`Client::open_with`](crate::Client::open_with). As std's, with dfs's own below.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) truncate: bool,
    pub(crate) mode: u32,
    pub(crate) goal: u32,
    pub(crate) sync_on_close: Option<bool>,
    pub(crate) expected_len: u64,
    pub(crate) informed: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            create: false,
            create_new: false,
            truncate: false,
            mode: 0o644,
            goal: 0,
            sync_on_close: None,
            expected_len: 0,
            informed: false,
        }
    }
}

impl OpenOptions {
    /// Nothing is allowed yet.
    #[must_use]
    pub fn new() -> Self {
        OpenOptions::default()
    }

    /// Allows reading.
    #[must_use]
    pub fn read(mut self, yes: bool) -> Self {
        self.read = yes;
        self
    }

    /// Allows writing.
    #[must_use]
    pub fn write(mut self, yes: bool) -> Self {
        self.write = yes;
        self
    }

    /// Every write goes to the end.
    #[must_use]
    pub fn append(mut self, yes: bool) -> Self {
        self.append = yes;
        self
    }

    /// Creates the file if it does not exist.
    #[must_use]
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Creates the file, and fails with `AlreadyExists` if the name is taken.
    #[must_use]
    pub fn create_new(mut self, yes: bool) -> Self {
        self.create_new = yes;
        self
    }

    /// Cuts an existing file to nothing.
    #[must_use]
    pub fn truncate(mut self, yes: bool) -> Self {
        self.truncate = yes;
        self
    }

    /// Permission bits of a file that is created (0644 by default; no umask is applied).
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Replicas of a file that is created; 0 takes the directory's or the cluster's.
    #[must_use]
    pub fn goal(mut self, goal: u32) -> Self {
        self.goal = goal;
        self
    }

    /// How many bytes the file will have once written, if that is known: grants for its chunks are then asked for
    /// ahead of time. 0: not known.
    #[must_use]
    pub fn expected_len(mut self, bytes: u64) -> Self {
        self.expected_len = bytes;
        self
    }

    /// What an existing file must allow, bits as of access(2).
    pub(crate) fn access(&self) -> u32 {
        let writes = self.write || self.append || self.truncate;
        (if self.read { 4 } else { 0 }) | (if writes { 2 } else { 0 })
    }

    /// The opener learns of other clients' changes and tells the handle ([`Handle::forget`](crate::Handle::forget)):
    /// what was learnt of the file's places then stays good for as long as nothing is told.
    #[must_use]
    pub fn informed(mut self, yes: bool) -> Self {
        self.informed = yes;
        self
    }

    /// What cannot be, as open(2) says.
    pub(crate) fn check(&self) -> Result<()> {
        let writes = self.write || self.append;
        if !writes && (!self.read || self.truncate || self.create || self.create_new) {
            return Err(Error::new(
                Code::InvalidArgument,
                "these open options make no sense together",
            ));
        }
        Ok(())
    }

    /// Whether `close` makes written bytes durable; by default as in [`Settings`].
    #[must_use]
    pub fn sync_on_close(mut self, yes: bool) -> Self {
        self.sync_on_close = Some(yes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_masters_are_separated_by_commas() {
        assert_eq!(Settings::new("a:1, b:2").unwrap().masters, ["a:1", "b:2"]);
        for bad in ["", "a", "a:1,b"] {
            assert_eq!(Settings::new(bad).unwrap_err().code, Code::InvalidArgument);
        }
    }
}
