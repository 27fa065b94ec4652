//! The README's commands do what it says: its `sh` blocks are run in a clean folder, with the binary under test.

#![expect(clippy::unwrap_used, reason = "all of this target is a test")]

use dfs_tests::process::{Cluster, Options, clean};
use std::path::Path;
use std::process::{Command, Stdio};

const DFS: &str = env!("CARGO_BIN_EXE_dfs");
/// Starts a cluster: here on a free port, and in the background.
const UP: &str = "cargo run --release -- up --mount ./dfs-mount";
/// This very run.
const TEST: &str = "cargo test --workspace";

/// What stands between "```sh" and "```".
fn blocks(text: &str) -> Vec<&str> {
    text.split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let blocks = blocks(&readme);
    assert_eq!(
        (blocks[0].trim(), blocks[1].trim()),
        (UP, TEST),
        "the two commands come first"
    );
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        chunk_size: "64MiB",
        fast: false,
        ..Options::default()
    };
    let cluster = Cluster::start_in(DFS, &folder.path().join("dfs-data"), &options).unwrap();
    let script = blocks[2..].join("\n");
    let path = format!(
        "{}:{}",
        Path::new(DFS).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut shell = Command::new("bash");
    shell.args(["-euxo", "pipefail", "-c", &script]);
    for (name, value) in clean(Path::new(DFS)).get_envs() {
        if value.is_none() {
            shell.env_remove(name);
        }
    }
    let log = folder.path().join("output");
    let output = std::fs::File::create(&log).unwrap();
    let status = shell
        .current_dir(folder.path())
        .env("PATH", path)
        .env("DFS_MASTER", &cluster.file.master.addr)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .status()
        .unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    // What the script started in the background is nobody's child now.
    stop_restarted(&cluster);
    assert!(status.success(), "{said}\n{}", cluster.logs());
}

/// Stops the node that the tour brings back by hand: the process with its whole command line, folder included.
fn stop_restarted(cluster: &Cluster) {
    let last = cluster.file.chunkservers.last().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let words: Vec<String> = command
            .split(|&b| b == 0)
            .map(|w| String::from_utf8_lossy(w).into_owned())
            .collect();
        if words.len() > last.argv.len() && words[..last.argv.len()] == last.argv[..] {
            let pid: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
