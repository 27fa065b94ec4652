//! fsx from crates.io: random operations on one file, compared with a copy in memory at every read.

use crate::faults::kill_servers;
use crate::place::{Place, Shape};
use crate::tool::{Outcome, Tool, last};
use crate::{rig, scaled, seeded};
use anyhow::ensure;

/// A file is longer than four chunks.
const SHAPE: Shape = Shape {
    chunk_size: "64KiB",
    mounts: 1,
    fast: true,
};
const SETTINGS: &str = "flen = 300000
[opsize]
max = 70000
[weights]
close_open = 1.0
invalidate = 1.0
mapread = 1.0
mapwrite = 1.0
read = 2.0
write = 2.0
truncate = 1.0
fsync = 0.3
fdatasync = 0.3
posix_fallocate = 1.0
punch_hole = 1.0
sendfile = 1.0
posix_fadvise = 0.5
copy_file_range = 1.0
";

/// How often the whole is done for a kill to fall into it.
const ROUNDS_MAX: usize = 10;

#[test]
fn random_operations_leave_the_file_as_it_should_be() {
    let name = "fsx::random_operations_leave_the_file_as_it_should_be";
    rig(name, 60, &["fsx"], || {
        let seeds = scaled("DFS_FSX_SEEDS", 2, 1);
        run(seeds, &mut |place, tool| {
            let _ = place;
            tool.run()
        })
    });
}

#[test]
fn the_same_while_chunkservers_are_killed() {
    let name = "fsx::the_same_while_chunkservers_are_killed";
    rig(name, 60, &["fsx"], || {
        let seeds = scaled("DFS_FSX_SEEDS", 2, 1);
        let mut rng = seeded("fsx");
        let is_yardstick = std::env::var_os("DFS_YARDSTICK").is_some();
        let mut landed = 0;
        // A quick machine may be done before the first kill: then it is done again.
        for _ in 0..ROUNDS_MAX {
            run(seeds, &mut |place, tool| {
                let mut running = tool.start()?;
                landed += kill_servers(place, &mut rng, u32::MAX, || running.is_done())?;
                running.ended()
            })?;
            if landed > 0 || is_yardstick {
                break;
            }
        }
        println!("fsx: {landed} chunkservers killed");
        ensure!(landed > 0 || is_yardstick, "no chunkserver died on the way");
        Ok(())
    });
}

type Run<'a> = &'a mut dyn FnMut(&mut Place, Tool) -> anyhow::Result<Outcome>;

fn run(seeds: u64, work: Run<'_>) -> anyhow::Result<()> {
    let operations = scaled("DFS_FSX_OPERATIONS", 10_000, 400).to_string();
    let mut place = Place::start(SHAPE)?;
    let folder = place.local("fsx")?;
    let settings = folder.join("fsx.toml");
    std::fs::write(&settings, SETTINGS)?;
    let first = scaled("DFS_SEED", 1, 1);
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let tool = Tool::new(900, "fsx")
            .arg("-f")
            .arg(&settings)
            .args(["-N", &operations, "-S", &seed.to_string(), "-P"])
            .arg(&folder)
            .arg(place.at(0).join(format!("file-{seed}")));
        let outcome = work(&mut place, tool)?;
        if !outcome.status.success() || !outcome.text.contains("A-OK") {
            println!("seed {seed}: {}:\n{}", outcome.status, last(&outcome.text));
            failed.push(seed);
        }
    }
    let passed = seeds - failed.len() as u64;
    println!(
        "fsx of {operations} operations: {passed} passed, {} failed, 0 skipped",
        failed.len()
    );
    ensure!(failed.is_empty(), "seeds {failed:?} failed");
    Ok(())
}
