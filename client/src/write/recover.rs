//! What a lane does when its stream ends too early: find out who failed, get a newer grant, begin again.
//!
//! The application sees a pause. What ends in an error is only what cannot be written any more: the deadline passed,
//! the master refused, or the bytes this writer had acknowledged but not synced went with a power cut of all members
//! (then the writes that wait end in [`Code::Lost`], and so does the next sync, once).

use super::lane::Lane;
use crate::convert::data;
use crate::convert::{self, Change, Grant};
use crate::servers::Stream;
use bytes::Bytes;
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Result, Retry, Version};
use futures::future::join_all;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the master may think about one reconfiguration before the suspects are judged anew.
const RECONFIGURE_DEADLINE: Duration = Duration::from_secs(8);
/// A grant is asked again when it ends so soon, milliseconds.
const EXPIRES_SOON_MS: u64 = 2_000;

impl Lane {
    /// Opens the stream at the head, `fresh` on a new connection. A writer that is new sends its first packets along;
    /// one that the members may know hears first what they have committed of it.
    pub(super) async fn open(&mut self, fresh: bool) -> Result<Stream> {
        if self.grant.capability.expires_unix_ms <= self.shared.core.unix_ms() + EXPIRES_SOON_MS {
            let grant = self.ask_grant(ChunkHandle(0), &[]).await?;
            self.take(grant);
        }
        let Some(head) = self.grant.capability.members.first().cloned() else {
            return Err(Error::new(Code::Stale, "the grant names no members"));
        };
        let by = Instant::now() + self.ack_deadline();
        let servers = self.shared.core.servers.clone();
        let mut stream = match fresh {
            true => servers.fresh_stream(&head).await?,
            false => servers.stream(&head).await?,
        };
        self.heard = false;
        self.recorded = self.recorded.max(self.grant.capability.length);
        if !std::mem::replace(&mut self.begun, true) {
            let open = data::write_open(stream.number, &self.grant.token, self.writer);
            stream.writer.put(&open, Bytes::new());
            self.length = self.grant.capability.length;
            return Ok(stream);
        }
        let mut answer = self.open_on(&mut stream, by).await;
        if stream.reused && answer.as_ref().is_err_and(|e| e.code == Code::Unavailable) {
            stream = servers.fresh_stream(&head).await?;
            answer = self.open_on(&mut stream, by).await;
        }
        let opened = answer.map_err(|e| self.blame(e))?;
        self.heard = true;
        if self.window.reopened(opened.sequence) {
            // Nobody acknowledged these; they are as little on stable storage as if somebody had.
            self.unsynced = self.unsynced.or(Some(self.grant.capability.version));
        }
        self.length = opened.length;
        self.publish();
        Ok(stream)
    }

    async fn open_on(&self, stream: &mut Stream, by: Instant) -> Result<data::Acked> {
        let open = data::write_open(stream.number, &self.grant.token, self.writer);
        stream.send(&open, Bytes::new(), by).await?;
        let answer = timeout_at(by, stream.receive()).await;
        data::write_opened(
            answer.map_err(|_| Error::new(Code::TimedOut, "the head did not open the stream"))??,
        )
    }

