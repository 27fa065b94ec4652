//! Random changes of names through two mounts, compared with a reference after every step.

use crate::cluster::{Cluster, Mount, ROOT, TOP};
use dfs_client::{Code, Kind, RenameMode};
use std::collections::BTreeMap;

const STEPS: usize = 600;
const NAMES: usize = 5;

/// What an inode of the reference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thing {
    directory: bool,
    /// The system's number.
    inode: u64,
}

/// The reference: (directory, name) -> thing.
#[derive(Default)]
struct Tree {
    names: BTreeMap<(u64, String), Thing>,
}

impl Tree {
    fn directories(&self) -> Vec<u64> {
        let below = self.names.values().filter(|thing| thing.directory);
        std::iter::once(TOP)
            .chain(below.map(|thing| thing.inode))
            .collect()
    }

    fn get(&self, place: &(u64, String)) -> Option<Thing> {
        self.names.get(place).copied()
    }

    fn children(&self, directory: u64) -> Vec<String> {
        let inside = self.names.keys().filter(|(parent, _)| *parent == directory);
        inside.map(|(_, name)| name.clone()).collect()
    }

    fn links(&self, inode: u64) -> usize {
        self.names.values().filter(|thing| thing.inode == inode).count()
    }

    /// True if `above` is `directory` or holds it.
    fn holds(&self, above: u64, directory: u64) -> bool {
        let mut at = directory;
        while at != above {
            let Some(((parent, _), _)) = self
                .names
                .iter()
                .find(|(_, thing)| thing.directory && thing.inode == at)
            else {
                return false;
            };
            at = *parent;
        }
        true
    }

    fn rename(&mut self, from: &(u64, String), to: &(u64, String), mode: RenameMode) -> Result<(), Code> {
        let moved = self.get(from).ok_or(Code::NotFound)?;
        let target = self.get(to);
        if mode == RenameMode::Exchange && target.is_none() {
            return Err(Code::NotFound);
        }
        if moved.directory && self.holds(moved.inode, to.0) {
            return Err(Code::InvalidArgument);
        }
        if let Some(target) = target {
            match mode {
                RenameMode::NoReplace => return Err(Code::AlreadyExists),
                RenameMode::Exchange => {
                    if target.directory && self.holds(target.inode, from.0) {
                        return Err(Code::InvalidArgument);
                    }
                    self.names.insert(from.clone(), target);
                    self.names.insert(to.clone(), moved);
                    return Ok(());
                }
                RenameMode::Replace => {}
            }
            match (moved.directory, target.directory) {
                _ if moved.inode == target.inode => return Ok(()),
                (true, false) => return Err(Code::NotADirectory),
                (false, true) => return Err(Code::IsADirectory),
                (true, true) if !self.children(target.inode).is_empty() => return Err(Code::NotEmpty),
                (true, true) | (false, false) => {}
            }
        }
        self.names.remove(from);
        self.names.insert(to.clone(), moved);
        Ok(())
    }
}

struct Run {
    rng: fastrand::Rng,
    tree: Tree,
}

impl Run {
    fn place(&mut self) -> (u64, String) {
        let directories = self.tree.directories();
        let directory = directories[self.rng.usize(..directories.len())];
        (directory, format!("n{}", self.rng.usize(..NAMES)))
    }

