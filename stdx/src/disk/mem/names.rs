//! Folders and names, as processes see them and as a power cut would leave them.
//!
//! Folders are durable at once. Creating, renaming and removing a file is pending until its folder is synced
//! (a rename between two folders: both). When power goes, each pending change may be durable or not, but never
//! a part of one, and never one without those before it that it builds on.

use super::image::Content;
use crate::Rng;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A file without its name.
#[derive(Debug, Default)]
pub(super) struct Inode(Mutex<Content>);

impl Inode {
    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("no panic while a file is held")
    }
}

type Entries = BTreeMap<PathBuf, Arc<Inode>>;

/// A change of names: what each path named before, and what it names after.
#[derive(Debug)]
struct Change {
    parts: Vec<Part>,
    /// Folders that must be synced before the change is sure.
    awaits: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    before: Option<Arc<Inode>>,
    after: Option<Arc<Inode>>,
}

/// All names of a disk.
#[derive(Debug, Default)]
pub(super) struct Names {
    folders: BTreeSet<PathBuf>,
    live: Entries,
    durable: Entries,
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Result<&Arc<Inode>, Errno> {
        match self.live.get(path) {
            Some(inode) => Ok(inode),
            None if self.is_folder(path) => Err(Errno::ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    pub(super) fn is_folder(&self, path: &Path) -> bool {
        path.parent().is_none() || self.folders.contains(path)
    }

    pub(super) fn inodes(&self) -> impl Iterator<Item = &Arc<Inode>> {
        self.live.values()
    }

    pub(super) fn create_folders(&mut self, path: &Path) -> Result<(), Errno> {
        if path.ancestors().any(|folder| self.live.contains_key(folder)) {
            return Err(Errno::NOTDIR);
        }
        self.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    pub(super) fn create(&mut self, path: &Path) -> Result<Arc<Inode>, Errno> {
        self.must_have_folder(path)?;
        let inode = Arc::<Inode>::default();
        self.change(vec![(path, Some(inode.clone()))]);
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let inode = self.get(from)?.clone();
        self.must_have_folder(to)?;
        if self.is_folder(to) {
            return Err(Errno::ISDIR);
        }
        if from != to {
            self.change(vec![(from, None), (to, Some(inode))]);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        self.get(path)?;
        self.change(vec![(path, None)]);
        Ok(())
    }

    /// Names in a folder, sorted.
    pub(super) fn list(&self, folder: &Path) -> Result<Vec<String>, Errno> {
        if !self.is_folder(folder) {
            return Err(if self.live.contains_key(folder) {
                Errno::NOTDIR
            } else {
                Errno::NOENT
            });
        }
        // Paths are in order of their components: what a folder holds stands right behind it.
        let below = (Bound::Excluded(folder), Bound::Unbounded);
        let under = |path: &&PathBuf| path.starts_with(folder);
        let files = self.live.range::<Path, _>(below).map(|(path, _)| path);
        let folders = self.folders.range::<Path, _>(below);
        let mut names: Vec<String> = files
            .take_while(under)
            .chain(folders.take_while(under))
            .filter(|path| path.parent() == Some(folder))
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Makes the changes in a folder durable, with all that they build on.
    pub(super) fn sync(&mut self, folder: &Path) -> Result<(), Errno> {
        if !self.is_folder(folder) {
            return Err(if self.live.contains_key(folder) {
                Errno::NOTDIR
            } else {
                Errno::NOENT
            });
        }
        let mut needed = BTreeSet::new();
        let mut sure = vec![false; self.pending.len()];
        for (i, change) in self.pending.iter_mut().enumerate().rev() {
            let synced_last = change.awaits.remove(folder) && change.awaits.is_empty();
            sure[i] = synced_last || change.parts.iter().any(|part| needed.contains(&part.path));
            if sure[i] {
                needed.extend(change.parts.iter().map(|part| part.path.clone()));
            }
        }
        for (change, sure) in std::mem::take(&mut self.pending).into_iter().zip(sure) {
            if sure {
                apply(&mut self.durable, &change);
            } else {
                self.pending.push(change);
            }
        }
        Ok(())
    }

    /// Power goes. With chance, some of the pending changes had reached the disk.
    pub(super) fn power_cut(&mut self, chance: Option<&Rng>) {
        for change in std::mem::take(&mut self.pending) {
            if let Some(rng) = chance
                && rng.below(2) == 0
                && change
                    .parts
                    .iter()
                    .all(|part| same(self.durable.get(&part.path), part.before.as_ref()))
            {
                apply(&mut self.durable, &change);
            }
        }
        self.live = self.durable.clone();
        for inode in self.live.values() {
            inode.content().power_cut(chance);
        }
    }

    fn must_have_folder(&self, path: &Path) -> Result<(), Errno> {
        let folder = path.parent().ok_or(Errno::ISDIR)?;
        match self.is_folder(folder) || folder.as_os_str().is_empty() {
            true => Ok(()),
            false if self.live.contains_key(folder) => Err(Errno::NOTDIR),
            false => Err(Errno::NOENT),
        }
    }

    fn change(&mut self, to: Vec<(&Path, Option<Arc<Inode>>)>) {
        let awaits = to
            .iter()
            .filter_map(|(path, _)| path.parent())
            .map(Path::to_owned)
            .collect();
        let part = |(path, after): (&Path, Option<Arc<Inode>>)| Part {
            path: path.to_owned(),
            before: self.live.get(path).cloned(),
            after,
        };
        let change = Change {
            parts: to.into_iter().map(part).collect(),
            awaits,
        };
        apply(&mut self.live, &change);
        self.pending.push(change);
    }
}

fn apply(entries: &mut Entries, change: &Change) {
    for part in &change.parts {
        match &part.after {
            Some(inode) => entries.insert(part.path.clone(), inode.clone()),
            None => entries.remove(&part.path),
        };
    }
}

fn same(a: Option<&Arc<Inode>>, b: Option<&Arc<Inode>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_folders(folders: &[&str]) -> Names {
        let mut names = Names::default();
        for folder in folders {
            names.create_folders(Path::new(folder)).unwrap();
        }
        names
    }

    #[test]
    fn a_rename_between_folders_is_sure_only_when_both_are_synced() {
        let mut names = with_folders(&["/a", "/b"]);
        names.create(Path::new("/a/x")).unwrap();
        names.sync(Path::new("/a")).unwrap();
        names.rename(Path::new("/a/x"), Path::new("/b/x")).unwrap();
        names.sync(Path::new("/b")).unwrap();
        assert_eq!(names.pending.len(), 1);
        names.sync(Path::new("/a")).unwrap();
        names.power_cut(None);
        assert!(names.get(Path::new("/b/x")).is_ok());
        assert!(names.get(Path::new("/a/x")).is_err());
    }

    #[test]
    fn a_synced_change_brings_along_what_it_builds_on() {
        let mut names = with_folders(&["/a", "/b"]);
        names.create(Path::new("/a/x")).unwrap();
        names.rename(Path::new("/a/x"), Path::new("/b/x")).unwrap();
        names.create(Path::new("/b/y")).unwrap();
        names.remove(Path::new("/b/x")).unwrap();
        names.sync(Path::new("/b")).unwrap();
        assert!(names.pending.is_empty(), "{:?}", names.pending);
        names.power_cut(None);
        assert_eq!(names.list(Path::new("/b")).unwrap(), ["y"]);
        assert!(names.list(Path::new("/a")).unwrap().is_empty());
    }

    #[test]
    fn a_lost_create_takes_the_rename_that_builds_on_it_along() {
        for seed in 0..50 {
            let mut names = with_folders(&["/a"]);
            names.create(Path::new("/a/new")).unwrap();
            names.rename(Path::new("/a/new"), Path::new("/a/x")).unwrap();
            names.power_cut(Some(&Rng::seeded(seed)));
            assert!(names.list(Path::new("/a")).unwrap().len() <= 1);
        }
    }
}
