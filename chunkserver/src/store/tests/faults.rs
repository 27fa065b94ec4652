//! Rot, full disks, and disks that fail.

use super::*;
use crate::store::format::DATA_AT;
use dfs_stdx::disk::{Disk as _, Fault, Open, Surviving};
use std::path::Path;

/// A replica of three blocks on a disk: fsynced, and closed or left open.
fn written(closed: bool) -> (MemDisk, Vec<u8>) {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = create(&store);
    let data = bytes(2 * BLOCK as usize + 500, 1);
    replica
        .apply(&[packet(1, 0, &data[..1000]), packet(2, 1000, &data[1000..])])
        .unwrap();
    replica.sync().unwrap();
    if closed {
        replica.close().unwrap();
    }
    (disk, data)
}

#[test]
fn no_flipped_bit_of_a_chunk_file_becomes_a_wrong_byte() {
    let rng = Rng::seeded(8);
    for closed in [true, false] {
        let (disk, data) = written(closed);
        let mut refused = 0;
        let heads = [
            0..300u64,
            2040..2048,
            4096..4400,
            6136..6144,
            8192..8204,
            12288..12300,
        ];
        let places = heads
            .into_iter()
            .flatten()
            .chain((0..40).map(|_| 12288 + rng.below(data.len() as u64)));
        for place in places {
            let bit = rng.below(8) as u8;
            if !disk.rot(&path(), place, bit) {
                continue;
            }
            let store = open(&disk);
            match store.get(CHUNK).map(|r| (r.state(), r.read(0..u64::MAX))) {
                Some((state, Ok(read))) => {
                    assert!(read.bytes[..] == data, "at {place}");
                    assert_eq!(
                        (state.promised, state.synced),
                        (Version(1), Version(1)),
                        "at {place}"
                    );
                }
                Some((_, Err(error))) => {
                    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
                    refused += 1;
                }
                None => {
                    assert_eq!(store.broken(), [CHUNK]);
                    refused += 1;
                    use dfs_stdx::disk::Disk as _;
                    let kept = disk.list("/d/quarantine".as_ref()).unwrap();
                    disk.rename(&PathBuf::from("/d/quarantine").join(&kept[0]), &path())
                        .unwrap();
                }
            }
            drop(store);
            disk.rot(&path(), place, bit);
        }
        assert!(refused > 100);
    }
}

#[test]
fn a_file_that_was_cut_off_reads_no_zeros() {
    use dfs_stdx::disk::{Disk as _, Open};
    let (disk, data) = written(true);
    disk.open(&path(), Open::Existing)
        .unwrap()
        .set_length(12288 + BLOCK + 5)
        .unwrap();
    let replica = open(&disk).get(CHUNK).unwrap();
    assert!(replica.read(0..BLOCK).unwrap().bytes[..] == data[..BLOCK as usize]);
    assert!(matches!(
        replica.read(BLOCK..BLOCK + 5),
        Err(Error::Corrupt { block: 1, .. })
    ));
    assert_eq!(replica.bad_blocks().unwrap(), [1, 2]);
}

#[test]
fn a_page_that_rots_after_its_block_was_read_is_not_served() {
    let (disk, data) = written(true);
    let store = open(&disk);
    let replica = store.get(CHUNK).unwrap();
    let page = |n: u64| n * 4096..(n + 1) * 4096;
    for n in [3, 5] {
        let read = replica.read(page(n)).unwrap();
        assert!(read.bytes[..] == data[page(n).start as usize..page(n).end as usize]);
        assert_eq!(read.checksums, of_pieces(page(n).start, &read.bytes));
    }
    assert!(disk.rot(&path(), 12288 + 5 * 4096 + 7, 2));
    assert!(replica.read(page(5)).is_err() && replica.try_read(page(5)).is_none());
    assert!(
        replica.read(page(3)).is_err(),
        "the block is known to be rotten now"
    );
    replica
        .apply(&[packet(3, 5 * 4096, &data[5 * 4096..6 * 4096])])
        .unwrap();
    assert!(replica.read(page(5)).is_err(), "an overwrite does not hide it");
}

