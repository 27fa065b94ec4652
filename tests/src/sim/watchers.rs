//! Mounts of the simulation: each changes names and attributes at random, keeps what it was told, and has it corrected by
//! the change stream. When all is quiet, what each keeps must be what the master says.
//!
//! The cache follows the rules that `dfs_client::Watch` states, and nothing more.

use super::History;
use dfs_client::{
    Change, Changes, Client, Code, Error, Event, InodeId, Metadata, OpenOptions, RenameMode, SetAttributes,
    Watch,
};
use dfs_stdx::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const DIRECTORIES: u64 = 3;
const NAMES: u64 = 6;
/// Time in which things change, and after it, to hear of the last changes.
const WORK: Duration = Duration::from_secs(12);
const QUIET: Duration = Duration::from_secs(4);

type Name = (InodeId, Vec<u8>);

/// What happened to all mounts together: a run without these has proved nothing.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Changes that others made.
    pub changes: u64,
    /// Streams that broke.
    pub lost: u64,
    /// Answers taken from what was kept.
    pub hits: u64,
    /// Kept answers compared at the end.
    pub compared: u64,
}

/// Shared by the mounts of a run.
pub type Tally = Arc<Mutex<Seen>>;

/// What a mount keeps.
#[derive(Debug, Default)]
struct Cache {
    attributes: BTreeMap<InodeId, Metadata>,
    names: BTreeMap<Name, Option<InodeId>>,
    is_live: bool,
    /// Named by events since the call under way began.
    named: BTreeSet<InodeId>,
    /// The stream broke since then.
    broke: bool,
}

impl Cache {
    fn clear(&mut self) {
        self.attributes.clear();
        self.names.clear();
    }

    fn forget(&mut self, inode: InodeId) {
        self.attributes.remove(&inode);
        self.names.retain(|(parent, _), _| *parent != inode);
    }

    fn hear(&mut self, change: Change) {
        match change {
            Change::Attributes(now) => {
                self.named.insert(now.inode);
                if let Some(kept) = self.attributes.get_mut(&now.inode)
                    && kept.change <= now.change
                {
                    *kept = now;
                }
            }
            Change::Entry { parent, name, now } => {
                self.named.insert(parent);
                self.names.insert((parent, name), now.map(|(inode, _)| inode));
            }
            Change::Unlinked { inode, .. } => {
                self.named.insert(inode);
                self.attributes.remove(&inode);
            }
            Change::Forgotten { inodes } => {
                for inode in inodes {
                    self.named.insert(inode);
                    self.forget(inode);
                }
            }
            Change::Recall { .. } | Change::LockFreed { .. } => {}
        }
    }

    fn keep(&mut self, metadata: Metadata) {
        if self.is_live && !self.broke && !self.named.contains(&metadata.inode) {
            self.attributes.insert(metadata.inode, metadata);
        }
    }

    fn keep_name(&mut self, name: Name, inode: Option<InodeId>) {
        if self.is_live && !self.broke && !self.named.contains(&name.0) {
            self.names.insert(name, inode);
        }
    }
}

/// A mount at work.
struct Mount {
    client: Client,
    watch: Watch,
    cache: Cache,
    directories: Vec<InodeId>,
    rng: Rng,
    history: History,
    name: String,
    tally: Tally,
}

/// Works, then waits until all is quiet, then compares.
///
/// # Errors
/// If something is kept that is not so.
pub async fn work(
    client: Client,
    rng: Rng,
    history: History,
    name: String,
    tally: Tally,
) -> anyhow::Result<()> {
    let end = Instant::now() + WORK;
    let mut directories = Vec::new();
    for n in 0..DIRECTORIES {
        directories.push(client.mkdir_all(format!("/d{n}")).await?.inode);
    }
    let mut mount = Mount {
        watch: client.watch(),
        cache: Cache::default(),
        client,
        directories,
        rng,
        history,
        name,
        tally,
    };
    while Instant::now() < end {
        match mount.rng.below(10) {
            0..=5 => mount.look().await,
            6 => mount.forget(),
            _ => mount.change().await,
        }
        let pause = Duration::from_millis(mount.rng.below(30));
        mount.listen(tokio::time::sleep(pause)).await;
    }
    mount.listen(tokio::time::sleep(QUIET)).await;
    mount.compare().await
}

impl Mount {
    /// Waits for something, and deals with events meanwhile.
    async fn listen<T>(&mut self, doing: impl Future<Output = T>) -> T {
        tokio::pin!(doing);
        self.cache.named.clear();
        self.cache.broke = false;
        loop {
            tokio::select! {
                biased;
                event = self.watch.next() => self.hear(event),
                done = &mut doing => return done,
            }
        }
    }

