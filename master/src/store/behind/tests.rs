use super::*;
use crate::store::{Ground, MemoryStore, Opened, Read as _, View};
use dfs_proto::ClusterId;
use dfs_stdx::Rng;
use std::path::Path;

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn created(path: &Path) -> SledStore {
    SledStore::create(path, CLUSTER, 1 << 20).unwrap()
}

fn opened(path: &Path) -> SledStore {
    match SledStore::open(path, CLUSTER, 1 << 20) {
        Opened::Good(store) => store,
        other => panic!("{other:?}"),
    }
}

fn random_batch(rng: &Rng) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..rng.below(6) {
        let key = vec![1 + rng.below(3) as u8, rng.below(20) as u8];
        if rng.below(3) == 0 {
            batch.remove(key)
        } else {
            batch.put(key, rng.u64().to_le_bytes().to_vec())
        }
    }
    batch
}

fn assert_same(one: &dyn Store, other: &dyn Store) {
    let (one, other) = (View::new(one), View::new(other));
    let bounds = || (1..5_u8).flat_map(|a| [vec![a], vec![a, 7], vec![a, 13]]);
    for start in bounds() {
        for end in bounds() {
            let (a, b): (Vec<_>, Vec<_>) = (
                one.scan(&start, &end).collect(),
                other.scan(&start, &end).collect(),
            );
            assert_eq!(a, b, "{start:?} to {end:?}");
            assert_eq!(one.last(&start, &end), b.last().cloned());
        }
    }
    for key in (1..4).flat_map(|a| (0..20).map(move |b| [a, b])) {
        assert_eq!(one.get(&key), other.get(&key));
    }
    one.finish().unwrap();
}

#[test]
fn commits_reads_and_settlings_in_any_order_read_as_one_map() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..6 {
        let path = folder.path().join(seed.to_string());
        let (rng, mut map) = (Rng::seeded(seed), MemoryStore::new());
        let mut behind = Behind::new(created(&path));
        let mut begun = None;
        for applied in 1..120 {
            let batch = random_batch(&rng);
            behind.commit(&batch, applied).unwrap();
            map.commit(&batch, applied).unwrap();
            match rng.below(4) {
                0 if begun.is_none() => begun = behind.settle(),
                1 => {
                    // Half way: sled has it, the layer is still there.
                    if let Some(settling) = begun.take() {
                        settling().unwrap();
                        assert_same(&behind, &map);
                        behind.settled();
                    }
                }
                _ => {}
            }
            assert_same(&behind, &map);
            assert_eq!(behind.applied(), applied);
        }
    }
}

#[test]
fn sled_is_the_state_after_some_command_and_the_tally_that_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    let rng = Rng::seeded(3);
    let mut behind = Behind::new(created(&path));
    let (mut map, mut settled) = (MemoryStore::new(), MemoryStore::new());
    for applied in 1..60 {
        let batch = random_batch(&rng);
        behind.commit(&batch, applied).unwrap();
        map.commit(&batch, applied).unwrap();
        if applied <= 40 {
            settled.commit(&batch, applied).unwrap();
        }
        if applied == 40 {
            behind.settle().unwrap()().unwrap();
            behind.settled();
        }
    }
    let all: Vec<Pair> = map.scan(&[0x01], &[0xff]).collect::<Result<_>>().unwrap();
    assert_eq!(behind.tally(), Some(all.iter().collect()));
    behind.checkpointer().checkpoint().unwrap();
    drop(behind);
    // As after a crash: what was not settled is the log's to tell.
    let below = opened(&path);
    assert_eq!(below.applied(), 40);
    assert_same(&below, &settled);
}

#[test]
fn what_came_and_went_between_two_settlings_never_reaches_sled() {
    let folder = tempfile::tempdir().unwrap();
    let mut behind = Behind::new(created(&folder.path().join("view")));
    for applied in 1..=100 {
        let mut batch = Batch::default();
        batch.put(vec![1, applied], vec![applied]);
        batch.remove(vec![1, applied - 1]);
        behind.commit(&batch, applied.into()).unwrap();
    }
    assert_eq!(behind.unsettled(), 1);
}

#[test]
fn a_dump_holds_what_is_not_settled_and_settles_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let ground = Ground::new(Box::new(Behind::new(created(&folder.path().join("view")))));
    let (rng, mut map) = (Rng::seeded(5), MemoryStore::new());
    for applied in 1..50 {
        let batch = random_batch(&rng);
        ground.commit(&batch, applied).unwrap();
        map.commit(&batch, applied).unwrap();
        if applied == 30 {
            ground.settle().unwrap();
        }
    }
    ground.pin();
    let mut taken = Vec::new();
    let mut applied = 49;
    while let Some(more) = ground.take(40).unwrap() {
        taken.extend(more);
        applied += 1;
        ground.commit(&random_batch(&rng), applied).unwrap();
        ground.settle().unwrap();
    }
    let expected: Vec<Pair> = map.scan(&[0x01], &[0xff]).collect::<Result<_>>().unwrap();
    assert_eq!(taken, expected);
}
