//! No master: what can be answered without it is, at once; and what cannot goes on when it is back.

use crate::place::Place;
use crate::rig;
use anyhow::ensure;
use dfs_tests::process::content;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn without_a_master_what_is_known_is_still_answered() {
    let name = "away::without_a_master_what_is_known_is_still_answered";
    rig(name, 5, &[], || {
        let mut place = Place::one()?;
        let root = place.at(0).to_owned();
        let bytes = content(5_000_000, 1);
        fs::create_dir(root.join("folder"))?;
        for n in 0..20 {
            fs::write(root.join(format!("folder/file-{n}")), format!("{n}"))?;
        }
        fs::write(root.join("open"), &bytes)?;
        let open = File::open(root.join("open"))?;
        let mut half = vec![0; bytes.len() / 2];
        open.read_exact_at(&mut half, 0)?;
        list(&root)?;
        rustix::fs::statvfs(&root)?;
        place.kill_node(0)?;
        at_once("df", || {
            rustix::fs::statvfs(&root)?;
            Ok(())
        })?;
        at_once("ls", || list(&root))?;
        at_once("a read of an open file", || {
            let mut all = vec![0; bytes.len()];
            open.read_exact_at(&mut all, 0)?;
            ensure!(all == bytes, "other bytes");
            Ok(())
        })?;
        // A change waits for the master, and no longer.
        let waiting = std::thread::spawn({
            let path = root.join("folder/new");
            move || File::create(path)
        });
        place.start_node(0)?;
        let made = waiting.join().expect("it did not panic");
        made?.write_all(b"new")?;
        ensure!(fs::read(root.join("folder/new"))? == b"new");
        ensure!(fs::read(root.join("open"))? == bytes);
        Ok(())
    });
}

fn list(root: &Path) -> anyhow::Result<()> {
    let mut entries = 0;
    for entry in fs::read_dir(root.join("folder"))? {
        ensure!(entry?.metadata()?.is_file());
        entries += 1;
    }
    ensure!(entries == 20, "{entries} of 20 entries");
    Ok(())
}

fn at_once(what: &str, answer: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let start = Instant::now();
    answer()?;
    let took = start.elapsed();
    println!("without a master: {what}: {took:.1?}");
    ensure!(took < AT_ONCE, "{what} took {took:?}");
    Ok(())
}
