//! The reference: a file system in memory that is too simple to be wrong, and random operations to compare it with.

use dfs_proto::Code;
use dfs_stdx::Rng;
use std::collections::BTreeMap;

/// Longest file the operations make, bytes: several of the small chunks that tests use.
pub const FILE_BYTES_MAX: u64 = 300_000;

/// One operation, with everything that is random about it.
#[expect(
    missing_docs,
    reason = "the fields are the arguments of the calls the variants are named after"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Create a file; it must not exist.
    Create(String),
    /// Write bytes made from `seed` at `offset`; the file must exist.
    Write {
        path: String,
        offset: u64,
        length: u64,
        seed: u64,
        sync: bool,
    },
    /// Write at the end.
    Append { path: String, length: u64, seed: u64 },
    /// Read a range.
    Read { path: String, offset: u64, length: u64 },
    /// Set the size.
    Truncate { path: String, size: u64 },
    /// Rename, replacing.
    Rename { from: String, to: String },
    /// Remove a file or symlink.
    Remove(String),
    /// Make a directory.
    Mkdir(String),
    /// Remove an empty directory.
    RemoveDir(String),
    /// A second name.
    Link { existing: String, path: String },
    /// A symlink.
    Symlink { target: String, path: String },
    /// Permission bits.
    Chmod { path: String, mode: u32 },
    /// Names in a directory.
    List(String),
    /// Kind, size, links, mode.
    Stat(String),
}

/// What an operation answers, in a form both sides can give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Bytes read.
    Bytes(Vec<u8>),
    /// Names, in byte order.
    Names(Vec<String>),
    /// (kind letter, size, nlink, mode) of what the path names itself; size of a directory is 0.
    Stat(char, u64, u32, u32),
    /// Refused.
    Refused(Code),
}

/// Bytes that a seed stands for.
#[must_use]
pub fn bytes_of(seed: u64, length: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; usize::try_from(length).expect("small")];
    rng.fill(&mut bytes);
    bytes
}

#[derive(Clone, Debug)]
enum Body {
    File(Vec<u8>),
    Directory(BTreeMap<String, u64>),
    Symlink(String),
}

#[derive(Clone, Debug)]
struct Inode {
    body: Body,
    mode: u32,
    links: u32,
}

/// The file system in memory. Every call is made as root.
#[derive(Clone, Debug)]
pub struct Reference {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
}

const ROOT: u64 = 1;

impl Default for Reference {
    fn default() -> Self {
        let root = Inode {
            body: Body::Directory(BTreeMap::new()),
            mode: 0o1777,
            links: 2,
        };
        Reference {
            inodes: BTreeMap::from([(ROOT, root)]),
            next: 2,
        }
    }
}

type Result<T> = std::result::Result<T, Code>;

impl Reference {
    /// Carries the operation out.
    pub fn apply(&mut self, operation: &Operation) -> Outcome {
        let result = match operation {
            Operation::Create(path) => self.make(path, Body::File(Vec::new()), 0o644),
            Operation::Mkdir(path) => self.make(path, Body::Directory(BTreeMap::new()), 0o755),
            Operation::Symlink { target, path } => self.make(path, Body::Symlink(target.clone()), 0o777),
            Operation::Write {
                path,
                offset,
                length,
                seed,
                ..
            } => self.write(path, Some(*offset), &bytes_of(*seed, *length)),
            Operation::Append { path, length, seed } => self.write(path, None, &bytes_of(*seed, *length)),
            Operation::Read { path, offset, length } => self.read(path, *offset, *length),
            Operation::Truncate { path, size } => self.truncate(path, *size),
            Operation::Rename { from, to } => self.rename(from, to),
            Operation::Remove(path) => self.remove(path),
            Operation::RemoveDir(path) => self.remove_dir(path),
            Operation::Link { existing, path } => self.link(existing, path),
            Operation::Chmod { path, mode } => self.file_or_dir(path).map(|i| {
                self.inode_mut(i).mode = *mode;
                Outcome::Done
            }),
            Operation::List(path) => self.list(path),
            Operation::Stat(path) => self.stat(path),
        };
        result.unwrap_or_else(Outcome::Refused)
    }

