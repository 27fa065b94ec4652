//! The mount in the background: a process of its own, which says on its stdout how the start went.

use super::{READY, Wanted};
use crate::commands::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use dfs_client::Code;
use dfs_fuse::mounts;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// It is mounted by then, or has said why not.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// One sentence is shorter.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// Starts it; returns when it is mounted and answers.
pub(super) async fn start(wanted: &Wanted, context: &Context) -> Result<Exit> {
    let mountpoint = &wanted.settings.mountpoint;
    let (log, path) = log(wanted, context)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("mount")
        .arg(&wanted.settings.source)
        .arg(mountpoint)
        .args(["--foreground", "--report"]);
    for list in &wanted.typed {
        command.arg("-o").arg(list);
    }
    if let Some(addr) = &wanted.metrics {
        command.arg("--metrics").arg(addr);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut said = Vec::new();
    let stdout = child.stdout.take().expect("it is a pipe");
    let mut stdout = stdout.take(REPORT_BYTES_MAX);
    let heard = tokio::time::timeout(START_DEADLINE, stdout.read_to_end(&mut said)).await;
    let said = String::from_utf8_lossy(&said);
    let failure = match (heard, said.trim_end()) {
        (Ok(Ok(_)), READY) => return Ok(Exit::Ok),
        (Ok(_), "") => Failure::new(
            Code::Unavailable,
            format!("it ended at once; see {}", path.display()),
        )
        .about(mountpoint.as_os_str().as_bytes()),
        // It says what it is about itself.
        (Ok(_), why) => Failure::new(Code::Unavailable, why),
        (Err(_), _) => {
            // It may have ended meanwhile.
            let _ = child.start_kill();
            Failure::new(
                Code::TimedOut,
                format!("not mounted in time; see {}", path.display()),
            )
            .about(mountpoint.as_os_str().as_bytes())
        }
    };
    Err(failure)
}

/// In the background: of no terminal, in no folder that someone may want to unmount.
pub(super) fn detach() {
    // The leader of a group (a child of `dfs up`) stays in its session.
    let _ = rustix::process::setsid();
    // The root directory is always there.
    let _ = std::env::set_current_dir("/");
}

/// Tells the process that started this one, once; afterwards stdout leads nowhere.
pub(super) fn tell(line: String) {
    let mut out = std::io::stdout().lock();
    // It may be gone: the log has it too.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        // A pipe nobody reads is as good, as nothing more is written.
        let _ = rustix::stdio::dup2_stdout(null);
    }
}

/// The log's file: as asked, else where such files are kept.
fn log(wanted: &Wanted, context: &Context) -> Result<(File, PathBuf)> {
    let open = |path: &Path| {
        let parent = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        parent.and_then(|()| File::options().create(true).append(true).open(path))
    };
    if let Some(path) = &wanted.log {
        return Ok((open(path).about(path.as_os_str().as_bytes())?, path.clone()));
    }
    let path = folder().join(format!(
        "mount-{}.log",
        mounts::as_file_name(&wanted.settings.mountpoint)
    ));
    match open(&path) {
        Ok(file) => Ok((file, path)),
        Err(error) => {
            context
                .console
                .note(&format!("{}: {error}: there is no log", path.display()));
            Ok((File::options().write(true).open("/dev/null")?, path))
        }
    }
}

fn folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/log/dfs".into();
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    state.unwrap_or_else(|| home().join(".local/state")).join("dfs")
}
