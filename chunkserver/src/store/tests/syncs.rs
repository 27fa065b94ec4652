//! Taking over another replica's bytes.

use super::*;
use dfs_stdx::disk::Surviving;
use std::path::Path;

/// A source of four blocks at version 1, and its target for version 2.
fn source() -> (Vec<u8>, Target) {
    let store = open(&MemDisk::new());
    let replica = create(&store);
    let data = bytes(3 * BLOCK as usize + 99, 1);
    replica.apply(&[packet(1, 0, &data)]).unwrap();
    let table = replica.table().unwrap();
    let target = Target {
        version: Some(Version(2)),
        loss: Version(0),
        length: table.length,
        crcs: table.crcs.to_vec(),
        writers: table.writers,
    };
    (data, target)
}

fn block(data: &[u8], block: u32) -> &[u8] {
    let start = block as usize * BLOCK as usize;
    &data[start..data.len().min(start + BLOCK as usize)]
}

fn install(replica: &Arc<Replica>, data: &[u8], target: Target, how: How) -> Result<()> {
    let mut install = Install::begin(replica, target, how)?;
    for number in install.needed().to_vec() {
        install.put(number, block(data, number))?;
    }
    install.commit()
}

/// A follower: the source's bytes but for a packet in the middle, and longer.
fn follower(disk: &MemDisk, data: &[u8]) -> Result<Arc<Replica>> {
    let store = try_open(disk)?;
    let replica = store.create(CHUNK, Version(1), Version(1), vec![NodeId(1)])?;
    replica.apply(&[
        packet(1, 0, data),
        packet(2, BLOCK + 5, b"other"),
        packet(3, 4 * BLOCK, b"longer"),
    ])?;
    replica.promise(Version(2), vec![NodeId(1)])?;
    Ok(replica)
}

#[test]
fn a_sync_makes_replicas_identical_and_brings_only_what_differs() {
    let (data, target) = source();
    let replica = follower(&MemDisk::new(), &data).unwrap();
    let begun = Install::begin(&replica, target.clone(), How::Staged).unwrap();
    assert_eq!(begun.needed(), [1, 3]);
    drop(begun);
    install(&replica, &data, target, How::Staged).unwrap();
    assert!(content(&replica) == data);
    assert_eq!(replica.state().synced, Version(2));
    let store = open(&MemDisk::new());
    let twin = create(&store);
    twin.apply(&[packet(1, 0, &data)]).unwrap();
    assert_eq!(replica.digest().unwrap(), twin.digest().unwrap());
}

#[test]
fn a_sync_heals_the_rot_that_a_read_has_met() {
    let (disk, (data, target)) = (MemDisk::new(), source());
    let store = open(&disk);
    let replica = create(&store);
    replica.apply(&[packet(1, 0, &data)]).unwrap();
    replica.sync().unwrap();
    replica.promise(Version(2), vec![NodeId(1)]).unwrap();
    assert!(disk.rot(&path(), 12288 + BLOCK + 5, 3));
    assert!(replica.read(BLOCK..BLOCK + 9).is_err());
    let begun = Install::begin(&replica, target.clone(), How::Staged).unwrap();
    assert_eq!(begun.needed(), [1]);
    drop(begun);
    install(&replica, &data, target, How::Staged).unwrap();
    assert!(content(&replica) == data && replica.bad_blocks().unwrap().is_empty());
}

/// A replica on stable storage with the source's bytes, and another chunk's whole file in place of its own.
fn exchanged(disk: &MemDisk, data: &[u8], unloaded: bool) -> Arc<Replica> {
    use dfs_stdx::disk::{Disk as _, Open};
    let store = open(disk);
    let replica = create(&store);
    replica.apply(&[packet(1, 0, data)]).unwrap();
    let other = store
        .create(ChunkHandle(0xdef), Version(1), Version(1), vec![NodeId(1)])
        .unwrap();
    other.apply(&[packet(1, 0, &bytes(data.len(), 2))]).unwrap();
    for written in [&replica, &other] {
        written.sync().unwrap();
        written.close().unwrap();
    }
    replica.sync().unwrap();
    if unloaded {
        replica.unload();
    }
    let theirs = Path::new("/d/chunks/ef").join(other.handle().to_string());
    let theirs = disk.open(&theirs, Open::ReadOnly).unwrap();
    let mut file = vec![0; usize::try_from(theirs.length().unwrap()).unwrap()];
    theirs.read_at(&mut file, 0).unwrap();
    disk.open(&path(), Open::Existing)
        .unwrap()
        .write_at(&file, 0)
        .unwrap();
    replica
}

