//! What clients ask: sessions, changes, questions. The doors they come in by are in doors.rs.

use super::{Door, convert, kinds, trash, watch};
use crate::command::{Caller, OpenClient};
use crate::gate::WRITING_MAX;
use crate::metrics::Call;
use crate::state::{self, PageRequest};
use crate::store::Read;
use dfs_proto::capability::Operations;
use dfs_proto::{ClientId, Code, Error, InodeId, Result, Version, pb};
use dfs_stdx::clock::Instant;
use pb::query_reply::Result as Told;
use pb::query_request::Query;
use std::time::Duration;

/// How long a reader who waits for a file to go on is kept: then it hears at least that the master is there.
const FOLLOW_PATIENCE_MAX: Duration = Duration::from_secs(5);
/// Between two looks for such a reader.
const FOLLOW_PAUSE: Duration = Duration::from_millis(2);

/// How often a place is looked up anew because a writer has just ended.
const LOCATE_TRIES: u32 = 3;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service(pub(super) Door);

impl Service {
    pub(super) async fn open_session(&self, asked: pb::OpenSessionRequest) -> Result<pb::OpenSessionReply> {
        if asked.nonce == 0 {
            return Err(convert::invalid("a session's nonce is random and not 0"));
        }
        let open = OpenClient {
            nonce: asked.nonce,
            name: asked.name,
            host: asked.host,
            mount: asked.mount,
        };
        let client = self.0.gate.open_session(open).await?;
        Ok(pb::OpenSessionReply {
            client: client.0,
            lease_ms: self.lease_ms(),
            parameters: Some(self.parameters()),
        })
    }

    pub(super) fn describe(&self) -> pb::Description {
        pb::Description {
            lease_ms: self.lease_ms(),
            parameters: Some(self.parameters()),
        }
    }

    fn lease_ms(&self) -> u32 {
        u32::try_from(self.0.desk.timings.client_lease.as_millis()).unwrap_or(u32::MAX)
    }

    pub(super) async fn close_session(
        &self,
        asked: pb::CloseSessionRequest,
    ) -> Result<pb::CloseSessionReply> {
        self.0.gate.close_session(ClientId(asked.client)).await?;
        Ok(pb::CloseSessionReply {})
    }

    pub(super) fn renew(&self, asked: &pb::RenewRequest) -> Result<pb::RenewReply> {
        if asked.writing.len() > WRITING_MAX {
            return Err(convert::invalid("too many chunks in one renewal"));
        }
        self.0.gate.renew(ClientId(asked.client), &asked.writing)?;
        Ok(pb::RenewReply {})
    }

    pub(super) async fn mutate(&self, asked: pb::MutateRequest) -> Result<pb::MutateReply> {
        let call = kinds::of_change(asked.change.as_ref());
        let begun = self.0.desk.now();
        let answer = self.changed(asked).await;
        self.count(call, begun, &answer);
        answer
    }

    pub(super) async fn query(&self, asked: pb::QueryRequest) -> Result<pb::QueryReply> {
        let call = kinds::of_query(asked.query.as_ref());
        let begun = self.0.desk.now();
        let answer = self.answered(asked).await;
        self.count(call, begun, &answer);
        answer
    }

    /// Counts a call and how long it took.
    fn count<T>(&self, call: Call, begun: Instant, answer: &Result<T>) {
        let took = self.0.desk.now().saturating_duration_since(begun);
        self.0.desk.meters.answered(call, took, answer);
    }

    async fn changed(&self, asked: pb::MutateRequest) -> Result<pb::MutateReply> {
        let desk = &self.0.desk;
        let (id, caller) = (convert::request_id(asked.id)?, convert::caller(asked.caller)?);
        let answer = self
            .0
            .gate
            .mutate(id, caller, convert::ask(asked.change)?)
            .await?;
        Ok(convert::answer(
            &answer,
            &desk.signing_key(),
            desk.timings.grant_lease,
        ))
    }

    async fn answered(&self, asked: pb::QueryRequest) -> Result<pb::QueryReply> {
        if asked.client != 0 {
            self.0.gate.heard(ClientId(asked.client))?;
        }
        let caller = convert::caller(asked.caller)?;
        let query = asked
            .query
            .ok_or_else(|| convert::invalid("nothing is asked, or something unknown"))?;
        let told = self.told(ClientId(asked.client), caller, query).await?;
        Ok(pb::QueryReply { result: Some(told) })
    }

    fn parameters(&self) -> pb::Parameters {
        super::admin::parameters(&self.0.desk)
    }

