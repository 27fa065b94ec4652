//! The process dies, or the power goes, at every single change of the disk.

use super::*;
use dfs_stdx::disk::Surviving;

/// Histories tried; each dies at every change it makes.
const SEEDS: u64 = 2;

/// What a run has told the world when it ended.
#[derive(Default)]
struct Told {
    /// Every packet that was tried, in order; packets beyond `applied` may be in any state.
    packets: Vec<(u64, Vec<u8>)>,
    applied: usize,
    fsynced: Option<usize>,
    /// The fsync that was under way may have counted.
    promised: Version,
    synced: Version,
    created: bool,
}

/// A random history of one replica, until the disk fails.
fn live(disk: &MemDisk, seed: u64, overwrites: bool) -> Told {
    let mut told = Told::default();
    let _ = try_live(disk, &Rng::seeded(seed), overwrites, &mut told);
    told
}

fn try_live(disk: &MemDisk, rng: &Rng, overwrites: bool, told: &mut Told) -> Result<()> {
    let store = try_open(disk)?;
    let replica = match rng.below(2) {
        0 => store.create(CHUNK, Version(1), Version(1), vec![NodeId(1)])?,
        _ => {
            let replica = store.create_unborn(CHUNK, Version(1), vec![NodeId(1)])?;
            let data = bytes(40, rng.u64());
            told.packets.push((0, data.clone()));
            replica.apply(&[packet(1, 0, &data)])?;
            told.applied = 1;
            replica
        }
    };
    told.created = true;
    (told.promised, told.synced) = (Version(1), Version(1));
    for _ in 0..14 {
        match rng.below(10) {
            0..=4 => {
                let mut batch = Vec::new();
                for _ in 0..=rng.below(2) {
                    let length = told
                        .packets
                        .iter()
                        .map(|(o, d)| o + d.len() as u64)
                        .max()
                        .unwrap_or(0);
                    let offset = match (overwrites, rng.below(4)) {
                        (true, 0 | 1) => rng.below(length + 1),
                        (_, 2) => length + rng.below(BLOCK),
                        _ => length,
                    };
                    let size = [30, 5_000, BLOCK + 77][rng.below(3) as usize];
                    let data = bytes(size as usize, rng.u64());
                    told.packets.push((offset, data.clone()));
                    batch.push(packet(told.packets.len() as u64, offset, &data));
                }
                replica.apply(&batch)?;
                told.applied = told.packets.len();
            }
            5 | 6 => {
                replica.sync()?;
                told.fsynced = Some(told.applied);
            }
            7 => {
                replica.sync()?;
                told.fsynced = Some(told.applied);
                replica.close()?;
            }
            8 => {
                let version = told.promised.next();
                replica.promise(version, vec![NodeId(1)])?;
                told.fsynced = Some(told.applied);
                told.promised = version;
            }
            _ => {
                replica.set_ready(told.promised, Version(0), None)?;
                told.fsynced = Some(told.applied);
                told.synced = told.promised;
            }
        }
    }
    Ok(())
}

impl Told {
    /// The bytes after `count` packets.
    fn model(&self, count: usize) -> Vec<u8> {
        let mut model = Vec::new();
        self.packets[..count]
            .iter()
            .for_each(|(offset, data)| write(&mut model, *offset, data));
        model
    }

    /// True if the bytes could be what `base` packets left, changed by any part of the later ones.
    fn explains(&self, base: usize, found: &[u8]) -> bool {
        let model = self.model(base);
        let later = &self.packets[base..];
        found.iter().enumerate().all(|(at, byte)| {
            let written = |(offset, data): &(u64, Vec<u8>)| {
                let inside = (at as u64)
                    .checked_sub(*offset)
                    .and_then(|n| data.get(n as usize));
                inside == Some(byte)
            };
            let gap = |(offset, _): &(u64, Vec<u8>)| at as u64 >= model.len() as u64 && (at as u64) < *offset;
            model.get(at) == Some(byte) || later.iter().any(written) || *byte == 0 && later.iter().any(gap)
        })
    }
}

/// Settles what is torn and reads everything.
fn settled(replica: &Replica) -> Vec<u8> {
    for block in replica.torn_blocks().unwrap() {
        replica.accept(block).unwrap();
    }
    assert!(replica.bad_blocks().unwrap().is_empty(), "only torn blocks fail");
    content(replica)
}

