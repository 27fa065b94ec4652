//! May this run here, now? The gate stamps time, chooses places for new chunks, keeps client sessions and soft grants,
//! and turns requests into commands and their replies into answers. It decides nothing about names and files: the state
//! does, and gives a repeated request its first answer.

mod asked;
mod mounts;
mod records;
mod trash;

pub use asked::{Answer, Ask, Grant, Granted, NextChunk, Reconfigure};

use crate::command::{self, Caller, Change, Command, Reply, RequestId, Slot};
use crate::desk::Desk;
use crate::plan::placement::{self, Wish};
use crate::state;
use crate::steward::Steward;
use crate::store::records::Chunk;
use dfs_proto::capability::Operations;
use dfs_proto::limits::GOAL_MAX;
use dfs_proto::{ChunkHandle, ClientId, Code, Error, InodeId, NodeId, Result, Version};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Chunks a client may name in one renewal.
pub const WRITING_MAX: usize = 4_096;

/// The gate.
#[derive(Debug)]
pub struct Gate {
    desk: Arc<Desk>,
    steward: Arc<Steward>,
}

impl Gate {
    /// In front of this state.
    #[must_use]
    pub fn new(desk: Arc<Desk>, steward: Arc<Steward>) -> Gate {
        Gate { desk, steward }
    }

