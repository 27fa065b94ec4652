//! Nodes as processes: each by its own command line, so that it can be killed and brought back.

use anyhow::{Context as _, ensure};
use dfs_client::{ChunkState, Client};
use dfs_tests::process::clean;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const POLL: Duration = Duration::from_millis(20);

/// The program under test: the one built with this test, or the one that `DFS_BINARY` names.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("DFS_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_dfs").into(), PathBuf::from)
}

/// One node.
pub(crate) struct Node {
    argv: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Starts it; it dies with this test.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = clean(&binary())
            .args(&self.argv)
            .env("DFS_PARENT", std::process::id().to_string())
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits until nothing of it is left.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        ensure!(
            child.try_wait()?.is_none(),
            "it had ended by itself:\n{}",
            self.last_words()
        );
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it in the middle of what it does; returns when not one of its threads runs.
    pub(crate) fn hold(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP)?;
        waitpid(Some(pid), WaitOptions::UNTRACED)?;
        Ok(())
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// SIGKILL and a new start.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.start()
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// How many lines of its log hold the text.
    pub(crate) fn said(&self, text: &str) -> usize {
        std::fs::read_to_string(&self.log)
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let child = self.child.as_ref().context("it does not run")?;
        Pid::from_raw(i32::try_from(child.id())?).context("a process has a number")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a cluster looks like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) servers: usize,
    pub(crate) chunk_bytes: u64,
    /// Durations are a tenth of the real ones.
    pub(crate) fast: bool,
}

/// A master and chunkservers, on a loopback address of their own: no other test has their ports.
pub(crate) struct Cluster {
    pub(crate) addr: String,
    pub(crate) master: Node,
    pub(crate) servers: Vec<Node>,
    ip: String,
    folders: Vec<PathBuf>,
    /// Logs, and the nodes' folders unless they were given. Kept if the test fails and `DFS_KEEP` is set.
    folder: Option<tempfile::TempDir>,
}

