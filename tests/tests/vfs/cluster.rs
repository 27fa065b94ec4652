//! A cluster in this process, and mounts of it without a kernel.

use dfs_chunkserver::Chunkserver;
use dfs_client::{Client, Code, Kind, Make, Metadata, Settings};
use dfs_fuse::vfs::{Caller, Create, Entry, Found, Opened, Options, Set, Vfs, Write};
use dfs_master::{Master, View};
use dfs_proto::World;
use dfs_proto::limits::Parameters;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// Long enough for anything here.
pub const BOUND: Duration = Duration::from_secs(20);
/// The superuser.
pub const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};
/// The root directory.
pub const TOP: u64 = 1;
/// O_RDWR.
pub const RDWR: i32 = 2;

/// A master and three chunkservers.
pub struct Cluster {
    folder: TempDir,
    master: Option<Master>,
    addr: String,
    servers: Vec<Chunkserver>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let master = start_master(&folder, "127.0.0.1:0").await;
        let addr = master.addr().to_owned();
        let mut cluster = Cluster {
            folder,
            master: Some(master),
            addr,
            servers: Vec::new(),
        };
        for number in 0..3 {
            let server = cluster.server(number).await;
            cluster.servers.push(server);
        }
        let client = cluster.client(false).await;
        while client.status().await.unwrap().alive < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster
    }

    async fn server(&self, number: usize) -> Chunkserver {
        let dir = self.folder.path().join(format!("server{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        let config = dfs_chunkserver::Config {
            listen: "127.0.0.1:0".into(),
            masters: vec![self.addr.clone()],
            data_dirs: vec![dir],
            host: format!("host{number}"),
            ..dfs_chunkserver::Config::default()
        };
        Chunkserver::start(config, World::real("server", 2))
            .await
            .unwrap()
    }

    pub async fn client(&self, mount: bool) -> Client {
        let settings = Settings {
            mount,
            ..Settings::new(&self.addr).unwrap()
        };
        Client::connect_settings(settings).await.unwrap()
    }

    /// A mount whose change stream stands.
    pub async fn mount(&self) -> Mount {
        let vfs = Vfs::start(self.client(true).await, Options::default())
            .await
            .unwrap();
        timeout(BOUND, vfs.watching())
            .await
            .expect("the change stream stands in time");
        Mount { vfs }
    }

    pub async fn stop_master(&mut self) {
        if let Some(master) = self.master.take() {
            master.stop().await;
        }
    }

    pub async fn restart_master(&mut self) {
        self.stop_master().await;
        self.master = Some(start_master(&self.folder, &self.addr).await);
    }
}

async fn start_master(folder: &TempDir, listen: &str) -> Master {
    let data_dir = folder.path().join("master");
    std::fs::create_dir_all(&data_dir).unwrap();
    let config = dfs_master::Config {
        listen: listen.into(),
        advertise: None,
        data_dir,
        parameters: Parameters {
            chunk_bytes: 1 << 20,
            goal: 3,
            time_divisor: 10,
        },
        view: View::Memory,
        checkpoint_every: 10_000,
        repair_after: None,
    };
    Master::start(config, World::real("master", 2)).await.unwrap()
}

/// A mount, with short words for what tests do all the time.
#[derive(Clone)]
pub struct Mount {
    pub vfs: Arc<Vfs>,
}

impl Mount {
    pub async fn find(&self, parent: u64, name: &str) -> Option<Metadata> {
        match self.vfs.lookup(ROOT, parent, name.as_bytes()).await.unwrap() {
            Found::Entry(entry) => Some(entry.metadata),
            Found::Nothing(_) => None,
        }
    }

    pub async fn inode(&self, parent: u64, name: &str) -> u64 {
        self.find(parent, name).await.expect("it is there").inode.0
    }

    pub async fn mkdir(&self, parent: u64, name: &str) -> u64 {
        self.make(parent, name, Kind::Directory)
            .await
            .unwrap()
            .metadata
            .inode
            .0
    }