    fn inode(&self, id: u64) -> &Inode {
        &self.inodes[&id]
    }

    fn inode_mut(&mut self, id: u64) -> &mut Inode {
        self.inodes.get_mut(&id).expect("a name leads to it")
    }

    fn entries(&self, id: u64) -> Result<&BTreeMap<String, u64>> {
        match &self.inode(id).body {
            Body::Directory(entries) => Ok(entries),
            Body::File(_) | Body::Symlink(_) => Err(Code::NotADirectory),
        }
    }

    fn entries_mut(&mut self, id: u64) -> &mut BTreeMap<String, u64> {
        match &mut self.inode_mut(id).body {
            Body::Directory(entries) => entries,
            Body::File(_) | Body::Symlink(_) => unreachable!("looked up as a directory before"),
        }
    }

    /// The folder and last name of a path. Symlinks are never on the way: they are leaves that point to files.
    fn parent<'p>(&self, path: &'p str) -> Result<(u64, &'p str)> {
        let (folder, name) = path.rsplit_once('/').expect("absolute");
        let mut at = ROOT;
        for part in folder.split('/').filter(|p| !p.is_empty()) {
            at = *self.entries(at)?.get(part).ok_or(Code::NotFound)?;
            if let Body::Symlink(target) = &self.inode(at).body {
                at = self.lookup(&target.clone())?;
            }
        }
        self.entries(at)?;
        Ok((at, name))
    }

    fn lookup(&self, path: &str) -> Result<u64> {
        if path == "/" {
            return Ok(ROOT);
        }
        let (parent, name) = self.parent(path)?;
        self.entries(parent)?.get(name).copied().ok_or(Code::NotFound)
    }

    fn followed(&self, path: &str) -> Result<u64> {
        let id = self.lookup(path)?;
        match &self.inode(id).body {
            Body::Symlink(target) => self.lookup(&target.clone()),
            Body::File(_) | Body::Directory(_) => Ok(id),
        }
    }

    fn file_or_dir(&self, path: &str) -> Result<u64> {
        self.followed(path)
    }

    fn file(&mut self, path: &str) -> Result<&mut Vec<u8>> {
        let id = self.followed(path)?;
        match &mut self.inode_mut(id).body {
            Body::File(bytes) => Ok(bytes),
            Body::Directory(_) => Err(Code::IsADirectory),
            Body::Symlink(_) => Err(Code::TooManyLinks),
        }
    }

    fn make(&mut self, path: &str, body: Body, mode: u32) -> Result<Outcome> {
        let (parent, name) = self.parent(path)?;
        if self.entries(parent)?.contains_key(name) {
            return Err(Code::AlreadyExists);
        }
        let directory = matches!(body, Body::Directory(_));
        let id = self.next;
        self.next += 1;
        self.inodes.insert(
            id,
            Inode {
                body,
                mode,
                links: if directory { 2 } else { 1 },
            },
        );
        self.entries_mut(parent).insert(name.to_owned(), id);
        self.inode_mut(parent).links += u32::from(directory);
        Ok(Outcome::Done)
    }

    fn write(&mut self, path: &str, offset: Option<u64>, bytes: &[u8]) -> Result<Outcome> {
        let file = self.file(path)?;
        let at = offset.map_or(file.len(), |o| usize::try_from(o).expect("small"));
        if file.len() < at + bytes.len() && !bytes.is_empty() {
            file.resize(at + bytes.len(), 0);
        }
        if !bytes.is_empty() {
            file[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Ok(Outcome::Done)
    }

    fn read(&mut self, path: &str, offset: u64, length: u64) -> Result<Outcome> {
        let file = self.file(path)?;
        let from = usize::try_from(offset).expect("small").min(file.len());
        let to = (from + usize::try_from(length).expect("small")).min(file.len());
        Ok(Outcome::Bytes(file[from..to].to_vec()))
    }

    fn truncate(&mut self, path: &str, size: u64) -> Result<Outcome> {
        self.file(path)?.resize(usize::try_from(size).expect("small"), 0);
        Ok(Outcome::Done)
    }

    fn drop_link(&mut self, id: u64) {
        let inode = self.inode_mut(id);
        inode.links -= 1;
        if inode.links == 0 {
            self.inodes.remove(&id);
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<Outcome> {
        let (old_parent, old_name) = self.parent(from)?;
        let id = *self.entries(old_parent)?.get(old_name).ok_or(Code::NotFound)?;
        let (new_parent, new_name) = self.parent(to)?;
        let directory = matches!(self.inode(id).body, Body::Directory(_));
        if directory && format!("{to}/").starts_with(&format!("{from}/")) && from != to {
            return Err(Code::InvalidArgument);
        }
        let replaced = self.entries(new_parent)?.get(new_name).copied();
        if replaced == Some(id) {
            return Ok(Outcome::Done);
        }
        if let Some(other) = replaced {
            match (&self.inode(other).body, directory) {
                // The target is a directory above the source: not empty, whatever the source is.
                (Body::Directory(entries), true) if !entries.is_empty() => return Err(Code::NotEmpty),
                (Body::Directory(_), false) => return Err(Code::IsADirectory),
                (Body::File(_) | Body::Symlink(_), true) => return Err(Code::NotADirectory),
                (Body::Directory(_), true) => {
                    self.inodes.remove(&other);
                    self.inode_mut(new_parent).links -= 1;
                }
                (Body::File(_) | Body::Symlink(_), false) => self.drop_link(other),
            }
        }
        self.entries_mut(old_parent).remove(old_name);
        self.entries_mut(new_parent).insert(new_name.to_owned(), id);
        if directory {
            self.inode_mut(old_parent).links -= 1;
            self.inode_mut(new_parent).links += 1;
        }
        Ok(Outcome::Done)
    }

    fn remove(&mut self, path: &str) -> Result<Outcome> {
        let (parent, name) = self.parent(path)?;
        let id = *self.entries(parent)?.get(name).ok_or(Code::NotFound)?;
        if matches!(self.inode(id).body, Body::Directory(_)) {
            return Err(Code::IsADirectory);
        }
        self.entries_mut(parent).remove(name);
        self.drop_link(id);
        Ok(Outcome::Done)
    }

    fn remove_dir(&mut self, path: &str) -> Result<Outcome> {
        let (parent, name) = self.parent(path)?;
        let id = *self.entries(parent)?.get(name).ok_or(Code::NotFound)?;
        if !self.entries(id)?.is_empty() {
            return Err(Code::NotEmpty);
        }
        self.entries_mut(parent).remove(name);
        self.inode_mut(parent).links -= 1;
        self.inodes.remove(&id);
        Ok(Outcome::Done)
    }

    fn link(&mut self, existing: &str, path: &str) -> Result<Outcome> {
        let id = self.lookup(existing)?;
        let (parent, name) = self.parent(path)?;
        if self.entries(parent)?.contains_key(name) {
            return Err(Code::AlreadyExists);
        }
        if matches!(self.inode(id).body, Body::Directory(_)) {
            return Err(Code::NotPermitted);
        }
        self.inode_mut(id).links += 1;
        self.entries_mut(parent).insert(name.to_owned(), id);
        Ok(Outcome::Done)
    }

    fn list(&self, path: &str) -> Result<Outcome> {
        let id = self.followed(path)?;
        Ok(Outcome::Names(self.entries(id)?.keys().cloned().collect()))
    }

    fn stat(&self, path: &str) -> Result<Outcome> {
        let inode = self.inode(self.lookup(path)?);
        let (kind, size) = match &inode.body {
            Body::File(bytes) => ('f', bytes.len() as u64),
            Body::Directory(_) => ('d', 0),
            Body::Symlink(target) => ('l', target.len() as u64),
        };
        Ok(Outcome::Stat(kind, size, inode.links, inode.mode))
    }

    /// Every path with what it names, for a full comparison.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut all = vec!["/".to_owned()];
        let mut next = 0;
        while next < all.len() {
            let path = all[next].clone();
            next += 1;
            let id = self.lookup(&path).expect("listed");
            if let Body::Directory(entries) = &self.inode(id).body {
                let prefix = path.trim_end_matches('/');
                all.extend(entries.keys().map(|name| format!("{prefix}/{name}")));
            }
        }
        all
    }
}

/// A random operation on a handful of names, so that they meet.
#[must_use]
pub fn random_operation(rng: &Rng) -> Operation {
    let path = || {
        let folder = ["", "", "/a", "/b", "/a/c"][usize::try_from(rng.below(5)).expect("small")];
        format!("{folder}/f{}", rng.below(4))
    };
    let folder = || ["/a", "/b", "/a/c", "/f0"][usize::try_from(rng.below(4)).expect("small")].to_owned();
    let offset = || rng.below(FILE_BYTES_MAX * 2 / 3);
    let length = || {
        if rng.below(3) == 0 {
            rng.below(100)
        } else {
            rng.below(FILE_BYTES_MAX / 3)
        }
    };
    match rng.below(100) {
        0..=13 => Operation::Create(path()),
        14..=35 => Operation::Write {
            path: path(),
            offset: offset(),
            length: length(),
            seed: rng.u64(),
            sync: rng.below(3) == 0,
        },
        36..=42 => Operation::Append {
            path: path(),
            length: length() / 4,
            seed: rng.u64(),
        },
        43..=57 => Operation::Read {
            path: path(),
            offset: offset(),
            length: length(),
        },
        58..=64 => Operation::Truncate {
            path: path(),
            size: offset(),
        },
        65..=72 => Operation::Rename {
            from: path(),
            to: path(),
        },
        73..=74 => Operation::Rename {
            from: folder(),
            to: folder(),
        },
        75..=79 => Operation::Remove(path()),
        80..=84 => Operation::Mkdir(folder()),
        85..=86 => Operation::RemoveDir(folder()),
        87..=89 => Operation::Link {
            existing: path(),
            path: path(),
        },
        90..=91 => Operation::Symlink {
            target: path(),
            path: format!("/s{}", rng.below(2)),
        },
        92..=93 => Operation::Chmod {
            path: path(),
            mode: u32::try_from(rng.below(0o777)).expect("small"),
        },
        94..=96 => Operation::List(folder()),
        _ => Operation::Stat(path()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_keeps_what_it_is_told() {
        let mut fs = Reference::default();
        let done = |fs: &mut Reference, op| assert_eq!(fs.apply(&op), Outcome::Done);
        done(&mut fs, Operation::Mkdir("/a".into()));
        done(&mut fs, Operation::Create("/a/f".into()));
        done(
            &mut fs,
            Operation::Write {
                path: "/a/f".into(),
                offset: 3,
                length: 2,
                seed: 1,
                sync: false,
            },
        );
        let read = fs.apply(&Operation::Read {
            path: "/a/f".into(),
            offset: 0,
            length: 9,
        });
        assert_eq!(read, Outcome::Bytes([vec![0; 3], bytes_of(1, 2)].concat()));
        assert_eq!(
            fs.apply(&Operation::RemoveDir("/a".into())),
            Outcome::Refused(Code::NotEmpty)
        );
        done(
            &mut fs,
            Operation::Rename {
                from: "/a/f".into(),
                to: "/g".into(),
            },
        );
        assert_eq!(fs.paths(), ["/", "/a", "/g"]);
        assert_eq!(
            fs.apply(&Operation::Stat("/".into())),
            Outcome::Stat('d', 0, 3, 0o1777)
        );
    }
}