    async fn step(&mut self, mount: &Mount) {
        let place = self.place();
        let (parent, name) = (place.0, place.1.as_str());
        let there = self.tree.get(&place);
        match self.rng.u32(..8) {
            kind @ 0..=2 => {
                let directory = kind == 0;
                let kind = if directory { Kind::Directory } else { Kind::File };
                let made = mount.make(parent, name, kind).await;
                match there {
                    Some(_) => assert_eq!(made.unwrap_err(), Code::AlreadyExists),
                    None => {
                        let inode = made.unwrap().metadata.inode.0;
                        self.tree.names.insert(place, Thing { directory, inode });
                    }
                }
            }
            3 => {
                let done = mount
                    .vfs
                    .unlink(ROOT, parent, name.as_bytes())
                    .await
                    .map_err(|e| e.code);
                let expected = match there {
                    None => Err(Code::NotFound),
                    Some(thing) if thing.directory => Err(Code::IsADirectory),
                    Some(_) => self.tree.names.remove(&place).map(|_| ()).ok_or(Code::NotFound),
                };
                assert_eq!(done.is_ok(), expected.is_ok(), "unlink: {done:?} {expected:?}");
            }
            4 => {
                let done = mount
                    .vfs
                    .rmdir(ROOT, parent, name.as_bytes())
                    .await
                    .map_err(|e| e.code);
                let expected = match there {
                    None => Err(Code::NotFound),
                    Some(thing) if !thing.directory => Err(Code::NotADirectory),
                    Some(thing) if !self.tree.children(thing.inode).is_empty() => Err(Code::NotEmpty),
                    Some(_) => self.tree.names.remove(&place).map(|_| ()).ok_or(Code::NotFound),
                };
                assert_eq!(done, expected, "rmdir");
            }
            5 => {
                let to = self.place();
                let Some(thing) = there.filter(|thing| !thing.directory) else {
                    return;
                };
                let done = mount.vfs.link(ROOT, thing.inode, to.0, to.1.as_bytes()).await;
                match self.tree.get(&to) {
                    Some(_) => assert_eq!(done.unwrap_err().code, Code::AlreadyExists),
                    None => {
                        done.unwrap();
                        self.tree.names.insert(to, thing);
                    }
                }
            }
            _ => {
                let to = self.place();
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                let mode = modes[self.rng.usize(..3)];
                let (source, target) = ((parent, name.as_bytes()), (to.0, to.1.as_bytes()));
                let done = mount
                    .vfs
                    .rename(ROOT, source, target, mode)
                    .await
                    .map_err(|e| e.code);
                let expected = self.tree.rename(&place, &to, mode);
                assert_eq!(
                    done.is_ok(),
                    expected.is_ok(),
                    "rename {mode:?}: {done:?} {expected:?}"
                );
            }
        }
    }

    /// Everything looks the same through a mount as in the reference.
    async fn compare(&mut self, mount: &Mount) {
        let directories = self.tree.directories();
        let directory = directories[self.rng.usize(..directories.len())];
        assert_eq!(mount.list(directory).await, self.tree.children(directory));
        for number in 0..NAMES {
            let name = format!("n{number}");
            let found = mount.find(directory, &name).await;
            let expected = self.tree.get(&(directory, name));
            assert_eq!(
                found.as_ref().map(|f| f.inode.0),
                expected.map(|thing| thing.inode)
            );
            if let (Some(found), Some(thing)) = (found, expected)
                && !thing.directory
            {
                assert_eq!(found.nlink as usize, self.tree.links(thing.inode), "links");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_mounts_see_one_tree_whatever_is_done_through_which() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(7);
    println!("SEED={seed}");
    let cluster = Cluster::start().await;
    let mounts = [cluster.mount().await, cluster.mount().await];
    let mut run = Run {
        rng: fastrand::Rng::with_seed(seed),
        tree: Tree::default(),
    };
    for _ in 0..STEPS {
        let (doer, looker) = (run.rng.usize(..2), run.rng.usize(..2));
        run.step(&mounts[doer]).await;
        run.compare(&mounts[looker]).await;
    }
}

/// Both make, move and remove at once in one directory; in the end both see what the master has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_mounts_that_change_one_directory_at_once_agree_in_the_end() {
    let cluster = Cluster::start().await;
    let mounts = [cluster.mount().await, cluster.mount().await];
    let directory = mounts[0].mkdir(TOP, "d").await;
    mounts[1].inode(TOP, "d").await;
    let storm = |mount: Mount, seed: u64| async move {
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..150 {
            let (one, two) = (format!("n{}", rng.u32(..8)), format!("n{}", rng.u32(..8)));
            match rng.u32(..4) {
                0 => drop(mount.make(directory, &one, Kind::File).await),
                1 => drop(mount.vfs.unlink(ROOT, directory, one.as_bytes()).await),
                2 => drop(mount.vfs.lookup(ROOT, directory, one.as_bytes()).await),
                _ => {
                    let (from, to) = ((directory, one.as_bytes()), (directory, two.as_bytes()));
                    drop(mount.vfs.rename(ROOT, from, to, RenameMode::Replace).await);
                }
            }
        }
    };
    let storms = (0..8).map(|number| storm(mounts[number % 2].clone(), number as u64));
    futures::future::join_all(storms).await;
    let truth = cluster.client(false).await.list("/d").await.unwrap();
    let names: Vec<String> = truth
        .iter()
        .map(|e| String::from_utf8(e.name.clone()).unwrap())
        .collect();
    for mount in &mounts {
        assert_eq!(mount.list(directory).await, names);
        for number in 0..8 {
            let name = format!("n{number}");
            let expected = truth
                .iter()
                .find(|e| e.name == name.as_bytes())
                .map(|e| e.metadata.inode);
            assert_eq!(
                mount.find(directory, &name).await.map(|f| f.inode),
                expected,
                "{name}"
            );
        }
    }
}
