//! The mount of `dfs up --mount`: one more child, without which the cluster goes on all the same.

use super::children::{Children, Node, last_line};
use super::folder::Folder;
use crate::exit::{About as _, Failure, Result};
use crate::output::complain_line;
use dfs_client::Code;
use dfs_fuse::mounts;
use dfs_stdx::blocking::Pool;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The child's name, also of its log.
pub(crate) const NAME: &str = "mount";
/// It is mounted by then, or not wanted.
const START_DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What is to be mounted where.
#[derive(Debug)]
pub(crate) struct Mount {
    node: Node,
    mountpoint: PathBuf,
}

impl Mount {
    /// The cluster of `nodes` at a folder, which is made if need be.
    ///
    /// # Errors
    /// It cannot be made, or its path is not UTF-8.
    pub(crate) fn new(folder: &Folder, nodes: &[Node], at: &Path) -> Result<Mount> {
        let subject = at.as_os_str().as_bytes();
        let there = mounts::absolute(at);
        let mountpoint = match there {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(at).about(subject)?;
                mounts::absolute(at)
            }
            there => there,
        };
        let mountpoint = mountpoint.about(subject)?;
        let text = mountpoint
            .to_str()
            .ok_or_else(|| Failure::new(Code::InvalidArgument, "not UTF-8").about(subject))?;
        let master = nodes.first().expect("the master is the first node");
        let program = master
            .argv
            .first()
            .expect("a command line begins with its program");
        let argv = [program, NAME, &master.addr, text, "--foreground"].map(str::to_owned);
        Ok(Mount {
            node: Node {
                name: NAME.to_owned(),
                addr: master.addr.clone(),
                metrics: None,
                data_dir: text.to_owned(),
                log: folder.logs().join("mount.log"),
                argv: argv.into(),
            },
            mountpoint,
        })
    }

    /// Mounts; `None`, with a line that says why, if this machine cannot.
    pub(crate) async fn start(&self, folder: &Folder, children: &mut Children) -> Option<PathBuf> {
        let started = async {
            folder.write_scripts(std::slice::from_ref(&self.node))?;
            // A mount that is there answers for another cluster, or is dead and about to be taken away.
            let before = self.seen();
            children.spawn(&self.node)?;
            tokio::select! {
                () = self.mounted(before) => Ok(()),
                () = died(children) => Err(Failure::new(Code::Unavailable, self.last_word())),
                () = tokio::time::sleep(START_DEADLINE) => Err(Failure::of(Code::TimedOut)),
            }
        };
        match started.await {
            Ok(()) => Some(self.mountpoint.clone()),
            Err(failure) => {
                let line = format!("up: not mounted, the cluster goes on without: {failure}");
                complain_line(line.as_bytes());
                None
            }
        }
    }

    /// The kernel's number of what is mounted there now.
    fn seen(&self) -> Option<u64> {
        mounts::at(&self.mountpoint)
            .ok()
            .flatten()
            .map(|mount| mount.number)
    }

    /// Returns when something new is mounted there and answers.
    async fn mounted(&self, before: Option<u64>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.seen();
            if now.is_some() && now != before {
                let (pool, path) = (Pool::threads("dfs-look", 1), self.mountpoint.clone());
                if pool.run(move || rustix::fs::statfs(path)).await.is_ok() {
                    return;
                }
            }
        }
    }

    fn last_word(&self) -> String {
        last_line(&self.node.log).unwrap_or_else(|| "it ended at once".to_owned())
    }
}

/// Returns when the mount's process ends; what else ends meanwhile is told at once.
async fn died(children: &mut Children) {
    loop {
        let death = children.next_death().await;
        if death.is_of(NAME) {
            return;
        }
        complain_line(format!("up: {death}").as_bytes());
    }
}
