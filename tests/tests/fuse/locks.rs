//! Locks across mounts: exclusion, waiting, ranges, and the locks of a mount that was killed.

use crate::place::{Place, Shape, until};
use crate::{rig, scaled};
use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// A waiting caller hears of a free lock within it.
const WOKEN_WITHIN: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2_000 } else { 500 });
/// Locks of a killed mount are free within it.
const FREED_WITHIN: Duration = Duration::from_secs(10);

fn open(path: &Path) -> anyhow::Result<File> {
    let options = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path);
    options.with_context(|| path.display().to_string())
}

/// The kernel's description of a range.
fn range(kind: i32, start: i64, length: i64) -> nix::libc::flock {
    nix::libc::flock {
        l_type: i16::try_from(kind).expect("a small number"),
        l_whence: 0,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Tries to lock, or unlock, a range; the lock belongs to the open file.
fn try_lock(file: &File, kind: i32, start: i64, length: i64) -> nix::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&range(kind, start, length))).map(drop)
}

const READ: i32 = nix::libc::F_RDLCK;
const WRITE: i32 = nix::libc::F_WRLCK;
const NONE: i32 = nix::libc::F_UNLCK;

#[test]
fn ranges_exclude_each_other_across_mounts() {
    let name = "locks::ranges_exclude_each_other_across_mounts";
    rig(name, 5, &[], || {
        let place = Place::two()?;
        let a = open(&place.at(0).join("file"))?;
        let b = open(&place.at(1).join("file"))?;
        let held = |file: &File, kind, start, length| match try_lock(file, kind, start, length) {
            Ok(()) => {
                try_lock(file, NONE, start, length)?;
                Ok(false)
            }
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(true),
            Err(error) => Err(error),
        };
        try_lock(&a, WRITE, 0, 100)?;
        ensure!(held(&b, WRITE, 0, 100)? && held(&b, READ, 99, 1)? && !held(&b, WRITE, 100, 0)?);
        // The middle given back leaves both ends.
        try_lock(&a, NONE, 40, 20)?;
        ensure!(held(&b, WRITE, 39, 1)? && !held(&b, WRITE, 40, 20)? && held(&b, WRITE, 60, 1)?);
        try_lock(&a, READ, 0, 40)?;
        ensure!(!held(&b, READ, 0, 40)? && held(&b, WRITE, 0, 1)?);
        let mut asked = range(WRITE, 0, 1);
        fcntl(&b, FcntlArg::F_OFD_GETLK(&mut asked))?;
        ensure!(
            i32::from(asked.l_type) == READ && (asked.l_start, asked.l_len) == (0, 40),
            "{asked:?}"
        );
        drop(a);
        until("a closed file holds no locks", WOKEN_WITHIN, || {
            held(&b, WRITE, 0, 0) == Ok(false)
        })
    });
}

#[test]
fn a_counter_under_a_lock_loses_nothing() {
    let name = "locks::a_counter_under_a_lock_loses_nothing";
    rig(name, 10, &[], || {
        let place = Place::two()?;
        let rounds = scaled("DFS_LOCK_ROUNDS", 100, 10);
        for kind in ["flock", "fcntl"] {
            let path = |mount: usize| place.at(mount).join(kind);
            fs::write(path(0), "0")?;
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|n| {
                        let path = path(n % 2);
                        scope.spawn(move || (0..rounds).try_for_each(|_| count(&path, kind)))
                    })
                    .collect();
                threads
                    .into_iter()
                    .try_for_each(|thread| thread.join().expect("it did not panic"))
            })?;
            let total = fs::read_to_string(path(1))?;
            ensure!(
                total == (4 * rounds).to_string(),
                "{kind}: {total} of {}",
                4 * rounds
            );
        }
        Ok(())
    });
}

/// Adds one to the number in the file.
fn count(path: &Path, kind: &str) -> anyhow::Result<()> {
    let file = open(path)?;
    let mut locked = match kind {
        "flock" => Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?,
        _ => {
            fcntl(&file, FcntlArg::F_OFD_SETLKW(&range(WRITE, 0, 0)))?;
            // A lock of the other kind, on a file of its own, says nothing here: it only carries the file.
            return add_one(&mut { file });
        }
    };
    add_one(&mut locked)
}

fn add_one(file: &mut File) -> anyhow::Result<()> {
    let text = std::io::read_to_string(&*file)?;
    let next = 1 + text
        .parse::<u64>()
        .with_context(|| format!("{text:?} is no number"))?;
    file.rewind()?;
    file.write_all(next.to_string().as_bytes())?;
    Ok(())
}

