//! The seeded world: real master, chunkservers and clients; crashes, power cuts, partitions; then it must converge.
//!
//! 50 seeds in a release build, a few in a debug build, which is ten times slower. `DFS_SEEDS=200` runs more,
//! `DFS_SEED=7` one; a seed that fails becomes a named test.

use dfs_proto::limits::Parameters;
use dfs_tests::sim::{Landed, Node, Schedule, SimWorld, oracle, watchers, writers};
use std::time::Duration;

const CHUNKSERVERS: usize = 4;

fn parameters() -> Parameters {
    Parameters {
        chunk_bytes: 64 * 1024,
        goal: 3,
        time_divisor: 10,
    }
}

/// One whole run; everything that happened, and which faults landed.
fn run(seed: u64) -> (Vec<String>, Landed) {
    let mut world = SimWorld::new(seed, CHUNKSERVERS, parameters());
    let ledger = writers::Ledger::default();
    for name in ["left", "right"] {
        let ledger = ledger.clone();
        world.client(name, move |client, rng, history| {
            writers::work(client, rng, history, name.into(), ledger)
        });
    }
    let mut schedule = Schedule::new(CHUNKSERVERS as u64, Duration::from_secs(2));
    world.run(Duration::from_secs(300), |world, now| schedule.step(world, now));
    schedule.finish(&mut world);
    world.client("judge", move |client, _, history| {
        oracle::converges(client, history, ledger, Duration::from_secs(120))
    });
    world.run(Duration::from_secs(300), |_, _| {});
    (world.history.events(), schedule.landed)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn acknowledged_writes_survive_and_members_become_identical() {
    let mut landed = Landed::default();
    let seeds = match number("DFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DFS_SEEDS").unwrap_or(if cfg!(debug_assertions) { 3 } else { 50 }),
    };
    let many = seeds.end - seeds.start >= 20;
    for seed in seeds {
        eprintln!("seed {seed}");
        landed.add(&run(seed).1);
    }
    eprintln!("faults that landed: {landed:?}");
    assert!(
        !many || landed.0.len() == 6,
        "a kind of fault never landed: {landed:?}"
    );
}

#[test]
fn one_seed_gives_one_history() {
    let (first, second) = (run(1_000).0, run(1_000).0);
    let parted = first.iter().zip(&second).position(|(a, b)| a != b);
    if let Some(at) = parted {
        panic!("they part at event {at}:\n{}\n{}", first[at], second[at]);
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(first, run(1_001).0);
}

/// Mounts that keep what they are told, while the master dies and lines are cut.
fn watched(seed: u64) -> (Vec<String>, watchers::Seen, u32) {
    let mut world = SimWorld::new(seed, 0, parameters());
    let tally = watchers::Tally::default();
    let mounts = ["ann", "bob", "cat"];
    for name in mounts {
        let tally = tally.clone();
        world.mount(name, move |client, rng, history| {
            watchers::work(client, rng, history, name.into(), tally)
        });
    }
    let (mut next, mut under_way, mut faults) = (Duration::from_secs(1), None, 0);
    world.run(Duration::from_secs(300), |world, now| {
        if now < next {
            return;
        }
        let mut wait = world.rng().below(1_500);
        match under_way.take() {
            Some(None) => world.start(&Node::Master),
            Some(Some(name)) => world.repair("master", name),
            None if now > Duration::from_secs(11) => {}
            None => {
                faults += 1;
                let which = usize::try_from(world.rng().below(6)).expect("few");
                match mounts.get(which) {
                    Some(name) => world.partition("master", name),
                    None => world.kill(&Node::Master),
                }
                under_way = Some(mounts.get(which).copied());
                wait = 20 + world.rng().below(900);
            }
        }
        next = now + Duration::from_millis(wait);
    });
    let seen = tally.lock().expect("no panic").clone();
    (world.history.events(), seen, faults)
}

#[test]
fn what_a_mount_keeps_is_what_the_master_says_when_all_is_quiet() {
    let seeds = match number("DFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DFS_SEEDS").unwrap_or(if cfg!(debug_assertions) { 3 } else { 50 }),
    };
    for seed in seeds {
        let (_, seen, faults) = watched(seed);
        eprintln!("seed {seed}: {faults} faults, {seen:?}");
        assert!(
            faults > 0 && seen.changes > 0 && seen.lost > 0 && seen.hits > 0 && seen.compared > 0,
            "seed {seed} proves nothing: {faults} faults, {seen:?}"
        );
    }
}

#[test]
fn one_seed_gives_one_history_of_mounts() {
    let (first, second) = (watched(77).0, watched(77).0);
    let parted = first.iter().zip(&second).position(|(a, b)| a != b);
    if let Some(at) = parted {
        panic!("they part at event {at}:\n{}\n{}", first[at], second[at]);
    }
    assert_eq!(first.len(), second.len());
}
