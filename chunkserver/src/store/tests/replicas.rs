//! What a replica does when nothing goes wrong, and the index around it.

use super::*;
use proptest::{prelude::ProptestConfig, prop_assert, prop_assert_eq, proptest};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn packets_at_any_place_leave_what_a_plain_file_would_hold(
        writes in proptest::collection::vec((0u64..4 * BLOCK, 1usize..100_000), 1..8)) {
        let store = open(&MemDisk::new());
        let replica = create(&store);
        let mut model = Vec::new();
        for (n, (offset, length)) in writes.iter().enumerate() {
            let data = bytes(*length, n as u64);
            replica.apply(&[packet(n as u64 + 1, *offset, &data)]).unwrap();
            write(&mut model, *offset, &data);
            let seen = replica.read(*offset / 2..*offset + 1_000).unwrap();
            let end = model.len().min(*offset as usize + 1_000);
            prop_assert!(seen.bytes[..] == model[*offset as usize / 2..end]);
            prop_assert_eq!(&seen.checksums, &of_pieces(*offset / 2, &seen.bytes));
        }
        prop_assert!(content(&replica) == model);
        prop_assert_eq!(&replica.table().unwrap().crcs[..], &of_pieces(0, &model)[..]);
        prop_assert!(replica.bad_blocks().unwrap().is_empty());
    }

    #[test]
    fn a_batch_and_single_packets_come_to_the_same(
        writes in proptest::collection::vec((0u64..3 * BLOCK, 1usize..90_000), 1..6)) {
        let (one, other) = (open(&MemDisk::new()), open(&MemDisk::new()));
        let (single, batch) = (create(&one), create(&other));
        let packets: Vec<_> = writes.iter().enumerate()
            .map(|(n, (offset, length))| packet(n as u64 + 1, *offset, &bytes(*length, n as u64))).collect();
        packets.iter().for_each(|p| single.apply(std::slice::from_ref(p)).unwrap());
        batch.apply(&packets).unwrap();
        prop_assert_eq!(single.digest().unwrap(), batch.digest().unwrap());
        prop_assert!(content(&single) == content(&batch));
    }
}

#[test]
fn an_append_of_a_mebibyte_is_three_writes() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = create(&store);
    let data = bytes(1 << 20, 1);
    for n in 0..3 {
        let before = disk.changes();
        replica.apply(&[packet(n + 1, n << 20, &data)]).unwrap();
        assert_eq!(disk.changes() - before, 3, "data, table, header");
    }
}

#[test]
fn a_write_and_its_fsync_pay_one_fsync() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = create(&store);
    replica.apply(&[packet(1, 0, b"born")]).unwrap();
    replica.sync().unwrap();
    for n in 2..5 {
        let before = disk.changes();
        replica.apply(&[packet(n, n * 4, b"more")]).unwrap();
        replica.sync().unwrap();
        assert_eq!(disk.changes() - before, 3, "data, header, fsync");
    }
}

#[test]
fn a_small_file_is_a_name_and_two_writes() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let before = disk.changes();
    let replica = store.create_unborn(CHUNK, Version(1), vec![NodeId(1)]).unwrap();
    replica.apply(&[packet(1, 0, b"small")]).unwrap();
    assert_eq!(disk.changes() - before, 3, "open, data, header");
    drop(store);
    let found = open(&disk).get(CHUNK).unwrap();
    assert_eq!((found.state().length, found.state().synced), (5, Version(1)));
    assert_eq!(content(&found), b"small");
}

#[test]
fn overwrites_are_announced_a_group_at_a_time() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = create(&store);
    let mut model = bytes(4 * BLOCK as usize, 1);
    replica.apply(&[packet(1, 0, &model)]).unwrap();
    let before = disk.changes();
    let places = (0..20).map(|n| (n * 7_919) % (4 * BLOCK - 100));
    let packets: Vec<Packet> = (2..)
        .zip(places)
        .map(|(n, at)| packet(n, at, &bytes(100, n)))
        .collect();
    replica.apply(&packets).unwrap();
    packets.iter().for_each(|p| write(&mut model, p.offset, &p.data));
    assert!(content(&replica) == model);
    assert_eq!(
        disk.changes() - before,
        20 + 3 + 4,
        "data, a table a group, headers"
    );
}

