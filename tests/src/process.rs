//! Real processes: a cluster as a user starts it (`dfs up` in a folder of its own, on free ports), its nodes killed,
//! stopped and brought back by their command lines, and the commands of the binary run against it.
//!
//! Everything that was started ends with the [`Cluster`], by process id.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// A cluster is ready, and a process gone, within it.
pub const BOUND: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many.
    pub chunkservers: u32,
    /// As typed: small, so that a small file has many chunks.
    pub chunk_size: &'static str,
    /// A tenth of all durations.
    pub fast: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            chunkservers: 3,
            chunk_size: "256KiB",
            fast: true,
        }
    }
}

/// What `cluster.json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterFile {
    /// 32 hex digits.
    pub cluster_id: String,
    /// Of `dfs up`.
    pub pid: u32,
    /// The leader.
    pub master: Node,
    /// All masters.
    pub masters: Vec<Node>,
    /// In the order of their names.
    pub chunkservers: Vec<Node>,
    /// Where it is mounted.
    pub mount: Option<PathBuf>,
}

/// A node in `cluster.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// The master's number for it; none for a master.
    #[serde(default)]
    pub id: u32,
    /// "host:port".
    pub addr: String,
    /// "host:port" of its metrics.
    #[serde(default)]
    pub metrics: Option<String>,
    /// Its process, as `dfs up` started it.
    pub pid: u32,
    /// Its folder.
    pub data_dir: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// Brings it back.
    pub argv: Vec<String>,
}

/// A running `dfs up`.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    options: Options,
    /// Its own, unless it was started in a given one.
    folder: Option<TempDir>,
    dir: PathBuf,
    up: Child,
    /// Nodes brought back by hand.
    by_hand: Vec<Child>,
    /// What was announced.
    pub file: ClusterFile,
    /// The line that was printed.
    pub ready: String,
}