    fn hear(&mut self, event: Event) {
        self.history.note(format!("{} hears {event:?}", self.name));
        match event {
            Event::Lost => {
                self.cache.clear();
                self.cache.is_live = false;
                self.cache.broke = true;
                self.tally.lock().expect("no panic").lost += 1;
            }
            Event::Back { .. } => {
                self.cache.is_live = true;
                // What is under way was asked for before.
                self.cache.broke = true;
            }
            Event::Changes(changes) => {
                self.watch.ack(&changes);
                let Changes { list, .. } = changes;
                self.tally.lock().expect("no panic").changes += list.len() as u64;
                list.into_iter().for_each(|change| self.cache.hear(change));
            }
        }
    }

    fn place(&self) -> Name {
        let directory = usize::try_from(self.rng.below(DIRECTORIES)).expect("few");
        let name = format!("n{}", self.rng.below(NAMES)).into_bytes();
        (self.directories[directory], name)
    }

    /// What a name means, from what is kept, or from the master.
    async fn look(&mut self) {
        let name = self.place();
        let known = self.cache.names.get(&name).copied();
        if let Some(found) = known
            && found.is_none_or(|inode| self.cache.attributes.contains_key(&inode))
        {
            self.tally.lock().expect("no panic").hits += 1;
            return;
        }
        let inodes = self.client.inodes().clone();
        let (parent, text) = name.clone();
        let found = self
            .listen(async move { inodes.lookup(parent, &text).await })
            .await;
        self.history
            .note(format!("{} looks {name:?} {found:?}", self.name));
        match found {
            Ok(metadata) => {
                self.cache.keep_name(name, Some(metadata.inode));
                self.cache.keep(metadata);
            }
            Err(error) if error.code == Code::NotFound => self.cache.keep_name(name, None),
            Err(_) => {}
        }
    }

    fn forget(&mut self) {
        if let Some(inode) = self.cache.attributes.keys().next().copied() {
            self.cache.forget(inode);
            self.watch.control().forget([inode]);
        }
    }

    /// Changes something. Its own reply says what that did; here the names and inodes it speaks of are dropped.
    async fn change(&mut self) {
        let (from, to) = (self.place(), self.place());
        let inodes = self.client.inodes().clone();
        let what = self.rng.below(6);
        let known = self.cache.attributes.keys().next_back().copied();
        let (a, b) = (from.clone(), to.clone());
        let doing = async move {
            let (a, b) = ((a.0, a.1.as_slice()), (b.0, b.1.as_slice()));
            match what {
                0 | 1 => {
                    let options = OpenOptions::new().write(true).create_new(true);
                    let (made, _handle) = inodes.create(a.0, a.1, options).await?;
                    Ok(made.touched.into_iter().chain([made.metadata]).collect())
                }
                2 => inodes.unlink(a.0, a.1, false).await,
                3 => inodes.rename(a, b, RenameMode::Replace, false).await,
                4 => inodes.rename(a, b, RenameMode::Exchange, false).await,
                _ => match known {
                    Some(inode) => {
                        let set = SetAttributes {
                            mode: Some(0o600),
                            ..SetAttributes::default()
                        };
                        Ok(vec![inodes.set_attributes(inode, set).await?])
                    }
                    None => Ok(Vec::new()),
                },
            }
        };
        let done: Result<Vec<Metadata>, Error> = self.listen(doing).await;
        self.history
            .note(format!("{} does {what} {from:?} {to:?} {done:?}", self.name));
        for place in [from, to] {
            if let Some(Some(inode)) = self.cache.names.remove(&place) {
                self.cache.attributes.remove(&inode);
            }
            self.cache.attributes.remove(&place.0);
        }
        for touched in done.iter().flatten() {
            self.cache.attributes.remove(&touched.inode);
        }
        if done.is_err_and(|error| error.code != Code::NotFound && error.code != Code::AlreadyExists) {
            // It may have been made all the same.
            self.cache.clear();
        }
    }

    /// Everything kept is as the master says.
    async fn compare(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.cache.is_live, "{}: the stream never came back", self.name);
        let inodes = self.client.inodes();
        for (inode, kept) in &self.cache.attributes {
            let is = inodes.stat(*inode).await;
            anyhow::ensure!(
                is.as_ref().is_ok_and(|is| is == kept),
                "{}: kept {kept:?}, is {is:?}",
                self.name
            );
        }
        for ((parent, name), kept) in &self.cache.names {
            let is = match inodes.lookup(*parent, name).await {
                Ok(metadata) => Some(metadata.inode),
                Err(error) if error.code == Code::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            anyhow::ensure!(
                is == *kept,
                "{}: kept {parent}/{} is {kept:?}, is {is:?}",
                self.name,
                String::from_utf8_lossy(name)
            );
        }
        let compared = self.cache.attributes.len() + self.cache.names.len();
        self.tally.lock().expect("no panic").compared += compared as u64;
        Ok(())
    }
}
