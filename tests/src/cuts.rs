//! Power cuts: a file system of its own for each node, on a loop device, that forgets what is not on stable storage.
//!
//! `EXT4_IOC_SHUTDOWN` with "drop everything" is what a power cut is to a local file system: pages and journal entries
//! that were not written are gone, everything synced is there. The image lies in memory, so that a sync is cheap and
//! what is lost is the file system's page cache, not the image. All of it needs root, and lives in a mount namespace of
//! its own that ends with the test, however that ends.

use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// In the test that runs inside the private mount namespace this variable is set.
const INSIDE: &str = "DFS_RIG_INSIDE";
/// The ioctl, spoken by perl: part of every Debian, and safe code here.
const SHUTDOWN: &str = r#"
    for my $mount (@ARGV) {
        open(my $dir, "<", $mount) or die "$mount: $!";
        my $drop_all = pack("L", 2);
        ioctl($dir, 0x8004587d, $drop_all) or die "$mount: EXT4_IOC_SHUTDOWN: $!";
    }"#;

/// Where a test that needs mounts of its own is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here: mounts made now are private.
    Here,
    /// It has run in a process of its own, or cannot run on this machine and has said why.
    Done,
}

/// Runs the test called `test` of this program again in a private mount namespace, unless this is that run.
///
/// # Panics
/// If that run fails.
pub fn in_private_mounts(test: &str) -> Place {
    if std::env::var_os(INSIDE).is_some() {
        return Place::Here;
    }
    if let Some(why) = missing() {
        // One line, which `.ci/run` counts.
        println!("skipped: {test}: {why}");
        return Place::Done;
    }
    let program = std::env::current_exe().expect("a test knows its own file");
    let inside = Command::new("unshare")
        .args(["--mount", "--propagation=private", "--fork", "--kill-child"])
        .arg(program)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare was found a moment ago");
    let said = String::from_utf8_lossy(&inside.stdout);
    // Its own count of tests would be counted twice.
    for line in said
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("running ") && !line.starts_with("test "))
    {
        println!("{line}");
    }
    eprint!("{}", String::from_utf8_lossy(&inside.stderr));
    assert!(
        inside.status.success(),
        "{test} in a mount namespace of its own: {}",
        inside.status
    );
    Place::Done
}

/// Why power cannot be cut here; none if it can.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root to mount".into());
    }
    for program in ["unshare", "mount", "umount", "mkfs.ext4", "perl"] {
        if Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            return Some(format!("{program} is missing"));
        }
    }
    let script = "d=$(mktemp -d) && mount -t tmpfs tmpfs $d && truncate -s 8M $d/i && mkfs.ext4 -q $d/i && \
                  mkdir $d/m && mount -o loop $d/i $d/m; code=$?; umount $d/m; umount $d; rmdir $d; exit $code";
    let tried = Command::new("unshare")
        .args(["--mount", "--propagation=private", "sh", "-c", script])
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "no loop mounts of ext4: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("no mount namespaces: {error}")),
    }
}

/// A folder of the private namespace, in memory, that holds the images and their mounts.
#[derive(Debug)]
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// Room for `bytes` of images.
    ///
    /// # Errors
    /// The system's.
    pub fn new(bytes: u64) -> anyhow::Result<Bench> {
        let folder = tempfile::tempdir()?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={bytes}"))
            .arg("tmpfs")
            .arg(folder.path()))?;
        Ok(Bench { folder })
    }

    /// A new disk of `bytes`, mounted.
    ///
    /// # Errors
    /// The system's.
    pub fn disk(&self, name: &str, bytes: u64) -> anyhow::Result<PowerDisk> {
        let (image, mount) = (
            self.folder.path().join(format!("{name}.img")),
            self.folder.path().join(name),
        );
        std::fs::File::create_new(&image)?.set_len(bytes)?;
        std::fs::create_dir(&mount)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let disk = PowerDisk { image, mount };
        disk.mount()?;
        Ok(disk)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What is still mounted below goes with it.
        let _ = run(Command::new("umount").arg("--recursive").arg(self.folder.path()));
    }
}

/// A disk that can lose its power.
#[derive(Debug)]
pub struct PowerDisk {
    image: PathBuf,
    mount: PathBuf,
}

impl PowerDisk {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Power comes back: mounted again, with what was on stable storage. Nothing may have a file open on it.
    ///
    /// # Errors
    /// The system's.
    pub fn restore(&self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.mount))?;
        self.mount()
    }

    fn mount(&self) -> anyhow::Result<()> {
        // The journal commits by itself so rarely that only what was synced can be relied upon.
        run(Command::new("mount")
            .args(["-o", "loop,noatime,commit=300"])
            .arg(&self.image)
            .arg(&self.mount))
    }
}

/// Cuts the power of these disks, as good as at once: what is not on stable storage is gone.
///
/// # Errors
/// The system's.
pub fn cut<'d>(disks: impl IntoIterator<Item = &'d PowerDisk>) -> anyhow::Result<()> {
    run(Command::new("perl")
        .args(["-e", SHUTDOWN])
        .args(disks.into_iter().map(|disk| &disk.mount)))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let Output { status, stderr, .. } = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&stderr).trim()
    );
    Ok(())
}
