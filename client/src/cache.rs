//! Where an open file is, as far as its handle knows.
//!
//! Locations are kept in windows of 64 chunk slots. They are asked again when a replica says they are out of date or
//! all fail, after some seconds for a file that someone is writing, and at half the life of their read tokens. When
//! the master is away, what is known goes on being used: the tokens are what counts.

use crate::convert::{self, Extent, Grant, Located};
use crate::engine::Core;
use crate::file::Opened;
use crate::types::Caller;
use dfs_proto::{InodeId, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Chunk slots in a window: what one call answers.
const WINDOW_SLOTS: u64 = 64;
/// Windows kept.
const WINDOWS_MAX: usize = 64;
/// Longer than any question to the master takes.
const GRANTED_KEPT: Duration = Duration::from_secs(60);
/// How long to wait for a better answer than the one that is known.
const REFRESH_DEADLINE: Duration = Duration::from_millis(500);

/// Part of a file's locations.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// In order, none overlapping.
    pub(crate) extents: Vec<Extent>,
    /// The file's size then.
    pub(crate) size: u64,
    /// Someone held a grant on it: the end may move.
    pub(crate) writing: bool,
    /// When the question was sent: what is here was true at some instant after it.
    pub(crate) asked: Instant,
    /// When it was last tried to learn better.
    tried: Instant,
    /// A replica spoke against it.
    doubted: bool,
    /// Nobody told of other clients' changes since: it stands in while the master cannot be asked, but for its holes.
    pub(crate) surmised: bool,
}

/// The windows of one open file.
#[derive(Debug)]
pub(crate) struct Locations {
    core: Arc<Core>,
    inode: InodeId,
    caller: Caller,
    /// Bytes of a window.
    window_bytes: u64,
    /// Never held across an await.
    windows: Mutex<Windows>,
    /// Chunks this client was granted lately, and when: an answer that was asked for before does not know them.
    granted: Mutex<BTreeMap<u64, (Extent, Instant)>>,
    /// Someone tells of other clients' changes: what is known stays right.
    informed: bool,
    /// The size in the latest answer.
    size: AtomicU64,
    /// Held while the master is asked, so that parallel readers ask once.
    asking: tokio::sync::Mutex<()>,
}

/// What is known, and since when.
#[derive(Debug, Default)]
struct Windows {
    known: BTreeMap<u64, Arc<Window>>,
    /// How often all was forgotten: an answer that was asked for before that is not kept.
    forgotten: u64,
}

impl Window {
    /// Puts a chunk this client writes in its place.
    fn place(&mut self, extent: Extent) {
        self.writing = true;
        let at = self.extents.partition_point(|e| e.offset < extent.offset);
        match self.extents.get_mut(at).filter(|e| e.offset == extent.offset) {
            Some(known) => *known = extent,
            None => self.extents.insert(at, extent),
        }
    }
}

