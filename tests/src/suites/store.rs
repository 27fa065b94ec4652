//! What every `Store` of the master does: an ordered map that changes by whole batches.

use dfs_master::store::{Batch, Pair, Store};
use dfs_stdx::Rng;
use std::collections::BTreeMap;

/// Batches of the random part.
const BATCHES: u64 = 200;
/// Bytes a key's second byte may be: few, so that keys are written again and removed.
const KEYS: u64 = 12;

/// Runs the suite, each part on a fresh, empty store.
pub fn conformance(make: impl Fn() -> Box<dyn Store>) {
    a_fresh_store_is_empty(&*make());
    ranges_are_half_open_and_ordered(&mut *make());
    a_batch_moves_the_applied_index(&mut *make());
    an_empty_value_is_a_value(&mut *make());
    a_checkpoint_covers_what_is_committed(&mut *make());
    for seed in 0..5 {
        any_batches_leave_what_a_map_would_hold(&mut *make(), seed);
    }
}

fn batch(changes: &[(&[u8], Option<&[u8]>)]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key.to_vec(), value.to_vec()),
            None => batch.remove(key.to_vec()),
        }
    }
    batch
}

fn scanned(store: &dyn Store, start: &[u8], end: &[u8]) -> Vec<Pair> {
    store.scan(start, end).map(|entry| entry.unwrap()).collect()
}

fn a_fresh_store_is_empty(store: &dyn Store) {
    assert_eq!(store.applied(), 0);
    assert_eq!(store.get(&[1]).unwrap(), None);
    assert_eq!(store.last(&[1], &[0xfe]).unwrap(), None);
    assert!(scanned(store, &[1], &[0xfe]).is_empty());
}

fn ranges_are_half_open_and_ordered(store: &mut dyn Store) {
    let value = Some(&b"v"[..]);
    store
        .commit(
            &batch(&[
                (&[2, 0xff], value),
                (&[2], value),
                (&[1, 5], value),
                (&[3], value),
            ]),
            1,
        )
        .unwrap();
    let keys = |start: &[u8], end: &[u8]| {
        scanned(&*store, start, end)
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&[1], &[0xfe]), [vec![1, 5], vec![2], vec![2, 0xff], vec![3]]);
    assert_eq!(keys(&[2], &[3]), [vec![2], vec![2, 0xff]]);
    assert!(keys(&[2], &[2]).is_empty());
    assert!(keys(&[3], &[2]).is_empty());
    let last = |start: &[u8], end: &[u8]| store.last(start, end).unwrap().map(|(key, _)| key);
    assert_eq!(last(&[1], &[3]), Some(vec![2, 0xff]));
    assert_eq!(last(&[1, 6], &[2]), None);
    assert_eq!(last(&[3], &[2]), None);
}

fn a_batch_moves_the_applied_index(store: &mut dyn Store) {
    store
        .commit(&batch(&[(&[1], Some(b"a")), (&[2], Some(b"b"))]), 7)
        .unwrap();
    assert_eq!(
        (store.applied(), store.get(&[1]).unwrap()),
        (7, Some(b"a".to_vec()))
    );
    store
        .commit(&batch(&[(&[1], None), (&[2], Some(b"c")), (&[9], None)]), 8)
        .unwrap();
    assert_eq!((store.applied(), store.get(&[1]).unwrap()), (8, None));
    assert_eq!(store.get(&[2]).unwrap(), Some(b"c".to_vec()));
    store.commit(&Batch::default(), 9).unwrap();
    assert_eq!(
        store.applied(),
        9,
        "a group of refused commands moves the index too"
    );
    assert_eq!(scanned(store, &[1], &[0xfe]).len(), 1);
}

fn an_empty_value_is_a_value(store: &mut dyn Store) {
    store.commit(&batch(&[(&[1], Some(b""))]), 1).unwrap();
    assert_eq!(store.get(&[1]).unwrap(), Some(Vec::new()));
    assert_eq!(scanned(store, &[1], &[2]), [(vec![1], Vec::new())]);
}

fn a_checkpoint_covers_what_is_committed(store: &mut dyn Store) {
    let checkpointer = store.checkpointer();
    store.commit(&batch(&[(&[1], Some(b"a"))]), 3).unwrap();
    if let Some(covered) = checkpointer.checkpoint().unwrap() {
        assert_eq!(covered, 3);
    }
    assert_eq!(
        (store.applied(), store.get(&[1]).unwrap()),
        (3, Some(b"a".to_vec()))
    );
}

fn any_batches_leave_what_a_map_would_hold(store: &mut dyn Store, seed: u64) {
    let rng = Rng::seeded(seed);
    let byte = |bound| u8::try_from(1 + rng.below(bound)).expect("a bound below 255");
    let key = || vec![byte(3), byte(KEYS)];
    let mut map = BTreeMap::new();
    for applied in 1..=BATCHES {
        let mut batch = Batch::default();
        for _ in 0..rng.below(5) {
            let (key, value) = (key(), rng.u64().to_le_bytes().to_vec());
            if rng.below(3) == 0 {
                batch.remove(key.clone());
                map.remove(&key);
            } else {
                batch.put(key.clone(), value.clone());
                map.insert(key, value);
            }
        }
        store.commit(&batch, applied).unwrap();
        let (start, end) = (key(), key());
        let expected: Vec<Pair> = match start < end {
            true => map
                .range(start.clone()..end.clone())
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            false => Vec::new(),
        };
        assert_eq!(
            scanned(store, &start, &end),
            expected,
            "seed {seed}, batch {applied}"
        );
        assert_eq!(
            store.last(&start, &end).unwrap(),
            expected.last().cloned(),
            "seed {seed}, batch {applied}"
        );
        assert_eq!(
            store.get(&start).unwrap(),
            map.get(&start).cloned(),
            "seed {seed}, batch {applied}"
        );
    }
}