#[test]
fn another_chunks_file_in_its_place_is_never_served_and_a_sync_heals_it() {
    let (disk, (data, target)) = (MemDisk::new(), source());
    let replica = exchanged(&disk, &data, true);
    assert!(matches!(replica.read(0..9), Err(Error::Corrupt { .. })));
    replica.promise(Version(2), vec![NodeId(1)]).unwrap();
    install(&replica, &data, target, How::Staged).unwrap();
    replica.unload();
    assert!(content(&replica) == data);
}

#[test]
fn another_chunks_table_under_ones_own_header_fits_nothing() {
    let (disk, (data, _)) = (MemDisk::new(), source());
    let replica = exchanged(&disk, &data, false);
    // Both headers are written anew, over the other chunk's.
    replica.promise(Version(2), vec![NodeId(1)]).unwrap();
    replica.set_ready(Version(2), Version(0), None).unwrap();
    replica.promise(Version(3), vec![NodeId(1)]).unwrap();
    replica.sync().unwrap();
    replica.unload();
    assert!(matches!(replica.read(0..9), Err(Error::Corrupt { .. })));
}

#[test]
fn wrong_bytes_and_wrong_versions_are_refused() {
    let (data, target) = source();
    let replica = follower(&MemDisk::new(), &data).unwrap();
    let mut begun = Install::begin(&replica, target.clone(), How::Staged).unwrap();
    assert!(begun.put(1, block(&data, 0)).is_err());
    assert!(begun.put(0, block(&data, 0)).is_err(), "not needed");
    replica.promise(Version(3), vec![NodeId(1)]).unwrap();
    assert!(matches!(begun.commit(), Err(Error::Stale(Version(3)))));
    assert_eq!(replica.state().synced, Version(1));
    assert!(
        Install::begin(
            &replica,
            Target {
                length: 1 << 40,
                ..target
            },
            How::Staged
        )
        .is_err()
    );
}

#[test]
fn a_whole_member_stays_whole_wherever_its_sync_is_interrupted() {
    let (data, target) = source();
    let run =
        |disk: &MemDisk| follower(disk, &data).and_then(|r| install(&r, &data, target.clone(), How::Staged));
    let whole = MemDisk::new();
    run(&whole).unwrap();
    let mut old = data.clone();
    write(&mut old, BLOCK + 5, b"other");
    write(&mut old, 4 * BLOCK, b"longer");
    let (mut before, mut after) = (0, 0);
    for at in 280..whole.changes() {
        for cut in [None, Some(Surviving::OnlySynced), Some(Surviving::Random)] {
            let disk = MemDisk::new();
            disk.die_after(at);
            let _ = run(&disk);
            match cut {
                None => disk.crash(),
                Some(surviving) => disk.power_cut(&Rng::seeded(at), surviving),
            }
            let store = open(&disk.process());
            let Some(replica) = store.get(CHUNK).filter(|r| r.state().promised == Version(2)) else {
                continue;
            };
            for block in replica.torn_blocks().unwrap() {
                replica.accept(block).unwrap();
            }
            if replica.state().synced == Version(2) {
                assert!(content(&replica) == data, "at {at} {cut:?}");
                after += 1;
            } else {
                assert!(content(&replica) == old, "at {at} {cut:?}");
                before += 1;
            }
        }
    }
    assert!(before > 5 && after > 3, "{before} {after}");
}

#[test]
fn a_base_that_is_filled_in_place_counts_only_when_it_is_complete() {
    let (data, target) = source();
    let base = Target {
        version: None,
        ..target.clone()
    };
    let run = |disk: &MemDisk| -> Result<()> {
        let store = try_open(disk)?;
        let replica = store.promise(CHUNK, Version(2), vec![NodeId(1)])?;
        install(&replica, &data, base.clone(), How::InPlace)?;
        assert_eq!(replica.state().synced, Version(0));
        install(&replica, &data, target.clone(), How::InPlace)
    };
    let whole = MemDisk::new();
    run(&whole).unwrap();
    let mut synced = 0;
    for at in 257..whole.changes() {
        for cut in [None, Some(Surviving::OnlySynced), Some(Surviving::Random)] {
            let disk = MemDisk::new();
            disk.die_after(at);
            let _ = run(&disk);
            match cut {
                None => disk.crash(),
                Some(surviving) => disk.power_cut(&Rng::seeded(at), surviving),
            }
            let store = open(&disk.process());
            let Some(replica) = store.get(CHUNK) else { continue };
            if replica.state().synced == Version(2) {
                assert!(content(&replica) == data, "at {at} {cut:?}");
                synced += 1;
            } else {
                // What is there is verified before it counts as held.
                install(&replica, &data, target.clone(), How::InPlace).unwrap();
                assert!(content(&replica) == data, "at {at} {cut:?}");
            }
        }
    }
    assert!(synced > 0);
}
