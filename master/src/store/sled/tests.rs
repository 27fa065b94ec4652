use super::*;
use dfs_stdx::Rng;
use std::panic::catch_unwind;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const CACHE_BYTES: u64 = 16 << 20;
/// Entries are of this many bytes: enough of them to fill several of sled's segments.
const VALUE_BYTES: usize = 600;

fn key(number: u64) -> Vec<u8> {
    [&[1], number.to_be_bytes().as_slice()].concat()
}

/// The value of `key` as of the command that wrote it last.
fn value(number: u64, applied: u64) -> Vec<u8> {
    let mut value = vec![(number % 251) as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&applied.to_le_bytes());
    value
}

/// Commands `from` to `to`; command n writes the keys n * 3 % 1000 and its two followers.
fn commit(store: &mut SledStore, from: u64, to: u64) {
    for applied in from..=to {
        let mut batch = Batch::default();
        for number in applied * 3..applied * 3 + 3 {
            batch.put(key(number % 1000), value(number % 1000, applied));
        }
        store.commit(&batch, applied).unwrap();
    }
}

/// The store holds exactly what the commands up to its applied index leave.
fn assert_holds_what_it_says(store: &SledStore) {
    let mut expected = std::collections::BTreeMap::new();
    for applied in 1..=store.applied() {
        for number in applied * 3..applied * 3 + 3 {
            expected.insert(key(number % 1000), value(number % 1000, applied));
        }
    }
    let found: Vec<Pair> = store.scan(&[1], &[0xff]).map(|entry| entry.unwrap()).collect();
    assert_eq!(Some(found.iter().collect()), store.tally());
    assert!(
        found.into_iter().eq(expected),
        "the store at {} is wrong and does not say so",
        store.applied()
    );
}

fn created(folder: &Path) -> SledStore {
    SledStore::create(&folder.join("view"), CLUSTER, CACHE_BYTES).unwrap()
}

fn opened(path: &Path) -> Opened {
    SledStore::open(path, CLUSTER, CACHE_BYTES)
}

fn good(path: &Path) -> SledStore {
    match opened(path) {
        Opened::Good(store) => store,
        other => panic!("{other:?}"),
    }
}

/// The folder as a kill of the process would leave it: sled's own ending does not run.
fn killed(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_store_is_found_again_with_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    assert!(matches!(opened(&path), Opened::Missing));
    let mut store = created(folder.path());
    commit(&mut store, 1, 50);
    drop(store);
    let store = good(&path);
    assert_eq!(store.applied(), 50);
    assert_holds_what_it_says(&store);
    assert!(store.scan(&[], &[0xff]).count() > 0);
}

#[test]
fn after_a_kill_it_holds_at_least_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = created(folder.path());
    commit(&mut store, 1, 300);
    assert_eq!(store.checkpointer().checkpoint().unwrap(), Some(300));
    commit(&mut store, 301, 700);
    killed(&folder.path().join("view"), &folder.path().join("killed"));
    let again = good(&folder.path().join("killed"));
    assert!((300..=700).contains(&again.applied()), "{}", again.applied());
    assert_holds_what_it_says(&again);
}

#[test]
fn one_of_another_cluster_or_half_loaded_or_suspect_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    let mut store = created(folder.path());
    let mut batch = Batch::default();
    batch.put(key(1), value(1, 1));
    store.commit(&batch, 0).unwrap();
    drop(store);
    let reason = |opened| match opened {
        Opened::Unusable(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(reason(opened(&path)).contains("not loaded to its end"));
    let other = SledStore::open(&path, ClusterId([8; 16]), CACHE_BYTES);
    assert!(reason(other).contains("it belongs to cluster 07"));
    Suspect::of(&path).note("a bad page");
    assert!(reason(opened(&path)).contains("a bad page"));
    let aside = SledStore::set_aside(&path).unwrap();
    assert!(aside.ends_with("view.broken"));
    assert!(matches!(opened(&path), Opened::Missing));
    let mut store = created(folder.path());
    commit(&mut store, 1, 2);
    drop(store);
    assert_eq!(good(&path).applied(), 2, "nothing is suspect any more");
    assert!(
        SledStore::set_aside(&path).is_ok(),
        "an older one set aside is replaced"
    );
}

#[test]
fn a_folder_that_is_no_store_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    fs::create_dir(&path).unwrap();
    assert!(matches!(opened(&path), Opened::Unusable(_)));
    let path = folder.path().join("other");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("db"), [0xa5; 5000]).unwrap();
    assert!(matches!(opened(&path), Opened::Unusable(_)));
}

#[test]
fn a_panic_inside_sled_marks_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let suspect = Suspect::of(&folder.path().join("view"));
    let panicked = catch_unwind(|| watched(&suspect, || panic!("a bad page")));
    assert!(panicked.is_err());
    assert!(suspect.reason().unwrap().contains("a bad page"));
    let other = Suspect::of(&folder.path().join("other"));
    watched(&other, || ());
    assert!(catch_unwind(|| panic!("elsewhere")).is_err());
    assert_eq!(other.reason(), None);
}

#[test]
fn a_panic_at_the_opening_is_survived_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let suspect = Suspect::of(&folder.path().join("view"));
    assert_eq!(tried(&suspect, || 5), Ok(5));
    let panicked = tried(&suspect, || panic!("a bad snapshot"));
    assert!(panicked.is_err_and(|text: String| text.contains("a bad snapshot")));
    assert_eq!(suspect.reason(), None, "it is not used, so nobody need be warned");
}

/// Damages a copy of the file and opens the store. False: it is not to be used.
fn opens_damaged(from: &Path, work: &Path, damage: impl Fn(&mut Vec<u8>)) -> bool {
    if work.exists() {
        fs::remove_dir_all(work).unwrap();
    }
    Suspect::of(work).clear();
    killed(from, work);
    let mut bytes = fs::read(work.join("db")).unwrap();
    damage(&mut bytes);
    fs::write(work.join("db"), bytes).unwrap();
    match opened(work) {
        Opened::Missing => unreachable!("it is there"),
        Opened::Unusable(_) => false,
        Opened::Good(store) => {
            assert_holds_what_it_says(&store);
            true
        }
    }
}

#[test]
fn a_damaged_file_is_never_believed_silently() {
    let folder = tempfile::tempdir().unwrap();
    let (path, work) = (folder.path().join("view"), folder.path().join("work"));
    let mut store = created(folder.path());
    commit(&mut store, 1, 300);
    store.checkpointer().checkpoint().unwrap();
    commit(&mut store, 301, 600);
    drop(store);
    let rng = Rng::seeded(4);
    let mut refused = 0;
    for round in 0..40 {
        let good = opens_damaged(&path, &work, |bytes| {
            let at = rng.below(bytes.len() as u64) as usize;
            if round % 4 == 0 {
                bytes.truncate(at)
            } else {
                bytes[at] ^= 1 << rng.below(8)
            }
        });
        refused += u32::from(!good);
    }
    println!("{refused} of 40 damaged files were refused, the others held what they said");
    assert!(refused > 0, "no damage did land");
}
