//! Where a rig works: a cluster in memory with its mounts, or for a yardstick a folder of the local file system.

use crate::tool::Tool;
use anyhow::{Context as _, bail, ensure};
use dfs_tests::process::{Cluster, Node, Options, clean};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::park_timeout;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// Everything that is waited for comes within it.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Of all replicas together.
const MEMORY: &str = "size=12g";

/// What it looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) chunk_size: &'static str,
    pub(crate) mounts: usize,
    /// A tenth of all durations.
    pub(crate) fast: bool,
}

/// A node that was killed and brought back belongs to us.
struct Server {
    node: Node,
    child: Option<Child>,
}

struct Mount {
    at: PathBuf,
    child: Option<Child>,
}

/// A mounted cluster, or its stand-in.
pub(crate) struct Place {
    cluster: Option<Cluster>,
    /// The master, then the chunkservers.
    servers: Vec<Server>,
    mounts: Vec<Mount>,
    folder: TempDir,
}

impl Place {
    /// One mount of three chunkservers with small chunks.
    pub(crate) fn one() -> anyhow::Result<Place> {
        Place::start(Shape {
            chunk_size: "1MiB",
            mounts: 1,
            fast: false,
        })
    }

    /// Two mounts.
    pub(crate) fn two() -> anyhow::Result<Place> {
        Place::start(Shape {
            chunk_size: "256KiB",
            mounts: 2,
            fast: false,
        })
    }

    pub(crate) fn start(shape: Shape) -> anyhow::Result<Place> {
        let folder = tempfile::tempdir()?;
        let mut place = Place {
            cluster: None,
            servers: Vec::new(),
            mounts: Vec::new(),
            folder,
        };
        if let Some(yardstick) = std::env::var_os("DFS_YARDSTICK") {
            let at = PathBuf::from(yardstick).join(format!("rig-{}", fastrand::u32(..)));
            std::fs::create_dir_all(&at)?;
            for _ in 0..shape.mounts {
                place.mounts.push(Mount {
                    at: at.clone(),
                    child: None,
                });
            }
            return Ok(place);
        }
        let data = place.local("cluster")?;
        let options = Options {
            chunkservers: 3,
            chunk_size: shape.chunk_size,
            fast: shape.fast,
        };
        let cluster = Cluster::start_in(binary(), &data, &options)?;
        let nodes = cluster.nodes().cloned();
        place.servers = nodes.map(|node| Server { node, child: None }).collect();
        place.cluster = Some(cluster);
        for n in 0..shape.mounts {
            let at = place.folder.path().join(format!("mount-{n}"));
            std::fs::create_dir(&at)?;
            place.mounts.push(Mount { at, child: None });
            place.mount(n)?;
        }
        Ok(place)
    }

    /// A new folder outside the mounts, in memory.
    pub(crate) fn local(&self, name: &str) -> anyhow::Result<PathBuf> {
        let at = self.folder.path().join(name);
        std::fs::create_dir(&at)?;
        let options = ["-t", "tmpfs", "-o", MEMORY, "tmpfs"];
        Tool::new(10, "mount").args(options).arg(&at).ok()?;
        Ok(at)
    }

    /// True if nothing of ours is under test.
    pub(crate) fn is_yardstick(&self) -> bool {
        self.cluster.is_none()
    }

