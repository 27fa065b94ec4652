//! Local files: what they are, and how they appear whole or not at all.

use crate::exit::{Failure, Result};
use dfs_client::{Client, InodeId};
use rustix::fs::{AtFlags, CWD, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid};
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A name nobody uses, for what is not whole yet.
#[must_use]
pub(crate) fn temporary_name(command: &str) -> String {
    format!(".dfs-{command}-{:016x}", dfs_stdx::Rng::system().u64())
}

/// Temporary names on both sides that are not whole yet.
#[derive(Debug, Default)]
pub(crate) struct Unfinished {
    local: Mutex<BTreeSet<PathBuf>>,
    remote: Mutex<BTreeSet<(InodeId, Vec<u8>)>>,
}

impl Unfinished {
    /// A local file is begun.
    pub(crate) fn add_local(&self, path: &Path) {
        self.local
            .lock()
            .expect("no panic while it is held")
            .insert(path.to_owned());
    }

    /// It has its name, or is gone.
    pub(crate) fn remove_local(&self, path: &Path) {
        self.local.lock().expect("no panic while it is held").remove(path);
    }

    /// A file in dfs is begun.
    pub(crate) fn add_remote(&self, parent: InodeId, name: &str) {
        let name = name.as_bytes().to_vec();
        self.remote
            .lock()
            .expect("no panic while it is held")
            .insert((parent, name));
    }

    /// It has its name, or is gone.
    pub(crate) fn remove_remote(&self, parent: InodeId, name: &str) {
        let name = name.as_bytes().to_vec();
        self.remote
            .lock()
            .expect("no panic while it is held")
            .remove(&(parent, name));
    }

    /// Removes all that is not whole. What cannot be removed stays under its temporary name.
    pub(crate) async fn remove_all(&self, client: &Client) {
        let local = std::mem::take(&mut *self.local.lock().expect("no panic while it is held"));
        for path in local {
            let _ = std::fs::remove_file(path);
        }
        let remote = std::mem::take(&mut *self.remote.lock().expect("no panic while it is held"));
        for (parent, name) in remote {
            let _ = client.inodes().unlink(parent, &name, false).await;
        }
    }
}

/// A failure about a local path.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    |error| Failure::from(error).about(path.as_os_str().as_bytes())
}

/// Nanoseconds since 1970 of a local file's access and modification.
#[must_use]
pub(crate) fn times(metadata: &Metadata) -> (i64, i64) {
    let join = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    (
        join(metadata.atime(), metadata.atime_nsec()),
        join(metadata.mtime(), metadata.mtime_nsec()),
    )
}

/// Attributes to give to a local copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// Permission bits.
    pub(crate) mode: u32,
    /// Access and modification, if they are kept.
    pub(crate) times: Option<(i64, i64)>,
    /// User and group, if they are kept.
    pub(crate) owner: Option<(u32, u32)>,
}

/// A local file under its temporary name.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Open for writing.
    pub(crate) file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Begins a file that will be called `path`; only its owner can read it until it is whole.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create(path: &Path, unfinished: &Unfinished) -> Result<Draft> {
        let temporary = path.with_file_name(temporary_name("get"));
        unfinished.add_local(&temporary);
        let flags = rustix::fs::OFlags::CREATE
            | rustix::fs::OFlags::EXCL
            | rustix::fs::OFlags::WRONLY
            | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR);
        match opened {
            Ok(file) => Ok(Draft {
                file: file.into(),
                temporary,
                path: path.to_owned(),
            }),
            Err(error) => {
                unfinished.remove_local(&temporary);
                Err(at(path)(error.into()))
            }
        }
    }

    /// Gives it its attributes and its name, on stable storage.
    ///
    /// # Errors
    /// The system's; then nothing is left of it.
    pub(crate) fn finish(
        self,
        attributes: Attributes,
        no_clobber: bool,
        unfinished: &Unfinished,
    ) -> Result<()> {
        let done = self.seal(attributes, no_clobber);
        if done.is_err() {
            // It may be gone already: only the name matters.
            let _ = std::fs::remove_file(&self.temporary);
        }
        unfinished.remove_local(&self.temporary);
        done.map_err(at(&self.path))
    }

    fn seal(&self, attributes: Attributes, no_clobber: bool) -> io::Result<()> {
        if let Some((uid, gid)) = attributes.owner {
            rustix::fs::fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        self.file
            .set_permissions(std::fs::Permissions::from_mode(attributes.mode))?;
        if let Some(times) = attributes.times {
            rustix::fs::futimens(&self.file, &timestamps(times))?;
        }
        self.file.sync_data()?;
        let flags = if no_clobber {
            RenameFlags::NOREPLACE
        } else {
            RenameFlags::empty()
        };
        rustix::fs::renameat_with(CWD, &self.temporary, CWD, &self.path, flags)?;
        Ok(())
    }

    /// Gives it up.
    pub(crate) fn abandon(self, unfinished: &Unfinished) {
        // What cannot be removed stays under its temporary name.
        let _ = std::fs::remove_file(&self.temporary);
        unfinished.remove_local(&self.temporary);
    }
}