#[test]
fn what_was_closed_is_found_clean_and_what_was_open_has_restarted() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = create(&store);
    replica.apply(&[packet(1, 0, b"bytes")]).unwrap();
    drop(store);
    let store = open(&disk);
    let state = store.get(CHUNK).unwrap().state();
    assert_eq!(
        (state.kind, state.restarted, state.length),
        (Kind::Intact, true, 5)
    );
    let replica = store.get(CHUNK).unwrap();
    assert!(matches!(
        replica.apply(&[packet(2, 5, b"x")]),
        Err(Error::OutOfStream)
    ));
    replica.promise(Version(2), vec![NodeId(1)]).unwrap();
    replica.set_ready(Version(2), Version(0), None).unwrap();
    replica.apply(&[packet(2, 5, b"x")]).unwrap();
    replica.sync().unwrap();
    replica.close().unwrap();
    drop((store, replica));
    let store = open(&disk);
    let state = store.get(CHUNK).unwrap().state();
    assert_eq!(
        (state.kind, state.restarted, state.open),
        (Kind::Intact, false, false)
    );
    assert_eq!(content(&store.get(CHUNK).unwrap()), b"bytesx");
}

#[test]
fn a_promise_only_goes_up_and_outlives_the_replica() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let replica = store
        .promise(CHUNK, Version(3), vec![NodeId(1), NodeId(2)])
        .unwrap();
    assert_eq!(
        (replica.state().promised, replica.state().synced),
        (Version(3), Version(0))
    );
    assert!(matches!(
        replica.promise(Version(2), vec![]),
        Err(Error::Stale(Version(3)))
    ));
    assert!(matches!(
        store.remove(CHUNK, Version(2), 100),
        Err(Error::Stale(Version(3)))
    ));
    store.remove(CHUNK, Version(3), 100).unwrap();
    drop((store, replica));
    let store = open(&disk);
    assert!(store.get(CHUNK).is_none());
    assert_eq!(store.promised(CHUNK), Version(3));
    let late = store.create(CHUNK, Version(1), Version(1), vec![]);
    assert!(matches!(late, Err(Error::Stale(Version(3)))));
    store.forget_graves(101).unwrap();
    assert_eq!(store.promised(CHUNK), Version(0));
}

#[test]
fn a_cut_to_a_length_drops_what_is_beyond_for_good() {
    let store = open(&MemDisk::new());
    let replica = create(&store);
    let data = bytes(3 * BLOCK as usize, 1);
    replica.apply(&[packet(1, 0, &data)]).unwrap();
    replica.promise(Version(2), vec![NodeId(1)]).unwrap();
    replica
        .set_ready(Version(2), Version(0), Some(BLOCK + 10))
        .unwrap();
    assert!(content(&replica) == data[..BLOCK as usize + 10]);
    replica.apply(&[packet(2, 2 * BLOCK, b"end")]).unwrap();
    let mut expected = data[..BLOCK as usize + 10].to_vec();
    write(&mut expected, 2 * BLOCK, b"end");
    assert!(
        content(&replica) == expected,
        "the gap is zeros, not what was there before"
    );
}

#[test]
fn directories_that_do_not_fit_are_refused() {
    let disk = MemDisk::new();
    let store = open(&disk);
    store.register(dfs_proto::ClusterId([1; 16]), NodeId(4)).unwrap();
    assert!(matches!(try_open(&disk), Err(Error::Refused(why)) if why.contains("in use")));
    assert!(store.register(dfs_proto::ClusterId([2; 16]), NodeId(4)).is_err());
    drop(store);
    let two = |accept_new_disk| Options {
        dirs: vec!["/d".into(), "/e".into()],
        accept_new_disk,
        ..options()
    };
    let open_two = |accept| Store::open(Arc::new(disk.clone()), &two(accept), &Rng::seeded(5));
    assert!(matches!(open_two(false), Err(Error::Refused(why)) if why.contains("empty")));
    let store = open_two(true).unwrap();
    assert_eq!(store.disks().len(), 2);
    drop(store);
    assert_eq!(open_two(false).unwrap().identity().node, NodeId(4));
}

#[test]
fn a_foreign_file_goes_to_quarantine_and_is_told() {
    use dfs_stdx::disk::{Disk as _, Open};
    let disk = MemDisk::new();
    drop(open(&disk));
    let file = disk.open(&path(), Open::New).unwrap();
    file.write_at(&bytes(20_000, 1), 0).unwrap();
    let store = open(&disk);
    assert_eq!(store.broken(), [CHUNK]);
    assert!(store.get(CHUNK).is_none());
    assert_eq!(disk.list("/d/quarantine".as_ref()).unwrap().len(), 1);
}

#[test]
fn idle_files_are_closed_and_come_back() {
    let store = open(&MemDisk::new());
    let replica = create(&store);
    replica.apply(&[packet(1, 0, b"bytes")]).unwrap();
    replica.sync().unwrap();
    // Closing writes the header without an fsync of its own: the file is let go all the same.
    replica.close().unwrap();
    store.trim(0);
    assert!(!replica.is_loaded() && replica.try_read(0..5).is_none());
    assert_eq!(content(&replica), b"bytes");
    assert!(replica.try_read(0..5).is_some());
}
