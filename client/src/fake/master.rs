//! A fake master: one map of names, chunks placed on the first members that live.

use super::{CHUNK_BYTES, Chunk, Cluster, Inode, MASTER, State, server};
use dfs_proto::calls::{Answer as Said, Ask, PREAMBLE, Service, serve};
use dfs_proto::capability::{Capability, Key, Member, Operations};
use dfs_proto::net::Listen as _;
use dfs_proto::{ChunkHandle, Code, Error, NodeId, Result, Version, pb};
use pb::mutate_reply::Result as Changed;
use pb::mutate_request::Change;
use pb::query_reply::Result as Answer;
use pb::query_request::Query;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

pub(super) async fn serve(cluster: &Cluster) {
    let mut door = cluster.net.listen(MASTER).await.unwrap();
    let cluster = cluster.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = door.accept().await {
            let mut preamble = [0; PREAMBLE.len()];
            stream.read_exact(&mut preamble).await.unwrap();
            assert_eq!(preamble, *PREAMBLE);
            tokio::spawn(serve::serve(cluster.clone(), stream, CancellationToken::new()));
        }
    });
}

impl Cluster {
    fn require_session(&self, client: u64) -> Result<()> {
        let state = self.state();
        if state.master_away {
            return Err(Error::new(Code::Unavailable, "the master is away"));
        }
        if client != 0 && client != state.session {
            return Err(Code::SessionExpired.into());
        }
        Ok(())
    }

    fn capability(&self, state: &State, handle: u64, operations: Operations) -> pb::Signed {
        let chunk = &state.chunks[&handle];
        let member = |n: &u32| Member {
            node: NodeId(*n),
            addr: server::addr(*n),
            host: format!("host{n}"),
            rack: String::new(),
        };
        let capability = Capability {
            chunk: ChunkHandle(handle),
            version: Version(chunk.version),
            operations,
            expires_unix_ms: u64::MAX,
            members: chunk.members.iter().map(member).collect(),
            loss: Version(chunk.loss),
            length: chunk.length,
            goal: 3,
            ..Capability::default()
        };
        Key {
            id: 1,
            secret: [1; 32],
        }
        .sign(&capability)
    }

    fn granted(&self, state: &State, handle: u64, file_offset: u64) -> pb::Granted {
        pb::Granted {
            capability: Some(self.capability(state, handle, Operations::WRITE)),
            file_offset,
            span_bytes: CHUNK_BYTES,
            lost_end: state.lost_end,
            lease_ms: 6_000,
        }
    }

    fn allocate(&self, state: &mut State, inode: u64, slot: u64, avoid: &[u32]) -> u64 {
        state.next += 1;
        let handle = state.next;
        let members: Vec<u32> = (1..=self.nodes).filter(|n| !avoid.contains(n)).take(3).collect();
        state.chunks.insert(
            handle,
            Chunk {
                version: 1,
                members,
                ..Chunk::default()
            },
        );
        state.inodes.get_mut(&inode).unwrap().slots.insert(slot, handle);
        handle
    }

    fn change(&self, state: &mut State, change: Change) -> Result<Changed> {
        match change {
            Change::Make(make) => self.make(state, make),
            Change::Unlink(u) => remove(state, u.parent, &u.name),
            Change::RemoveDirectory(r) => {
                let inode = *state
                    .names
                    .get(&(r.parent, r.name.to_vec()))
                    .ok_or(Code::NotFound)?;
                if state.names.keys().any(|(parent, _)| *parent == inode) {
                    return Err(Code::NotEmpty.into());
                }
                remove(state, r.parent, &r.name)
            }
            Change::Rename(r) => {
                let inode = state
                    .names
                    .remove(&(r.parent, r.name.to_vec()))
                    .ok_or(Code::NotFound)?;
                state.names.insert((r.new_parent, r.new_name.to_vec()), inode);
                Ok(Changed::Done(pb::Done {}))
            }
            Change::SetAttributes(set) => {
                let file = state.inodes.get_mut(&set.inode).ok_or(Code::NotFound)?;
                if let Some(size) = set.size {
                    file.size = size;
                    file.slots.retain(|offset, _| *offset < size);
                }
                Ok(Changed::Attributes(attributes(state, set.inode)))
            }
            Change::Grant(g) => {
                let slot = g.offset - g.offset % CHUNK_BYTES;
                let known = state.inodes[&g.inode].slots.get(&slot).copied();
                let handle = match known {
                    Some(handle) if handle != g.instead_of => handle,
                    _ => self.allocate(state, g.inode, slot, &g.avoid),
                };
                Ok(Changed::Granted(self.granted(state, handle, slot)))
            }
            Change::CommitLength(c) => commit(state, &c),
            Change::Reconfigure(r) => self.reconfigure(state, &r),
            Change::Discard(d) => {
                let inode = *state
                    .names
                    .get(&(d.parent, d.name.to_vec()))
                    .ok_or(Code::NotFound)?;
                let mut left = vec![inode];
                while let Some(directory) = left.pop() {
                    let below = state.names.extract_if(.., |(parent, _), _| *parent == directory);
                    left.extend(below.map(|(_, inode)| inode));
                }
                remove(state, d.parent, &d.name)
            }
            Change::RestoreTrash(_) | Change::EmptyTrash(_) | Change::Retain(_) => {
                Err(Code::NotSupported.into())
            }
            Change::Link(_)
            | Change::SetXattr(_)
            | Change::RemoveXattr(_)
            | Change::Release(_)
            | Change::Lock(_)
            | Change::PunchHole(_)
            | Change::NextChunk(_) => Err(Code::NotSupported.into()),
        }
    }