    /// Opens a client session, or finds the one this nonce opened.
    ///
    /// # Errors
    /// `InvalidArgument`, or the log's failure.
    pub async fn open_session(&self, open: command::OpenClient) -> Result<ClientId> {
        let (host, mount) = (open.host.clone(), open.mount);
        match self.desk.propose(open).await? {
            Reply::Client(opened) => {
                let client = ClientId(opened.client);
                self.desk
                    .live
                    .lock()
                    .clients
                    .learn(client, &host, self.desk.now());
                if mount {
                    self.desk.live.watch.begin(client);
                }
                Ok(client)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Ends a client session; what it was writing is brought to rest.
    ///
    /// # Errors
    /// The log's failure.
    pub async fn close_session(&self, client: ClientId) -> Result<()> {
        self.steward.end_client(client).await
    }

    /// Keeps a session alive, and the grants of what it streams to.
    ///
    /// # Errors
    /// `SessionExpired`; `TooLarge` for too many chunks.
    pub fn renew(&self, client: ClientId, writing: &[u64]) -> Result<()> {
        self.heard(client)?;
        if writing.len() > WRITING_MAX {
            return Err(Error::new(
                Code::TooLarge,
                format!("at most {WRITING_MAX} chunks in one renewal"),
            ));
        }
        let now = self.desk.now();
        let mut live = self.desk.live.lock();
        for chunk in writing {
            live.grants.give(ChunkHandle(*chunk), client, now);
        }
        Ok(())
    }

    /// Notes a call of a client session.
    ///
    /// # Errors
    /// `SessionExpired`.
    pub fn heard(&self, client: ClientId) -> Result<()> {
        if self.desk.live.lock().clients.heard(client, self.desk.now()) {
            Ok(())
        } else {
            Err(Error::new(
                Code::SessionExpired,
                "the client session has ended; open a new one",
            ))
        }
    }

    /// Makes a change, once for each request id.
    ///
    /// # Errors
    /// The state's refusal, or why it could not be done now.
    pub async fn mutate(&self, id: RequestId, caller: Caller, ask: Ask) -> Result<Answer> {
        let client = ClientId(id.client);
        self.heard(client)?;
        match ask {
            Ask::Change(change) => self.change(id, caller, change).await,
            Ask::Unlink(unlink, keep) => self.unlink(id, caller, unlink, keep).await,
            Ask::Rename(rename, keep) => self.rename(id, caller, rename, keep).await,
            Ask::Discard(discard) => self.discard(id, caller, discard).await,
            Ask::Trash(change) => {
                let answer = self.change(id, caller, change).await;
                self.steward.wake_trash();
                answer
            }
            Ask::Lock(lock, wait) => self.lock(id, caller, lock, wait).await,
            Ask::PunchHole(hole) => self.punch_hole(id, caller, hole).await,
            Ask::Make(make, grant) => self.make(id, caller, make, grant).await,
            Ask::Grant(grant) => self.grant(id, caller, grant).await,
            Ask::NextChunk(next) => self.next_chunk(id, caller, next).await,
            Ask::Commit(commit, close) => self.commit(id, caller, commit, close).await,
            Ask::Reconfigure(ask) => self.reconfigure(id, caller, ask).await,
        }
    }

    async fn log(&self, id: RequestId, caller: Caller, change: impl Into<Change>) -> Result<Reply> {
        let command = Command::from_client(self.desk.wall_ns(), id, caller, change);
        self.desk.log(command).await
    }

    async fn change(&self, id: RequestId, caller: Caller, change: Change) -> Result<Answer> {
        match self.log(id, caller, change).await? {
            Reply::Done(done) => Ok(Answer::Done(done.touched)),
            Reply::Changed(changed) if changed.truncating == 0 => {
                Ok(Answer::Attributes(changed.attributes, changed.touched))
            }
            Reply::Changed(changed) => {
                let chunk = ChunkHandle(changed.truncating);
                let version = Version(changed.truncating_version);
                self.steward.finish(chunk, version).await?;
                // What is allocated is told by the chunk as it was cut.
                let inode = InodeId(changed.attributes.inode);
                let now = self.desk.read(move |read| state::get_attributes(read, inode));
                Ok(Answer::Attributes(
                    now.await?.unwrap_or(changed.attributes),
                    changed.touched,
                ))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn make(
        &self,
        id: RequestId,
        caller: Caller,
        mut make: command::Make,
        grant: bool,
    ) -> Result<Answer> {
        let client = ClientId(id.client);
        if grant {
            // Without a place the file is made all the same, and its first write says why it cannot go on.
            let goal = self.goal_in(InodeId(make.parent), make.goal).await?;
            let chosen = self.place(client, goal, BTreeSet::new());
            make.members = chosen.map_or_else(|_| Vec::new(), |m| m.iter().map(|n| n.0).collect());
        }
        match self.log(id, caller, make).await? {
            Reply::Made(made) => {
                let granted = match made.slot {
                    Some(slot) if grant => self.give(client, slot).await.ok(),
                    Some(_) | None => None,
                };
                Ok(Answer::Made(made, granted))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn grant(&self, id: RequestId, caller: Caller, ask: Grant) -> Result<Answer> {
        let client = ClientId(id.client);
        let asker = (!ask.by_handle).then(|| caller.clone());
        let (inode, offset) = (ask.inode, ask.offset);
        let (slot, chunk) = self
            .desk
            .read(move |read| state::writable_slot(read, asker.as_ref(), inode, offset))
            .await??;
        if chunk.is_some() && (ask.instead_of == ChunkHandle(0) || ask.instead_of.0 != slot.chunk) {
            return self.give(client, slot).await.map(Answer::Granted);
        }
        let mut avoid = ask.avoid;
        if let Some(given_up) = &chunk {
            avoid.extend(
                given_up
                    .members()
                    .filter(|n| !self.desk.session(*n).is_connected()),
            );
        }
        let goal = self.desk.read(move |read| goal_of(read, inode)).await??;
        let members = self.place(client, goal, avoid)?;
        let allocate = command::Allocate {
            inode: inode.0,
            offset,
            members: members.iter().map(|n| n.0).collect(),
            instead_of: ask.instead_of.0,
            by_handle: ask.by_handle,
        };
        match self.log(id, caller, allocate).await? {
            Reply::Allocated(slot) => self.give(client, slot).await.map(Answer::Granted),
            other => Err(unexpected(&other)),
        }
    }

    /// A soft grant for a chunk that is there, at its active version.
    async fn give(&self, client: ClientId, slot: Slot) -> Result<Granted> {
        let chunk = ChunkHandle(slot.chunk);
        let record = self
            .desk
            .chunk(chunk)
            .await?
            .ok_or_else(|| Error::new(Code::Stale, "the chunk is gone").on_chunk(chunk, Version(0)))?;
        let version = Version(record.active.version);
        let refuse = |code, why: &str| Err(Error::new(code, why).on_chunk(chunk, version));
        if record.frozen {
            return refuse(
                Code::Unavailable,
                "the chunk is frozen: a replica has promised more than the master knows",
            );
        }
        if record.is_truncating() {
            return refuse(Code::Busy, "the chunk is being cut");
        }
        if record.allocator().is_some_and(|c| c != client) {
            return refuse(
                Code::Busy,
                "the chunk belongs to the client it was made for until that has written",
            );
        }
        let capability = self
            .desk
            .capability(chunk, &record, Operations::READ | Operations::WRITE, client);
        self.desk.live.lock().grants.give(chunk, client, self.desk.now());
        Ok(Granted {
            capability,
            slot,
            lost_end: record.lost_end,
        })
    }

    async fn commit(
        &self,
        id: RequestId,
        caller: Caller,
        commit: command::CommitLength,
        close: bool,
    ) -> Result<Answer> {
        let (client, chunk, inode) = (
            ClientId(id.client),
            ChunkHandle(commit.chunk),
            InodeId(commit.inode),
        );
        if commit.chunk == 0 {
            if close {
                self.release_all(client, inode).await?;
            }
            if commit.mtime_ns.is_some() {
                return Gate::committed(self.log(id, caller, commit).await?);
            }
            let now = self
                .desk
                .read(move |read| state::get_attributes(read, inode))
                .await??;
            return Ok(Answer::Committed(command::Committed {
                size: now.size,
                attributes: Some(now),
            }));
        }
        self.assume(chunk, &commit).await?;
        match self.log(id, caller, commit).await? {
            Reply::Committed(committed) => {
                let now = self.desk.now();
                let mut live = self.desk.live.lock();
                if close {
                    live.grants.release(chunk, client);
                } else {
                    live.grants.give(chunk, client, now);
                }
                Ok(Answer::Committed(committed))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// A committed length was acknowledged by every member: they have the replica though none reported it yet.
    async fn assume(&self, chunk: ChunkHandle, commit: &command::CommitLength) -> Result<()> {
        let Some(record) = self.desk.chunk(chunk).await? else {
            return Ok(());
        };
        if record.active.version == commit.version && commit.length > 0 {
            let mut live = self.desk.live.lock();
            for node in record.members() {
                live.replicas
                    .assume(chunk, node, Version(commit.version), commit.length);
            }
        }
        Ok(())
    }

    async fn release_all(&self, client: ClientId, inode: InodeId) -> Result<()> {
        let held = self.desk.live.lock().grants.of_client(client);
        let of_file = self
            .desk
            .read(move |read| {
                let is_its = |c: &ChunkHandle| state::chunk(read, *c).is_some_and(|r| r.inode == inode.0);
                held.into_iter().filter(is_its).collect::<Vec<_>>()
            })
            .await?;
        let mut live = self.desk.live.lock();
        of_file
            .into_iter()
            .for_each(|chunk| live.grants.release(chunk, client));
        Ok(())
    }

    async fn reconfigure(&self, id: RequestId, caller: Caller, ask: Reconfigure) -> Result<Answer> {
        let (client, inode, chunk) = (ClientId(id.client), ask.inode, ask.chunk);
        if let Some(Ok(Reply::Allocated(slot))) = self
            .desk
            .read(move |read| state::stored_outcome(read, &id))
            .await??
        {
            // Asked before, and answered with a new chunk.
            return self.give(client, slot).await.map(Answer::Granted);
        }
        let asker = (!ask.by_handle).then(|| caller.clone());
        let slot = self
            .desk
            .read(move |read| slot_of(read, asker.as_ref(), inode, chunk))
            .await??;
        match self
            .steward
            .reconfigure(chunk, ask.base, &ask.suspects, (&ask.reason, !ask.empty))
            .await
        {
            Err(error) if ask.empty && error.code == Code::Unavailable => {
                tracing::info!(%chunk, %error, "an empty chunk is given up for a new one");
                let offset = slot.offset;
                let instead = Grant {
                    inode,
                    offset,
                    instead_of: chunk,
                    avoid: ask.suspects,
                    by_handle: ask.by_handle,
                };
                self.grant(id, caller, instead).await
            }
            Err(error) => Err(error),
            Ok(()) => self.give(client, slot).await.map(Answer::Granted),
        }
    }

    fn place(&self, client: ClientId, goal: u32, avoid: BTreeSet<NodeId>) -> Result<Vec<NodeId>> {
        let mut live = self.desk.live.lock();
        let candidates = live.servers.candidates(self.desk.now());
        let wish = Wish {
            count: usize::try_from(goal.clamp(1, GOAL_MAX)).unwrap_or(1),
            near: live.clients.host(client),
            present: Vec::new(),
            avoid,
            chunk_bytes: self.desk.parameters.chunk_bytes,
            chance: self.desk.rng.u64(),
        };
        let chosen = placement::place_new(&candidates, &wish)?;
        live.servers.placed(&chosen);
        Ok(chosen)
    }

    async fn goal_in(&self, parent: InodeId, asked: u32) -> Result<u32> {
        if asked != 0 {
            return Ok(asked);
        }
        // A parent that is not there is refused by the state, with its own words.
        let goal = self.desk.read(move |read| goal_of(read, parent)).await?;
        Ok(goal.unwrap_or(self.desk.parameters.goal))
    }
}

fn goal_of(read: &dyn crate::store::Read, inode: InodeId) -> Result<u32> {
    let own = state::inode(read, inode)?.goal;
    Ok(if own == 0 {
        state::parameters(read).goal
    } else {
        own
    })
}

/// The slot of a chunk the caller may write to.
fn slot_of(
    read: &dyn crate::store::Read,
    caller: Option<&Caller>,
    inode: InodeId,
    chunk: ChunkHandle,
) -> Result<Slot> {
    let gone =
        || Error::new(Code::Stale, "the chunk is not this file's any more").on_chunk(chunk, Version(0));
    let record: Chunk = state::chunk(read, chunk)
        .filter(|c| c.owner() == Some(inode))
        .ok_or_else(gone)?;
    let (slot, _) = state::writable_slot(read, caller, inode, record.offset)?;
    if slot.chunk == chunk.0 {
        Ok(slot)
    } else {
        Err(gone())
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::new(
        Code::Internal,
        format!("the state answered something else: {reply:?}"),
    )
}
