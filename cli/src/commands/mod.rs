//! The commands, one a file: its options and examples above, what it does below. No decisions of the cluster are made here.

mod append;
mod cat;
mod checksum;
mod chmod;
mod chown;
mod chunks;
mod chunkserver;
mod completions;
mod df;
mod du;
mod explain;
mod find;
mod fsck;
mod get;
mod head;
mod ln;
mod ls;
mod man;
mod master;
mod mkdir;
mod mount;
mod mount_stats;
mod mv;
mod node;
mod nodes;
mod put;
mod rm;
mod setrep;
mod stat;
mod status;
mod tail;
mod test;
mod top;
mod touch;
mod transfer;
mod trash;
mod tree;
mod truncate;
mod umount;
mod up;
mod wait;
mod walk;
mod xattr;

use crate::exit::{Exit, Result};
use crate::output::Console;
use crate::settings;
use dfs_client::Client;
use std::cell::OnceCell;
use std::io;
use std::time::Duration;

/// A command that is done does not wait longer for its session to end.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where it speaks.
    pub(crate) console: Console,
    /// "host:port" of each master; empty: nothing was said.
    pub(crate) masters: Vec<String>,
    /// The connection, once there is one.
    pub(crate) connected: OnceCell<Client>,
}

impl Context {
    /// Connects to the cluster in the name of the user who runs the command.
    ///
    /// # Errors
    /// The client's.
    pub(crate) async fn connect(&self) -> Result<Client> {
        let mut settings = dfs_client::Settings::new(&self.masters())?;
        settings.caller = caller();
        settings.name = format!("dfs {} {}", self.console.command, std::process::id());
        settings.host = settings::hostname();
        let world = dfs_proto::world::World::real("dfs-client", 1);
        let client = Client::connect_with(settings, world.dial, world.clock, world.rng).await?;
        Ok(self.connected.get_or_init(|| client).clone())
    }

    /// Ends the session now: nobody holds what it held until its lease runs out.
    pub(crate) async fn disconnect(&self) {
        if let Some(client) = self.connected.get() {
            // The lease ends it otherwise.
            let _ = tokio::time::timeout(DISCONNECT_DEADLINE, client.clone().disconnect()).await;
        }
    }

    /// The masters' addresses, separated by commas.
    #[must_use]
    pub(crate) fn masters(&self) -> String {
        match self.masters.is_empty() {
            true => settings::MASTER_ADDR.to_owned(),
            false => self.masters.join(","),
        }
    }
}

/// Who runs this process.
fn caller() -> dfs_client::Caller {
    let groups = rustix::process::getgroups().unwrap_or_default();
    dfs_client::Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
    }
}

macro_rules! commands {
    ($($(#[$attribute:meta])* $variant:ident => $module:ident, $name:literal, $size:ident;)*) => {
        /// Which command it is.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Command {
            $($(#[$attribute])* $variant($module::Args),)*
        }

        impl Command {
            /// As typed.
            #[must_use]
            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $(Command::$variant(_) => $name,)*
                }
            }

            /// The runtime it needs.
            ///
            /// # Errors
            /// The system's.
            pub(crate) fn runtime(&self) -> io::Result<tokio::runtime::Runtime> {
                match self {
                    $(Command::$variant(_) => $size(),)*
                }
            }

            /// Does it.
            ///
            /// # Errors
            /// Why it could not be done, with the path it was about.
            pub(crate) async fn run(self, context: &Context) -> Result<Exit> {
                match self {
                    $(Command::$variant(args) => Box::pin($module::run(args, context)).await,)*
                }
            }
        }
    };
}

commands! {
    /// Start a whole cluster on this machine
    Up => up, "up", small;
    /// Run a master
    Master => master, "master", large;
    /// Run a chunkserver
    Chunkserver => chunkserver, "chunkserver", large;
    /// Mount the file system
    Mount => mount, "mount", large;
    /// Unmount it
    Umount => umount, "umount", small;
    /// Show what a mount has done and how long it took
    MountStats => mount_stats, "mount-stats", small;
    /// Copy local files into dfs
    Put => put, "put", large;
    /// Copy files out of dfs
    Get => get, "get", large;
    /// Write files to stdout
    Cat => cat, "cat", large;
    /// Write the beginning of files to stdout
    Head => head, "head", small;
    /// Write the end of files to stdout
    Tail => tail, "tail", small;
    /// List directories
    Ls => ls, "ls", small;
    /// Draw a tree
    Tree => tree, "tree", small;
    /// Find names by what they are like
    Find => find, "find", small;
    /// Make directories
    Mkdir => mkdir, "mkdir", small;
    /// Remove files and trees
    Rm => rm, "rm", small;
    /// Show, restore and empty the trash
    Trash => trash, "trash", small;
    /// Rename and move
    Mv => mv, "mv", small;
    /// Make links
    Ln => ln, "ln", small;
    /// Show all attributes
    Stat => stat, "stat", small;
    /// Set times to now; make files that do not exist
    Touch => touch, "touch", small;
    /// Set the size of files
    Truncate => truncate, "truncate", small;
    /// Change permission bits
    Chmod => chmod, "chmod", small;
    /// Change owner and group
    Chown => chown, "chown", small;
    /// Set how many replicas files have
    Setrep => setrep, "setrep", small;
    /// Show how much room trees take
    Du => du, "du", small;
    /// Add local files to the end of a file
    Append => append, "append", large;
    /// Show the CRC-32 of files' bytes
    Checksum => checksum, "checksum", large;
    /// Show and change extended attributes
    Xattr => xattr, "xattr", small;
    /// Ask a question; the exit code is the answer
    Test => test, "test", small;
    /// Show a file's chunks and where their replicas are
    Chunks => chunks, "chunks", small;
    /// Check every chunk below a path
    Fsck => fsck, "fsck", large;
    /// Say why a chunk, a file or a chunkserver is as it is
    Explain => explain, "explain", small;
    /// Show how much room there is
    Df => df, "df", small;
    /// Show the chunkservers
    Nodes => nodes, "nodes", small;
    /// Show the cluster at a glance
    Status => status, "status", small;
    /// Watch the cluster: servers, rates, repair
    Top => top, "top", small;
    /// Wait until the cluster is well
    Wait => wait, "wait", small;
    /// Print completions for a shell
    Completions => completions, "completions", small;
    /// Print the manual page
    Man => man, "man", small;
}

/// For commands that mostly wait: everything on the main thread.
fn small() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// For commands that move bytes: a thread for each processor.
fn large() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Permission bits that this process takes from what it makes.
#[must_use]
fn umask() -> u32 {
    // Reading it is setting it: for the moment between, nothing else here makes files.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    mask.bits()
}