    /// Gets a grant to go on with, or the error that ends the lane.
    pub(super) async fn recover(&mut self, error: Error) -> Result<()> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        if self.window.is_empty() && self.finish.is_none() {
            // Nothing waited: the time counts from now.
            self.moved = Instant::now();
        }
        let deadline = self.moved + self.shared.core.settings.call_deadline;
        let mut backoff = self.shared.core.backoff(deadline);
        for _ in 0..self.failures.min(8) {
            // The ceiling doubles with each failure; the first retry is at once.
            backoff.next_wait().map_err(|_| self.gave_up(&error))?;
        }
        if self.failures > 0 {
            backoff.wait().await.map_err(|_| self.gave_up(&error))?;
        }
        self.failures += 1;
        self.shared.meter.failover();
        tracing::info!(inode = %self.shared.inode, chunk = %self.grant.capability.chunk, %error, "a chunk's stream failed; going on with a newer grant");
        let mut error = error;
        loop {
            match self.newer_grant(&error, deadline).await {
                Ok(grant) => {
                    self.take(grant);
                    return Ok(());
                }
                Err(refusal) if refusal.retry() == Retry::Never => return Err(refusal),
                Err(other) => {
                    backoff.wait().await.map_err(|_| self.gave_up(&other))?;
                    error = match other.code {
                        // The chunk has gone from the file: its slot has another one, or gets one.
                        Code::Stale => other,
                        _ => Error {
                            node: other.node.or(error.node),
                            ..error
                        },
                    };
                }
            }
        }
    }

    fn gave_up(&self, last: &Error) -> Error {
        let (chunk, version) = (self.grant.capability.chunk, self.grant.capability.version);
        let message =
            format!("chunk {chunk} version {version} could not be written before the deadline: {last}");
        Error::new(Code::TimedOut, message).on_chunk(chunk, version)
    }

    async fn newer_grant(&mut self, error: &Error, deadline: Instant) -> Result<Grant> {
        match error.code {
            Code::Stale | Code::NotYet | Code::Busy | Code::SessionExpired => {
                self.ask_grant(ChunkHandle(0), &[]).await
            }
            // An expired capability looks like a forbidden one: a new one tells them apart.
            Code::PermissionDenied if self.failures <= 3 => self.ask_grant(ChunkHandle(0), &[]).await,
            Code::Unavailable
            | Code::TimedOut
            | Code::Corrupt
            | Code::NoSpace
            | Code::Internal
            | Code::Lost => self.replace(error, deadline).await,
            Code::PermissionDenied
            | Code::NotFound
            | Code::AlreadyExists
            | Code::NotEmpty
            | Code::NotADirectory
            | Code::IsADirectory
            | Code::InvalidArgument
            | Code::NameTooLong
            | Code::NotPermitted
            | Code::QuotaExceeded
            | Code::NotLeader
            | Code::TooManyLinks
            | Code::NoAttribute
            | Code::TooLarge
            | Code::LinkLimit
            | Code::NotSupported => Err(Error {
                code: not_retried(error.code),
                ..error.clone()
            }),
        }
    }

    /// A grant without the members that failed.
    async fn replace(&self, error: &Error, deadline: Instant) -> Result<Grant> {
        let capability = &self.grant.capability;
        let named = error
            .node
            .filter(|n| capability.members.iter().any(|m| m.node == *n));
        let suspects = match named {
            Some(node) if !self.is_empty_chunk() => vec![node],
            _ => {
                let silent = self.silent_members().await;
                if self.is_empty_chunk() && silent.len() == capability.members.len() {
                    // Nothing was ever acknowledged here, and nobody is left: a new chunk elsewhere.
                    return self.ask_grant(capability.chunk, &silent).await;
                }
                let head = capability.members.first().map(|m| m.node);
                match (silent.is_empty(), named.or(head)) {
                    (true, Some(node)) => vec![node],
                    _ => silent,
                }
            }
        };
        let now = Instant::now();
        for suspect in &suspects {
            self.shared.core.experience().failed_write(*suspect, now);
        }
        let base = (capability.chunk, capability.version);
        let by = deadline.min(Instant::now() + RECONFIGURE_DEADLINE);
        // Of an empty chunk the master may give a new one instead, if those who are left have no file of it.
        let why = (error.to_string(), self.is_empty_chunk());
        let change = convert::reconfigure(self.shared.inode, base, &suspects, (&why.0, why.1));
        let grant = self.granted(change, by).await?;
        if grant.capability.version > capability.version || grant.capability.chunk != capability.chunk {
            return Ok(grant);
        }
        Err(Error::new(
            Code::Unavailable,
            "the master has no newer version yet",
        ))
    }

    /// No byte of this chunk was ever acknowledged to anyone.
    fn is_empty_chunk(&self) -> bool {
        self.grant.capability.length == 0 && self.length == 0 && self.recorded == 0
    }

    /// Members that do not answer at all.
    async fn silent_members(&self) -> Vec<NodeId> {
        let core = &self.shared.core;
        let by = Instant::now() + (core.master.timings().ack_deadline / 3).max(Duration::from_millis(200));
        let ask = |member| async move {
            let ask = data::promised(&self.grant.token);
            core.servers
                .request(member, ask, by)
                .await
                .is_err()
                .then_some(member.node)
        };
        join_all(self.grant.capability.members.iter().map(ask))
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    async fn ask_grant(&self, instead_of: ChunkHandle, avoid: &[NodeId]) -> Result<Grant> {
        let by = Instant::now() + RECONFIGURE_DEADLINE;
        self.granted(
            convert::grant(self.shared.inode, self.slot, instead_of, avoid),
            by,
        )
        .await
    }

    async fn granted(&self, change: Change, by: Instant) -> Result<Grant> {
        let reply = self
            .shared
            .core
            .master
            .change_by(&self.shared.caller, change, by)
            .await?;
        convert::granted(reply)
    }

    /// Goes on under another grant; what the old members may have lost is given up.
    pub(super) fn take(&mut self, grant: Grant) {
        self.shared.locations.granted(&grant);
        let old = std::mem::replace(&mut self.grant, grant);
        let new = &self.grant.capability;
        if old.capability.chunk != new.chunk {
            let writing = self.shared.core.master.writing();
            writing.begin(new.chunk.0);
            writing.end(old.capability.chunk.0);
            (self.length, self.recorded, self.told, self.durable) = (0, 0, 0, 0);
        }
        let at_risk: Option<Version> = self
            .unsynced
            .or((!self.window.is_empty()).then_some(old.capability.version));
        if at_risk.is_some_and(|written_at| new.loss > written_at) {
            self.lose(new.loss);
        }
    }

    fn lose(&mut self, loss: Version) {
        let capability = &self.grant.capability;
        let message = format!(
            "all replicas of chunk {} lost power before it was synced",
            capability.chunk
        );
        self.shared
            .fail(Error::new(Code::Lost, message).on_chunk(capability.chunk, loss));
        let lost = self.window.give_up();
        self.unsynced = None;
        self.progress.send_modify(|p| p.lost.extend(lost));
        self.publish();
    }
}

/// `NotLeader` of a chunkserver makes no sense; all others are final as they are.
fn not_retried(code: Code) -> Code {
    match code.retry() {
        Retry::Never => code,
        Retry::Same | Retry::Other | Retry::Refresh | Retry::Leader => Code::Internal,
    }
}
