//! One file's bytes within one mount: what its programs have written and read lately, and the way to the cluster.
//!
//! There is one [`Content`] for an inode and mount, shared by all its open handles ([`Opening`]). The bytes of a file
//! are in four layers; a read looks from the top down:
//!
//! | layer | holds | until |
//! |---|---|---|
//! | dirty | what was written and is not on its way | 1 MiB is together, a second has passed, or a flush |
//! | flying | what was sent | every member has it |
//! | clean | what was read or has landed | the mount's cache has no room |
//! | the cluster | everything else; holes are zeros | |
//!
//! The size is the mount's own knowledge: what the master said last, and the ends of own writes behind that.
//!
//! In reading order: [`state`] (what is known, under one lock), [`send`] (the way out), [`commit`] (flush, fsync),
//! [`read`], [`change`] (truncate, punch, seek, copy), [`append`]; below them `dirty`, `buffer`, `clean`, `pattern`,
//! `budget`, `errors`, none of which waits for anything but room.

mod append;
mod budget;
mod buffer;
mod change;
mod clean;
mod commit;
mod dirty;
mod errors;
mod pattern;
mod read;
mod seek;
mod send;
mod shared;
mod state;

pub use seek::Seek;
pub use shared::{Limits, Shared};

use dfs_client::{Code, Error, Handle, InodeId, Metadata, OpenOptions, Result};
use dfs_proto::limits::FILE_BYTES_MAX;
use errors::Cursor;
use pattern::Pattern;
use state::State;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// A call that waits for room ends after it.
const ROOM_DEADLINE: Duration = Duration::from_secs(30);

/// What one open file handle remembers: which errors it was told of, how it reads.
#[derive(Debug)]
pub struct Opening {
    content: Arc<Content>,
    told: Cursor,
    pattern: Mutex<Pattern>,
    writes: bool,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.writes {
            self.content.state().writers -= 1;
        }
    }
}

/// One file's bytes.
#[derive(Debug)]
pub struct Content {
    handle: Handle,
    shared: Arc<Shared>,
    /// Never held across an await.
    state: Mutex<State>,
    /// The right to send, one at a time; held throughout by what changes the file as a whole.
    sending: tokio::sync::Mutex<()>,
    /// One tells the master at a time.
    committing: tokio::sync::Mutex<()>,
    /// One appends at a time, or gives the turn back.
    appending: tokio::sync::Mutex<()>,
    /// A grant came with the file's creation, and may not have been used.
    gift: AtomicBool,
    /// Wakes the courier.
    wake: Notify,
}