/// Makes a local symlink or special file, in place of what has the name unless that is a directory.
///
/// # Errors
/// The system's.
pub(crate) fn make_special(
    path: &Path,
    what: &Special,
    attributes: Attributes,
    no_clobber: bool,
) -> Result<()> {
    let temporary = path.with_file_name(temporary_name("get"));
    let made = match what {
        Special::Symlink(target) => rustix::fs::symlinkat(target.as_slice(), CWD, &temporary),
        Special::Node(kind, rdev) => rustix::fs::mknodat(
            CWD,
            &temporary,
            *kind,
            Mode::from_raw_mode(attributes.mode),
            *rdev,
        ),
    };
    made.map_err(|error| at(path)(error.into()))?;
    let flags = if no_clobber {
        RenameFlags::NOREPLACE
    } else {
        RenameFlags::empty()
    };
    let finish = || -> io::Result<()> {
        if let Some((uid, gid)) = attributes.owner {
            rustix::fs::chownat(
                CWD,
                &temporary,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        if matches!(what, Special::Node(..)) {
            rustix::fs::chmodat(
                CWD,
                &temporary,
                Mode::from_raw_mode(attributes.mode),
                AtFlags::empty(),
            )?;
        }
        if let Some(times) = attributes.times {
            rustix::fs::utimensat(CWD, &temporary, &timestamps(times), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        rustix::fs::renameat_with(CWD, &temporary, CWD, path, flags)?;
        Ok(())
    };
    finish().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        at(path)(error)
    })
}

/// What is neither a regular file nor a directory.
#[derive(Clone, Debug)]
pub(crate) enum Special {
    /// With its target.
    Symlink(Vec<u8>),
    /// A fifo, socket or device with its number.
    Node(rustix::fs::FileType, u64),
}

/// Gives a local directory its attributes.
///
/// # Errors
/// The system's.
pub(crate) fn set_directory(path: &Path, attributes: Attributes) -> Result<()> {
    let set = || -> io::Result<()> {
        if let Some((uid, gid)) = attributes.owner {
            rustix::fs::chownat(
                CWD,
                path,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::empty(),
            )?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(attributes.mode))?;
        if let Some(times) = attributes.times {
            rustix::fs::utimensat(CWD, path, &timestamps(times), AtFlags::empty())?;
        }
        Ok(())
    };
    set().map_err(at(path))
}

fn timestamps((atime, mtime): (i64, i64)) -> Timestamps {
    let of = |ns: i64| Timespec {
        tv_sec: ns.div_euclid(1_000_000_000),
        tv_nsec: ns.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: of(atime),
        last_modification: of(mtime),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const PLAIN: Attributes = Attributes {
        mode: 0o640,
        times: Some((1_000_000_001, 2_000_000_003)),
        owner: None,
    };

    #[test]
    fn a_draft_has_no_name_until_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let unfinished = Unfinished::default();
        let mut draft = Draft::create(&path, &unfinished).unwrap();
        draft.file.write_all(b"whole").unwrap();
        assert!(!path.exists());
        draft.finish(PLAIN, false, &unfinished).unwrap();
        // Before the content is read, which is an access.
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(
            (metadata.mode() & 0o7777, times(&metadata)),
            (0o640, (1_000_000_001, 2_000_000_003))
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_refused_name_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let unfinished = Unfinished::default();
        let draft = Draft::create(&path, &unfinished).unwrap();
        let failure = draft.finish(PLAIN, true, &unfinished).unwrap_err();
        assert_eq!(failure.code, dfs_client::Code::AlreadyExists);
        Draft::create(&path, &unfinished).unwrap().abandon(&unfinished);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_symlink_replaces_a_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "old").unwrap();
        make_special(&path, &Special::Symlink(b"else\xff".to_vec()), PLAIN, false).unwrap();
        assert_eq!(
            std::fs::read_link(&path).unwrap().as_os_str().as_bytes(),
            b"else\xff"
        );
        assert!(make_special(&path, &Special::Symlink(b"b".to_vec()), PLAIN, true).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
