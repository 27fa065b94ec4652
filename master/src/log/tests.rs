use super::*;
use dfs_stdx::Rng;
use dfs_stdx::disk::{Fault, MemDisk, Open, Surviving};

const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Small, so that a test has several segments.
const SMALL: u64 = 400;

fn place(disk: &MemDisk) -> Place {
    Place {
        disk: Arc::new(disk.process()),
        folder: "/data/log".into(),
        segment_bytes: SMALL,
    }
}

fn payload(index: u64) -> Payload {
    let length = 10 + usize::try_from(index % 7).unwrap() * 9;
    Payload {
        version: 1,
        bytes: vec![u8::try_from(index % 251).unwrap(); length],
    }
}

/// Appends groups of one, two and three records in turn until `last` is there.
fn append_up_to(log: &mut Log, last: u64) -> Result<()> {
    while log.last() < last {
        let count = (1 + log.last() % 3).min(last - log.last());
        let group: Vec<Payload> = (log.last() + 1..)
            .map(payload)
            .take(usize::try_from(count).unwrap())
            .collect();
        log.append(&group)?;
    }
    Ok(())
}

fn read(log: &Log, from: u64) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    log.replay(from, |entry| {
        entries.push(entry);
        Ok::<_, Error>(())
    })?;
    Ok(entries)
}

/// All records from the first on, which must be the ones that were appended.
fn checked_last(log: &Log) -> u64 {
    let entries = read(log, 1).unwrap();
    for (index, entry) in (log.first()..).zip(&entries) {
        assert_eq!((entry.index, &entry.payload), (index, &payload(index)));
    }
    assert_eq!(entries.len() as u64, log.last() + 1 - log.first());
    log.last()
}

fn with_records(last: u64) -> MemDisk {
    let disk = MemDisk::new();
    let mut log = Log::create(place(&disk), CLUSTER, 1, 0).unwrap();
    append_up_to(&mut log, last).unwrap();
    disk
}

#[test]
fn what_was_appended_is_read_again_over_segments_and_openings() {
    let disk = with_records(20);
    assert!(exists(&place(&disk)).unwrap());
    let mut log = Log::open(place(&disk)).unwrap();
    assert_eq!(
        (log.cluster(), log.term(), log.first(), checked_last(&log)),
        (CLUSTER, 2, 1, 20)
    );
    append_up_to(&mut log, 40).unwrap();
    assert!(log.segments.len() > 3);
    let log = Log::open(place(&disk)).unwrap();
    assert_eq!((checked_last(&log), log.term()), (40, 3));
    let terms: Vec<u64> = read(&log, 20).unwrap().iter().map(|entry| entry.term).collect();
    assert_eq!((terms[0], terms[1]), (1, 2));
}

#[test]
fn there_is_no_log_in_an_empty_folder() {
    let place = place(&MemDisk::new());
    assert!(!exists(&place).unwrap());
    place.disk.create_dir_all(&place.folder).unwrap();
    assert!(!exists(&place).unwrap());
    assert!(matches!(Log::open(place), Err(Error::Damaged { .. })));
}

#[test]
fn cutting_removes_whole_segments_and_never_the_last() {
    let disk = with_records(40);
    let mut log = Log::open(place(&disk)).unwrap();
    let second = *log.segments.keys().nth(1).unwrap();
    assert_eq!(log.cut(second - 2).unwrap(), 0);
    assert_eq!(log.cut(second - 1).unwrap(), 1);
    assert_eq!((log.first(), checked_last(&log)), (second, 40));
    log.cut(1_000).unwrap();
    assert_eq!((log.segments.len(), checked_last(&log)), (1, 40));
    assert_eq!(checked_last(&Log::open(place(&disk)).unwrap()), 40);
}

/// One life of a log until the process dies at a change of the disk; returns what was acknowledged.
fn live(disk: &MemDisk, mut acknowledged: u64) -> u64 {
    let opened = if exists(&place(disk)).unwrap_or(false) {
        Log::open(place(disk))
    } else {
        Log::create(place(disk), CLUSTER, 1, 0)
    };
    let Ok(mut log) = opened else { return acknowledged };
    for _ in 0..25 {
        if append_up_to(&mut log, acknowledged + 3).is_err() {
            break;
        }
        acknowledged = log.last();
    }
    acknowledged
}

