//! Where the lines of a listing come from: memory, or pages of the master's.

use super::{Item, Listing};
use crate::vfs::cache::{Line, Stamp};
use crate::vfs::{Caller, Vfs, lock};
use dfs_client::{Code, DirPage, InodeId, Result};

/// Names asked of the master at once.
const PAGE_ENTRIES: u32 = 2_048;

/// What an open directory has gathered.
#[derive(Default)]
pub(super) struct Lines {
    items: Vec<Item>,
    from: From,
    parent: u64,
    removed: bool,
}

/// Where the next lines come from.
#[derive(Clone, Copy, Default)]
enum From {
    #[default]
    Nowhere,
    /// The master, after this cursor; the stamp is the beginning's.
    Page(u64, Stamp),
    /// There are no more.
    End,
}

impl Lines {
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.from, From::Nowhere)
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self.from, From::End)
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    pub(super) fn parent(&self) -> u64 {
        self.parent.max(InodeId::ROOT.0)
    }

    pub(super) fn get(&self, line: usize) -> Option<&Item> {
        self.items.get(line)
    }

    pub(super) fn get_mut(&mut self, line: usize) -> Option<&mut Item> {
        self.items.get_mut(line)
    }

    fn remembered(lines: Vec<Line>, parent: u64) -> Lines {
        let item = |line: Line| Item {
            name: line.name,
            inode: line.inode,
            kind: line.kind,
            metadata: None,
            gone: false,
        };
        Lines {
            items: lines.into_iter().map(item).collect(),
            from: From::End,
            parent,
            removed: false,
        }
    }

    fn removed() -> Lines {
        Lines {
            from: From::End,
            removed: true,
            ..Lines::default()
        }
    }
}

impl Vfs {
    /// The first lines.
    pub(super) async fn begin(&self, listing: &Listing) -> Result<()> {
        let inode = listing.inode;
        let (gone, parent) = self.cache.at(inode, |node| (node.gone, node.parent));
        let first = if gone {
            Lines::removed()
        } else if let Some(lines) = self.cache.lines(inode) {
            Lines::remembered(lines, parent)
        } else {
            let stamp = self.cache.stamp(inode);
            Lines {
                from: From::Page(0, stamp),
                ..Lines::default()
            }
        };
        let whole = first.is_whole();
        *lock(&listing.lines) = first;
        if whole {
            Ok(())
        } else {
            self.next_page(listing).await
        }
    }

    /// The next lines, and what they say goes to memory.
    pub(super) async fn next_page(&self, listing: &Listing) -> Result<()> {
        let (cursor, stamp) = match lock(&listing.lines).from {
            From::Page(cursor, stamp) => (cursor, stamp),
            From::Nowhere | From::End => return Ok(()),
        };
        let calls = self.asking(Caller::default());
        let question = async {
            let page = calls.read_dir(InodeId(listing.inode), cursor, PAGE_ENTRIES).await;
            page.map(Some)
        };
        // Half a listing from the master and half from memory would be neither.
        let may_remember =
            || (cursor == 0 && self.cache.remembered_lines(listing.inode).is_some()).then_some(None);
        match self.ask(question, may_remember).await {
            Ok(Some(page)) => self.learn_page(listing, (cursor, stamp), page),
            Ok(None) => {
                let lines = self.cache.remembered_lines(listing.inode).unwrap_or_default();
                let parent = self.cache.at(listing.inode, |node| node.parent);
                *lock(&listing.lines) = Lines::remembered(lines, parent);
            }
            Err(error) if error.code == Code::NotFound => *lock(&listing.lines) = Lines::removed(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn learn_page(&self, listing: &Listing, (cursor, stamp): (u64, Stamp), page: DirPage) {
        let inode = listing.inode;
        for entry in &page.entries {
            self.learn(stamp.epoch(), &entry.metadata);
        }
        let names = page.entries.iter();
        let names = names.map(|entry| (&*entry.name, entry.metadata.inode.0, entry.metadata.kind));
        self.cache.learn_names(stamp, inode, names);
        self.cache.at(inode, |node| node.parent = page.parent.0);
        if page.end {
            self.cache.listed(stamp, inode);
        }
        let sure = self.cache.is_sure(stamp.epoch());
        let next = page
            .entries
            .last()
            .map(|entry| entry.cursor)
            .filter(|_| !page.end);
        let items = page.entries.into_iter().map(|entry| Item {
            name: entry.name.into_boxed_slice(),
            inode: entry.metadata.inode.0,
            kind: entry.metadata.kind,
            metadata: (!sure).then(|| Box::new(entry.metadata)),
            gone: false,
        });
        let mut lines = lock(&listing.lines);
        // Unless someone went back to the beginning meanwhile.
        if matches!(lines.from, From::Page(at, _) if at == cursor) {
            lines.items.extend(items);
            lines.parent = page.parent.0;
            lines.from = next.map_or(From::End, |cursor| From::Page(cursor, stamp));
        }
    }
}