    async fn told(&self, client: ClientId, caller: Caller, query: Query) -> Result<Told> {
        let watchers = self.0.desk.live.watch.clone();
        watchers.told(client, watch::asked(&query));
        match query {
            Query::Locate(l) => {
                let asker = (!l.by_handle).then_some(caller);
                let located = self.locate_patiently(client, asker, &l).await?;
                Ok(Told::Located(located))
            }
            Query::Resolve(r) => self.resolve(client, caller, r).await,
            Query::StatFs(_) => self.space().await,
            Query::TestLock(t) => self.test_lock(client, &t).await,
            Query::AppendTurn(t) => {
                let yours = self.0.gate.append_turn(client, InodeId(t.inode)).await?;
                self.turn(client, InodeId(t.inode), yours).await
            }
            Query::ListTrash(l) => {
                let read = self.0.desk.read(move |read| trash::list(read, &caller, &l));
                Ok(Told::Trash(read.await?))
            }
            Query::GetRetention(g) => {
                let usual = self.0.desk.timings.trash_keep;
                let read = move |read: &dyn Read| trash::retention(read, InodeId(g.inode), usual);
                Ok(Told::Retention(self.0.desk.read(read).await??))
            }
            Query::AppendDone(t) => {
                self.0.gate.append_done(client, InodeId(t.inode));
                Ok(Told::Turn(pb::Turn::default()))
            }
            other => self.told_by_state(client, &caller, &other).await,
        }
    }

    /// Asks again when what it found was about to lose its name.
    async fn told_by_state(&self, client: ClientId, caller: &Caller, query: &Query) -> Result<Told> {
        let live = &self.0.desk.live;
        loop {
            let (watchers, dying) = (live.watch.clone(), live.dying.clone());
            let (caller, query) = (caller.clone(), query.clone());
            let (told, waits_for) = self
                .0
                .desk
                .read(move |read| {
                    let told = from_state(read, &caller, query)?;
                    let about = watch::told(&told);
                    watchers.told(client, about.iter().copied());
                    let waits_for = dying.has_any(&about).then_some(about);
                    Ok::<_, Error>((told, waits_for))
                })
                .await??;
            match waits_for {
                Some(about) if !live.dying.outlasts(&about).await => {}
                Some(_) | None => return Ok(told),
            }
        }
    }

    async fn resolve(&self, client: ClientId, caller: Caller, r: pb::Resolve) -> Result<Told> {
        let asker = caller.clone();
        let watchers = self.0.desk.live.watch.clone();
        let resolved = self
            .0
            .desk
            .read(move |read| {
                let base = if r.base == 0 {
                    InodeId::ROOT
                } else {
                    InodeId(r.base)
                };
                let resolved = state::resolve(read, &asker, base, &r.path, r.follow)?;
                let inode = InodeId(resolved.attributes.inode);
                if r.access != 0 {
                    state::check_access(read, &asker, inode, state::Access::from_bits(r.access))?;
                }
                watchers.told(client, resolved.parent.into_iter().chain([inode]));
                Ok::<_, Error>(resolved)
            })
            .await??;
        let is_file = resolved.attributes.kind == pb::Kind::File as i32;
        let located = if r.locate && is_file {
            let inode = InodeId(resolved.attributes.inode);
            Some(self.locate(client, Some(caller), inode, (0, u64::MAX)).await?)
        } else {
            None
        };
        Ok(Told::Resolved(pb::Resolved {
            attributes: Some(convert::attributes(&resolved.attributes)),
            parent: resolved.parent.unwrap_or_default().0,
            name: resolved.name.into(),
            located,
        }))
    }

    /// As [`Self::locate`]; a reader who waits for the file to go on is told when it does.
    async fn locate_patiently(
        &self,
        client: ClientId,
        caller: Option<Caller>,
        asked: &pb::Locate,
    ) -> Result<pb::Located> {
        let desk = &self.0.desk;
        let (inode, range) = (InodeId(asked.inode), (asked.offset, asked.length));
        let patience = Duration::from_millis(u64::from(asked.wait_ms)).min(FOLLOW_PATIENCE_MAX);
        let until = desk.now() + patience;
        loop {
            let seen = desk.ground.applied();
            let located = self.locate(client, caller.clone(), inode, range).await?;
            if asked.wait_ms == 0 || !located.extents.is_empty() || located.size > asked.offset {
                return Ok(located);
            }
            let next = async {
                desk.ground.applied_beyond(seen).await;
                // A busy master applies thousands of commands a second: not each is worth a look.
                tokio::time::sleep(FOLLOW_PAUSE).await;
            };
            if tokio::time::timeout_at(until, next).await.is_err() {
                return Ok(located);
            }
        }
    }

    async fn locate(
        &self,
        client: ClientId,
        caller: Option<Caller>,
        inode: InodeId,
        (offset, length): (u64, u64),
    ) -> Result<pb::Located> {
        let desk = &self.0.desk;
        let (location, writing) = self.location(caller, inode, (offset, length)).await?;
        let key = desk.signing_key();
        let mut located = pb::Located {
            size: location.size,
            extents: Vec::new(),
            writing,
        };
        for extent in location.extents {
            let (handle, record) = (extent.handle, &extent.chunk);
            if record.is_truncating() {
                let version = Version(record.active.version);
                return Err(Error::new(Code::Busy, "the file is being cut").on_chunk(handle, version));
            }
            let capability = desk.capability(handle, record, Operations::READ, client);
            located.extents.push(pb::Extent {
                offset: extent.offset,
                span_bytes: extent.span,
                capability: Some(key.sign(&capability)),
                lost_end: record.lost_end,
            });
        }
        Ok(located)
    }