impl Cluster {
    /// Starts one in a new folder.
    ///
    /// # Errors
    /// It was not ready within [`BOUND`].
    pub fn start(binary: impl Into<PathBuf>, options: &Options) -> Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("cluster");
        let mut cluster = Cluster::start_in(binary, &dir, options)?;
        cluster.folder = Some(folder);
        Ok(cluster)
    }

    /// Starts one in a given folder, which stays.
    ///
    /// # Errors
    /// It was not ready within [`BOUND`].
    pub fn start_in(binary: impl Into<PathBuf>, dir: &Path, options: &Options) -> Result<Cluster> {
        let binary = binary.into();
        let (mut up, ready) = spawn_up(&binary, dir, options)?;
        let text =
            std::fs::read(dir.join("cluster.json")).context("cluster.json is there before the ready line")?;
        let file = serde_json::from_slice(&text).context("cluster.json");
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                up.kill()?;
                up.wait()?;
                return Err(error);
            }
        };
        Ok(Cluster {
            binary,
            options: options.clone(),
            folder: None,
            dir: dir.to_owned(),
            up,
            by_hand: Vec::new(),
            file,
            ready,
        })
    }

    /// The folder with all its data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process of `dfs up`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.up.id()
    }

    /// A command of the binary against this cluster, to be given its arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = clean(&self.binary);
        command.env("DFS_MASTER", &self.file.master.addr);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command()
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("the binary was built")
    }

    /// Runs a command that must succeed; returns its stdout.
    ///
    /// # Panics
    /// If it fails.
    pub fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "dfs {args:?}: {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        output.stdout
    }

    /// Runs a command that must succeed with `--json`; returns the document.
    ///
    /// # Panics
    /// If it fails, or stdout is not one document.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let stdout = self.ok(&[args, &["--json"]].concat());
        serde_json::from_slice(&stdout).unwrap_or_else(|error| {
            panic!(
                "dfs {args:?} --json: {error}: {}",
                String::from_utf8_lossy(&stdout)
            );
        })
    }

    /// Runs a command that must fail: its exit code and stderr.
    ///
    /// # Panics
    /// If it succeeds.
    pub fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(!output.status.success(), "dfs {args:?} should fail");
        let code = output.status.code().expect("it was not killed");
        (
            code,
            String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
        )
    }

    /// Sends a signal to a node that `dfs up` started.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, node: &Node, signal: Signal) -> Result<()> {
        kill_process(pid(node.pid)?, signal).with_context(|| format!("signal to {}", node.addr))
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill(&self, node: &Node) -> Result<()> {
        self.signal(node, Signal::KILL)?;
        let pid = pid(node.pid)?;
        until("a killed node is gone", || test_kill_process(pid).is_err()).await
    }

    /// Brings a node back by its command line; it ends with this cluster.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self, node: &Node) -> Result<u32> {
        let [program, args @ ..] = node.argv.as_slice() else {
            bail!("a command line begins with its program");
        };
        let log = File::options().append(true).open(&node.log)?;
        let child = clean(Path::new(program))
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let pid = child.id();
        self.by_hand.push(child);
        Ok(pid)
    }

    /// Waits until every chunk has its goal of good replicas and `alive` chunkservers answer.
    ///
    /// # Panics
    /// If that does not come to pass within a minute.
    pub fn wait_healthy(&self, alive: u32) {
        let seconds = BOUND.as_secs().to_string();
        self.ok(&["wait", "--healthy", "--nodes", &alive.to_string(), "-t", &seconds]);
    }

    /// Asks `dfs up` to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not end within [`BOUND`].
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        kill_process(pid(self.up.id())?, Signal::TERM)?;
        self.ended().await
    }

    /// Kills `dfs up` itself, and waits until its nodes are gone, too.
    ///
    /// # Errors
    /// They do not end within [`BOUND`].
    pub async fn kill_up(&mut self) -> Result<()> {
        self.up.kill()?;
        self.ended().await?;
        self.nodes_gone().await
    }

    /// Waits until all nodes that `dfs up` started are gone.
    ///
    /// # Errors
    /// They do not end within [`BOUND`].
    pub async fn nodes_gone(&self) -> Result<()> {
        for node in self.nodes() {
            let pid = pid(node.pid)?;
            until("a node is gone", || test_kill_process(pid).is_err()).await?;
        }
        Ok(())
    }

    /// Starts the same folder again after it was stopped.
    ///
    /// # Errors
    /// It was not ready within [`BOUND`].
    pub fn start_again(&mut self) -> Result<()> {
        let folder = self.folder.take();
        let again = Cluster::start_in(&self.binary, &self.dir, &self.options);
        match again {
            Ok(mut again) => {
                again.folder = folder;
                // The old one has ended: its drop finds nothing to do.
                *self = again;
                Ok(())
            }
            Err(error) => {
                self.folder = folder;
                Err(error)
            }
        }
    }

    /// The master and the chunkservers.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.file.master).chain(&self.file.chunkservers)
    }

    /// The end of every log, for a test that failed.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for node in self.nodes() {
            let text = std::fs::read(&node.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
            all += &format!("--- {}\n{}\n", node.log.display(), last.join("\n"));
        }
        all
    }

    async fn ended(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.up.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "dfs up does not end");
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for child in &mut self.by_hand {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Ok(None) = self.up.try_wait() {
            let _ = self.up.kill();
            let _ = self.up.wait();
        }
        // The kernel kills the nodes with their parent; their files are in use until then.
        let looks = BOUND.as_millis() / LOOK_EVERY.as_millis();
        for node in self.nodes() {
            let Ok(pid) = pid(node.pid) else { continue };
            for _ in 0..looks {
                if test_kill_process(pid).is_err() {
                    break;
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
        }
    }
}

/// A command of the binary without settings from this process's environment.
#[must_use]
pub fn clean(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DFS_") {
            command.env_remove(name);
        }
    }
    command
}

/// Waits for a condition.
///
/// # Errors
/// It does not hold within [`BOUND`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + BOUND;
    while !holds() {
        ensure!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Content that is the same for the same seed and does not compress.
#[must_use]
pub fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut content = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut content);
    content
}

fn pid(raw: u32) -> Result<Pid> {
    i32::try_from(raw)
        .ok()
        .and_then(Pid::from_raw)
        .context("a process id")
}

/// Starts `dfs up` and reads its first line.
fn spawn_up(binary: &Path, dir: &Path, options: &Options) -> Result<(Child, String)> {
    let mut command = clean(binary);
    command
        .args(["up", "--port=0", "--chunk-size", options.chunk_size])
        .args(["--chunkservers", &options.chunkservers.to_string()])
        .arg("--dir")
        .arg(dir);
    if options.fast {
        command.arg("--profile=test");
    }
    let mut up = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let stdout = up.stdout.take().expect("it is a pipe");
    let (line, first) = mpsc::sync_channel(1);
    // A thread of its own, because a read of a pipe has no deadline. It ends with the pipe.
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = BufReader::new(stdout).read_line(&mut text);
        let _ = line.send(read.map(|_| text));
    });
    let ready = first.recv_timeout(BOUND);
    match ready {
        Ok(Ok(text)) if text.starts_with("ready") => Ok((up, text)),
        other => {
            // It may have ended by itself.
            let _ = up.kill();
            let status = up.wait()?;
            bail!("dfs up is not ready: {other:?}, {status}")
        }
    }
}