#[expect(clippy::missing_errors_doc, reason = "the cluster's, for all")]
impl Content {
    /// Of a regular file with these attributes; the one that is there already, if there is one.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, metadata: &Metadata) -> Arc<Content> {
        shared.content(metadata.inode, || {
            let handle = shared.inodes.attach(metadata, options());
            Content::with(shared, metadata, handle)
        })
    }

    /// Of a file that was just created, with the handle that came of it (and maybe the grant for its first chunk).
    #[must_use]
    pub fn created(shared: &Arc<Shared>, metadata: &Metadata, handle: Handle) -> Arc<Content> {
        shared.content(metadata.inode, || {
            let handle = shared.inodes.attach_created(metadata, options(), &handle);
            let content = Content::with(shared, metadata, handle);
            content.gift.store(true, Ordering::Relaxed);
            content
        })
    }

    fn with(shared: &Arc<Shared>, metadata: &Metadata, handle: Handle) -> Content {
        let state = State::new(metadata, handle.chunk_bytes());
        Content {
            handle,
            shared: shared.clone(),
            state: Mutex::new(state),
            sending: tokio::sync::Mutex::default(),
            committing: tokio::sync::Mutex::default(),
            appending: tokio::sync::Mutex::default(),
            gift: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Which file.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        self.handle.inode()
    }

    /// A new open handle; `writes`: it is open for writing. Drop it at release.
    #[must_use]
    pub fn open(self: &Arc<Self>, writes: bool) -> Opening {
        let told = {
            let mut state = self.state();
            state.writers += u32::from(writes);
            state.errors.cursor()
        };
        Opening {
            content: self.clone(),
            told,
            pattern: Mutex::default(),
            writes,
        }
    }

    /// Takes the bytes if there is room for them now; `None`: use [`Content::write`].
    pub fn try_write(self: &Arc<Self>, opening: &Opening, offset: u64, data: &[u8]) -> Option<Result<()>> {
        if let Err(error) = self.may_write(opening, offset, data) {
            return Some(Err(error));
        }
        if !self.shared.budget.try_take(data.len() as u64) {
            return None;
        }
        self.put(Some(offset), data);
        Some(Ok(()))
    }

    /// Takes the bytes; waits only if the mount's buffers are full. First reports what failed since this handle was
    /// last told (so do flush and sync), once.
    pub async fn write(self: &Arc<Self>, opening: &Opening, offset: u64, data: &[u8]) -> Result<()> {
        self.may_write(opening, offset, data)?;
        self.room(data.len()).await?;
        self.put(Some(offset), data);
        Ok(())
    }

    fn may_write(&self, opening: &Opening, offset: u64, data: &[u8]) -> Result<()> {
        self.state().errors.report(&opening.told)?;
        let end = offset.checked_add(data.len() as u64);
        match end.is_some_and(|end| end <= FILE_BYTES_MAX) {
            true => Ok(()),
            false => Err(Code::TooLarge.into()),
        }
    }

    /// Waits until the mount's buffers have room.
    async fn room(&self, length: usize) -> Result<()> {
        let budget = &self.shared.budget;
        let taken = timeout(ROOM_DEADLINE, budget.take(length as u64, || self.shared.press()));
        let late = |_| Error::new(Code::TimedOut, "what was written before does not go away");
        taken.await.map_err(late)
    }

    /// Takes bytes in, for which there is room; at the end if no offset is given. Returns where that was.
    fn put(self: &Arc<Self>, offset: Option<u64>, data: &[u8]) -> u64 {
        if data.is_empty() {
            return offset.unwrap_or_else(|| self.state().size);
        }
        let now = (Instant::now(), self.shared.inodes.now_ns());
        let (offset, grown, is_new, (is_full, scattered)) = {
            let mut state = self.state();
            let offset = offset.unwrap_or(state.size);
            let grown = state.write(offset, data, now, &self.shared.pool);
            let is_new = !std::mem::replace(&mut state.noted, true);
            let is_full = state.dirty.has_full();
            // Many small writes all over the file: what can be put together by now is.
            let scattered =
                !is_full && !state.courier && state.dirty.bytes() > self.shared.limits.dirty_bytes / 4;
            (offset, grown, is_new, (is_full && !state.courier, scattered))
        };
        self.shared.budget.give(data.len() as u64 - grown);
        if is_new {
            self.shared.note(self);
        }
        if scattered {
            self.urge();
        } else if is_full {
            self.kick();
        }
        offset
    }

    /// Attributes as this mount's programs must see them: size, times and space with own writes in them.
    pub fn overlay(&self, metadata: &mut Metadata) {
        self.state().overlay(metadata);
    }

    /// The master's answer to this mount's own question or change.
    pub fn learned(&self, metadata: &Metadata) {
        self.state().learn(metadata);
    }

    /// Another mount changed the file: what was read of it, and where it is, is forgotten.
    pub fn changed(&self, metadata: &Metadata) {
        let mut state = self.state();
        // Also if it is older than what is known: that may have come with an own answer, and the bytes did not.
        state.learn(metadata);
        self.forget(&mut state);
        self.handle.forget();
    }

    /// Nothing known of the file is sure any more (the change stream broke): as [`Content::changed`].
    pub fn doubt(&self) {
        let mut state = self.state();
        state.turn = false;
        self.forget(&mut state);
        // Open files can be read while the master is away.
        self.handle.unsure();
    }

    fn forget(&self, state: &mut State) {
        state.spoil(0..u64::MAX);
        state.flying.iter_mut().for_each(|f| f.keep = false);
        state.doubtful = true;
        self.shared.clean().remove_file(self.inode().0);
    }

    /// Nothing is buffered, on its way or uncommitted, and no turn is held.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.is_settled() && state.fetches.is_empty() && !state.turn && !state.changing
    }

    /// Forgets what was read.
    pub fn drop_clean(&self) {
        let mut state = self.state();
        state.spoil(0..u64::MAX);
        self.shared.clean().remove_file(self.inode().0);
    }

    /// Something waits longer than it should.
    fn is_due(&self, age: Duration) -> bool {
        let state = self.state();
        state
            .uncommitted
            .since
            .is_some_and(|since| since.elapsed() >= age)
    }

    /// Nothing is left to do or to remember.
    fn may_rest(&self, kept: Duration) -> bool {
        let state = self.state();
        let forgotten = state.last_write.is_none_or(|at| at.elapsed() >= kept);
        state.is_settled() && (state.synced == state.writes || forgotten)
    }

    fn try_rest(&self, kept: Duration) -> bool {
        let rests = self.may_rest(kept);
        if rests {
            self.state().noted = false;
        }
        rests
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let dirty = self.state().dirty.bytes();
        self.shared.budget.give(dirty);
        self.shared.gone(self.inode());
    }
}

fn options() -> OpenOptions {
    OpenOptions::new()
        .read(true)
        .write(true)
        .sync_on_close(false)
        .informed(true)
}