impl Cluster {
    /// All of it with its folders in a temporary one, serving.
    pub(crate) async fn start(shape: &Shape) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::prepare(shape, Vec::new())?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Nothing runs yet. `folders`: the master's and each server's, if not a temporary one.
    pub(crate) fn prepare(shape: &Shape, folders: Vec<PathBuf>) -> anyhow::Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let folders = match folders.is_empty() {
            true => (0..=shape.servers)
                .map(|n| folder.path().join(format!("node-{n}")))
                .collect(),
            false => folders,
        };
        let ip = format!(
            "127.{}.{}.{}",
            fastrand::u8(1..255),
            fastrand::u8(..),
            fastrand::u8(1..255)
        );
        let addr = format!("{ip}:7700");
        let mut argv = vec![
            "master".to_owned(),
            format!("--listen={addr}"),
            format!("--data-dir={}", folders[0].join("data").display()),
            format!("--chunk-size={}", shape.chunk_bytes),
            "--replication=3".to_owned(),
        ];
        if shape.fast {
            argv.push("--profile=test".to_owned());
        }
        let master = Node {
            argv,
            log: folder.path().join("master.log"),
            child: None,
        };
        let mut cluster = Cluster {
            addr,
            master,
            servers: Vec::new(),
            ip,
            folders,
            folder: Some(folder),
        };
        for n in 1..=shape.servers {
            cluster.add_server(n);
        }
        Ok(cluster)
    }

    fn add_server(&mut self, n: usize) {
        let argv = vec![
            "chunkserver".to_owned(),
            format!("--listen={}", self.server_addr(n)),
            format!("--data-dir={}", self.folders[n].join("data").display()),
            format!("--master={}", self.addr),
            format!("--host=host-{n}"),
            "--reserve=1MiB".to_owned(),
        ];
        let log = self.path().join(format!("server-{n}.log"));
        self.servers.push(Node {
            argv,
            log,
            child: None,
        });
    }

    /// Where server `n` (from 1) listens.
    pub(crate) fn server_addr(&self, n: usize) -> String {
        format!("{}:{}", self.ip, 7710 + n)
    }

    /// An address for something else of this cluster.
    pub(crate) fn spare_addr(&self, n: usize) -> String {
        format!("{}:{}", self.ip, 7800 + n)
    }

    /// Server `n` (from 1) shall reach the master at, and be reached at, other addresses. Before it is started.
    pub(crate) fn detour(&mut self, n: usize, master: &str, advertise: &str) {
        let argv = &mut self.servers[n - 1].argv;
        argv.retain(|word| !word.starts_with("--master="));
        argv.extend([format!("--master={master}"), format!("--advertise={advertise}")]);
    }

    /// Where the chunk files of server `n` (from 1) are.
    pub(crate) fn chunk_folder(&self, n: usize) -> PathBuf {
        self.folders[n].join("data").join("chunks")
    }

    fn path(&self) -> &Path {
        self.folder.as_ref().expect("kept to the end").path()
    }

    /// Starts every node that does not run, and waits until all serve.
    pub(crate) async fn start_all(&mut self) -> anyhow::Result<()> {
        for node in std::iter::once(&mut self.master).chain(&mut self.servers) {
            if node.child.is_none() {
                node.start()?;
            }
        }
        let client = self.client().await?;
        self.all_alive(&client).await
    }

    /// A client with a session of its own.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let connected = within(60, async {
            loop {
                match Client::connect(&self.addr).await {
                    Ok(client) => return client,
                    Err(_) => sleep(POLL / 4).await,
                }
            }
        });
        connected
            .await
            .with_context(|| format!("no master at {}:\n{}", self.addr, self.master.last_words()))
    }

    /// Waits until every server that should run is known to be alive.
    pub(crate) async fn all_alive(&self, client: &Client) -> anyhow::Result<()> {
        let wanted = self.servers.iter().filter(|node| node.child.is_some()).count();
        let alive = within(60, async {
            while client.status().await.map_or(0, |status| status.alive as usize) < wanted {
                sleep(POLL).await;
            }
        });
        let words = || {
            self.servers
                .iter()
                .map(Node::last_words)
                .collect::<Vec<_>>()
                .join("\n--\n")
        };
        alive
            .await
            .with_context(|| format!("not all {wanted} servers registered:\n{}", words()))
    }

    /// Waits until every chunk of these files has all its replicas, identical to the last byte; says how long it took.
    pub(crate) async fn all_identical(
        &self,
        client: &Client,
        files: &[String],
        seconds: u64,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        for file in files {
            loop {
                let trouble = match client.chunks(file).await {
                    Ok(chunks) => trouble(client, &chunks).await?,
                    Err(error) => Some(error.to_string()),
                };
                let Some(trouble) = trouble else { break };
                ensure!(
                    start.elapsed() < Duration::from_secs(seconds),
                    "after {seconds} s {file}: {trouble}"
                );
                sleep(POLL * 5).await;
            }
        }
        Ok(start.elapsed())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let keep = std::thread::panicking() || std::env::var_os("DFS_KEEP").is_some();
        if let Some(folder) = self.folder.take().filter(|_| keep) {
            eprintln!("logs are kept in {}", folder.keep().display());
        }
    }
}

/// Why the chunks are not at their goal with identical members; none if they are.
async fn trouble(client: &Client, chunks: &[ChunkState]) -> anyhow::Result<Option<String>> {
    let probes = client.probe(chunks, true).await?;
    for chunk in chunks {
        let (handle, version) = (chunk.chunk, chunk.version);
        let about = |what: String| Ok(Some(format!("chunk {handle} version {version}: {what}")));
        if chunk.members.len() < chunk.goal as usize || chunk.changing {
            return about(format!("{} of {} members", chunk.members.len(), chunk.goal));
        }
        let mut digests = Vec::new();
        for member in &chunk.members {
            let probe = probes
                .iter()
                .find(|p| p.chunk == handle && p.member.node == member.node);
            match probe.map(|probe| &probe.replica) {
                Some(Ok(r)) if r.present && r.serving && r.bad_blocks.is_empty() => digests.push(r.digest),
                other => return about(format!("on node {}: {other:?}", member.node)),
            }
        }
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            return about(format!("replicas differ: {digests:x?}"));
        }
    }
    Ok(None)
}

/// The future's result, or an error after so many seconds.
pub(crate) async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout(Duration::from_secs(seconds), future)
        .await
        .with_context(|| format!("not within {seconds} s"))
}
