//! Random operations against the reference in memory, with crashes and restarts among them; compared after every step.
//!
//! 256 runs in a release build, a few in a debug build. `DFS_RUNS=1000` sets how many, `DFS_SEED=7` picks one.

use anyhow::ensure;
use dfs_client::Client;
use dfs_proto::limits::Parameters;
use dfs_stdx::Rng;
use dfs_tests::execute::execute;
use dfs_tests::model::{Operation, Outcome, Reference, random_operation};
use dfs_tests::sim::{History, Node, SimWorld};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const CHUNKSERVERS: u64 = 4;
const OPERATIONS: u64 = 50;

/// What a client asks of the world between its operations.
#[derive(Clone, Debug)]
enum Fault {
    Kill(Node),
    PowerCut(Node),
    Heal,
}

type Faults = Rc<RefCell<Vec<Fault>>>;

async fn compare(client: Client, rng: Rng, history: History, faults: Faults) -> anyhow::Result<()> {
    let mut reference = Reference::default();
    for step in 0..OPERATIONS {
        tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
        disturb(&rng, &faults, &history);
        let operation = random_operation(&rng);
        let expected = reference.apply(&operation);
        let found = execute(&client, &operation).await;
        history.note(format!("{step} {operation:?} -> {}", brief(&found)));
        let found = found.map_err(|e| anyhow::anyhow!("step {step} {operation:?}: {e}"))?;
        ensure!(
            found == expected,
            "step {step} {operation:?}: {} instead of {}",
            brief(&found),
            brief(&expected)
        );
    }
    faults.borrow_mut().push(Fault::Heal);
    for path in reference.paths() {
        for operation in [
            Operation::Stat(path.clone()),
            Operation::List(path.clone()),
            Operation::Read {
                path: path.clone(),
                offset: 0,
                length: 1 << 20,
            },
        ] {
            let expected = reference.apply(&operation);
            if path == "/" && matches!(operation, Operation::Read { .. }) {
                continue;
            }
            let found = execute(&client, &operation).await?;
            ensure!(
                found == expected,
                "at the end {operation:?}: {} instead of {}",
                brief(&found),
                brief(&expected)
            );
        }
    }
    Ok(())
}

fn brief(outcome: &impl std::fmt::Debug) -> String {
    let mut text = format!("{outcome:?}");
    text.truncate(120);
    text
}

/// Now and then a node dies; the one before it is started again first.
fn disturb(rng: &Rng, faults: &Faults, history: &History) {
    if rng.below(6) != 0 {
        return;
    }
    let chunkserver = |of: u64| Node::Chunkserver(usize::try_from(rng.below(of)).expect("few"));
    let fault = match rng.below(8) {
        0 => Fault::Kill(Node::Master),
        1 => Fault::PowerCut(Node::Master),
        2..=4 => Fault::Kill(chunkserver(CHUNKSERVERS)),
        // Only two machines ever lose power: every chunk keeps a member that has lost nothing.
        _ => Fault::PowerCut(chunkserver(2)),
    };
    history.note(format!("{fault:?}"));
    faults.borrow_mut().extend([Fault::Heal, fault]);
}

fn run(seed: u64) {
    let parameters = Parameters {
        chunk_bytes: 64 * 1024,
        goal: 3,
        time_divisor: 10,
    };
    let mut world = SimWorld::new(seed, usize::try_from(CHUNKSERVERS).expect("few"), parameters);
    let faults = Faults::default();
    let asked = faults.clone();
    world.client("client", move |client, rng, history| {
        compare(client, rng, history, asked)
    });
    let mut restart_at = None;
    world.run(Duration::from_secs(600), |world, now| {
        for fault in faults.borrow_mut().drain(..) {
            match fault {
                Fault::Kill(node) => world.kill(&node),
                Fault::PowerCut(node) => world.power_cut(&node),
                Fault::Heal => world.heal(),
            }
            restart_at = Some(now + Duration::from_millis(200 + world.rng().below(4_000)));
        }
        // A master that stays away stops everything; whoever is down comes back after a while.
        if restart_at.is_some_and(|at| at <= now) {
            world.heal();
            restart_at = None;
        }
    });
}

#[test]
fn the_file_system_is_its_reference() {
    let number = |variable| std::env::var(variable).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match number("DFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DFS_RUNS").unwrap_or(if cfg!(debug_assertions) { 8 } else { 256 }),
    };
    for seed in seeds {
        eprintln!("seed {seed}");
        run(seed);
    }
}

#[test]
fn the_comparison_can_fail() {
    assert_ne!(
        Outcome::Done,
        Reference::default().apply(&Operation::Remove("/f0".into()))
    );
}
