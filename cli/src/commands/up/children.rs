//! The nodes of `dfs up` as child processes: started, watched, stopped.
//!
//! Each is in a process group of its own, so that Ctrl-C reaches `dfs up` alone and the order of stopping is ours. They stay
//! in one session: where the scheduler shares processors between sessions, a request would have to win its turn anew at each
//! of them. And each asks the kernel to die with `dfs up`, however that ends.

use super::Stop;
use super::folder::{Folder, quoted};
use crate::commands::node::PARENT_VARIABLE;
use crate::exit::{About as _, Exit, Result};
use crate::output::complain_line;
use futures::stream::{FuturesUnordered, StreamExt as _};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::fs::File;
use std::future::pending;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// A node stops cleanly within it, or is killed: everything acknowledged is safe anyway.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How a node is started.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// master, chunkserver-1, ..
    pub(crate) name: String,
    /// "host:port".
    pub(crate) addr: String,
    /// "host:port" of its metrics.
    pub(crate) metrics: Option<String>,
    /// Its folder.
    pub(crate) data_dir: String,
    /// Its log.
    pub(crate) log: PathBuf,
    /// Its whole command line, which alone brings it back.
    pub(crate) argv: Vec<String>,
}

impl Node {
    /// A node called `name` at `addr`, its metrics on a port of their own; `more` adds its own options.
    ///
    /// # Errors
    /// The folder's path is not UTF-8, so it could not be written down.
    pub(crate) fn new(
        folder: &Folder,
        program: &Path,
        name: &str,
        (addr, metrics): (&str, u16),
        more: impl FnOnce(&mut Vec<String>),
    ) -> Result<Node> {
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                crate::exit::Failure::new(dfs_client::Code::InvalidArgument, "not UTF-8")
                    .about(path.as_os_str().as_bytes())
            })
        };
        let data_dir = text(&folder.path().join(name))?;
        let role = name.split('-').next().unwrap_or(name);
        let metrics = format!("127.0.0.1:{metrics}");
        let mut argv = vec![
            text(program)?,
            role.to_owned(),
            format!("--listen={addr}"),
            format!("--data-dir={data_dir}"),
            format!("--metrics={metrics}"),
        ];
        more(&mut argv);
        Ok(Node {
            name: name.to_owned(),
            addr: addr.to_owned(),
            metrics: Some(metrics),
            data_dir,
            log: folder.logs().join(format!("{name}.log")),
            argv,
        })
    }
}

impl Node {
    /// In which order it is stopped.
    fn stage(&self) -> u32 {
        match self.name.as_str() {
            super::mount::NAME => 0,
            "master" => 2,
            _ => 1,
        }
    }
}

/// A node that ended.
#[derive(Debug)]
pub(crate) struct Death {
    node: Node,
    pid: u32,
    status: std::io::Result<ExitStatus>,
}

impl Death {
    /// True for the node called `name`.
    #[must_use]
    pub(crate) fn is_of(&self, name: &str) -> bool {
        self.node.name == name
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Death { node, pid, status } = self;
        write!(f, "{} (pid {pid}, {}) ended: ", node.name, node.addr)?;
        match status {
            Ok(status) => write!(f, "{status}")?,
            Err(error) => write!(f, "{error}")?,
        }
        if let Some(last) = last_line(&node.log) {
            write!(f, "; its last word: {last}")?;
        }
        let words: Vec<String> = node.argv.iter().map(|word| quoted(word)).collect();
        write!(f, "; back with: {}", words.join(" "))
    }
}

/// The end of a log, for one line of a message.
pub(crate) fn last_line(log: &Path) -> Option<String> {
    let bytes = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

type Watch = std::pin::Pin<Box<dyn Future<Output = Death>>>;

/// All nodes that run.
#[derive(Default)]
pub(crate) struct Children {
    running: Vec<(Node, u32)>,
    watches: FuturesUnordered<Watch>,
}

impl Children {
    /// Starts a node.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn spawn(&mut self, node: &Node) -> Result<()> {
        let subject = node.log.as_os_str().as_bytes();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&node.log)
            .about(subject)?;
        let [program, arguments @ ..] = node.argv.as_slice() else {
            unreachable!("a command line begins with its program");
        };
        let mut command = Command::new(program);
        // Its command line alone decides what it is: what this process was told by its environment is not passed on.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"DFS_")) {
            if name != dfs_stdx::telemetry::VARIABLE {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(arguments)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().about(subject)?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .about(program)?;
        let pid = child.id().expect("it was not waited for yet");
        let watched = node.clone();
        self.running.push((node.clone(), pid));
        self.watches.push(Box::pin(async move {
            let status = child.wait().await;
            Death {
                node: watched,
                pid,
                status,
            }
        }));
        Ok(())
    }

    /// The process of a node; 0 if it does not run.
    #[must_use]
    pub(crate) fn pid(&self, node: &Node) -> u32 {
        self.running
            .iter()
            .find(|(running, _)| running.name == node.name)
            .map_or(0, |(_, pid)| *pid)
    }

    /// The next node that ends; pending while there is none.
    pub(crate) async fn next_death(&mut self) -> Death {
        match self.watches.next().await {
            Some(death) => {
                self.running.retain(|(_, pid)| *pid != death.pid);
                death
            }
            None => pending().await,
        }
    }

    /// Stops the mount, which still has to send what is buffered, then the chunkservers, then the master, cleanly;
    /// asked again, or after a deadline, with force.
    pub(crate) async fn stop(&mut self, again: &mut Stop) -> Exit {
        let mut exit = Exit::Ok;
        for stage in 0..3 {
            let chosen = |node: &Node| node.stage() == stage;
            self.signal(Signal::TERM, chosen);
            // A stopped process hears only once it goes on.
            self.signal(Signal::CONT, chosen);
            let deadline = tokio::time::sleep(STOP_DEADLINE);
            tokio::pin!(deadline);
            let mut forced = false;
            while self.running.iter().any(|(node, _)| chosen(node)) {
                tokio::select! {
                    death = self.next_death() => {
                        if !forced && !matches!(&death.status, Ok(status) if status.success()) {
                            complain_line(format!("up: {death}").as_bytes());
                        }
                    }
                    () = again.requested(), if !forced => {
                        forced = true;
                        self.signal(Signal::KILL, chosen);
                    }
                    () = &mut deadline, if !forced => {
                        forced = true;
                        exit = Exit::Failed;
                        complain_line(b"up: a node does not stop: killed");
                        self.signal(Signal::KILL, chosen);
                    }
                }
            }
        }
        exit
    }

    /// Ends all nodes at once.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL, |_| true);
        while !self.running.is_empty() {
            self.next_death().await;
        }
    }

    fn signal(&self, signal: Signal, chosen: impl Fn(&Node) -> bool) {
        for (_, pid) in self.running.iter().filter(|(node, _)| chosen(node)) {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            // It is a child that was not waited for: the number is still its own. It may have ended, though.
            let _ = pid.map(|pid| kill_process(pid, signal));
        }
    }
}
