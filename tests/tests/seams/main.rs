//! The seams, real and fake, against their suites; and what only the fake disk can do.

use dfs_master::store::{MemoryStore, SledStore};
use dfs_proto::ClusterId;
use dfs_proto::net::{Listen, Tcp};
use dfs_stdx::blocking::Pool;
use dfs_stdx::disk::{Disk, MemDisk, Open, OsDisk, Surviving};
use dfs_stdx::{Clock, Rng};
use dfs_tests::suites;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Fresh folders in a temporary one, on the machine's own file system.
fn real_disks_in(root: &Path) -> impl Fn() -> suites::disk::Made {
    let count = Cell::new(0);
    move || {
        count.set(count.get() + 1);
        let folder = root.join(count.get().to_string());
        std::fs::create_dir(&folder).unwrap();
        (Arc::new(OsDisk), folder)
    }
}

#[test]
fn the_real_disk_conforms() {
    let root = tempfile::tempdir().unwrap();
    suites::disk::conformance(real_disks_in(root.path()));
}

#[test]
fn the_real_disk_conforms_in_memory() {
    let Ok(root) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: no tmpfs at /dev/shm");
        return;
    };
    suites::disk::conformance(real_disks_in(root.path()));
}

#[test]
fn the_disk_in_memory_conforms() {
    suites::disk::conformance(|| (Arc::new(MemDisk::new()), PathBuf::from("/")));
    suites::disk::conformance(|| {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("deep/down")).unwrap();
        (Arc::new(disk), PathBuf::from("deep/down"))
    });
}

#[tokio::test]
async fn both_pools_conform() {
    suites::blocking::conformance(Pool::inline()).await;
    suites::blocking::conformance(Pool::threads("one", 1)).await;
    suites::blocking::conformance(Pool::threads("four", 4)).await;
}

#[tokio::test]
async fn the_system_clock_conforms() {
    suites::time::clock_conformance(Clock::system()).await;
}

#[tokio::test(start_paused = true)]
async fn the_simulated_clock_conforms() {
    suites::time::clock_conformance(Clock::simulated(1)).await;
}

#[test]
fn both_sources_of_chance_conform() {
    suites::time::rng_conformance(&Rng::system());
    suites::time::rng_conformance(&Rng::seeded(1));
}

#[test]
fn the_store_in_memory_conforms() {
    suites::store::conformance(|| Box::new(MemoryStore::new()));
}

#[test]
fn the_store_in_sled_conforms() {
    let root = tempfile::tempdir().unwrap();
    let count = Cell::new(0);
    suites::store::conformance(|| {
        count.set(count.get() + 1);
        let path = root.path().join(count.get().to_string());
        Box::new(SledStore::create(&path, ClusterId([1; 16]), 1 << 20).unwrap())
    });
}

#[tokio::test]
async fn tcp_conforms() {
    let listener = Tcp.listen("127.0.0.1:0").await.unwrap();
    let closed = Tcp.listen("127.0.0.1:0").await.unwrap().local_addr();
    let addr = listener.local_addr();
    tokio::select! {
        () = suites::net::echo(listener) => unreachable!("an echo does not end"),
        () = suites::net::conformance(&Tcp, &addr, &closed) => {}
    }
}

/// The way a file is replaced by rename, as far as the step at which the process dies.
fn replace(disk: &dyn Disk, bytes: &[u8]) -> Result<(), dfs_stdx::disk::Error> {
    let (new, name) = (Path::new("/d/new"), Path::new("/d/name"));
    let file = disk.open(new, Open::Always)?;
    file.set_length(0)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(new, name)?;
    disk.sync_dir(Path::new("/d"))
}

fn content(disk: &dyn Disk) -> Vec<u8> {
    let file = disk.open(Path::new("/d/name"), Open::ReadOnly).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn power_may_go_at_any_step_of_a_replacement_and_old_or_new_is_there() {
    let (old, new) = (vec![1; 9_000], vec![2; 12_000]);
    let (mut kept, mut replaced) = (0, 0);
    for seed in 0..200 {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        replace(&disk, &old).unwrap();
        let rng = Rng::seeded(seed);
        disk.die_after(rng.below(8));
        let answer = replace(&disk, &new);
        disk.power_cut(&rng, Surviving::Random);
        let found = content(&disk.process());
        if answer.is_ok() {
            assert_eq!(found, new, "seed {seed}: it was acknowledged");
        }
        assert!(found == old || found == new, "seed {seed}: neither old nor new");
        if found == old { kept += 1 } else { replaced += 1 }
    }
    assert!(
        kept > 20 && replaced > 20,
        "kept {kept}, replaced {replaced}: the cuts hit one side only"
    );
}

#[test]
fn without_the_sync_the_same_replacement_loses_both() {
    let spoiled = (0..200).any(|seed| {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        replace(&disk, &[1; 9_000]).unwrap();
        let file = disk.open(Path::new("/d/new"), Open::New).unwrap();
        file.write_at(&[2; 12_000], 0).unwrap();
        disk.rename(Path::new("/d/new"), Path::new("/d/name")).unwrap();
        disk.power_cut(&Rng::seeded(seed), Surviving::Random);
        let found = content(&disk.process());
        found != [1; 9_000] && found != [2; 12_000]
    });
    assert!(spoiled, "a missing sync went unnoticed");
}

#[test]
fn an_unsynced_rename_may_vanish() {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    replace(&disk, b"old").unwrap();
    disk.open(Path::new("/d/new"), Open::New).unwrap();
    disk.rename(Path::new("/d/new"), Path::new("/d/name")).unwrap();
    disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
    assert_eq!(content(&disk.process()), b"old");
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let after = |seed| {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        replace(&disk, &[1; 50_000]).unwrap();
        disk.open(Path::new("/d/name"), Open::Existing)
            .unwrap()
            .write_at(&[2; 50_000], 10)
            .unwrap();
        disk.power_cut(&Rng::seeded(seed), Surviving::Random);
        content(&disk.process())
    };
    assert_eq!(after(7), after(7));
    assert!((0..10).any(|seed| after(seed) != after(7)));
}