#[test]
fn an_overwrite_of_a_part_does_not_hide_rot() {
    let (disk, _) = written(true);
    assert!(disk.rot(&path(), 12288 + 40_000, 3));
    let store = open(&disk);
    let replica = store.get(CHUNK).unwrap();
    replica
        .apply(&[packet(3, 10, b"part"), packet(4, 39_999, b"over the rot")])
        .unwrap();
    assert!(
        replica.read(10..14).is_err(),
        "a block is served as a whole or not at all"
    );
    assert_eq!(replica.bad_blocks().unwrap(), [0]);
    assert!(
        matches!(replica.accept(0), Err(Error::Refused(_))),
        "it is not torn"
    );
}

#[test]
fn a_rotten_block_is_healed_by_its_own_bytes_only() {
    let (disk, data) = written(true);
    assert!(disk.rot(&path(), 12288 + 70_000, 0));
    let store = open(&disk);
    let replica = store.get(CHUNK).unwrap();
    let right = &data[BLOCK as usize..2 * BLOCK as usize];
    assert!(replica.heal(1, &data[..BLOCK as usize]).is_err());
    replica.heal(1, right).unwrap();
    assert!(content(&replica) == data);
}

#[test]
fn a_full_disk_acknowledges_nothing_and_keeps_what_was_there() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = create(&store);
    let mut model = bytes(BLOCK as usize + 10, 1);
    replica.apply(&[packet(1, 0, &model)]).unwrap();
    // A gap, so that overwriting can need space too.
    replica.apply(&[packet(2, 4 * BLOCK, b"end")]).unwrap();
    write(&mut model, 4 * BLOCK, b"end");
    disk.set_capacity(1);
    for (offset, length) in [
        (4 * BLOCK + 3, 200_000),
        (2 * BLOCK, BLOCK as usize),
        (5 * BLOCK, 8),
    ] {
        let outcome = replica.apply(&[packet(3, offset, &bytes(length, 7))]);
        assert!(matches!(outcome, Err(Error::Full)), "{outcome:?}");
        assert!(content(&replica) == model);
        assert!(replica.bad_blocks().unwrap().is_empty());
    }
    assert!(matches!(
        store.create(ChunkHandle(5), Version(1), Version(1), vec![]),
        Err(Error::Full)
    ));
    disk.set_capacity(1 << 40);
    replica.apply(&[packet(3, 2 * BLOCK, &bytes(100, 7))]).unwrap();
    write(&mut model, 2 * BLOCK, &bytes(100, 7));
    assert!(content(&replica) == model);
}

#[test]
fn an_overwrite_that_failed_half_way_takes_the_replica_out_of_the_stream() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = create(&store);
    replica.apply(&[packet(1, 0, &bytes(1000, 1))]).unwrap();
    // The intent is written, the data is not.
    disk.fault(Fault::io("write_at").after(1).times(1));
    assert!(matches!(
        replica.apply(&[packet(2, 10, b"x")]),
        Err(Error::Disk(_))
    ));
    assert!(replica.state().restarted);
    assert!(matches!(
        replica.apply(&[packet(2, 10, b"x")]),
        Err(Error::OutOfStream)
    ));
}

#[test]
fn a_failed_fsync_fences_the_disk_also_for_the_next_process() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = create(&store);
    replica.apply(&[packet(1, 0, b"bytes")]).unwrap();
    disk.fault(Fault::io("sync_data").times(1));
    assert!(matches!(replica.sync(), Err(Error::Fenced)));
    assert!(
        matches!(replica.sync(), Err(Error::Fenced)),
        "it never succeeds after it failed"
    );
    assert!(matches!(replica.apply(&[packet(2, 5, b"x")]), Err(Error::Fenced)));
    assert!(replica.read(0..5).is_err() && replica.try_read(0..5).is_none());
    assert!(matches!(
        store.create(ChunkHandle(5), Version(1), Version(1), vec![]),
        Err(Error::Fenced)
    ));
    assert!(store.disks()[0].failed);
    drop((store, replica));
    let store = open(&disk);
    assert!(store.disks()[0].failed);
    assert_eq!(store.get(CHUNK).unwrap().state().kind, Kind::Broken);
}

