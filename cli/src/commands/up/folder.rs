//! The folder of `dfs up`: its lock, what the cluster looks like (`up.json`), and who runs (`cluster.json`).

use super::Args;
use super::children::Node;
use super::ports::Ports;
use crate::exit::{About as _, Failure, Result};
use crate::settings::Profile;
use dfs_client::Code;
use dfs_proto::limits::{CHUNK_BYTES_MAX, Parameters};
use dfs_stdx::size::Size;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A folder that this process has for itself.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// What the cluster looks like; kept in `up.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The master's port.
    pub(crate) master: u16,
    /// Each chunkserver's port.
    pub(crate) chunkservers: Vec<u16>,
    /// Ports of their metrics, the master's first.
    #[serde(default)]
    pub(crate) metrics: Vec<u16>,
    /// Replicas of each chunk.
    pub(crate) replication: u32,
    /// Largest chunk.
    pub(crate) chunk_size: Size,
    /// How fast its clocks run.
    pub(crate) profile: Profile,
}

/// `cluster.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClusterFile {
    /// 32 hex digits.
    pub(crate) cluster_id: String,
    /// Of `dfs up`.
    pub(crate) pid: u32,
    /// The leader.
    pub(crate) master: NodeEntry,
    /// All of them.
    pub(crate) masters: Vec<NodeEntry>,
    /// In order of their names.
    pub(crate) chunkservers: Vec<ServerEntry>,
    /// Where it is mounted.
    pub(crate) mount: Option<PathBuf>,
}

/// A node in `cluster.json`. Its `argv` run by hand brings exactly this node back.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeEntry {
    /// "host:port".
    pub(crate) addr: String,
    /// Of the process `dfs up` started.
    pub(crate) pid: u32,
    /// "host:port" of its metrics.
    pub(crate) metrics: Option<String>,
    /// Its folder.
    pub(crate) data_dir: String,
    /// Its log.
    pub(crate) log: PathBuf,
    /// Its command line.
    pub(crate) argv: Vec<String>,
}

impl NodeEntry {
    /// Of a node that runs as `pid`.
    #[must_use]
    pub(crate) fn new(node: &Node, pid: u32) -> NodeEntry {
        NodeEntry {
            addr: node.addr.clone(),
            pid,
            metrics: node.metrics.clone(),
            data_dir: node.data_dir.clone(),
            log: node.log.clone(),
            argv: node.argv.clone(),
        }
    }
}

/// A chunkserver in `cluster.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerEntry {
    /// The master's number for it.
    pub(crate) id: u32,
    /// As any node.
    #[serde(flatten)]
    pub(crate) node: NodeEntry,
}

impl Folder {
    /// Makes and locks it.
    ///
    /// # Errors
    /// Another `dfs up` has it, or the system's.
    pub(crate) fn open(path: &Path) -> Result<Folder> {
        let named = || path.as_os_str().as_bytes();
        fs::create_dir_all(path).about(named())?;
        let path = fs::canonicalize(path).about(named())?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .about(lock_path.as_os_str().as_bytes())?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            lock.read_to_string(&mut holder)?;
            let text = format!("in use by {}", holder.trim());
            return Err(Failure::new(Code::Busy, text).about(path.as_os_str().as_bytes()));
        }
        lock.set_len(0)?;
        writeln!(lock, "process {} (dfs up)", std::process::id())?;
        let logs = path.join("log");
        fs::create_dir_all(&logs).about(logs.as_os_str().as_bytes())?;
        let folder = Folder { path, _lock: lock };
        // Whoever waits for it must not meet the one of the last run.
        match fs::remove_file(folder.path.join("cluster.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(folder),
        }
    }