    /// Where the bytes are, and whether the replicas may know of more than was committed. A grant that ends between the
    /// two questions would leave a length from before its last commit that nobody seems to be changing, and so would a
    /// writer that died: bytes behind it would be taken for a hole.
    async fn location(
        &self,
        caller: Option<Caller>,
        inode: InodeId,
        (offset, length): (u64, u64),
    ) -> Result<(state::Location, bool)> {
        let desk = &self.0.desk;
        let mut ended = desk.live.lock().grants.ended();
        for _ in 0..LOCATE_TRIES {
            let caller = caller.clone();
            let location = desk
                .read(move |read| state::locate(read, caller.as_ref(), inode, offset, length))
                .await??;
            let live = desk.live.lock();
            let writing = location.extents.iter().any(|e| {
                let active = &e.chunk.active;
                let version = Version(active.version);
                live.grants.may_have_more(e.handle, version, active.length)
            });
            if writing || live.grants.ended() == ended {
                return Ok((location, writing));
            }
            ended = live.grants.ended();
        }
        // Too much comes and goes: whoever believes that somebody writes asks the replicas.
        let location = desk
            .read(move |read| state::locate(read, caller.as_ref(), inode, offset, length))
            .await??;
        Ok((location, true))
    }

    async fn test_lock(&self, client: ClientId, test: &pb::TestLock) -> Result<Told> {
        let wanted = convert::tested(test)?;
        let conflict = self
            .0
            .desk
            .read(move |read| state::lock_conflict(read, client, &wanted))
            .await??;
        Ok(Told::Locked(convert::locked(conflict, false)))
    }

    /// Read after the turn was given: what the one before committed is in it.
    async fn turn(&self, client: ClientId, inode: InodeId, yours: bool) -> Result<Told> {
        let read = self.0.desk.read(move |read| state::get_attributes(read, inode));
        let found = read.await?;
        if found.is_err() {
            self.0.gate.append_done(client, inode);
        }
        Ok(Told::Turn(pb::Turn {
            yours,
            attributes: Some(convert::attributes(&found?)),
        }))
    }

    async fn space(&self) -> Result<Told> {
        let counters = self.0.desk.read(state::counters).await?;
        let live = self.0.desk.live.lock();
        let (capacity, free) = live
            .servers
            .iter()
            .filter(|(_, s)| !s.removed)
            .map(|(_, s)| s.space())
            .fold((0, 0), |(c, f), (capacity, free)| (c + capacity, f + free));
        Ok(Told::Space(pb::Space {
            capacity_bytes: capacity,
            used_bytes: capacity - free.min(capacity),
            free_bytes: free,
            files: counters.files,
            directories: counters.directories,
        }))
    }
}

/// Questions that the hard state alone answers.
fn from_state(read: &dyn Read, caller: &Caller, query: Query) -> Result<Told> {
    Ok(match query {
        Query::Lookup(l) => Told::Attributes(convert::attributes(&state::lookup(
            read,
            caller,
            InodeId(l.parent),
            &l.name,
        )?)),
        Query::GetAttributes(g) => Told::Attributes(convert::attributes(&state::get_attributes(
            read,
            InodeId(g.inode),
        )?)),
        Query::ReadDirectory(r) => {
            let request = PageRequest {
                cursor: r.cursor,
                entries_max: usize::try_from(r.entries_max).unwrap_or(usize::MAX),
                attributes: r.attributes,
            };
            Told::Directory(convert::page(state::read_directory(
                read,
                caller,
                InodeId(r.inode),
                request,
            )?))
        }
        Query::ReadLink(r) => Told::Target(state::read_link(read, InodeId(r.inode))?.into()),
        Query::GetXattr(x) => Told::Value(state::get_xattr(read, caller, InodeId(x.inode), &x.name)?.into()),
        Query::ListXattr(x) => {
            let names = state::list_xattr(read, caller, InodeId(x.inode))?;
            Told::Names(pb::XattrNames {
                names: names.into_iter().map(Into::into).collect(),
            })
        }
        Query::Access(a) => {
            let inode = InodeId(a.inode);
            state::check_access(read, caller, inode, state::Access::from_bits(a.mask))?;
            Told::Attributes(convert::attributes(&state::get_attributes(read, inode)?))
        }
        Query::TestLock(_)
        | Query::AppendTurn(_)
        | Query::AppendDone(_)
        | Query::ListTrash(_)
        | Query::GetRetention(_)
        | Query::Resolve(_)
        | Query::StatFs(_)
        | Query::Locate(_) => {
            return Err(Error::new(Code::Internal, "answered elsewhere"));
        }
    })
}