#[test]
fn an_error_of_every_operation_is_an_error_and_no_panic() {
    for operation in [
        "open",
        "read_at",
        "write_at",
        "sync_data",
        "sync_dir",
        "length",
        "set_length",
        "rename",
        "list",
    ] {
        for after in 0..12 {
            let disk = MemDisk::new();
            drop(open(&disk));
            disk.fault(Fault::io(operation).after(after).times(1));
            let Ok(store) = try_open(&disk) else { continue };
            let Ok(replica) = store.create(CHUNK, Version(1), Version(1), vec![]) else {
                continue;
            };
            let mut acknowledged = Vec::new();
            for n in 1..6u64 {
                let data = bytes(3_000, n);
                if replica.apply(&[packet(n, n * 2_000, &data)]).is_ok() {
                    write(&mut acknowledged, n * 2_000, &data);
                } else {
                    break;
                }
                let _ = replica.sync();
            }
            disk.heal();
            if let Ok(read) = replica.read(0..u64::MAX) {
                assert!(read.bytes.len() >= acknowledged.len());
            }
        }
    }
}

#[test]
fn an_open_mark_that_could_not_be_written_does_not_count() {
    let (disk, _) = written(true);
    let store = open(&disk);
    let replica = store.get(CHUNK).unwrap();
    replica.table().unwrap();
    disk.fault(Fault::io("write_at").under(path()).times(1));
    assert!(replica.apply(&[packet(3, 0, b"never")]).is_err());
    assert!(!replica.state().open);
    replica.apply(&[packet(3, 0, b"later")]).unwrap();
    disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
    let found = open(&disk.process()).get(CHUNK).unwrap();
    assert_eq!(
        found.state().kind,
        Kind::Lost,
        "what was applied went with the power"
    );
}

#[test]
fn a_header_that_could_not_be_written_makes_nothing_ready_and_promises_nothing() {
    let (disk, _) = written(true);
    let store = open(&disk);
    let replica = store.get(CHUNK).unwrap();
    let members = vec![NodeId(1)];
    disk.fault(Fault::io("open").under(path()).times(1));
    assert!(replica.promise(Version(2), members.clone()).is_err());
    assert_eq!(replica.state().promised, Version(1));
    replica.promise(Version(2), members).unwrap();
    disk.fault(Fault::io("write_at").under(path()).times(1));
    assert!(replica.set_ready(Version(2), Version(0), None).is_err());
    assert_eq!(replica.state().synced, Version(1));
    replica.set_ready(Version(2), Version(0), None).unwrap();
    disk.power_cut(&Rng::seeded(1), Surviving::OnlySynced);
    let state = open(&disk.process()).get(CHUNK).unwrap().state();
    assert_eq!((state.promised, state.synced), (Version(2), Version(2)));
}

#[test]
fn a_staged_sync_that_has_rotted_takes_its_replica_out_and_nothing_else() {
    let (disk, data) = written(true);
    let store = open(&disk);
    let replica = store.get(CHUNK).unwrap();
    replica.promise(Version(2), vec![NodeId(1)]).unwrap();
    let table = replica.table().unwrap();
    let mut target = Target {
        version: Some(Version(2)),
        loss: Version(0),
        length: table.length,
        crcs: table.crcs.to_vec(),
        writers: table.writers,
    };
    let other = vec![7; BLOCK as usize];
    target.crcs[0] = of_pieces(0, &other)[0];
    let mut install = Install::begin(&replica, target, How::Staged).unwrap();
    install.put(0, &other).unwrap();
    // It dies when its staged file has its name, before the first block is applied.
    disk.fault(Fault::io("write_at").under(path()));
    assert!(install.commit().is_err());
    disk.heal();
    disk.crash();
    drop((store, replica, data));
    assert!(disk.rot(&path().with_extension("install"), 12288 + 9, 1));
    let store = open(&disk.process());
    assert!(store.get(CHUNK).is_none());
    assert_eq!(store.broken(), [CHUNK]);
}

#[test]
fn a_replica_whose_header_never_reached_the_disk_is_absent_and_not_broken() {
    let disk = MemDisk::new();
    drop(open(&disk));
    // The kernel wrote its bytes back, and not its header; then the power went.
    let file = disk.open(&path(), Open::New).unwrap();
    file.write_at(&bytes(BLOCK as usize, 1), DATA_AT).unwrap();
    disk.crash();
    let store = open(&disk.process());
    assert!(store.get(CHUNK).is_none() && store.broken().is_empty());
    assert_eq!(disk.process().list(Path::new("/d/quarantine")).unwrap().len(), 1);
}
