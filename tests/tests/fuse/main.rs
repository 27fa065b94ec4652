//! The mount as programs meet it: a real cluster, mounted by the binary, under test suites from outside, real programs
//! and rigs of our own. Needs root and /dev/fuse; says `skipped: why` where something is missing.
//!
//! Every test runs in a process, mount and process namespace of its own: what it mounts nobody else sees, and all that
//! it started is gone when it ends, however it ends. How much is done is said by variables (`DFS_FSX_SEEDS`, ..), as
//! the recipes of the justfile do. `DFS_YARDSTICK=DIR` runs the same on a folder of a local file system: what that
//! does not pass either is no fault of ours.

#![expect(clippy::print_stdout, reason = "all of this target is a test")]

mod away;
mod bytes;
mod edge;
mod faults;
mod fio;
mod fsx;
mod git;
mod killed;
mod locks;
mod pair;
mod pjdfstest;
mod place;
mod postgres;
mod programs;
mod soak;
mod stress;
mod tool;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "DFS_RIG_INSIDE";

/// Rigs fill the machine: one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A number from the environment; else one for release builds, and a small one where code is slow.
fn scaled(variable: &str, release: u64, debug: u64) -> u64 {
    let default = if cfg!(debug_assertions) { debug } else { release };
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().expect("a number"))
}

/// Where this run's randomness comes from.
fn seeded(rig: &str) -> fastrand::Rng {
    let seed = match scaled("DFS_SEED", 0, 0) {
        0 => fastrand::u64(1..1 << 32),
        seed => seed,
    };
    println!("{rig}: DFS_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Runs the test `name` within a bound, if the programs it needs are there.
fn rig(name: &str, minutes: u64, needs: &[&str], work: impl FnOnce() -> anyhow::Result<()>) {
    if std::env::var_os(INSIDE).is_some() {
        work().unwrap_or_else(|error| panic!("{error:#}"));
        return;
    }
    if let Some(why) = lacking(needs) {
        println!("skipped: {name}: {why}");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let passed = inside(name, minutes);
    let took = start.elapsed();
    println!("{name}: {took:.1?}");
    let bound = Duration::from_secs(60 * minutes);
    assert!(took < bound, "{name}: not done within {minutes} minutes");
    assert!(passed, "{name} failed");
}

/// Why this machine cannot run it.
fn lacking(needs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("needs /dev/fuse".to_owned());
    }
    let missing = needs.iter().find(|program| find(program).is_none())?;
    Some(format!("needs {missing}"))
}

/// Where a program is.
fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Runs the test again in namespaces of its own; true if it passed.
fn inside(name: &str, minutes: u64) -> bool {
    let exe = std::env::current_exe().expect("this test's program");
    // The shell is the first process there: it takes in orphans, and its end is the end of all.
    let script = r#""$@" 2>&1 & wait $!"#;
    let dies_with_parent = ["--pdeathsig=KILL", "--"];
    let mut child = Command::new("setpriv")
        .args(dies_with_parent)
        .args(["timeout", "--signal=KILL"])
        .arg(format!("{minutes}m"))
        .arg("setpriv")
        .args(dies_with_parent)
        .args(["unshare", "--mount", "--propagation=private", "--pid", "--fork"])
        .args(["--mount-proc", "--kill-child", "sh", "-c", script, "sh"])
        .arg(exe)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("util-linux and coreutils");
    let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let of_runner = format!("test {name} ... ");
    for line in output.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // The runner's own words are said once, outside.
        let line = line.strip_prefix(&of_runner).unwrap_or(&line);
        let of_runner = ["running ", "test result: ", "failures:", "ok", "FAILED"];
        if !line.trim().is_empty() && !of_runner.iter().any(|words| line.starts_with(words)) {
            println!("{line}");
        }
    }
    child.wait().expect("it was started").success()
}
