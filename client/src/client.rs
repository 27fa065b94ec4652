//! The client: paths in, results out. (What an operator asks is in `operate.rs`.)

use crate::convert::{self, Resolved};
use crate::engine::Core;
use crate::file::Gift;
use crate::inodes::{Inodes, Make};
use crate::master::Master;
use crate::meter::Meter;
use crate::plan::Here;
use crate::servers::Servers;
use crate::settings::{OpenOptions, Settings};
use crate::stream::File;
use crate::types::{Caller, DirEntry, DirPage, Kind, Metadata, RenameMode, SetAttributes, Stats, XattrMode};
use dfs_proto::name::Name;
use dfs_proto::net::{Dial, Tcp};
use dfs_proto::{Code, Error, InodeId, Result};
use dfs_stdx::{Clock, Rng};
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use std::sync::Arc;

/// Entries asked for at once.
const PAGE_ENTRIES: u32 = 1_024;

/// A connection to a cluster; clones share it. Paths are absolute, any bytes but NUL.
///
/// All calls end within the deadline of [`Settings`], with a result or a typed [`Error`]. Changes happen exactly once,
/// whatever is retried. Symlinks on the way are followed by the master.
///
/// ```no_run
/// # async fn run() -> dfs_client::Result<()> {
/// let client = dfs_client::Client::connect("127.0.0.1:7700").await?;
/// client.mkdir_all("/logs/today").await?;
/// for entry in client.list("/logs").await? {
///     assert!(entry.metadata.is_dir());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inodes: Inodes,
}

/// An entry's place: the directory and the name in it.
type Place = (InodeId, Vec<u8>);

/// The part of a path before its last name, and that name; slashes at the end do not count.
fn split(path: &[u8]) -> Result<(&[u8], Vec<u8>)> {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
    let start = path[..end]
        .iter()
        .rposition(|b| *b == b'/')
        .map_or(0, |slash| slash + 1);
    Ok((&path[..start], Name::new(&path[start..end])?.into_bytes()))
}

fn absolute(path: &[u8]) -> Result<&[u8]> {
    if path.first() == Some(&b'/') {
        return Ok(path);
    }
    Err(Error::new(
        Code::InvalidArgument,
        format!("{:?}: paths are absolute", String::from_utf8_lossy(path)),
    ))
}

#[expect(clippy::missing_errors_doc, reason = "the same for all: see the type")]
impl Client {
    /// Connects to "host:port[,host:port]" with the default [`Settings`], as root.
    pub async fn connect(masters: &str) -> Result<Client> {
        Client::connect_settings(Settings::new(masters)?).await
    }

    /// Connects over the machine's network with these settings.
    pub async fn connect_settings(settings: Settings) -> Result<Client> {
        Client::connect_with(settings, Arc::new(Tcp), Clock::system(), Rng::system()).await
    }

    /// Connects through given seams.
    pub async fn connect_with(
        settings: Settings,
        dial: Arc<dyn Dial>,
        clock: Clock,
        rng: Rng,
    ) -> Result<Client> {
        let master = Master::connect(&settings, dial.clone(), clock.clone(), rng.clone()).await?;
        let core = Arc::new(Core {
            master,
            servers: Servers::new(dial),
            here: Here {
                host: settings.host.clone(),
                rack: settings.rack.clone(),
            },
            clock,
            rng,
            meter: Arc::new(Meter::default()),
            experience: Default::default(),
            settings,
        });
        let caller = core.settings.caller.clone();
        Ok(Client {
            inodes: Inodes { core, caller },
        })
    }

    /// The same connection in another user's name.
    #[must_use]
    pub fn acting_as(&self, caller: Caller) -> Client {
        Client {
            inodes: self.inodes.acting_as(caller),
        }
    }

    /// The same file system by inode instead of path.
    #[must_use]
    pub fn inodes(&self) -> &Inodes {
        &self.inodes
    }

    /// Ends the session at once instead of by its lease.
    pub async fn disconnect(self) -> Result<()> {
        self.inodes.core.master.disconnect().await
    }

