use super::*;

const LOG: &str = "/d/log";

fn with_log(bytes: &[u8]) -> (MemDisk, Arc<dyn File>) {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.open(Path::new(LOG), Open::New).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    (disk, file)
}

fn read(disk: &MemDisk) -> Vec<u8> {
    let file = disk.process().open(Path::new(LOG), Open::ReadOnly).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_crash_keeps_what_was_written_and_ends_the_process() {
    let (disk, file) = with_log(b"one");
    let lock = disk.lock(Path::new("/d/lock")).unwrap();
    file.write_at(b"two", 3).unwrap();
    disk.crash();
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(disk.exists(Path::new(LOG)).is_err());
    assert_eq!(read(&disk), b"onetwo");
    let next = disk.process();
    let held = next.lock(Path::new("/d/lock")).unwrap();
    drop(lock);
    assert!(
        next.lock(Path::new("/d/lock")).is_err(),
        "a dead process's lock frees nothing"
    );
    drop(held);
}

#[test]
fn a_dead_process_cannot_spoil_the_next_ones_sync() {
    let (disk, old) = with_log(b"one");
    disk.crash();
    let new = disk.process().open(Path::new(LOG), Open::Existing).unwrap();
    new.write_at(b"two", 0).unwrap();
    assert!(old.sync_data().is_err());
    new.sync_data().unwrap();
    disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
    assert_eq!(read(&disk), b"two");
}

#[test]
fn a_power_cut_changes_the_boot_and_a_crash_does_not() {
    let disk = MemDisk::new();
    let boot = || disk.process().boot(Path::new("/")).unwrap();
    let first = boot();
    disk.crash();
    assert_eq!(boot(), first);
    disk.power_cut(&Rng::seeded(1), Surviving::Random);
    assert_ne!(boot(), first);
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..50 {
        let (disk, file) = with_log(&[1; 10_000]);
        file.write_at(&[2; 10_000], 5_000).unwrap();
        disk.power_cut(&Rng::seeded(seed), Surviving::Random);
        let bytes = read(&disk);
        assert!((10_000..=15_000).contains(&bytes.len()));
        assert!(bytes[..4_096].iter().all(|b| *b == 1), "seed {seed}");
        assert!(
            bytes[4_096..10_000].iter().all(|b| [1, 2].contains(b)),
            "seed {seed}"
        );
    }
}

#[test]
fn the_process_dies_at_the_change_it_was_told_to() {
    let (disk, file) = with_log(&[1; 16_384]);
    disk.die_after(1);
    file.write_at(&[2], 0).unwrap();
    assert!(file.write_at(&[3; 16_384], 0).is_err());
    assert!(file.write_at(&[4; 16_384], 0).is_err());
    let mut expected = vec![3; 8_192];
    expected.resize(16_384, 1);
    assert_eq!(read(&disk), expected);
}

#[test]
fn a_failed_sync_is_an_error_and_its_bytes_are_not_durable() {
    let (disk, file) = with_log(b"one");
    file.write_at(b"two", 0).unwrap();
    disk.fault(Fault::io("sync_data").under("/d").times(1));
    assert_eq!(
        file.sync_data().unwrap_err().source.raw_os_error(),
        Some(Errno::IO.raw_os_error())
    );
    file.sync_data().unwrap();
    assert_eq!(disk.faults_struck(), 1);
    disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
    assert_eq!(read(&disk), b"one");
}

#[test]
fn a_full_disk_takes_overwrites_and_removals_only() {
    let (disk, file) = with_log(&[1; 8_192]);
    disk.set_capacity(8_192);
    assert!(file.write_at(&[2; 4_097], 4_096).unwrap_err().is_full());
    assert!(file.reserve(8_192, 1).unwrap_err().is_full());
    file.write_at(&[2; 4_096], 4_096).unwrap();
    assert_eq!(
        disk.space(Path::new("/")).unwrap(),
        Space {
            capacity_bytes: 8_192,
            free_bytes: 0
        }
    );
    disk.remove(Path::new(LOG)).unwrap();
    assert_eq!(disk.space(Path::new("/")).unwrap().free_bytes, 8_192);
}

#[test]
fn rot_flips_one_bit_for_good() {
    let (disk, _file) = with_log(b"one");
    assert!(disk.rot(Path::new(LOG), 1, 0));
    assert!(!disk.rot(Path::new(LOG), 3, 0));
    assert!(!disk.rot(Path::new("/d/nothing"), 0, 0));
    disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
    assert_eq!(read(&disk), b"ooe");
}
