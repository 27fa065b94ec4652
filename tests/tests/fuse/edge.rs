//! What stands between the file system and the system around it: the process in the background, signals, dead mounts,
//! options, what a mount says about itself.

use crate::place::{BOUND, Place, Shape, binary, is_mounted, until};
use crate::rig;
use crate::tool::Tool;
use anyhow::{Context as _, ensure};
use dfs_tests::process::clean;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// A cluster that nothing has mounted yet, and a folder for mounts.
struct Stage {
    place: Place,
    at: PathBuf,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> anyhow::Result<Stage> {
        let place = Place::start(Shape {
            chunk_size: "1MiB",
            mounts: 0,
            fast: false,
        })?;
        let folder = tempfile::tempdir()?;
        let at = folder.path().join("mount");
        fs::create_dir(&at)?;
        Ok(Stage { place, at, folder })
    }

    fn master(&self) -> anyhow::Result<&str> {
        let cluster = self.place.cluster().context("a cluster of ours")?;
        Ok(&cluster.file.master.addr)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("mount.log")
    }

    /// `dfs mount` in the background, with `more` arguments.
    fn mount(&self, more: &[&str]) -> anyhow::Result<Output> {
        let mut command = clean(&binary());
        command.args(["mount", self.master()?]).arg(&self.at);
        Ok(command.arg("--log").arg(self.log()).args(more).output()?)
    }

    fn mounted(&self, more: &[&str]) -> anyhow::Result<()> {
        succeeded(&self.mount(more)?)
    }

    fn stats(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.at.join(".stats"))?)?)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.stats()?["pid"].as_i64().context("a number")?;
        Pid::from_raw(pid.try_into()?).context("a process")
    }

    fn umount(&self) -> anyhow::Result<()> {
        succeeded(&clean(&binary()).arg("umount").arg(&self.at).output()?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if is_mounted(&self.at) {
            let _ = Tool::new(20, "umount").arg("--lazy").arg(&self.at).run();
        }
    }
}

fn succeeded(output: &Output) -> anyhow::Result<()> {
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn is_gone(process: Pid) -> bool {
    rustix::process::test_kill_process(process).is_err()
}

#[test]
fn it_returns_when_it_is_mounted_and_umount_when_all_is_sent() {
    let name = "edge::it_returns_when_it_is_mounted_and_umount_when_all_is_sent";
    rig(name, 3, &[], || {
        let stage = Stage::new()?;
        stage.mounted(&[])?;
        fs::write(stage.at.join("file"), b"hello")?;
        let process = stage.pid()?;
        stage.umount()?;
        ensure!(is_gone(process) && !is_mounted(&stage.at), "something is left");
        ensure!(stage.place.cluster().context("ours")?.ok(&["cat", "/file"]) == b"hello");
        Ok(())
    });
}

#[test]
fn what_cannot_be_mounted_says_why() {
    let name = "edge::what_cannot_be_mounted_says_why";
    rig(name, 3, &[], || {
        let stage = Stage::new()?;
        let refused = |output: Output, code: i32, why: &str| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(code), "{:?}: {said}", output.status);
            ensure!(said.contains(why), "{said}");
            Ok(())
        };
        refused(stage.mount(&["-o", "turbo"])?, 2, "-o turbo: no such option")?;
        let nowhere = clean(&binary())
            .args(["mount", stage.master()?, "/nope/nope"])
            .output()?;
        refused(nowhere, 1, "/nope/nope: No such file or directory")?;
        stage.mounted(&[])?;
        refused(stage.mount(&[])?, 1, "is mounted here already")?;
        stage.umount()?;
        let twice = clean(&binary()).arg("umount").arg(&stage.at).output()?;
        refused(twice, 1, "not mounted")
    });
}

#[test]
fn a_signal_sends_what_is_buffered_and_unmounts() {
    let name = "edge::a_signal_sends_what_is_buffered_and_unmounts";
    rig(name, 5, &[], || {
        for signal in [Signal::TERM, Signal::INT] {
            let mut place = Place::one()?;
            let bytes = dfs_tests::process::content(3_000_000, 7);
            let mut open = File::create(place.at(0).join("open"))?;
            open.write_all(&bytes)?;
            let status = place.end_mount(0, signal)?;
            ensure!(status.is_none_or(|status| status.success()), "{status:?}");
            if let Some(cluster) = place.cluster() {
                ensure!(cluster.ok(&["cat", "/open"]) == bytes, "not all was sent");
            }
        }
        Ok(())
    });
}

#[test]
fn a_dead_mount_is_cleaned_away_by_the_next_one() {
    let name = "edge::a_dead_mount_is_cleaned_away_by_the_next_one";
    rig(name, 3, &[], || {
        let stage = Stage::new()?;
        stage.mounted(&[])?;
        fs::write(stage.at.join("file"), b"kept")?;
        let process = stage.pid()?;
        kill_process(process, Signal::KILL)?;
        until("the mount is dead", BOUND, || {
            fs::read_dir(&stage.at).is_err_and(|error| error.raw_os_error() == Some(107))
        })?;
        stage.mounted(&[])?;
        ensure!(fs::read(stage.at.join("file"))? == b"kept");
        stage.umount()?;
        ensure!(!is_mounted(&stage.at), "the dead one is still there");
        Ok(())
    });
}