    /// The root of mount `n`.
    pub(crate) fn at(&self, n: usize) -> &Path {
        &self.mounts[n].at
    }

    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Mounts (again), and waits until it is there.
    pub(crate) fn mount(&mut self, n: usize) -> anyhow::Result<()> {
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        let log = self.folder.path().join(format!("mount-{n}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let mount = &mut self.mounts[n];
        let child = clean(&binary())
            .args(["mount", "--foreground", &cluster.file.master.addr])
            .arg(&mount.at)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        mount.child = Some(child);
        let at = mount.at.clone();
        let mounted = until("a mount is there", BOUND, || is_mounted(&at) || self.has_ended(n));
        mounted.with_context(|| self.words_of_mount(n))?;
        ensure!(
            !self.has_ended(n),
            "the mount has ended:\n{}",
            self.words_of_mount(n)
        );
        Ok(())
    }

    fn has_ended(&mut self, n: usize) -> bool {
        let child = self.mounts[n].child.as_mut();
        child.is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL for the process behind mount `n`, and its ruin is put away.
    pub(crate) fn kill_mount(&mut self, n: usize) -> anyhow::Result<()> {
        let mount = &mut self.mounts[n];
        if let Some(mut child) = mount.child.take() {
            child.kill()?;
            child.wait()?;
            Tool::new(20, "umount").arg("--lazy").arg(&mount.at).ok()?;
        }
        Ok(())
    }

    /// Asks mount `n` to end by a signal; how it ended.
    pub(crate) fn end_mount(&mut self, n: usize, signal: Signal) -> anyhow::Result<Option<ExitStatus>> {
        let Some(mut child) = self.mounts[n].child.take() else {
            return Ok(None);
        };
        kill_process(pid(child.id())?, signal)?;
        let mut status = None;
        until("a mount ends", BOUND, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        })
        .with_context(|| self.words_of_mount(n))?;
        ensure!(!is_mounted(&self.mounts[n].at), "it left its mount behind");
        Ok(status)
    }

    /// The process behind mount `n`.
    pub(crate) fn pid_of_mount(&self, n: usize) -> Option<u32> {
        self.mounts[n].child.as_ref().map(Child::id)
    }

    /// The processes of the master and the chunkservers, as they were started first.
    pub(crate) fn pids_of_nodes(&self) -> Vec<u32> {
        let pid = |server: &Server| server.child.as_ref().map_or(server.node.pid, Child::id);
        self.servers.iter().map(pid).collect()
    }

    /// SIGKILL for a node: 0 is the master, the chunkservers follow.
    pub(crate) fn kill_node(&mut self, n: usize) -> anyhow::Result<()> {
        let Some(server) = self.servers.get_mut(n) else {
            return Ok(());
        };
        match server.child.take() {
            Some(mut child) => {
                child.kill()?;
                child.wait()?;
            }
            None => {
                let pid = pid(server.node.pid)?;
                kill_process(pid, Signal::KILL)?;
                let gone = || rustix::process::test_kill_process(pid).is_err();
                until("a killed node is gone", BOUND, gone)?;
            }
        }
        Ok(())
    }

    /// Brings a killed node back.
    pub(crate) fn start_node(&mut self, n: usize) -> anyhow::Result<()> {
        let Some(server) = self.servers.get_mut(n) else {
            return Ok(());
        };
        let [program, args @ ..] = server.node.argv.as_slice() else {
            bail!("a command line begins with its program");
        };
        let log = File::options().append(true).open(&server.node.log)?;
        let child = clean(Path::new(program))
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        server.child = Some(child);
        Ok(())
    }

    /// Waits until every chunk has all its replicas again.
    pub(crate) fn whole_again(&self) -> anyhow::Result<()> {
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        let output = cluster.run(&["wait", "--healthy", "--nodes=3", "-t", "60"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "not whole again: {words}");
        Ok(())
    }

    fn words_of_mount(&self, n: usize) -> String {
        let log = self.folder.path().join(format!("mount-{n}.log"));
        let text = std::fs::read(log).unwrap_or_default();
        crate::tool::last(&String::from_utf8_lossy(&text))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_yardstick() {
            if let Some(mount) = self.mounts.first() {
                let _ = std::fs::remove_dir_all(&mount.at);
            }
            return;
        }
        for n in 0..self.mounts.len() {
            let words = self.words_of_mount(n);
            if !words.is_empty() {
                println!("--- mount {n}\n{words}");
            }
        }
        for n in 0..self.mounts.len() {
            // The namespace ends with this process: whatever is left goes with it.
            let _ = self.kill_mount(n);
        }
        for server in &mut self.servers {
            if let Some(mut child) = server.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        self.cluster = None;
        let _ = Tool::new(20, "umount")
            .arg("--lazy")
            .arg(self.folder.path().join("cluster"))
            .run();
    }
}

/// The program under test: the one built with this test, or the one that `DFS_BINARY` names.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("DFS_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_dfs").into(), PathBuf::from)
}

fn pid(raw: u32) -> anyhow::Result<Pid> {
    Pid::from_raw(i32::try_from(raw)?).context("a process has a number")
}

/// True if something is mounted there. Asks nobody but the kernel's table.
pub(crate) fn is_mounted(at: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split(' ').nth(4).is_some_and(|field| Path::new(field) == at))
}

/// Waits for a condition.
pub(crate) fn until(what: &str, bound: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !holds() {
        ensure!(start.elapsed() < bound, "not within {bound:?}: {what}");
        park_timeout(LOOK_EVERY);
    }
    Ok(())
}

/// Lets so much time pass, for a fault to fall into what others do.
pub(crate) fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|d| !d.is_zero())
    {
        park_timeout(left);
    }
}