    /// What failures have cost so far, over all files of this connection.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inodes.core.meter.stats()
    }

    async fn resolve(&self, path: &[u8], follow: bool, locate: bool) -> Result<Resolved> {
        self.resolve_for(path, follow, locate, 0).await
    }

    /// Refused if the caller may not do `access`, bits as of access(2), with what is there.
    async fn resolve_for(&self, path: &[u8], follow: bool, locate: bool, access: u32) -> Result<Resolved> {
        convert::resolved(
            self.inodes
                .query(convert::resolve(absolute(path)?, follow, locate, access))
                .await?,
        )
    }

    pub(crate) async fn inode(&self, path: &[u8], follow: bool) -> Result<InodeId> {
        Ok(self.resolve(path, follow, false).await?.metadata.inode)
    }

    pub(crate) async fn place(&self, path: &[u8]) -> Result<Place> {
        let (parent, name) = split(absolute(path)?)?;
        if parent.iter().all(|b| *b == b'/') {
            return Ok((InodeId::ROOT, name));
        }
        Ok((self.inode(parent, true).await?, name))
    }

    /// Creates (or cuts to nothing) a file for writing, mode 0644.
    pub async fn create(&self, path: impl AsRef<[u8]>) -> Result<File> {
        self.open_with(path, OpenOptions::new().write(true).create(true).truncate(true))
            .await
    }

    /// Opens a file for reading.
    pub async fn open(&self, path: impl AsRef<[u8]>) -> Result<File> {
        self.open_with(path, OpenOptions::new().read(true)).await
    }

    /// Opens a file so that every write goes to its end; creates it if it does not exist.
    pub async fn append(&self, path: impl AsRef<[u8]>) -> Result<File> {
        self.open_with(path, OpenOptions::new().append(true).create(true))
            .await
    }

    /// Opens a file as the options say.
    pub async fn open_with(&self, path: impl AsRef<[u8]>, options: OpenOptions) -> Result<File> {
        let path = path.as_ref();
        options.check()?;
        let append = options.append;
        let handle = if options.create || options.create_new {
            let (parent, name) = self.place(path).await?;
            match self.inodes.create(parent, &name, options.clone()).await {
                Ok((_, handle)) => handle,
                // Something other than a regular file has the name: maybe a symlink to one.
                Err(error) if error.code == Code::AlreadyExists && !options.create_new => {
                    self.open_existing(path, options).await?
                }
                Err(error) => return Err(error),
            }
        } else {
            self.open_existing(path, options).await?
        };
        let append_at = if append { Some(handle.len().await?) } else { None };
        Ok(File::new(handle, append_at))
    }

    async fn open_existing(&self, path: &[u8], options: OpenOptions) -> Result<crate::file::Handle> {
        let locate = options.read && !options.truncate;
        let found = self.resolve_for(path, true, locate, options.access()).await?;
        let gift = Gift {
            located: found.located,
            grant: None,
        };
        self.inodes.open_known(&found.metadata, options, gift).await
    }

    /// Attributes of what the path names, following symlinks.
    pub async fn stat(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        Ok(self.resolve(path.as_ref(), true, false).await?.metadata)
    }

    /// Attributes of what the path names; a symlink in the last place is not followed (lstat).
    pub async fn symlink_stat(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        Ok(self.resolve(path.as_ref(), false, false).await?.metadata)
    }

    /// True if the path names something (symlinks followed).
    pub async fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code, Code::NotFound | Code::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All entries of a directory, in byte order of their names.
    pub async fn list(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        let mut all: Vec<DirEntry> = self.entries(path).try_collect().await?;
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Entries of a directory as they come, page by page, in the directory's own stable order.
    #[must_use]
    pub fn entries(&self, path: impl AsRef<[u8]>) -> BoxStream<'static, Result<DirEntry>> {
        let (client, path) = (self.clone(), path.as_ref().to_vec());
        let directory = async move {
            let inode = client.inode(&path, true).await?;
            Ok::<_, Error>(
                client
                    .inodes
                    .pages(inode)
                    .map_ok(|page| futures::stream::iter(page.entries.into_iter().map(Ok))),
            )
        };
        futures::stream::once(directory)
            .try_flatten()
            .try_flatten()
            .boxed()
    }

    /// Renames; `from` and `to` are whole paths.
    pub async fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        self.rename_with(from, to, RenameMode::Replace).await
    }

    /// Renames as the mode says.
    pub async fn rename_with(
        &self,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
        mode: RenameMode,
    ) -> Result<()> {
        let ((from_parent, from_name), (to_parent, to_name)) =
            futures::try_join!(self.place(from.as_ref()), self.place(to.as_ref()))?;
        self.inodes
            .rename((from_parent, &from_name), (to_parent, &to_name), mode, false)
            .await
            .map(drop)
    }

    /// Removes a name that is not a directory.
    pub async fn remove(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.place(path.as_ref()).await?;
        self.inodes.unlink(parent, &name, false).await.map(drop)
    }

    /// Removes an empty directory.
    pub async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (parent, name) = self.place(path.as_ref()).await?;
        self.inodes.remove_dir(parent, &name).await.map(drop)
    }

    /// Makes a directory, mode 0755.
    pub async fn mkdir(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        self.mkdir_with(path, 0o755).await
    }

    /// Makes a directory with these permission bits.
    pub async fn mkdir_with(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<Metadata> {
        self.make(
            path.as_ref(),
            Make {
                kind: Kind::Directory,
                mode,
                rdev: 0,
                target: Vec::new(),
            },
        )
        .await
    }

    async fn make(&self, path: &[u8], make: Make) -> Result<Metadata> {
        if absolute(path)?.iter().all(|b| *b == b'/') {
            return Err(Code::AlreadyExists.into());
        }
        let (parent, name) = self.place(path).await?;
        Ok(self.inodes.make(parent, &name, make).await?.metadata)
    }

    /// Makes a directory and those above it that are missing; one that exists is fine.
    pub async fn mkdir_all(&self, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let path = absolute(path.as_ref())?;
        let mut missing = Vec::new();
        let mut base = path;
        // Up to the first one that exists ...
        let mut found = loop {
            match self.stat(base).await {
                Ok(found) => break found,
                Err(error) if error.code == Code::NotFound => {
                    let (parent, name) = split(base)?;
                    missing.push(name);
                    base = parent;
                }
                Err(error) => return Err(error),
            }
        };
        // ... and down again.
        while let Some(name) = missing.pop() {
            let make = Make {
                kind: Kind::Directory,
                mode: 0o755,
                rdev: 0,
                target: Vec::new(),
            };
            found = match self.inodes.make(found.inode, &name, make).await {
                Err(error) if error.code == Code::AlreadyExists => {
                    self.inodes.lookup(found.inode, &name).await?
                }
                other => other?.metadata,
            };
        }
        if found.is_dir() {
            Ok(found)
        } else {
            Err(Code::AlreadyExists.into())
        }
    }

    /// Makes a symlink at `path` that says `target`.
    pub async fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let target = target.as_ref().to_vec();
        self.make(
            path.as_ref(),
            Make {
                kind: Kind::Symlink,
                mode: 0o777,
                rdev: 0,
                target,
            },
        )
        .await
    }

    /// What a symlink says.
    pub async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.inodes
            .read_link(self.inode(path.as_ref(), false).await?)
            .await
    }

    /// Makes another name for a file.
    pub async fn link(&self, existing: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<Metadata> {
        let (inode, (parent, name)) =
            futures::try_join!(self.inode(existing.as_ref(), false), self.place(path.as_ref()))?;
        Ok(self.inodes.link(inode, parent, &name).await?.metadata)
    }

    /// Makes a fifo, socket or device node (or an empty regular file).
    pub async fn mknod(&self, path: impl AsRef<[u8]>, kind: Kind, mode: u32, rdev: u64) -> Result<Metadata> {
        self.make(
            path.as_ref(),
            Make {
                kind,
                mode,
                rdev,
                target: Vec::new(),
            },
        )
        .await
    }

    /// Changes attributes; symlinks are followed.
    pub async fn set_attributes(&self, path: impl AsRef<[u8]>, set: SetAttributes) -> Result<Metadata> {
        self.inodes
            .set_attributes(self.inode(path.as_ref(), true).await?, set)
            .await
    }

    /// Changes attributes of what the path names itself; a symlink in the last place is not followed.
    pub async fn symlink_set_attributes(
        &self,
        path: impl AsRef<[u8]>,
        set: SetAttributes,
    ) -> Result<Metadata> {
        self.inodes
            .set_attributes(self.inode(path.as_ref(), false).await?, set)
            .await
    }

    /// The value of an extended attribute.
    pub async fn get_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.inodes
            .get_xattr(self.inode(path.as_ref(), true).await?, name.as_ref())
            .await
    }

    /// Sets an extended attribute.
    pub async fn set_xattr(
        &self,
        path: impl AsRef<[u8]>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        mode: XattrMode,
    ) -> Result<()> {
        let inode = self.inode(path.as_ref(), true).await?;
        self.inodes
            .set_xattr(inode, name.as_ref(), value.as_ref(), mode)
            .await
            .map(drop)
    }

    /// Names of extended attributes.
    pub async fn list_xattrs(&self, path: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        self.inodes
            .list_xattrs(self.inode(path.as_ref(), true).await?)
            .await
    }

    /// Removes an extended attribute.
    pub async fn remove_xattr(&self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<()> {
        self.inodes
            .remove_xattr(self.inode(path.as_ref(), true).await?, name.as_ref())
            .await
            .map(drop)
    }
}

impl Inodes {
    /// A directory's pages.
    fn pages(&self, directory: InodeId) -> BoxStream<'static, Result<DirPage>> {
        let this = self.clone();
        let step = move |cursor: Option<u64>| {
            let this = this.clone();
            async move {
                let Some(cursor) = cursor else { return Ok(None) };
                let page = this.read_dir(directory, cursor, PAGE_ENTRIES).await?;
                let next = page.entries.last().map(|e| e.cursor).filter(|_| !page.end);
                Ok(Some((page, next)))
            }
        };
        futures::stream::try_unfold(Some(0), step).boxed()
    }
}

#[cfg(test)]
mod tests;
