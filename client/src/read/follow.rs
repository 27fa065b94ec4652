//! Following a file: its bytes as they are committed, told by the replicas and not asked for again and again.
//!
//! A question for bytes that are not there yet is kept by the replica and answered when they are; in the same way the
//! master keeps a question for a chunk that does not exist yet. Either answers after a while in any case: so that a
//! replica that does not count any more is noticed.

use super::{Reader, Want, at, verify, zeros};
use crate::convert::data;
use crate::convert::{self, Extent};
use crate::file::Handle;
use bytes::Bytes;
use dfs_proto::capability::Member;
use dfs_proto::limits::PACKET_BYTES_MAX;
use dfs_proto::{Code, Error, Result, Retry};
use std::time::Duration;

/// How long a question is kept.
const WAIT: Duration = Duration::from_secs(2);
/// How much later its answer may come.
const GRACE: Duration = Duration::from_secs(3);

/// A reader that follows a file.
#[derive(Debug)]
pub struct Follow {
    handle: Handle,
    position: u64,
    /// The chunk that holds the position.
    place: Option<Extent>,
}

/// What a replica said.
struct Heard {
    bytes: Bytes,
    /// Nothing more comes in this chunk.
    sealed: bool,
}

impl Follow {
    pub(crate) fn new(handle: Handle, position: u64) -> Follow {
        Follow {
            handle,
            position,
            place: None,
        }
    }

    /// Where the next bytes begin in the file.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes (up to 1 MiB) as soon as they are committed; waits for them as long as it takes. Of a file that was
    /// cut below the position, those behind its new end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `NotFound` if the file is gone; what reading fails with, if it has failed for as long as a call may take.
    pub async fn next(&mut self) -> Result<Bytes> {
        let core = self.handle.opened().core.clone();
        let mut trying = None;
        loop {
            match self.step().await {
                Ok(bytes) if !bytes.is_empty() => {
                    self.position += bytes.len() as u64;
                    return Ok(bytes);
                }
                Ok(_) => trying = None,
                Err(error) if error.retry() == Retry::Never => return Err(error),
                Err(error) => {
                    self.place = None;
                    let backoff = trying.get_or_insert_with(|| core.backoff(core.master.deadline()));
                    tracing::debug!(inode = %self.handle.inode(), %error, "following goes on elsewhere");
                    backoff.wait().await.map_err(|_| error)?;
                }
            }
        }
    }

    /// What comes next, or nothing after a while.
    async fn step(&mut self) -> Result<Bytes> {
        let core = self.handle.opened().core.clone();
        let known = self
            .place
            .take()
            .filter(|e| e.offset + e.span_bytes > self.position)
            .filter(|e| e.capability.expires_unix_ms > core.unix_ms());
        let extent = match known {
            Some(extent) => extent,
            None => match self.find().await? {
                Found::Extent(extent) => *extent,
                Found::Hole(length) => return Ok(zeros(length.min(PACKET_BYTES_MAX as u64))),
                Found::Nothing => return Ok(Bytes::new()),
            },
        };
        let in_chunk = self.position - extent.offset;
        let length = (extent.span_bytes - in_chunk).min(PACKET_BYTES_MAX as u64);
        let heard = self
            .handle
            .reader()
            .wait_for(&extent, Want { in_chunk, length })
            .await?;
        if heard.bytes.is_empty() && heard.sealed {
            // Its last record is read; the master will know of the next chunk as soon as somebody has asked for one.
            let next = core.backoff(core.clock.now() + WAIT).next_wait();
            tokio::time::sleep(next.unwrap_or(WAIT)).await;
        } else {
            self.place = Some(extent);
        }
        Ok(heard.bytes)
    }

    /// What lies at the position.
    async fn find(&mut self) -> Result<Found> {
        let file = self.handle.opened();
        let by = file.core.clock.now() + WAIT + GRACE;
        let query = convert::locate_when_there(file.inode, self.position, WAIT);
        let located = convert::located(file.core.master.query_by(&file.caller, query, by).await?)?;
        let next = located
            .extents
            .into_iter()
            .find(|e| e.offset + e.span_bytes > self.position);
        Ok(match next {
            Some(extent) if extent.offset <= self.position => Found::Extent(Box::new(extent)),
            Some(extent) => Found::Hole(extent.offset - self.position),
            None if located.size > self.position => Found::Hole(located.size - self.position),
            None => {
                self.position = located.size;
                Found::Nothing
            }
        })
    }
}

enum Found {
    Extent(Box<Extent>),
    Hole(u64),
    Nothing,
}

impl Reader {
    /// The first of these bytes that are committed, or none after a while, from the first member that answers.
    async fn wait_for(&self, extent: &Extent, want: Want) -> Result<Heard> {
        let salt = extent.capability.chunk.0;
        let order = {
            let now = self.core.clock.now();
            let members = &extent.capability.members;
            self.core.experience().order(members, &self.core.here, salt, now)
        };
        let mut unborn = 0;
        let mut why = Error::new(Code::Unavailable, "the chunk has no members");
        for member in order.into_iter().map(|n| &extent.capability.members[n]) {
            match self.wait_at(extent, member, want).await {
                Ok(heard) => return Ok(heard),
                Err(error) if error.code == Code::NotFound && extent.capability.length == 0 => {
                    unborn += 1;
                    why = error;
                }
                Err(error) => {
                    self.core.experience().bad(member.node, self.core.clock.now());
                    why = error;
                }
            }
        }
        if unborn == extent.capability.members.len() {
            let (bytes, sealed) = (Bytes::new(), false);
            return Ok(Heard { bytes, sealed });
        }
        // One member's refusal is no reason to give up the file: a server that has just started knows neither its replicas
        // nor the master's keys.
        let code = match why.code {
            Code::Stale => Code::Stale,
            _ => Code::Unavailable,
        };
        Err(Error { code, ..why })
    }

    async fn wait_at(&self, extent: &Extent, member: &Member, want: Want) -> Result<Heard> {
        let by = self.core.clock.now() + WAIT + GRACE;
        let length = u32::try_from(want.length).expect("a part is at most a packet");
        let ask = data::follow(&extent.token, want.in_chunk, length, WAIT);
        let (from, payload) = self.core.servers.request(member, ask, by).await?;
        let answer = data::read_answer(from, payload).map_err(|e| at(e, extent, member))?;
        // It may well hold more than it said: what was committed in between comes next.
        let told = Want {
            length: answer.bytes.len() as u64,
            ..want
        };
        verify(&answer, extent, told).map_err(|e| at(e, extent, member))?;
        if answer.detached {
            self.nobody_promised_more(extent, member, by).await?;
        }
        Ok(Heard {
            bytes: answer.bytes,
            sealed: answer.sealed,
        })
    }
}