    /// Its absolute path.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the nodes' logs are.
    #[must_use]
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("log")
    }

    /// What the cluster looks like: as it was, with more chunkservers if more are asked for.
    ///
    /// # Errors
    /// What is asked for does not fit what is there.
    pub(crate) async fn plan(&self, args: &Args) -> Result<Plan> {
        let path = self.path.join("up.json");
        let subject = path.as_os_str().as_bytes();
        let stored: Option<Plan> = match fs::read(&path) {
            Ok(text) => Some(
                serde_json::from_slice(&text)
                    .map_err(|error| Failure::new(Code::Corrupt, error.to_string()).about(subject))?,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).about(subject),
        };
        let mut plan = settle(stored, args)?;
        Ports::default().assign(&mut plan, args.port).await?;
        self.replace("up.json", &plan)?;
        Ok(plan)
    }

    /// Writes `cluster.json`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn announce(&self, cluster: &ClusterFile) -> Result<()> {
        self.replace("cluster.json", cluster)
    }

    /// Writes each node's command line as a script: `DIR/start/NAME`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write_scripts(&self, nodes: &[Node]) -> Result<()> {
        let scripts = self.path.join("start");
        fs::create_dir_all(&scripts).about(scripts.as_os_str().as_bytes())?;
        for node in nodes {
            let path = scripts.join(&node.name);
            let words: Vec<String> = node.argv.iter().map(|word| quoted(word)).collect();
            let script = format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "));
            fs::write(&path, script).about(path.as_os_str().as_bytes())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// A whole new file under the name, or the old one.
    fn replace<T: Serialize>(&self, name: &str, content: &T) -> Result<()> {
        let temporary = self.path.join(format!(".{name}.new"));
        let mut text = serde_json::to_vec_pretty(content).map_err(io::Error::from)?;
        text.push(b'\n');
        let subject = temporary.as_os_str().as_bytes();
        let mut file = File::create(&temporary).about(subject)?;
        file.write_all(&text).about(subject)?;
        file.sync_all().about(subject)?;
        fs::rename(&temporary, self.path.join(name)).about(subject)?;
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }
}

/// A word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.:,".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// What was there and what is asked for, without ports for what is new.
fn settle(stored: Option<Plan>, args: &Args) -> Result<Plan> {
    let refuse = |text: String| Err(Failure::new(Code::InvalidArgument, text));
    let Some(mut plan) = stored else {
        let count = args.chunkservers.unwrap_or(3);
        let plan = Plan {
            master: 0,
            chunkservers: vec![0; count as usize],
            metrics: vec![0; count as usize + 1],
            replication: args.replication.unwrap_or(count.min(3)),
            chunk_size: args.chunk_size.unwrap_or(Size(CHUNK_BYTES_MAX)),
            profile: args.profile.unwrap_or_default(),
        };
        let parameters = Parameters {
            chunk_bytes: plan.chunk_size.bytes(),
            goal: plan.replication,
            time_divisor: plan.profile.time_divisor(),
        };
        if !parameters.are_valid() {
            return refuse("a chunk is a multiple of 64KiB up to 64MiB, and has 1 to 8 replicas".into());
        }
        if plan.replication > count {
            return refuse(format!(
                "{} replicas need as many chunkservers, not {count}",
                plan.replication
            ));
        }
        return Ok(plan);
    };
    let there = plan.chunkservers.len();
    let wanted = args.chunkservers.map_or(there, |count| count as usize);
    if wanted < there {
        return refuse(format!(
            "this folder has {there} chunkservers: with {wanted} of them data would be missing"
        ));
    }
    plan.chunkservers.resize(wanted, 0);
    plan.metrics.resize(wanted + 1, 0);
    if args.replication.is_some_and(|n| n != plan.replication)
        || args.chunk_size.is_some_and(|size| size != plan.chunk_size)
        || args.profile.is_some_and(|profile| profile != plan.profile)
    {
        return refuse(format!(
            "this folder's cluster was born with --replication {} and --chunk-size {}, and keeps them",
            plan.replication, plan.chunk_size
        ));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Typed::parse_from(std::iter::once("up").chain(line.split_whitespace())).args
    }

    #[test]
    fn a_small_cluster_has_as_many_replicas_as_servers() {
        assert_eq!(settle(None, &args("--chunkservers 2")).unwrap().replication, 2);
        assert_eq!(settle(None, &args("--chunkservers 5")).unwrap().replication, 3);
        assert!(settle(None, &args("--chunkservers 2 --replication 3")).is_err());
    }

    #[test]
    fn a_folder_keeps_its_cluster() {
        let stored = settle(None, &args("--chunkservers 4 --chunk-size 1MiB")).unwrap();
        assert_eq!(settle(Some(stored.clone()), &args("")).unwrap(), stored);
        assert_eq!(
            settle(Some(stored.clone()), &args("--chunkservers 5"))
                .unwrap()
                .chunkservers
                .len(),
            5
        );
        assert!(settle(Some(stored.clone()), &args("--chunkservers 3")).is_err());
        assert!(settle(Some(stored), &args("--chunk-size 2MiB")).is_err());
    }

    #[test]
    fn a_word_with_spaces_and_quotes_stays_one_word() {
        assert_eq!(quoted("--a=/b.c:1"), "--a=/b.c:1");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }

    #[test]
    fn a_folder_in_use_says_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let _held = Folder::open(folder.path()).unwrap();
        let failure = Folder::open(folder.path()).unwrap_err();
        assert!(
            failure.text.contains(&format!("process {} ", std::process::id())),
            "{failure}"
        );
    }
}
