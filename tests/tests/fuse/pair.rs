//! Two mounts of one cluster: what one does the other sees, and what both do at once is neither lost nor mixed.

use crate::place::{Place, until};
use crate::{rig, scaled, seeded};
use anyhow::{Context as _, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;
use tokio::time::Instant;

/// What one mount did the other sees within it; a debug build on a busy machine gets more.
const SEEN_WITHIN: Duration = if cfg!(debug_assertions) {
    Duration::from_millis(1_000)
} else {
    Duration::from_millis(100)
};
const WRITERS: u32 = 8;

#[test]
fn appends_of_eight_writers_on_two_mounts_are_all_there_and_whole() {
    let name = "pair::appends_of_eight_writers_on_two_mounts_are_all_there_and_whole";
    rig(name, 10, &[], || {
        let (place, rng) = (Place::two()?, seeded("appends"));
        let records = u32::try_from(scaled("DFS_APPENDS", 500, 40))?;
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (root, mut rng) = (place.at(writer as usize % 2), rng.clone());
                    scope.spawn(move || append(root, writer, records, &mut rng))
                })
                .collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().expect("it did not panic"))
        })?;
        for mount in 0..2 {
            let text = fs::read_to_string(place.at(mount).join("log"))?;
            check_appended(&text, records).with_context(|| format!("seen from mount {mount}"))?;
        }
        println!("appends: {} records of {WRITERS} writers", records * WRITERS);
        Ok(())
    });
}

/// Records of many lengths, each in one call; now and then an fsync, or a new descriptor.
fn append(root: &Path, writer: u32, records: u32, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    let open = || {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(root.join("log"))
    };
    let mut file = open()?;
    for n in 0..records {
        let letter = char::from(b'a' + u8::try_from(writer)?);
        let padding = letter.to_string().repeat(rng.usize(0..3_000));
        let record = format!("{writer} {n} {} {padding}\n", padding.len());
        let written = file.write(record.as_bytes())?;
        ensure!(written == record.len(), "a short write");
        match rng.u32(0..40) {
            0 => file.sync_all()?,
            1 => file = open()?,
            _ => {}
        }
    }
    Ok(())
}

fn check_appended(text: &str, records: u32) -> anyhow::Result<()> {
    let mut next = BTreeMap::<u32, u32>::new();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.splitn(4, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
        let (Some(writer), Some(n), Some(length)) = (number(), number(), number()) else {
            anyhow::bail!("line {at} is no record: {:.100}", line.escape_debug().to_string());
        };
        let padding = words.next().unwrap_or_default();
        let letter = char::from(b'a' + u8::try_from(writer)?);
        ensure!(
            padding.len() == length as usize && padding.chars().all(|c| c == letter),
            "record {n} of writer {writer} is torn"
        );
        let expected = next.entry(writer).or_default();
        ensure!(
            n == *expected,
            "writer {writer}: record {n} instead of {expected} at line {at}"
        );
        *expected += 1;
    }
    for writer in 0..WRITERS {
        let found = next.get(&writer).copied().unwrap_or(0);
        ensure!(found == records, "writer {writer}: {found} of {records} records");
    }
    Ok(())
}

/// How long things took to be seen.
#[derive(Default)]
struct Seen(Vec<Duration>);

impl Seen {
    /// Waits until the other mount sees it; it must within the bound.
    fn wait(&mut self, what: &str, holds: impl FnMut() -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        until(what, SEEN_WITHIN, holds)?;
        self.0.push(start.elapsed());
        Ok(())
    }

    fn report(mut self, what: &str) {
        self.0.sort();
        let at = |index: usize| self.0.get(index).copied().unwrap_or_default();
        println!(
            "{what}: {} changes seen, {:.1?} in the middle, {:.1?} at worst",
            self.0.len(),
            at(self.0.len() / 2),
            at(self.0.len().saturating_sub(1))
        );
    }
}

