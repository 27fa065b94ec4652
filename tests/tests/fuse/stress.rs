//! stress-ng's file system class, each stressor by itself, so that one that hangs or fails is named.

use crate::place::Place;
use crate::tool::{Tool, last};
use crate::{rig, scaled};
use anyhow::ensure;

/// Those that work on the mount; the rest of the class is about other file systems, or devices.
const STRESSORS: [&str; 37] = [
    "access",
    "chattr",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "dup",
    "fallocate",
    "fanotify",
    "fcntl",
    "fiemap",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inotify",
    "io",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "symlink",
];
const MORE: [&str; 4] = ["sync-file", "touch", "utime", "xattr"];

#[test]
fn file_system_stressors_find_nothing() {
    let name = "stress::file_system_stressors_find_nothing";
    rig(name, 60, &["stress-ng"], || {
        let seconds = scaled("DFS_STRESS_SECONDS", 1, 1);
        let wanted = usize::try_from(scaled("DFS_STRESSORS", 100, 4))?;
        let place = Place::one()?;
        let (mut passed, mut skipped, mut failed) = (0, Vec::new(), Vec::new());
        for stressor in STRESSORS.iter().chain(&MORE).take(wanted) {
            let outcome = Tool::new(seconds + 60, "stress-ng")
                .args([&format!("--{stressor}"), "2", "--verify", "--timestamp"])
                .args(["-t", &format!("{seconds}s"), "--temp-path"])
                .arg(place.at(0))
                .within(place.at(0))
                .run()?;
            let text = &outcome.text;
            match outcome.status.code() {
                Some(0) if text.contains("skipped stressor") || text.contains("skipping stressor") => {
                    println!("not run: {stressor}: {}", last(text));
                    skipped.push(*stressor);
                }
                Some(0) => passed += 1,
                // "Not implemented" and "no resource" are its ways to say that the kernel has no such thing.
                Some(3 | 4) => {
                    println!("not run: {stressor}: {}", last(text));
                    skipped.push(*stressor);
                }
                _ => {
                    println!("failed: {stressor}: {}\n{}", outcome.status, last(text));
                    failed.push(*stressor);
                }
            }
        }
        println!(
            "stress-ng: {passed} passed, {} failed, {} skipped",
            failed.len(),
            skipped.len()
        );
        ensure!(failed.is_empty(), "failed: {failed:?}");
        Ok(())
    });
}
