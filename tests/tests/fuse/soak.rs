//! Long mixed load: memory and descriptors stay flat. And a directory of many entries. Recipes.

use crate::place::Place;
use crate::{rig, scaled};
use anyhow::ensure;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How much a process may grow from the first third of the time to the end.
const GROWTH_MAX: f64 = 1.3;
const SLACK_KIB: u64 = 32 * 1024;

#[test]
fn memory_and_descriptors_stay_flat() {
    let name = "soak::memory_and_descriptors_stay_flat";
    let seconds = scaled("DFS_SOAK_SECONDS", 0, 0);
    if seconds == 0 {
        println!("soak: by its recipe only");
        return;
    }
    rig(name, seconds / 60 + 10, &[], || {
        let place = Place::two()?;
        let (over, operations) = (AtomicBool::new(false), AtomicU64::new(0));
        let samples = std::thread::scope(|scope| {
            for worker in 0..4_usize {
                let (root, over, operations) = (place.at(worker % 2), &over, &operations);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(worker as u64);
                    while !over.load(Ordering::Relaxed) {
                        mixed(&root.join(format!("w{worker}")), &mut rng).unwrap();
                        operations.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let samples = sample(&place, Duration::from_secs(seconds));
            over.store(true, Ordering::Relaxed);
            samples
        });
        println!("soak: {} rounds of load in {seconds} s", operations.into_inner());
        judge(&samples)
    });
}

/// A process at a moment: its memory, its descriptors.
type Sample = (u32, u64, usize);

fn sample(place: &Place, time: Duration) -> Vec<Vec<Sample>> {
    let mut samples = Vec::new();
    for _ in 0..30 {
        crate::place::pause(time / 30);
        let mounts = (0..2).filter_map(|n| place.pid_of_mount(n));
        let row: Vec<Sample> = mounts.chain(place.pids_of_nodes()).map(of_process).collect();
        println!("process, KiB, descriptors: {row:?}");
        samples.push(row);
    }
    samples
}

fn of_process(pid: u32) -> Sample {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    (pid, memory.unwrap_or(0), descriptors)
}

fn judge(samples: &[Vec<Sample>]) -> anyhow::Result<()> {
    let third = samples.len() / 3;
    let (Some(early), Some(last)) = (samples.get(third), samples.last()) else {
        return Ok(());
    };
    for ((pid, before, files), (_, after, more_files)) in early.iter().zip(last) {
        ensure!(
            *after as f64 <= *before as f64 * GROWTH_MAX + SLACK_KIB as f64,
            "process {pid} grew from {before} to {after} KiB"
        );
        ensure!(
            *more_files <= files + files / 3 + 16,
            "process {pid}: {files} descriptors, then {more_files}"
        );
    }
    Ok(())
}

/// Some of everything.
fn mixed(root: &Path, rng: &mut fastrand::Rng) -> std::io::Result<()> {
    fs::create_dir_all(root.join("names"))?;
    let big = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .open(root.join("big"))?;
    let mut bytes = vec![0; rng.usize(1..500_000)];
    rng.fill(&mut bytes);
    std::os::unix::fs::FileExt::write_all_at(&big, &bytes, rng.u64(0..30_000_000))?;
    if rng.u32(0..4) == 0 {
        big.sync_data()?;
    }
    for n in 0..30 {
        let path = root.join(format!("names/n{}", rng.u32(0..2_000)));
        match n % 3 {
            0 => File::create(&path)?.write_all(&bytes[..bytes.len().min(5_000)])?,
            1 => drop(fs::read(&path)),
            _ => drop(fs::remove_file(&path)),
        }
    }
    if rng.u32(0..10) == 0 {
        fs::read(root.join("big"))?;
        let _ = fs::read_dir(root.join("names"))?.count();
    }
    if rng.u32(0..200) == 0 {
        fs::remove_dir_all(root)?;
    }
    Ok(())
}

#[test]
fn a_long_directory_lists_quickly() {
    let name = "soak::a_long_directory_lists_quickly";
    rig(name, 10, &[], || {
        let entries = scaled("DFS_ENTRIES", 10_000, 300);
        let place = Place::two()?;
        let folder = place.at(0).join("long");
        fs::create_dir(&folder)?;
        for n in 0..entries {
            File::create(folder.join(format!("entry-{n}")))?;
        }
        // The other mount knows nothing of it yet.
        let start = Instant::now();
        let mut found = 0;
        for entry in fs::read_dir(place.at(1).join("long"))? {
            found += u64::from(entry?.metadata()?.is_file());
        }
        let took = start.elapsed();
        println!("a directory of {entries} entries was listed, with attributes, in {took:.2?}");
        ensure!(found == entries, "{found} of {entries} entries");
        ensure!(
            cfg!(debug_assertions) || took < Duration::from_secs(2),
            "it took {took:?}"
        );
        Ok(())
    });
}