    fn make(&self, state: &mut State, make: pb::Make) -> Result<Changed> {
        let key = (make.parent, make.name.to_vec());
        if let Some(inode) = state.names.get(&key).copied() {
            if make.exclusive {
                return Err(Code::AlreadyExists.into());
            }
            if make.truncate {
                *state.inodes.get_mut(&inode).unwrap() = Inode::default();
            }
            return Ok(self.made(state, inode, false, false));
        }
        state.next += 1;
        let inode = state.next;
        let directory = make.kind() == pb::Kind::Directory;
        state.inodes.insert(
            inode,
            Inode {
                directory,
                ..Inode::default()
            },
        );
        state.names.insert(key, inode);
        Ok(self.made(state, inode, true, make.grant))
    }

    fn made(&self, state: &mut State, inode: u64, created: bool, grant: bool) -> Changed {
        let granted = grant.then(|| {
            let handle = self.allocate(state, inode, 0, &[]);
            self.granted(state, handle, 0)
        });
        Changed::Made(pb::Made {
            attributes: Some(attributes(state, inode)),
            created,
            granted,
        })
    }

    fn reconfigure(&self, state: &mut State, r: &pb::Reconfigure) -> Result<Changed> {
        state.reconfigurations += 1;
        let lost = state.power_lost;
        let dead: Vec<u32> = state
            .faults
            .iter()
            .filter(|(_, f)| f.dead || f.hangs)
            .map(|(n, _)| *n)
            .collect();
        let chunk = state.chunks.get_mut(&r.chunk).ok_or(Code::Stale)?;
        if chunk.version == r.base {
            let stay: Vec<u32> = chunk
                .members
                .iter()
                .copied()
                .filter(|n| !r.suspects.contains(n) && !dead.contains(n))
                .collect();
            if stay.is_empty() {
                return Err(Error::new(Code::Unavailable, "no member would be left"));
            }
            chunk.members = stay;
            chunk.version += 1;
            if lost {
                chunk.loss = chunk.version;
                chunk
                    .replicas
                    .values_mut()
                    .for_each(|r| r.truncate(usize::try_from(chunk.durable).unwrap()));
                chunk.length = chunk.length.min(chunk.durable);
            }
        }
        let slots = &state.inodes[&r.inode].slots;
        let slot = slots
            .iter()
            .find(|(_, c)| **c == r.chunk)
            .map_or(0, |(offset, _)| *offset);
        Ok(Changed::Granted(self.granted(state, r.chunk, slot)))
    }

    fn locate(&self, state: &State, inode: u64, from: u64, to: u64) -> pb::Located {
        let file = &state.inodes[&inode];
        let extent = |(offset, chunk): (&u64, &u64)| pb::Extent {
            offset: *offset,
            span_bytes: CHUNK_BYTES,
            capability: Some(self.capability(state, *chunk, Operations::READ)),
            lost_end: state.lost_end,
        };
        let extents = file
            .slots
            .iter()
            .filter(|(o, _)| **o < to && **o + CHUNK_BYTES > from)
            .map(extent);
        pb::Located {
            size: file.size,
            extents: extents.take(64).collect(),
            writing: state.writing,
        }
    }

    fn question(&self, state: &mut State, query: Query) -> Result<Answer> {
        match query {
            Query::Lookup(l) => {
                let inode = *state
                    .names
                    .get(&(l.parent, l.name.to_vec()))
                    .ok_or(Code::NotFound)?;
                Ok(Answer::Attributes(attributes(state, inode)))
            }
            Query::Resolve(r) => {
                let mut inode = 1;
                for name in r.path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
                    inode = *state.names.get(&(inode, name.to_vec())).ok_or(Code::NotFound)?;
                }
                let file = !state.inodes[&inode].directory && r.locate;
                let located = file.then(|| self.locate(state, inode, 0, 64 * CHUNK_BYTES));
                let attributes = Some(attributes(state, inode));
                Ok(Answer::Resolved(pb::Resolved {
                    attributes,
                    located,
                    ..pb::Resolved::default()
                }))
            }
            Query::GetAttributes(pb::GetAttributes { inode }) | Query::Access(pb::Access { inode, .. }) => {
                Ok(Answer::Attributes(attributes(state, inode)))
            }
            Query::ReadDirectory(r) => Ok(Answer::Directory(directory(state, &r))),
            Query::Locate(l) => {
                state.locates += 1;
                Ok(Answer::Located(self.locate(
                    state,
                    l.inode,
                    l.offset,
                    l.offset + l.length,
                )))
            }
            Query::ReadLink(_)
            | Query::GetXattr(_)
            | Query::ListXattr(_)
            | Query::StatFs(_)
            | Query::TestLock(_)
            | Query::AppendTurn(_)
            | Query::AppendDone(_)
            | Query::ListTrash(_)
            | Query::GetRetention(_) => Err(Code::NotSupported.into()),
        }
    }
}