#[test]
fn names_made_moved_and_removed_are_seen_on_the_other_mount() {
    let name = "pair::names_made_moved_and_removed_are_seen_on_the_other_mount";
    rig(name, 10, &[], || {
        let place = Place::two()?;
        let rounds = scaled("DFS_NAMES", 300, 20);
        let (a, b) = (place.at(0), place.at(1));
        let mut seen = Seen::default();
        fs::create_dir(a.join("names"))?;
        seen.wait("a directory", || b.join("names").is_dir())?;
        for n in 0..rounds {
            let (here, there) = if n % 2 == 0 { (a, b) } else { (b, a) };
            let (old, new) = (format!("names/old-{n}"), format!("names/new-{n}"));
            // The other one knows that it is not there.
            ensure!(!there.join(&old).exists(), "{old} is there before it was made");
            fs::write(here.join(&old), b"x")?;
            seen.wait("a new name", || there.join(&old).exists())?;
            fs::rename(here.join(&old), here.join(&new))?;
            seen.wait("a new name after a rename", || there.join(&new).exists())?;
            seen.wait("no old name after a rename", || !there.join(&old).exists())?;
            if n % 3 == 0 {
                fs::remove_file(here.join(&new))?;
                seen.wait("no name after its end", || !there.join(&new).exists())?;
            }
            let listed = fs::read_dir(there.join("names"))?.count() as u64;
            let expected = n + 1 - (n / 3 + 1);
            ensure!(listed == expected, "{listed} names listed instead of {expected}");
        }
        seen.report("names");
        Ok(())
    });
}

#[test]
fn modes_times_sizes_and_bytes_are_seen_on_the_other_mount() {
    let name = "pair::modes_times_sizes_and_bytes_are_seen_on_the_other_mount";
    rig(name, 10, &[], || {
        let place = Place::two()?;
        let rounds = scaled("DFS_CHANGES", 200, 20);
        let mut seen = Seen::default();
        let path = |mount: usize| place.at(mount).join("file");
        fs::write(path(0), b"")?;
        for n in 0..rounds {
            let (here, there) = (path(n as usize % 2), path((n as usize + 1) % 2));
            let before = fs::metadata(&there)?;
            let mode = 0o600 | u32::try_from(n % 64)?;
            fs::set_permissions(&here, fs::Permissions::from_mode(mode))?;
            seen.wait("a mode", || {
                fs::metadata(&there).is_ok_and(|m| m.mode() & 0o777 == mode)
            })?;
            let bytes = vec![u8::try_from(n % 251)?; 1 + usize::try_from(n)? * 37 % 9_000];
            let file = File::options().write(true).truncate(true).open(&here)?;
            (&file).write_all(&bytes)?;
            file.sync_all()?;
            seen.wait("a size", || {
                fs::metadata(&there).is_ok_and(|m| m.size() == bytes.len() as u64)
            })?;
            seen.wait("bytes", || fs::read(&there).is_ok_and(|found| found == bytes))?;
            let after = fs::metadata(&there)?;
            let mine = fs::metadata(&here)?;
            let time = |m: &fs::Metadata| (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
            ensure!(
                time(&after) == time(&mine),
                "times differ between the mounts: {:?} {:?}",
                time(&after),
                time(&mine)
            );
            ensure!(
                (after.ctime(), after.ctime_nsec()) >= (before.ctime(), before.ctime_nsec()),
                "time went back"
            );
        }
        seen.report("changes");
        Ok(())
    });
}

#[test]
fn close_to_open_shows_what_the_other_mount_wrote() {
    let name = "pair::close_to_open_shows_what_the_other_mount_wrote";
    rig(name, 10, &[], || {
        let (place, mut rng) = (Place::two()?, seeded("close to open"));
        let rounds = scaled("DFS_TURNS", 200, 20);
        let mut model: Vec<u8> = Vec::new();
        for n in 0..rounds {
            let mount = rng.usize(0..2);
            let path = place.at(mount).join("file");
            let file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)?;
            let mut found = Vec::new();
            (&file).read_to_end(&mut found)?;
            ensure!(
                found == model,
                "round {n}: mount {mount} reads {} bytes that differ from the {} last written",
                found.len(),
                model.len()
            );
            let at = rng.usize(0..=model.len().min(600_000));
            let mut bytes = vec![0; rng.usize(1..100_000)];
            rng.fill(&mut bytes);
            if rng.u32(0..5) == 0 {
                file.set_len(at as u64)?;
                model.truncate(at);
            }
            file.write_all_at(&bytes, at as u64)?;
            model.resize(model.len().max(at + bytes.len()), 0);
            model[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    });
}

#[test]
fn storms_of_names_on_both_mounts_end_with_one_tree() {
    let name = "pair::storms_of_names_on_both_mounts_end_with_one_tree";
    rig(name, 10, &[], || {
        let (place, mut rng) = (Place::two()?, seeded("storm"));
        let steps = scaled("DFS_STORM", 2_000, 100);
        for folder in 0..3 {
            fs::create_dir(place.at(0).join(format!("d{folder}")))?;
        }
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (root, mut rng) = (place.at(worker % 2), rng.fork());
                scope.spawn(move || {
                    for _ in 0..steps {
                        // What is there, and what is not, is the others' doing, too.
                        let _ = storm(root, &mut rng);
                    }
                });
            }
        });
        let trees = [tree(place.at(0))?, tree(place.at(1))?];
        ensure!(trees[0] == trees[1], "the mounts differ: {trees:?}");
        let inodes: BTreeSet<u64> = trees[0].values().copied().collect();
        println!(
            "storm: {} names of {} files and folders are left",
            trees[0].len(),
            inodes.len()
        );
        if let Some(cluster) = place.cluster() {
            let fsck = cluster.run(&["fsck", "/"]);
            ensure!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
        }
        Ok(())
    });
}