    pub async fn make(&self, parent: u64, name: &str, kind: Kind) -> Result<Entry, Code> {
        let target = if kind == Kind::Symlink {
            b"target".to_vec()
        } else {
            Vec::new()
        };
        let make = Make {
            kind,
            mode: 0o755,
            rdev: 0,
            target,
        };
        self.vfs
            .make(ROOT, parent, name.as_bytes(), make)
            .await
            .map_err(|e| e.code)
    }

    pub async fn create(&self, parent: u64, name: &str) -> (Metadata, Opened) {
        let how = Create {
            mode: 0o644,
            flags: RDWR,
        };
        let (entry, opened) = self.vfs.create(ROOT, parent, name.as_bytes(), how).await.unwrap();
        (entry.metadata, opened)
    }

    /// Makes a file with these bytes and closes it; returns its inode.
    pub async fn put(&self, parent: u64, name: &str, bytes: &[u8]) -> u64 {
        let (metadata, opened) = self.create(parent, name).await;
        let inode = metadata.inode.0;
        if !bytes.is_empty() {
            self.write(inode, opened.handle, 0, bytes).await;
        }
        self.close(inode, opened.handle).await;
        inode
    }

    pub async fn write(&self, inode: u64, handle: u64, offset: u64, bytes: &[u8]) {
        let write = Write {
            offset,
            data: bytes.to_vec().into(),
            kill_privileges: false,
        };
        assert_eq!(
            self.vfs.write(ROOT, inode, handle, write).await.unwrap(),
            bytes.len()
        );
    }

    pub async fn read(&self, inode: u64, handle: u64, offset: u64, length: usize) -> Vec<u8> {
        self.vfs
            .read(
                dfs_fuse::vfs::At {
                    inode,
                    handle,
                    offset,
                },
                length,
            )
            .await
            .unwrap()
            .concat()
    }

    pub async fn close(&self, inode: u64, handle: u64) {
        self.vfs.flush(inode, handle, 1).await.unwrap();
        self.vfs.release(inode, handle).await.unwrap();
    }

    /// All bytes of a file, opened and closed for that.
    pub async fn get(&self, inode: u64) -> Vec<u8> {
        let opened = self.vfs.open(ROOT, inode, 0).await.unwrap();
        let bytes = self.read(inode, opened.handle, 0, 1 << 20).await;
        self.close(inode, opened.handle).await;
        bytes
    }

    pub async fn stat(&self, inode: u64) -> Metadata {
        self.vfs.getattr(ROOT, inode, None).await.unwrap().metadata
    }

    pub async fn set(&self, inode: u64, set: Set) -> Metadata {
        self.vfs.setattr(ROOT, inode, None, set).await.unwrap().metadata
    }

    pub async fn unlink(&self, parent: u64, name: &str) {
        self.vfs.unlink(ROOT, parent, name.as_bytes()).await.unwrap();
    }

    /// All names of a directory but the dots, sorted.
    pub async fn list(&self, directory: u64) -> Vec<String> {
        let opened = self.vfs.opendir(ROOT, directory).await.unwrap();
        let mut names = self.list_from(opened.handle, 0, usize::MAX, true).await;
        self.vfs.releasedir(opened.handle);
        names.retain(|(name, _)| name != "." && name != "..");
        let mut names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// Names from a place on, each with the place after it, at most so many a call until there are no more.
    pub async fn list_from(&self, handle: u64, from: u64, step: usize, plus: bool) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        let mut place = from;
        loop {
            let before = all.len();
            let mut take = |line: &dfs_fuse::vfs::DirEntry<'_>| {
                if all.len() - before == step {
                    return true;
                }
                all.push((String::from_utf8(line.name.to_vec()).unwrap(), line.next));
                false
            };
            self.vfs.readdir(handle, place, plus, &mut take).await.unwrap();
            match all.last() {
                Some((_, next)) if all.len() > before => place = *next,
                _ => return all,
            }
        }
    }
}