fn remove(state: &mut State, parent: u64, name: &[u8]) -> Result<Changed> {
    state
        .names
        .remove(&(parent, name.to_vec()))
        .ok_or(Code::NotFound)?;
    Ok(Changed::Done(pb::Done {}))
}

/// Two entries a page, by inode.
fn directory(state: &State, r: &pb::ReadDirectory) -> pb::DirectoryPage {
    let mut all: Vec<_> = state
        .names
        .iter()
        .filter(|((p, _), i)| *p == r.inode && **i > r.cursor)
        .collect();
    all.sort_by_key(|(_, inode)| **inode);
    let end = all.len() <= 2;
    let entry = |((_, name), inode): (&(u64, Vec<u8>), &u64)| pb::DirectoryEntry {
        name: name.clone().into(),
        inode: *inode,
        cursor: *inode,
        attributes: Some(attributes(state, *inode)),
        ..pb::DirectoryEntry::default()
    };
    pb::DirectoryPage {
        entries: all.into_iter().take(2).map(entry).collect(),
        end,
        parent: 1,
    }
}

fn commit(state: &mut State, c: &pb::CommitLength) -> Result<Changed> {
    let chunk = state.chunks.get_mut(&c.chunk).ok_or(Code::Stale)?;
    if c.version < chunk.version {
        return Err(Code::Stale.into());
    }
    chunk.length = chunk.length.max(c.length);
    if c.durable {
        chunk.durable = chunk.durable.max(c.length);
    }
    let file = state.inodes.get_mut(&c.inode).ok_or(Code::NotFound)?;
    let offset = file
        .slots
        .iter()
        .find(|(_, h)| **h == c.chunk)
        .map(|(o, _)| *o)
        .ok_or(Code::Stale)?;
    if c.length > 0 {
        file.size = file.size.max(offset + c.length);
    }
    file.mtime_ns = c.mtime_ns.unwrap_or(0);
    Ok(Changed::Committed(pb::Committed {
        size: file.size,
        attributes: None,
    }))
}

fn attributes(state: &State, inode: u64) -> pb::Attributes {
    let found = &state.inodes[&inode];
    let kind = if found.directory {
        pb::Kind::Directory
    } else {
        pb::Kind::File
    };
    pb::Attributes {
        inode,
        kind: kind.into(),
        size: found.size,
        chunk_bytes: CHUNK_BYTES,
        mtime_ns: found.mtime_ns,
        ..pb::Attributes::default()
    }
}

impl Service for Cluster {
    async fn call(&self, ask: Ask) -> Result<Said> {
        match ask {
            Ask::OpenSession(_) => {
                self.state().opened += 1;
                let parameters = Some(pb::Parameters::from(self.parameters()));
                Ok(Said::OpenSession(pb::OpenSessionReply {
                    client: self.state().session,
                    lease_ms: 3_000,
                    parameters,
                }))
            }
            Ask::Describe(_) => Ok(Said::Description(pb::Description {
                lease_ms: 3_000,
                parameters: Some(pb::Parameters::from(self.parameters())),
            })),
            Ask::CloseSession(_) => Ok(Said::CloseSession(pb::CloseSessionReply {})),
            Ask::Renew(request) => {
                self.require_session(request.client)?;
                self.state().renewed = request.client;
                Ok(Said::Renew(pb::RenewReply {}))
            }
            Ask::Mutate(request) => self.mutate(request).map(Said::Mutate),
            Ask::Query(request) => {
                self.require_session(request.client)?;
                let mut state = self.state();
                let result = Some(self.question(&mut state, request.query.unwrap())?);
                Ok(Said::Query(pb::QueryReply { result }))
            }
            Ask::Ping(_) => unreachable!("answered by the connection"),
        }
    }
}

impl Cluster {
    fn mutate(&self, request: pb::MutateRequest) -> Result<pb::MutateReply> {
        let id = request.id.unwrap();
        self.require_session(id.client)?;
        let mut state = self.state();
        assert!(id.lowest_unanswered <= id.sequence);
        let key = (id.client, id.sequence);
        if let Some(known) = state.answered.get(&key) {
            return Ok(known.clone());
        }
        let result = Some(self.change(&mut state, request.change.unwrap())?);
        let reply = pb::MutateReply {
            result,
            ..pb::MutateReply::default()
        };
        state.answered.insert(key, reply.clone());
        if state.lose_replies > 0 {
            state.lose_replies -= 1;
            return Err(Error::new(Code::Unavailable, "the reply was lost"));
        }
        Ok(reply)
    }
}