#[test]
fn a_waiter_is_woken_when_the_other_mount_lets_go() {
    let name = "locks::a_waiter_is_woken_when_the_other_mount_lets_go";
    rig(name, 5, &[], || {
        let place = Place::two()?;
        let mut worst = Duration::ZERO;
        for _ in 0..scaled("DFS_WAKES", 20, 4) {
            let path = |mount: usize| place.at(mount).join("file");
            let holder = open(&path(0))?;
            // The kernel tells of a file's end, and so of its locks', when close(2) has been answered.
            until("the last waiter's file holds no lock", WOKEN_WITHIN, || {
                try_lock(&holder, WRITE, 0, 0) == Ok(())
            })?;
            let waiter = waiting(path(1))?;
            let start = Instant::now();
            drop(holder);
            waiter.join().expect("it did not panic")?;
            worst = worst.max(start.elapsed());
        }
        println!("a waiter was woken after {worst:.1?} at worst");
        ensure!(worst < WOKEN_WITHIN, "woken after {worst:?}");
        Ok(())
    });
}

/// A thread that waits for a lock of the whole file; it has asked for it when this returns.
fn waiting(path: PathBuf) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<()>>> {
    let (sender, asked) = std::sync::mpsc::sync_channel(1);
    let waiter = std::thread::spawn(move || {
        let file = open(&path)?;
        sender.send(())?;
        fcntl(&file, FcntlArg::F_OFD_SETLKW(&range(WRITE, 0, 0)))?;
        Ok(())
    });
    asked.recv()?;
    crate::place::pause(Duration::from_millis(50));
    ensure!(!waiter.is_finished(), "it did not wait");
    Ok(waiter)
}

#[test]
fn a_waiter_with_a_signal_ends_at_once() {
    let name = "locks::a_waiter_with_a_signal_ends_at_once";
    rig(name, 5, &["flock"], || {
        let place = Place::two()?;
        let path = |mount: usize| place.at(mount).join("file");
        let holder = Flock::lock(open(&path(0))?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        for (signal, mount) in [("TERM", 1), ("KILL", 1), ("TERM", 0)] {
            let mut waiter = std::process::Command::new("flock")
                .arg(path(mount))
                .arg("true")
                .spawn()?;
            crate::place::pause(Duration::from_millis(200));
            ensure!(waiter.try_wait()?.is_none(), "it did not wait");
            let start = Instant::now();
            let pid = waiter.id().to_string();
            let sent = std::process::Command::new("sh")
                .args(["-c", &format!("kill -s {signal} {pid}")])
                .status()?;
            ensure!(sent.success());
            waiter.wait()?;
            let took = start.elapsed();
            println!("{signal}: a waiter ended after {took:.1?}");
            ensure!(took < Duration::from_millis(if cfg!(debug_assertions) { 1_000 } else { 300 }));
        }
        drop(holder);
        // None of those who gave up holds it now.
        let free = || Flock::lock(File::open(path(1)).unwrap(), FlockArg::LockExclusiveNonblock).is_ok();
        until("the lock is free", WOKEN_WITHIN, free)
    });
}

#[test]
fn locks_of_a_killed_mount_are_free_soon() {
    let name = "locks::locks_of_a_killed_mount_are_free_soon";
    rig(name, 5, &[], || {
        let mut place = Place::start(Shape {
            chunk_size: "256KiB",
            mounts: 2,
            fast: false,
        })?;
        if place.is_yardstick() {
            return Ok(());
        }
        let mut file = open(&place.at(0).join("file"))?;
        file.write_all(b"written before the end")?;
        file.sync_all()?;
        try_lock(&file, WRITE, 0, 0)?;
        let other = open(&place.at(1).join("file"))?;
        ensure!(
            try_lock(&other, WRITE, 0, 0) == Err(Errno::EAGAIN),
            "it is locked"
        );
        let start = Instant::now();
        place.kill_mount(0)?;
        let got = || try_lock(&other, WRITE, 0, 0).is_ok();
        until("the lock is free", FREED_WITHIN, got)?;
        println!("locks of a killed mount were free after {:.1?}", start.elapsed());
        drop(file);
        // Nor does its turn to append stay with the dead.
        let mut log = File::options().append(true).open(place.at(1).join("file"))?;
        log.write_all(b", and after")?;
        ensure!(fs::read(place.at(1).join("file"))? == b"written before the end, and after");
        Ok(())
    });
}