fn storm(root: &Path, rng: &mut fastrand::Rng) -> io::Result<()> {
    let mut path = || root.join(format!("d{}/n{}", rng.u32(0..3), rng.u32(0..12)));
    let (from, to) = (path(), path());
    match rng.u32(0..8) {
        0 => File::create_new(from)?.write_all(b"x"),
        1 => fs::create_dir(from),
        2 | 3 => fs::rename(from, to),
        4 => fs::hard_link(from, to),
        5 => fs::remove_file(from),
        6 => fs::remove_dir(from),
        _ => fs::metadata(from).map(drop),
    }
}

/// Every name with its inode.
fn tree(root: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut names = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            ensure!(
                fs::symlink_metadata(&path)?.ino() == metadata.ino(),
                "{name}: listed as another file"
            );
            names.insert(name, metadata.ino());
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(names)
}

#[test]
fn of_two_that_make_the_same_name_one_succeeds() {
    let name = "pair::of_two_that_make_the_same_name_one_succeeds";
    rig(name, 5, &[], || {
        let place = Place::two()?;
        let rounds = scaled("DFS_RACES", 200, 20);
        let both = Barrier::new(2);
        let wins = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|mount| {
                    let (root, both) = (place.at(mount), &both);
                    scope.spawn(move || {
                        let mut wins = Vec::new();
                        for n in 0..rounds {
                            both.wait();
                            let path = root.join(format!("race-{n}"));
                            wins.push(match n % 3 {
                                0 => File::create_new(path).is_ok(),
                                1 => fs::create_dir(path).is_ok(),
                                _ => std::os::unix::fs::symlink("x", path).is_ok(),
                            });
                        }
                        wins
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("it did not panic"))
                .collect::<Vec<_>>()
        });
        for (n, (a, b)) in wins[0].iter().zip(&wins[1]).enumerate() {
            ensure!(a != b, "race {n}: {a} and {b}");
        }
        Ok(())
    });
}

#[test]
fn an_unlinked_file_stays_usable_where_it_is_open() {
    let name = "pair::an_unlinked_file_stays_usable_where_it_is_open";
    rig(name, 5, &[], || {
        let place = Place::two()?;
        for (opener, remover) in [(0, 0), (0, 1), (1, 0)] {
            let bytes = dfs_tests::process::content(700_000, 3);
            fs::write(place.at(opener).join("file"), &bytes)?;
            let file = File::options()
                .read(true)
                .write(true)
                .open(place.at(opener).join("file"))?;
            fs::remove_file(place.at(remover).join("file"))?;
            let gone = || !place.at(0).join("file").exists() && !place.at(1).join("file").exists();
            until("the name is gone", SEEN_WITHIN, gone)?;
            let mut found = vec![0; bytes.len()];
            file.read_exact_at(&mut found, 0)?;
            ensure!(found == bytes, "other bytes in an unlinked file");
            file.write_all_at(b"more", bytes.len() as u64)?;
            file.sync_all()?;
            let metadata = file.metadata()?;
            ensure!(
                (metadata.nlink(), metadata.len()) == (0, bytes.len() as u64 + 4),
                "{metadata:?}"
            );
            // A new file of that name is another file.
            fs::write(place.at(remover).join("file"), b"new")?;
            file.read_exact_at(&mut found, 0)?;
            ensure!(found == bytes, "the new file's bytes in the old one");
            fs::remove_file(place.at(remover).join("file"))?;
        }
        freed(&place)
    });
}

/// Waits until the master knows no file any more.
fn freed(place: &Place) -> anyhow::Result<()> {
    let Some(cluster) = place.cluster() else {
        return Ok(());
    };
    until("the files are freed", crate::place::BOUND, || {
        cluster.json(&["status"])["chunks"]["ok"] == 0
    })
}