#[test]
fn power_cuts_at_every_change_lose_no_acknowledged_record() {
    for surviving in [Surviving::OnlySynced, Surviving::Random] {
        let mut reached_end = false;
        for change in 0.. {
            let disk = MemDisk::new();
            let rng = Rng::seeded(change);
            let acknowledged = live(&disk, 0);
            // A second life that dies, and power with it.
            disk.crash();
            let before = disk.changes();
            disk.die_after(change);
            let acknowledged = live(&disk.process(), acknowledged);
            reached_end = disk.changes() - before < change;
            disk.power_cut(&rng, surviving);
            let log = Log::open(place(&disk.process())).unwrap();
            assert!(
                checked_last(&log) >= acknowledged,
                "cut at change {change}, {surviving:?}"
            );
            if reached_end {
                break;
            }
        }
        assert!(reached_end);
    }
}

#[test]
fn power_cuts_at_every_change_of_the_first_life_leave_a_log_or_none() {
    for change in 0..120 {
        let disk = MemDisk::new();
        disk.die_after(change);
        let acknowledged = live(&disk.process(), 0);
        disk.power_cut(&Rng::seeded(change), Surviving::Random);
        if exists(&place(&disk)).unwrap() {
            assert!(checked_last(&Log::open(place(&disk)).unwrap()) >= acknowledged);
        } else {
            assert_eq!(acknowledged, 0);
        }
    }
}