#[test]
fn options_change_what_is_seen_and_what_may_be_done() {
    let name = "edge::options_change_what_is_seen_and_what_may_be_done";
    rig(name, 3, &[], || {
        let stage = Stage::new()?;
        stage.mounted(&["-o", "uid=1234,gid=4321", "-o", "umask=077,_netdev"])?;
        let file = stage.at.join("file");
        fs::write(&file, b"x")?;
        let seen = fs::metadata(&file)?;
        ensure!(
            (seen.uid(), seen.gid(), seen.mode() & 0o777) == (1_234, 4_321, 0o600),
            "{seen:?}"
        );
        stage.umount()?;
        // As mount(8) does it: by name, with its own order of arguments.
        let helper = stage.folder.path().join("mount.fuse.dfs");
        symlink(binary(), &helper)?;
        let log = format!("ro,noatime,log={}", stage.log().display());
        let source = format!("dfs#{}", stage.master()?);
        Tool::new(60, helper.to_str().context("UTF-8")?)
            .arg(&source)
            .arg(&stage.at)
            .args(["-s", "-o", &log])
            .ok()?;
        // `mount -a` looks for the source as fstab has it.
        let known = fs::read_to_string("/proc/self/mounts")?;
        ensure!(
            known.contains(&format!("{} ", source.replace('#', "\\043"))),
            "{known}"
        );
        let refused = fs::write(&file, b"y")
            .err()
            .and_then(|error| error.raw_os_error());
        ensure!(refused == Some(30), "EROFS is expected, not {refused:?}");
        ensure!(fs::read(&file)? == b"x");
        Tool::new(60, helper.to_str().context("UTF-8")?)
            .arg(&source)
            .arg(&stage.at)
            .args(["-o", "remount,rw"])
            .ok()?;
        fs::write(&file, b"z")?;
        stage.umount()
    });
}

#[test]
fn root_that_is_squashed_may_no_more_than_nobody() {
    let name = "edge::root_that_is_squashed_may_no_more_than_nobody";
    rig(name, 3, &[], || {
        let stage = Stage::new()?;
        stage.mounted(&[])?;
        fs::create_dir(stage.at.join("closed"))?;
        fs::write(stage.at.join("closed/file"), b"x")?;
        stage.umount()?;
        stage.mounted(&["-o", "root_squash"])?;
        let refused = fs::write(stage.at.join("closed/new"), b"y").err();
        ensure!(
            refused.is_some_and(|error| error.raw_os_error() == Some(13)),
            "EACCES is expected"
        );
        fs::write(stage.at.join("own"), b"z")?;
        ensure!(fs::metadata(stage.at.join("own"))?.uid() == 65_534);
        stage.umount()
    });
}

#[test]
fn a_mount_tells_what_it_has_done() {
    let name = "edge::a_mount_tells_what_it_has_done";
    rig(name, 3, &[], || {
        let stage = Stage::new()?;
        stage.mounted(&["--metrics", "127.0.0.1:19770"])?;
        fs::write(stage.at.join("file"), vec![7; 10_000])?;
        let names: Vec<_> = fs::read_dir(&stage.at)?
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<Result<_, _>>()?;
        ensure!(names == ["file"], "it is in the listing: {names:?}");
        ensure!(
            File::create(stage.at.join(".stats")).is_err(),
            "nobody may write it"
        );
        ensure!(
            fs::remove_file(stage.at.join(".stats")).is_err(),
            "nobody may remove it"
        );
        let stats = stage.stats()?;
        ensure!(stats["written_bytes"].as_u64() == Some(10_000), "{stats}");
        let counted = |operation: &str| {
            let rows = stats["operations"].as_array().into_iter().flatten();
            rows.filter(|row| row["operation"] == operation)
                .filter_map(|row| row["count"].as_u64())
                .sum::<u64>()
        };
        ensure!(counted("create") == 1 && counted("write") >= 1, "{stats}");
        let shown = clean(&binary()).arg("mount-stats").arg(&stage.at).output()?;
        ensure!(
            String::from_utf8_lossy(&shown.stdout).contains("create"),
            "{shown:?}"
        );
        let metrics = scrape("127.0.0.1:19770")?;
        ensure!(
            metrics.contains("dfs_mount_request_duration_seconds_count{operation=\"create\"} 1\n"),
            "{metrics}"
        );
        stage.umount()
    });
}

fn scrape(addr: &str) -> anyhow::Result<String> {
    let mut stream = std::net::TcpStream::connect(addr)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn up_mounts_and_unmounts_with_its_cluster() {
    let name = "edge::up_mounts_and_unmounts_with_its_cluster";
    rig(name, 5, &[], || {
        let folder = tempfile::tempdir()?;
        let (data, at) = (folder.path().join("data"), folder.path().join("made/for/it"));
        for text in ["first", "second"] {
            let mut up = clean(&binary())
                .args(["up", "--port", "0", "--dir"])
                .arg(&data)
                .arg("--mount")
                .arg(&at)
                .stdout(Stdio::piped())
                .spawn()?;
            let mut line = String::new();
            BufReader::new(up.stdout.take().context("it is a pipe")?).read_line(&mut line)?;
            ensure!(line.starts_with("ready") && line.contains("mounted at"), "{line}");
            let cluster: Value = serde_json::from_slice(&fs::read(data.join("cluster.json"))?)?;
            ensure!(cluster["mount"].as_str().map(Path::new) == Some(&at), "{cluster}");
            fs::write(at.join(text), text)?;
            ensure!(fs::read(at.join("first"))? == b"first");
            kill_process(Pid::from_child(&up), Signal::TERM)?;
            let status = up.wait()?;
            ensure!(status.success() && !is_mounted(&at), "{status:?}");
        }
        Ok(())
    });
}