impl Locations {
    pub(crate) fn new(file: &Opened, chunk_bytes: u64) -> Locations {
        Locations {
            core: file.core.clone(),
            inode: file.inode,
            caller: file.caller.clone(),
            window_bytes: WINDOW_SLOTS * chunk_bytes,
            windows: Mutex::default(),
            granted: Mutex::default(),
            informed: file.options.informed,
            size: AtomicU64::new(0),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// Takes what came with the answer to opening the file, if it speaks of the whole first window.
    pub(crate) fn learn(&self, located: Located) {
        let end = located.extents.last().map_or(0, |e| e.offset + e.span_bytes);
        if located.size <= end
            || located.size <= self.window_bytes && located.extents.len() < WINDOW_SLOTS as usize
        {
            let forgotten = self.windows().forgotten;
            self.keep(0, forgotten, located, self.core.clock.now());
        }
    }

    /// Bytes of the file to the end of the window that holds `offset`.
    pub(crate) fn window_end(&self, offset: u64) -> u64 {
        (offset / self.window_bytes + 1).saturating_mul(self.window_bytes)
    }

    /// The size in the latest answer.
    pub(crate) fn known_size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// The window that holds `offset`, asked after `not_before`.
    pub(crate) async fn window(
        &self,
        offset: u64,
        not_before: Option<Instant>,
        deadline: Instant,
    ) -> Result<Arc<Window>> {
        let index = offset / self.window_bytes;
        if let Some(known) = self.fresh(index, not_before) {
            return Ok(known);
        }
        let _one = self.asking.lock().await;
        if let Some(known) = self.fresh(index, not_before) {
            return Ok(known);
        }
        let forgotten = self.windows().forgotten;
        let old = self.known(index).filter(|w| !self.expired(w));
        let by = if old.is_some() {
            deadline.min(self.core.clock.now() + REFRESH_DEADLINE)
        } else {
            deadline
        };
        match (self.ask(index, forgotten, by).await, old) {
            (Ok(window), _) => Ok(window),
            (Err(error), Some(old)) if error.retry() == dfs_proto::Retry::Other => {
                tracing::debug!(inode = %self.inode, %error, "locations stay as they are known");
                let tried = Arc::new(Window {
                    tried: self.core.clock.now(),
                    doubted: false,
                    ..(*old).clone()
                });
                self.insert(index, forgotten, tried.clone());
                Ok(tried)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// What is known must not be used again without asking, if it is still `used`.
    pub(crate) fn doubt(&self, offset: u64, used: &Arc<Window>) {
        let index = offset / self.window_bytes;
        let windows = &mut self.windows().known;
        if windows
            .get(&index)
            .is_some_and(|w| w.asked == used.asked && w.tried == used.tried)
        {
            windows.insert(
                index,
                Arc::new(Window {
                    doubted: true,
                    ..(**used).clone()
                }),
            );
        }
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&self) {
        self.granted.lock().expect("no panic while held").clear();
        let mut windows = self.windows();
        windows.known.clear();
        windows.forgotten += 1;
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().expect("no panic while held")
    }

    /// Other clients' changes are not told for now. What is known is used only while the master cannot be asked,
    /// together with what this client was granted.
    pub(crate) fn unsure(&self) {
        let granted = std::mem::take(&mut *self.granted.lock().expect("no panic while held"));
        let Windows {
            known: windows,
            forgotten,
        } = &mut *self.windows();
        // An answer that is on its way may be as old as what is known.
        *forgotten += 1;
        let known: BTreeSet<u64> = windows.keys().copied().collect();
        for (offset, (extent, at)) in granted {
            let index = offset / self.window_bytes;
            // A known window has it already.
            if !known.contains(&index) {
                let made = windows.entry(index).or_insert_with(|| self.unasked(at));
                Arc::make_mut(made).place(extent);
            }
        }
        while windows.len() > WINDOWS_MAX {
            windows.pop_first();
        }
        for window in windows.values_mut() {
            let window = Arc::make_mut(window);
            (window.doubted, window.surmised) = (true, true);
        }
    }

    fn unasked(&self, asked: Instant) -> Arc<Window> {
        Arc::new(Window {
            extents: Vec::new(),
            size: self.known_size(),
            writing: true,
            asked,
            tried: asked,
            doubted: true,
            surmised: true,
        })
    }

    /// This client may write a chunk, and so knows where it is.
    pub(crate) fn granted(&self, grant: &Grant) {
        let extent = Extent {
            lost_end: grant.lost_end,
            offset: grant.file_offset,
            span_bytes: grant.span_bytes,
            capability: grant.capability.clone(),
            token: grant.token.clone(),
        };
        let now = self.core.clock.now();
        {
            let mut granted = self.granted.lock().expect("no panic while held");
            granted.retain(|_, (_, at)| now.saturating_duration_since(*at) < GRANTED_KEPT);
            granted.insert(extent.offset, (extent.clone(), now));
        }
        let index = extent.offset / self.window_bytes;
        if let Some(known) = self.windows().known.get_mut(&index) {
            let mut window = (**known).clone();
            window.place(extent);
            *known = Arc::new(window);
        }
    }

    /// What the master says of a hole may be believed.
    pub(crate) fn is_recent(&self, window: &Window) -> bool {
        let age = self.core.clock.now().saturating_duration_since(window.tried);
        if self.informed {
            return !window.surmised;
        }
        age < self.core.master.timings().location_cache
    }

    fn known(&self, index: u64) -> Option<Arc<Window>> {
        self.windows().known.get(&index).cloned()
    }

    fn fresh(&self, index: u64, not_before: Option<Instant>) -> Option<Arc<Window>> {
        let timings = self.core.master.timings();
        let now = self.core.clock.now();
        let good = |w: &Arc<Window>| {
            let age = now.saturating_duration_since(w.tried);
            let life = if w.surmised || w.writing && !self.informed {
                timings.location_cache
            } else {
                timings.read_token / 2
            };
            !w.doubted && age < life && not_before.is_none_or(|t| w.tried > t) && !self.expired(w)
        };
        self.known(index).filter(good)
    }

    fn expired(&self, window: &Window) -> bool {
        let now = self.core.unix_ms();
        window.extents.iter().any(|e| e.capability.expires_unix_ms <= now)
    }

    async fn ask(&self, index: u64, forgotten: u64, deadline: Instant) -> Result<Arc<Window>> {
        let asked = self.core.clock.now();
        let (start, end) = (index * self.window_bytes, (index + 1) * self.window_bytes);
        let mut all = Located::default();
        let mut position = start;
        loop {
            let query = convert::locate(self.inode, position, end - position);
            let page = convert::located(self.core.master.query_by(&self.caller, query, deadline).await?)?;
            let full = page.extents.len() >= WINDOW_SLOTS as usize;
            position = page.extents.last().map_or(end, |e| e.offset + e.span_bytes);
            all.size = page.size;
            all.writing |= page.writing;
            all.extents.extend(page.extents);
            if !full || position >= end {
                return Ok(self.keep(index, forgotten, all, asked));
            }
        }
    }

    fn keep(&self, index: u64, forgotten: u64, located: Located, asked: Instant) -> Arc<Window> {
        self.size.store(located.size, Ordering::Relaxed);
        let mut window = Window {
            extents: located.extents,
            size: located.size,
            writing: located.writing,
            asked,
            tried: asked,
            doubted: false,
            surmised: false,
        };
        let range = index * self.window_bytes..(index + 1) * self.window_bytes;
        let granted = self.granted.lock().expect("no panic while held");
        for (_, (extent, at)) in granted.range(range) {
            if *at >= asked {
                window.place(extent.clone());
            }
        }
        let window = Arc::new(window);
        // Still under the lock: a grant comes before this, and is in it, or after, and is put into it.
        self.insert(index, forgotten, window.clone());
        drop(granted);
        window
    }

    /// Keeps it, unless all was forgotten since it was asked for: it serves who asked, whose read began before that.
    fn insert(&self, index: u64, forgotten: u64, window: Arc<Window>) {
        let mut windows = self.windows();
        if windows.forgotten != forgotten {
            return;
        }
        if windows.known.len() >= WINDOWS_MAX {
            windows.known.pop_first();
        }
        windows.known.insert(index, window);
    }
}

#[cfg(test)]
mod tests {
    use crate::OpenOptions;
    use crate::fake::{Cluster, pattern};
    use bytes::Bytes;
    use futures::poll;
    use std::pin::pin;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_asked_for_before_all_was_forgotten_is_not_kept() {
        let cluster = Cluster::start(3).await;
        let client = cluster.client().await;
        let mut file = client.create("/f").await.unwrap();
        file.write_bytes(Bytes::from(pattern(100))).await.unwrap();
        file.close().await.unwrap();
        let options = OpenOptions::new().read(true).informed(true);
        let file = client.open_with("/f", options).await.unwrap();
        let locations = &file.handle().reader().locations;
        let deadline = locations.core.master.deadline();
        locations.forget();
        {
            let mut asked = pin!(locations.window(0, None, deadline));
            assert!(poll!(asked.as_mut()).is_pending());
            // Another client changes the file, and is told of before the answer is here.
            locations.forget();
            assert_eq!(asked.await.unwrap().size, 100);
        }
        assert!(locations.known(0).is_none());
        locations.window(0, None, deadline).await.unwrap();
        assert!(locations.known(0).is_some());
    }
}