/// The bytes of a file.
fn length(disk: &MemDisk, path: &std::path::Path) -> u64 {
    disk.process()
        .open(path, Open::ReadOnly)
        .unwrap()
        .length()
        .unwrap()
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_is_refused_while_the_mark_is_there() {
    let disk = with_records(12);
    let firsts: Vec<u64> = Log::open(place(&disk))
        .unwrap()
        .segments
        .keys()
        .copied()
        .collect();
    assert!(firsts.len() > 1);
    for first in firsts {
        let path = place(&disk).segment(first);
        for offset in 0..length(&disk, &path) {
            assert!(disk.rot(&path, offset, 3));
            let result = Log::open(place(&disk)).and_then(|log| read(&log, 1));
            match result {
                Err(Error::Damaged { path: named, .. }) => assert_eq!(named, path),
                other => panic!("flip in {} at {offset}: {other:?}", path.display()),
            }
            assert!(disk.rot(&path, offset, 3));
        }
    }
    assert_eq!(checked_last(&Log::open(place(&disk)).unwrap()), 12);
}

#[test]
fn without_the_mark_only_the_last_group_can_be_taken_for_torn() {
    let make = || {
        let disk = with_records(9);
        disk.process()
            .remove(&place(&disk).folder.join(mark::NAME))
            .unwrap();
        disk
    };
    let disk = make();
    let last = *Log::open(place(&disk))
        .unwrap()
        .segments
        .last_key_value()
        .unwrap()
        .0;
    let path = place(&disk).segment(last);
    for offset in 0..length(&disk, &path) {
        let disk = make();
        assert!(disk.rot(&path, offset, 3));
        match Log::open(place(&disk)) {
            // 7, 8 and 9 were one group.
            Ok(log) => assert!(checked_last(&log) >= 6, "flip at {offset}"),
            Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
        }
    }
}

#[test]
fn a_rotten_mark_says_nothing() {
    let disk = with_records(9);
    for slot in [0, format::MARK_SLOT_STRIDE] {
        assert!(disk.rot(&place(&disk).folder.join(mark::NAME), slot + 30, 1));
    }
    assert_eq!(checked_last(&Log::open(place(&disk)).unwrap()), 9);
}

#[test]
fn a_missing_or_foreign_segment_is_refused() {
    let disk = with_records(40);
    let firsts: Vec<u64> = Log::open(place(&disk))
        .unwrap()
        .segments
        .keys()
        .copied()
        .collect();
    let (middle, last) = (
        place(&disk).segment(firsts[1]),
        place(&disk).segment(firsts[firsts.len() - 1]),
    );
    let aside = std::path::Path::new("/data/log/aside");
    disk.process().rename(&middle, aside).unwrap();
    let log = Log::open(place(&disk)).unwrap();
    assert!(matches!(read(&log, 1), Err(Error::Damaged { .. })));
    assert!(read(&log, firsts[2]).is_ok(), "it is not needed for these");
    disk.process().rename(aside, &middle).unwrap();
    disk.process().rename(&last, aside).unwrap();
    assert!(
        matches!(Log::open(place(&disk)), Err(Error::Damaged { .. })),
        "the mark knows of it"
    );
    let other = MemDisk::new();
    let mut log = Log::create(place(&other), ClusterId([9; 16]), firsts[firsts.len() - 1], 1).unwrap();
    append_up_to(&mut log, 41).unwrap();
    let bytes = open::read_path(&place(&other), &last).unwrap();
    disk.process()
        .open(&last, Open::New)
        .unwrap()
        .write_at(&bytes, 0)
        .unwrap();
    assert!(matches!(Log::open(place(&disk)), Err(Error::Damaged { .. })));
}

#[test]
fn a_failed_sync_or_write_closes_the_log_for_good() {
    for operation in ["sync_data", "write_at"] {
        let disk = with_records(5);
        let mut log = Log::open(place(&disk)).unwrap();
        disk.fault(Fault::io(operation).times(1));
        assert!(
            matches!(log.append(&[payload(6)]), Err(Error::Disk(_))),
            "{operation}"
        );
        assert!(
            matches!(log.append(&[payload(6)]), Err(Error::Closed(_))),
            "{operation}"
        );
        assert_eq!(log.last(), 5);
        let log = Log::open(place(&disk)).unwrap();
        assert!(checked_last(&log) >= 5);
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_anew_before_it_counts() {
    let disk = with_records(5);
    let mut log = Log::open(place(&disk)).unwrap();
    disk.fault(Fault::io("sync_data").times(1));
    log.append(&[payload(6)]).unwrap_err();
    disk.crash();
    let last = checked_last(&Log::open(place(&disk.process())).unwrap());
    disk.process().power_cut(&Rng::seeded(1), Surviving::OnlySynced);
    assert_eq!(checked_last(&Log::open(place(&disk.process())).unwrap()), last);
}

#[test]
fn a_full_disk_refuses_the_group_and_goes_on() {
    let disk = with_records(2);
    let mut log = Log::open(place(&disk)).unwrap();
    disk.fault(Fault::full("write_at").times(2));
    disk.fault(Fault::full("reserve"));
    for _ in 0..2 {
        assert!(matches!(
            log.append(&[payload(3), payload(4)]),
            Err(Error::Full(_))
        ));
    }
    append_up_to(&mut log, 4).unwrap();
    disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
    assert_eq!(checked_last(&Log::open(place(&disk.process())).unwrap()), 4);
}

#[test]
fn without_room_for_a_new_segment_the_last_one_grows() {
    let disk = with_records(2);
    let mut log = Log::open(place(&disk)).unwrap();
    disk.fault(Fault::full("open"));
    append_up_to(&mut log, 30).unwrap();
    assert_eq!(log.segments.len(), 1);
    disk.heal();
    append_up_to(&mut log, 33).unwrap();
    assert_eq!(log.segments.len(), 2);
    assert_eq!(checked_last(&Log::open(place(&disk)).unwrap()), 33);
}

#[test]
fn a_damaged_log_is_read_up_to_the_damage_and_set_aside() {
    let disk = with_records(40);
    let log = Log::open(place(&disk)).unwrap();
    let second = *log.segments.keys().nth(1).unwrap();
    assert!(disk.rot(&place(&disk).segment(second), SEGMENT_HEADER_BYTES as u64 + 30, 1));
    let mut seen = Vec::new();
    let found = salvage(&place(&disk), 2, |entry| {
        seen.push(entry.index);
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!(found, Some((1, CLUSTER)));
    assert_eq!(seen, (2..second).collect::<Vec<_>>());
    let aside = set_aside(&place(&disk)).unwrap();
    assert_eq!(aside, PathBuf::from("/data/log.damaged-1"));
    assert!(!exists(&place(&disk)).unwrap());
    let kept = Place {
        folder: aside,
        ..place(&disk)
    };
    assert!(exists(&kept).unwrap());
    let mut log = Log::create(place(&disk), CLUSTER, second, 1).unwrap();
    append_up_to(&mut log, 50).unwrap();
    assert_eq!((checked_last(&log), log.first()), (50, second));
    assert_eq!(
        set_aside(&place(&disk)).unwrap(),
        PathBuf::from("/data/log.damaged-2")
    );
}