/// How many changes a whole life makes.
fn changes(seed: u64, overwrites: bool) -> u64 {
    let disk = MemDisk::new();
    live(&disk, seed, overwrites);
    disk.changes()
}

#[test]
fn a_process_crash_anywhere_loses_no_applied_byte() {
    let mut torn = 0;
    for seed in 0..SEEDS {
        for at in 255..changes(seed, true) {
            let disk = MemDisk::new();
            disk.die_after(at);
            let told = live(&disk, seed, true);
            disk.crash();
            let store = open(&disk.process());
            let Some(replica) = store.get(CHUNK) else {
                assert_eq!(told.applied, 0, "seed {seed} at {at}");
                continue;
            };
            let state = replica.state();
            assert_eq!(state.kind, Kind::Intact);
            assert!(state.promised >= told.promised && state.synced >= told.synced);
            torn += replica.torn_blocks().unwrap().len();
            let found = settled(&replica);
            assert!(
                found.len() >= told.model(told.applied).len(),
                "seed {seed} at {at}"
            );
            assert!(told.explains(told.applied, &found), "seed {seed} at {at}");
            let last = replica.table().unwrap().writers.first().map_or(0, |w| w.sequence);
            assert!(last >= told.applied as u64);
            replica.promise(Version(90), vec![NodeId(1)]).unwrap();
            replica.set_ready(Version(90), Version(0), None).unwrap();
            replica.apply(&[packet(1_000, 0, b"goes on")]).unwrap();
        }
    }
    assert!(torn > 0, "the test tears blocks");
}

fn cut_everywhere(surviving: Surviving, overwrites: bool) {
    let (mut lost, mut ahead) = (0, 0);
    for seed in 0..SEEDS {
        for at in 255..changes(seed, overwrites) {
            let disk = MemDisk::new();
            disk.die_after(at);
            let told = live(&disk, seed, overwrites);
            disk.power_cut(&Rng::seeded(seed * 1_000 + at), surviving);
            let store = open(&disk.process());
            let Some(fsynced) = told.fsynced else { continue };
            let context = format!("seed {seed} at {at} {surviving:?}");
            let replica = store
                .get(CHUNK)
                .unwrap_or_else(|| panic!("{context}: fsynced and gone"));
            let state = replica.state();
            assert!(
                state.promised >= told.promised && state.synced >= told.synced,
                "{context}"
            );
            assert!(
                state.kind == Kind::Lost || told.applied == fsynced || !state.open,
                "{context}"
            );
            lost += usize::from(state.kind == Kind::Lost);
            let length = replica.fsynced_length().unwrap();
            assert!(length >= told.model(fsynced).len() as u64, "{context}");
            let table = replica.table().unwrap();
            let found = settled(&replica);
            assert!(told.explains(fsynced, &found), "{context}");
            let last = table.writers.first().map_or(0, |w| w.sequence) as usize;
            ahead += usize::from(last > fsynced);
            if !overwrites {
                assert!(last >= fsynced, "{context}");
                let present = told.model(last.max(fsynced));
                assert!(
                    found.len() >= present.len() && found[..present.len()] == present,
                    "{context}: a table ahead"
                );
            }
            replica.promise(Version(90), vec![NodeId(1)]).unwrap();
            replica.set_ready(Version(90), Version(90), None).unwrap();
            assert_eq!(replica.state().kind, Kind::Intact);
            replica.apply(&[packet(1_000, 0, b"goes on")]).unwrap();
            drop((store, replica));
            // A second cut: what became ready stays.
            disk.process().power_cut(&Rng::seeded(at), surviving);
            let store = open(&disk.process());
            let again = store.get(CHUNK).unwrap();
            assert_eq!(
                (again.state().synced, again.state().loss),
                (Version(90), Version(90)),
                "{context}"
            );
            assert!(again.fsynced_length().unwrap() >= found.len() as u64, "{context}");
        }
    }
    assert!(lost > 0);
    assert!(
        ahead > 0 || surviving == Surviving::OnlySynced,
        "an fsync that was cut off may have counted"
    );
}

#[test]
fn a_power_cut_anywhere_leaves_every_fsynced_byte() {
    cut_everywhere(Surviving::OnlySynced, true);
    cut_everywhere(Surviving::Random, true);
}

#[test]
fn after_a_power_cut_the_writer_table_is_not_ahead_of_its_data() {
    cut_everywhere(Surviving::OnlySynced, false);
    cut_everywhere(Surviving::Random, false);
}
