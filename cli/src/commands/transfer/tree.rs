//! Whole trees, many files at a time: directories first, then what is in them; their own attributes last.
//!
//! One failure is told and the rest goes on, as `cp -r` does.

use super::local::{self, at};
use super::upload::{self, Place};
use super::{FILES_AT_ONCE, Job, download};
use crate::exit::{About as _, Failure, Result};
use crate::output::Console;
use crate::path;
use dfs_client::{Code, InodeId, Kind, Make, SetAttributes};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinSet;

/// A bounded number of copies under way.
#[derive(Debug)]
pub(crate) struct Crowd<'a> {
    console: &'a Console,
    copies: JoinSet<Result<()>>,
}

impl<'a> Crowd<'a> {
    /// Nothing is under way; failures are told to `console`.
    #[must_use]
    pub(crate) fn new(console: &'a Console) -> Crowd<'a> {
        Crowd {
            console,
            copies: JoinSet::new(),
        }
    }

    /// Begins one more as soon as there is room.
    pub(crate) async fn add(&mut self, copy: impl Future<Output = Result<()>> + Send + 'static) {
        while self.copies.len() >= FILES_AT_ONCE {
            self.one_less().await;
        }
        self.copies.spawn(copy);
    }

    /// Returns when all are done.
    pub(crate) async fn finish(&mut self) {
        while !self.copies.is_empty() {
            self.one_less().await;
        }
    }

    async fn one_less(&mut self) {
        if let Some(done) = self.copies.join_next().await
            && let Err(failure) = done.expect("a copy neither panics nor is aborted")
        {
            self.console.complain(failure);
        }
    }
}

/// A directory in dfs that is being filled.
#[derive(Clone, Debug)]
pub(crate) struct Filled {
    /// It.
    pub(crate) inode: InodeId,
    /// Its path, for messages.
    pub(crate) path: Vec<u8>,
}

/// Copies what is in the local directory `from` into the directory `to`.
pub(crate) async fn put(job: &Arc<Job>, console: &Console, from: &Path, to: Filled) {
    let mut crowd = Crowd::new(console);
    let mut waiting = vec![(from.to_owned(), to)];
    let mut attributes = Vec::new();
    while let Some((folder, to)) = waiting.pop() {
        let entries = match list(job, &folder).await {
            Ok(entries) => entries,
            Err(failure) => {
                console.complain(failure);
                continue;
            }
        };
        for (local, metadata) in entries {
            let name = local.file_name().unwrap_or_default().as_bytes().to_vec();
            let place = Place {
                path: path::join(&to.path, &name),
                parent: to.inode,
                name,
            };
            if metadata.is_dir() {
                match directory(job, &place, metadata.mode()).await {
                    Ok((filled, made)) => {
                        attributes.extend(made.then_some((filled.inode, metadata, place)));
                        waiting.push((local, filled));
                    }
                    Err(failure) => console.complain(failure),
                }
                continue;
            }
            let job = job.clone();
            crowd
                .add(async move {
                    match metadata.is_file() {
                        true => upload::file(&job, &local, &place).await,
                        false => upload::special(&job, &local, &metadata, &place).await,
                    }
                })
                .await;
        }
    }
    crowd.finish().await;
    // The deepest first: a directory's time is set after all in it.
    while let Some((inode, metadata, place)) = attributes.pop() {
        if let Err(failure) = finish_directory(job, inode, &metadata, &place).await {
            console.complain(failure);
        }
    }
}

/// What is in a local directory, in byte order of the names.
async fn list(job: &Job, folder: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let path = folder.to_owned();
    let listed = job.pool.run(move || -> io::Result<Vec<(PathBuf, Metadata)>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => entries.push((entry.path(), metadata)),
                // Removed since: it was never part of the copy.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    });
    listed.await.map_err(at(folder))
}

/// Makes a directory in dfs, or takes the one that is there; tells which.
///
/// # Errors
/// The client's, or something else has the name.
pub(crate) async fn directory(job: &Job, place: &Place, mode: u32) -> Result<(Filled, bool)> {
    let inodes = job.client.inodes();
    let make = Make {
        kind: Kind::Directory,
        // Until all is in it, its owner must be able to fill it.
        mode: job.mode(mode) | 0o700,
        rdev: 0,
        target: Vec::new(),
    };
    let filled = |inode| Filled {
        inode,
        path: place.path.clone(),
    };
    match inodes.make(place.parent, &place.name, make).await {
        Ok(made) => Ok((filled(made.metadata.inode), true)),
        Err(error) if error.code == Code::AlreadyExists => {
            let there = inodes
                .lookup(place.parent, &place.name)
                .await
                .about(&place.path)?;
            match there.is_dir() {
                true => Ok((filled(there.inode), false)),
                false => {
                    let text = "cannot replace what is not a directory with a directory";
                    Err(Failure::new(Code::NotADirectory, text).about(&place.path))
                }
            }
        }
        Err(error) => Err(error).about(&place.path),
    }
}

/// Gives a directory that was made its own attributes.
///
/// # Errors
/// The client's.
pub(crate) async fn finish_directory(
    job: &Job,
    inode: InodeId,
    metadata: &Metadata,
    place: &Place,
) -> Result<()> {
    let mode = job.mode(metadata.mode());
    if job.options.preserve {
        return upload::preserve(job, inode, metadata, place).await;
    }
    if mode & 0o700 != 0o700 {
        let set = SetAttributes {
            mode: Some(mode),
            ..SetAttributes::default()
        };
        job.client
            .inodes()
            .set_attributes(inode, set)
            .await
            .about(&place.path)?;
    }
    Ok(())
}

/// Copies what is in the directory `from` of dfs into the local directory `to`.
pub(crate) async fn get(job: &Arc<Job>, console: &Console, from: &[u8], to: &Path) {
    let mut crowd = Crowd::new(console);
    let mut waiting = vec![(from.to_vec(), to.to_owned())];
    let mut attributes = Vec::new();
    while let Some((folder, to)) = waiting.pop() {
        let entries = match job.client.list(&folder).await.about(&folder) {
            Ok(entries) => entries,
            Err(failure) => {
                console.complain(failure);
                continue;
            }
        };
        for entry in entries {
            let remote = path::join(&folder, &entry.name);
            let local = to.join(OsStr::from_bytes(&entry.name));
            let metadata = entry.metadata;
            if metadata.is_dir() {
                match local_directory(&local) {
                    Ok(made) => {
                        attributes
                            .extend(made.then(|| (local.clone(), download::attributes(job, &metadata))));
                        waiting.push((remote, local));
                    }
                    Err(failure) => console.complain(failure),
                }
                continue;
            }
            let job = job.clone();
            crowd
                .add(async move {
                    match metadata.is_file() {
                        true => download::file(&job, &remote, &metadata, &local).await,
                        false => download::special(&job, &remote, &metadata, &local).await,
                    }
                })
                .await;
        }
    }
    crowd.finish().await;
    while let Some((path, attributes)) = attributes.pop() {
        if let Err(failure) = local::set_directory(&path, attributes) {
            console.complain(failure);
        }
    }
}

/// Makes a local directory, or takes the one that is there; tells which.
///
/// # Errors
/// The system's, or something else has the name.
pub(crate) fn local_directory(path: &Path) -> Result<bool> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match path.is_dir() {
            true => Ok(false),
            false => {
                let text = "cannot replace what is not a directory with a directory";
                Err(Failure::new(Code::NotADirectory, text).about(path.as_os_str().as_bytes()))
            }
        },
        Err(error) => Err(at(path)(error)),
    }
}

/// The name a local path gives its copy; `None` where it has none of its own (`.`, `..`, `/`): then its contents are meant.
#[must_use]
pub(crate) fn local_name(path: &Path) -> Option<Vec<u8>> {
    let typed = path::trimmed(path.as_os_str().as_bytes());
    match typed.rsplit(|&b| b == b'/').next() {
        None | Some(b"" | b"." | b"..") => None,
        Some(name) => Some(name.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_name_of_its_own_means_its_contents() {
        assert_eq!(local_name(Path::new("a/b/")).unwrap(), b"b");
        assert_eq!(local_name(Path::new("b")).unwrap(), b"b");
        for path in [".", "..", "/", "a/.", "a/..", "./"] {
            assert_eq!(local_name(Path::new(path)), None, "{path}");
        }
    }
}
