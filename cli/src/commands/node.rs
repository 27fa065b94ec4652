//! What `dfs master`, `dfs chunkserver` and `dfs mount` share: their log, their parent, their end.

use crate::args::Args;
use crate::exit::{About as _, Failure, Result};
use crate::settings;
use clap::CommandFactory as _;
use dfs_proto::net::Tcp;
use dfs_proto::{Code, scrape};
use dfs_stdx::metrics::Source;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// The process that started this one and takes it along when it dies: set by `dfs up`, and by nobody else,
/// so that a node's command line run by hand lives on its own.
pub(crate) const PARENT_VARIABLE: &str = "DFS_PARENT";

/// fuser complains when a program that was killed is not there to hear its answer.
const SILENT: [&str; 1] = ["fuser"];

/// Readies the process for a life as `role`.
///
/// # Errors
/// The parent is dead already, or the log cannot be set up.
pub(crate) fn prepare(role: &str) -> Result<()> {
    die_with_parent(role)?;
    raise_open_files()?;
    dfs_stdx::telemetry::init(tracing::Level::INFO, &SILENT)
        .map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
    let typed = Args::command();
    if let Some(command) = typed.find_subcommand(role) {
        for variable in settings::unknown_variables(command) {
            tracing::warn!(variable, "not a setting: ignored");
        }
    }
    Ok(())
}

/// Takes as many open files as the system lets this process have: each chunk being written is a file and two
/// connections, and the usual soft limit is meant for programs that wait with select(2).
fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, all).map_err(io::Error::from)?;
    Ok(())
}

/// Asks the kernel to end this process with its parent, if that is what the parent wants. A mount that is killed would
/// stay behind and hang whoever looks at it, so it is asked to stop.
fn die_with_parent(role: &str) -> Result<()> {
    let Some(parent) = std::env::var(PARENT_VARIABLE).ok() else {
        return Ok(());
    };
    let signal = match role {
        "mount" => Signal::TERM,
        _ => Signal::KILL,
    };
    set_parent_process_death_signal(Some(signal)).map_err(io::Error::from)?;
    // It may have died before the kernel knew.
    if getppid().map(|pid: Pid| pid.as_raw_nonzero().to_string()) == Some(parent) {
        return Ok(());
    }
    Err(Failure::new(
        Code::Unavailable,
        "the process that started this one is gone",
    ))
}

/// Serves a role's metrics on `addr` from now on.
///
/// # Errors
/// It cannot listen there.
pub(crate) async fn watched(addr: &str, source: impl Source) -> Result<()> {
    let addr = scrape::serve(&Tcp, addr, Arc::new(source)).await.about(addr)?;
    tracing::info!(addr, "metrics are served");
    Ok(())
}

/// As [`watched`], for a node: one that cannot be watched serves all the same.
pub(crate) async fn watched_if_asked<S: Source>(addr: Option<&str>, source: impl FnOnce() -> S) {
    let Some(addr) = addr else { return };
    if let Err(failure) = watched(addr, source()).await {
        tracing::error!(addr, %failure, "metrics are not served");
    }
}

/// Returns at SIGTERM or SIGINT.
///
/// # Errors
/// The system's.
pub(crate) async fn stop_requested() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
