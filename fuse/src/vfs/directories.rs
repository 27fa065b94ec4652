//! Listings: an open directory gathers its lines as they are read, and a place in it is a number of line.
//!
//! Lines come from memory if all names are known, else from the master page by page, whose own cursors are stable while
//! the directory changes. So a name that is there all the time is told once, and one that is removed meanwhile, if that
//! is known here, not at all. Going back to the beginning begins anew.

mod pages;

use super::cache::Leads;
use super::{Caller, DirEntry, Opened, Vfs, lock};
use dfs_client::{Code, Error, Kind, Metadata, Result};
use pages::Lines;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Lines that are ours: `.` and `..`.
const DOTS: u64 = 2;

/// Open directories.
#[derive(Default)]
pub(super) struct Listings {
    open: Mutex<HashMap<u64, Arc<Listing>>>,
    next: AtomicU64,
}

/// One open directory.
struct Listing {
    inode: u64,
    lines: Mutex<Lines>,
}

/// One line of a listing.
struct Item {
    name: Box<[u8]>,
    inode: u64,
    kind: Kind,
    /// As the master told it with the page: for the case that it is not remembered for sure.
    metadata: Option<Box<Metadata>>,
    /// It turned out to be gone.
    gone: bool,
}

/// How far a listing got without asking anybody.
enum Got {
    /// The kernel has enough, or there is no more.
    Done,
    /// The lines go on at the master.
    More,
    /// This line's attributes have to be asked for.
    Attributes(usize, u64),
}

/// Takes lines until it says that it is full.
type Take<'a> = dyn FnMut(&DirEntry<'_>) -> bool + Send + 'a;

#[expect(clippy::missing_errors_doc, reason = "the master's, or TimedOut, for all")]
impl Vfs {
    /// Opens a directory.
    pub async fn opendir(&self, caller: Caller, inode: u64) -> Result<Opened> {
        if self.options.ask_permission {
            self.acting(caller).access(dfs_client::InodeId(inode), 4).await?;
        }
        let listing = Listing {
            inode,
            lines: Mutex::default(),
        };
        let handle = self.listings.next.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.listings.open).insert(handle, Arc::new(listing));
        Ok(Opened {
            handle,
            keep_cache: false,
            direct_io: false,
        })
    }

    /// Gives lines that come after `offset` (0: all) to `take` until it says that it is full or there are no more.
    /// With `plus` each has its [`Entry`](super::Entry), which counts as a lookup when it was taken.
    pub async fn readdir(&self, handle: u64, offset: u64, plus: bool, take: &mut Take<'_>) -> Result<()> {
        let listing = self.listing(handle)?;
        if offset == 0 || !lock(&listing.lines).has_begun() {
            self.begin(&listing).await?;
        }
        let mut place = offset;
        if place < DOTS && self.dots(&listing, &mut place, take) {
            return Ok(());
        }
        loop {
            match self.fill(&listing, &mut place, plus, take) {
                Got::Done => return Ok(()),
                Got::More => self.next_page(&listing).await?,
                Got::Attributes(line, inode) => self.look(&listing, line, inode).await?,
            }
        }
    }

    fn listing(&self, handle: u64) -> Result<Arc<Listing>> {
        let found = lock(&self.listings.open).get(&handle).cloned();
        found.ok_or_else(|| Error::new(Code::InvalidArgument, "there is no such open directory"))
    }

    /// `.` and `..`; true if they filled it.
    fn dots(&self, listing: &Listing, place: &mut u64, take: &mut Take<'_>) -> bool {
        let lines = lock(&listing.lines);
        if lines.is_removed() {
            *place = DOTS;
            return false;
        }
        for (own, name, inode) in [(0, &b"."[..], listing.inode), (1, b"..", lines.parent())] {
            if *place == own {
                if take(&DirEntry {
                    inode,
                    kind: Kind::Directory,
                    name,
                    next: own + 1,
                    entry: None,
                }) {
                    return true;
                }
                *place = own + 1;
            }
        }
        false
    }

    /// The lines that are gathered, from a place on.
    fn fill(&self, listing: &Listing, place: &mut u64, plus: bool, take: &mut Take<'_>) -> Got {
        let lines = lock(&listing.lines);
        loop {
            let line = usize::try_from(*place - DOTS).unwrap_or(usize::MAX);
            let Some(item) = lines.get(line) else {
                return if lines.is_whole() { Got::Done } else { Got::More };
            };
            match self.give((listing.inode, item), *place + 1, plus, take) {
                Given::Taken | Given::Gone => *place += 1,
                Given::Full => return Got::Done,
                Given::Unknown => return Got::Attributes(line, item.inode),
            }
        }
    }

    fn give(&self, (directory, item): (u64, &Item), next: u64, plus: bool, take: &mut Take<'_>) -> Given {
        let leads = self.cache.find(directory, &item.name);
        let gone = match leads {
            Leads::Nowhere => true,
            Leads::To(inode, _) => inode != item.inode,
            Leads::Unknown => false,
        };
        if gone || item.gone {
            return Given::Gone;
        }
        let line = DirEntry {
            inode: item.inode,
            kind: item.kind,
            name: &item.name,
            next,
            entry: None,
        };
        if !plus {
            return if take(&line) { Given::Full } else { Given::Taken };
        }
        let remembered = self.remembered_entry(item.inode);
        // Epoch 0 is never sure.
        let told = || {
            item.metadata
                .as_ref()
                .map(|metadata| self.entry(0, Metadata::clone(metadata)))
        };
        let Some(mut entry) = remembered.or_else(told) else {
            return Given::Unknown;
        };
        if leads == Leads::Unknown {
            entry.entry_ttl = std::time::Duration::ZERO;
        }
        if take(&DirEntry {
            entry: Some(&entry),
            ..line
        }) {
            self.cache.forget(item.inode, 1);
            return Given::Full;
        }
        Given::Taken
    }

    /// Attributes of a line that nobody remembers.
    async fn look(&self, listing: &Listing, line: usize, inode: u64) -> Result<()> {
        let found = self.fresh(Caller::default(), inode).await;
        let mut lines = lock(&listing.lines);
        let Some(item) = lines.get_mut(line).filter(|item| item.inode == inode) else {
            return Ok(());
        };
        match found {
            Ok((metadata, _)) => item.metadata = Some(Box::new(metadata)),
            Err(error) if matches!(error.code, Code::NotFound | Code::Stale) => item.gone = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: u64) {
        lock(&self.listings.open).remove(&handle);
    }

    /// Returns when all changes of a directory are durable: they are when they are answered.
    pub async fn fsyncdir(&self, _handle: u64) -> Result<()> {
        Ok(())
    }
}

/// What became of a line.
enum Given {
    Taken,
    /// It is not there any more.
    Gone,
    /// It did not fit.
    Full,
    /// Its attributes are not known.
    Unknown,
}
