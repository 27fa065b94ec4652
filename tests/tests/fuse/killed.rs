//! The process behind the mount killed at random moments: what fsync, close and calls on names acknowledged is there.

use crate::bytes::Cells;
use crate::place::{Place, Shape, pause};
use crate::{rig, scaled, seeded};
use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const SHAPE: Shape = Shape {
    chunk_size: "256KiB",
    mounts: 1,
    fast: true,
};
const WORKERS: u32 = 4;
/// Cells of a file, about.
const CELLS: usize = 500;

/// What one worker did, and may expect to find.
struct Worker {
    cells: Cells,
    file: PathBuf,
    /// Names that are there, and the bytes under them; none while a call on one had no answer.
    names: BTreeMap<String, Option<Vec<u8>>>,
    next: u32,
    rng: fastrand::Rng,
}

impl Worker {
    fn new(number: u32, rng: fastrand::Rng) -> Worker {
        Worker {
            cells: Cells::new(number),
            file: PathBuf::from(format!("cells-{number}")),
            names: BTreeMap::new(),
            next: 0,
            rng,
        }
    }

    /// Works until a call fails, which it does when the mount is gone.
    fn work(&mut self, root: &Path, acknowledged: &AtomicU64) -> io::Result<()> {
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(root.join(&self.file))?;
            for _ in 0..self.rng.u32(1..6) {
                self.cells.write(&file, &mut self.rng, CELLS)?;
                if self.rng.u32(0..3) == 0 {
                    file.sync_data()?;
                    self.cells.acknowledged();
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
            close(file)?;
            self.cells.acknowledged();
            self.name(root)?;
            acknowledged.fetch_add(2, Ordering::Relaxed);
        }
    }

    /// A small file under a temporary name, renamed; and now and then one removed.
    fn name(&mut self, root: &Path) -> io::Result<()> {
        self.next += 1;
        let (temporary, name) = (
            format!("{}-tmp", self.file.display()),
            format!("{}-{}", self.file.display(), self.next),
        );
        let mut bytes = vec![0; self.rng.usize(0..9_000)];
        self.rng.fill(&mut bytes);
        let file = File::create(root.join(&temporary))?;
        io::Write::write_all(&mut &file, &bytes)?;
        close(file)?;
        self.names.insert(name.clone(), None);
        fs::rename(root.join(&temporary), root.join(&name))?;
        self.names.insert(name, Some(bytes));
        if self.rng.u32(0..4) == 0 {
            let victim = self.names.keys().next().expect("one was made just now").clone();
            self.names.insert(victim.clone(), None);
            fs::remove_file(root.join(&victim))?;
            self.names.remove(&victim);
        }
        Ok(())
    }

    fn check(&mut self, root: &Path) -> anyhow::Result<()> {
        let bytes = match fs::read(root.join(&self.file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.with_context(|| format!("{}", self.file.display()))?,
        };
        self.cells.settle(&bytes)?;
        self.names.retain(|name, bytes| {
            // A call without an answer: either way is right.
            bytes.is_some() || root.join(name).exists()
        });
        for (name, bytes) in &mut self.names {
            let found = fs::read(root.join(name)).with_context(|| name.clone())?;
            ensure!(
                bytes.as_ref().is_none_or(|bytes| *bytes == found),
                "{name}: other bytes"
            );
            *bytes = Some(found);
        }
        Ok(())
    }
}

/// Closes, and says what close says. The standard library's drop does not.
fn close(file: File) -> io::Result<()> {
    // A duplicate's close flushes as the last one's does.
    nix::unistd::close(file).map_err(io::Error::from)
}

#[test]
fn what_a_killed_mount_acknowledged_is_there() {
    let name = "killed::what_a_killed_mount_acknowledged_is_there";
    rig(name, 20, &[], || {
        let (mut rng, kills) = (seeded("mount kills"), scaled("DFS_MOUNT_KILLS", 10, 2));
        let mut place = Place::start(SHAPE)?;
        if place.is_yardstick() {
            return Ok(());
        }
        let mut workers: Vec<Worker> = (0..WORKERS).map(|n| Worker::new(n, rng.fork())).collect();
        let (acknowledged, landed) = (AtomicU64::new(0), AtomicU64::new(0));
        for _ in 0..kills {
            let root = place.at(0).to_owned();
            let before = acknowledged.load(Ordering::Relaxed);
            let over = AtomicBool::new(false);
            let killed = std::thread::scope(|scope| {
                for worker in &mut workers {
                    let (root, acknowledged, landed, over) = (&root, &acknowledged, &landed, &over);
                    scope.spawn(move || {
                        let ended = worker.work(root, acknowledged);
                        if over.load(Ordering::Relaxed) {
                            landed.fetch_add(1, Ordering::Relaxed);
                        } else {
                            println!("{}: {ended:?} before the kill", worker.file.display());
                        }
                    });
                }
                pause(Duration::from_millis(rng.u64(50..1_500)));
                over.store(true, Ordering::Relaxed);
                place.kill_mount(0)
            });
            killed?;
            place.mount(0)?;
            for worker in &mut workers {
                worker.check(place.at(0))?;
            }
            let fresh = acknowledged.load(Ordering::Relaxed) - before;
            println!("killed after {fresh} acknowledgements");
        }
        let (acknowledged, landed) = (acknowledged.into_inner(), landed.into_inner());
        println!("mount kills: {kills} kills hit {landed} workers; {acknowledged} acknowledgements held");
        ensure!(
            acknowledged > kills && landed == kills * u64::from(WORKERS),
            "the kills proved nothing"
        );
        Ok(())
    });
}

#[test]
fn a_mount_that_is_asked_to_end_writes_out_what_it_has() {
    let name = "killed::a_mount_that_is_asked_to_end_writes_out_what_it_has";
    rig(name, 5, &[], || {
        let mut place = Place::one()?;
        for (round, signal) in [Signal::TERM, Signal::INT].into_iter().enumerate() {
            let at = place.at(0).join(format!("file-{round}"));
            let bytes = dfs_tests::process::content(3_000_000, 7);
            // Written, closed, and never fsynced.
            fs::write(&at, &bytes)?;
            let ended = place.end_mount(0, signal)?;
            ensure!(
                ended.is_none_or(|status| status.success()),
                "{signal:?}: {ended:?}"
            );
            place.mount(0)?;
            ensure!(fs::read(&at)? == bytes, "{signal:?}: bytes are missing");
        }
        Ok(())
    });
}
