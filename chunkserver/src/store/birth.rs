//! The data directories' identities at start: born, read, and checked against each other.

use super::error::{Error, Result};
use super::identity::{DISKS_MAX, Identity};
use super::index::Options;
use dfs_proto::NodeId;
use dfs_stdx::Rng;
use dfs_stdx::disk::Disk;
use std::path::Path;

/// One identity a directory, in the same order; directories without one are born.
pub(super) fn identities(disk: &dyn Disk, options: &Options, rng: &Rng) -> Result<Vec<Identity>> {
    if options.dirs.is_empty() || options.dirs.len() > DISKS_MAX {
        return Err(Error::Refused(format!(
            "a chunkserver has 1 to {DISKS_MAX} data directories"
        )));
    }
    let mut found = Vec::new();
    for dir in &options.dirs {
        match Identity::read(disk, dir)? {
            Some(None) => return Err(refused(dir, "its identity file is damaged")),
            Some(Some(identity)) => found.push(Some(identity)),
            None => found.push(None),
        }
    }
    let old: Vec<&Identity> = found.iter().flatten().collect();
    check(options, &found, &old)?;
    // A crash may have come between two directories' registration: the one that knows more is right.
    let base = old.iter().find(|i| i.node != NodeId(0)).or(old.first());
    let mut base = base.map_or_else(
        || Identity {
            server: rng.secret(),
            ..Identity::default()
        },
        |first| (*first).clone(),
    );
    let born: Vec<Option<[u8; 16]>> = found.iter().map(|f| f.is_none().then(|| rng.secret())).collect();
    base.disks.extend(born.iter().flatten());
    base.disks.sort_unstable();
    let mut all = Vec::new();
    for ((dir, found), born) in options.dirs.iter().zip(&found).zip(&born) {
        let identity = Identity {
            disk: born.or(found.as_ref().map(|f| f.disk)).expect("found or born"),
            ..base.clone()
        };
        if found.as_ref() != Some(&identity) {
            folders(disk, dir)?;
            identity.write(disk, dir)?;
        }
        all.push(identity);
    }
    Ok(all)
}

fn refused(dir: &Path, why: &str) -> Error {
    Error::Refused(format!("{}: {why}", dir.display()))
}

fn check(options: &Options, found: &[Option<Identity>], old: &[&Identity]) -> Result<()> {
    let registered = |i: &&&Identity| i.node != NodeId(0);
    let Some(first) = old.iter().find(registered).or(old.first()) else {
        return Ok(());
    };
    let same = |i: &Identity| (i.cluster, i.node) == (first.cluster, first.node) || i.node == NodeId(0);
    for (dir, identity) in options.dirs.iter().zip(found) {
        match identity {
            // A crash may have come between the births of a new server's directories.
            None if !options.accept_new_disk && first.node != NodeId(0) => {
                return Err(refused(
                    dir,
                    "it is empty beside used ones: is its disk mounted? (a new disk has to be allowed)",
                ));
            }
            None => {}
            Some(i) if i.server != first.server || !same(i) => {
                return Err(refused(dir, "it belongs to another chunkserver"));
            }
            Some(i) if old.iter().filter(|o| o.disk == i.disk).count() > 1 => {
                return Err(refused(dir, "it is a copy of another data directory"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The folders of a data directory, durable before it has an identity.
fn folders(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let chunks = dir.join("chunks");
    disk.create_dir_all(&dir.join("tmp"))?;
    for low in 0..=0xff {
        disk.create_dir_all(&chunks.join(format!("{low:02x}")))?;
    }
    disk.sync_dir(&chunks)?;
    Ok(disk.sync_dir(dir)?)
}
