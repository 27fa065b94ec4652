//! fio with verification: what several jobs wrote is read back, by the same mount and by another one.

use crate::place::Place;
use crate::tool::Tool;
use crate::{rig, scaled};
use anyhow::ensure;

/// How a file is written.
struct Pattern {
    name: &'static str,
    /// fio's own words.
    options: &'static [&'static str],
}

const PATTERNS: [Pattern; 9] = [
    Pattern {
        name: "sequential-4k",
        options: &["--rw=write", "--bs=4k"],
    },
    Pattern {
        name: "sequential-1m",
        options: &["--rw=write", "--bs=1m"],
    },
    Pattern {
        name: "sequential-odd",
        options: &["--rw=write", "--bs=7680", "--fsync=64"],
    },
    Pattern {
        name: "random-4k",
        options: &["--rw=randwrite", "--bs=4k"],
    },
    Pattern {
        name: "random-64k",
        options: &["--rw=randwrite", "--bs=64k", "--fdatasync=16"],
    },
    Pattern {
        name: "random-mixed",
        options: &["--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=0"],
    },
    Pattern {
        name: "mapped-4k",
        options: &["--rw=randwrite", "--bs=4k", "--ioengine=mmap"],
    },
    Pattern {
        name: "direct-4k",
        options: &["--rw=randwrite", "--bs=4k", "--direct=1"],
    },
    Pattern {
        name: "asynchronous-64k",
        options: &["--rw=randwrite", "--bs=64k", "--ioengine=libaio", "--iodepth=8"],
    },
];

#[test]
fn what_several_jobs_write_is_what_is_read() {
    let name = "fio::what_several_jobs_write_is_what_is_read";
    rig(name, 40, &["fio"], || {
        let size = format!("{}m", scaled("DFS_FIO_MIB", 16, 2));
        let patterns = usize::try_from(scaled("DFS_FIO_PATTERNS", PATTERNS.len() as u64, 2))?;
        let place = Place::two()?;
        let mut failed = 0;
        for pattern in &PATTERNS[..patterns] {
            // The other mount has seen nothing of what was written.
            for (mount, only) in [(0, &[][..]), (1, &["--verify_only=1"][..])] {
                if let Err(error) = fio(&place, mount, &size, pattern, only) {
                    println!("{} {only:?}: {error:#}", pattern.name);
                    failed += 1;
                }
            }
        }
        println!(
            "fio: {} passed, {failed} failed, 0 skipped",
            2 * patterns - failed
        );
        ensure!(failed == 0, "{failed} of {} runs failed", 2 * patterns);
        Ok(())
    });
}

fn fio(place: &Place, mount: usize, size: &str, pattern: &Pattern, only: &[&str]) -> anyhow::Result<()> {
    let folder = place.at(mount).join(pattern.name);
    std::fs::create_dir_all(&folder)?;
    let text = Tool::new(300, "fio")
        .args([
            "--name=job",
            "--numjobs=4",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--do_verify=1",
            "--group_reporting",
            "--thread",
        ])
        .arg(format!("--size={size}"))
        .arg(format!("--directory={}", folder.display()))
        .args(pattern.options)
        .args(only)
        .ok()?;
    ensure!(text.contains("err= 0"), "{text}");
    Ok(())
}
