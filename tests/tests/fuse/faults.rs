//! Chunkservers killed and brought back while something else goes on.

use crate::place::{Place, pause};
use anyhow::ensure;
use std::time::Duration;

/// How long the first one is waited for.
const FIRST_AFTER_MS: std::ops::Range<u64> = 50..400;
const DEAD_FOR_MS: std::ops::Range<u64> = 100..1_500;
/// Between faults.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Kills one chunkserver after the other, each brought back and made whole again first, until `done` says so.
/// Returns how many died while it was not done.
pub(crate) fn kill_servers(
    place: &mut Place,
    rng: &mut fastrand::Rng,
    most: u32,
    mut done: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<u32> {
    let mut landed = 0;
    let mut next_in = Duration::from_millis(rng.u64(FIRST_AFTER_MS));
    while !done()? {
        if landed == most {
            pause(LOOK_EVERY);
            continue;
        }
        pause(next_in);
        if done()? {
            break;
        }
        let victim = rng.usize(1..=3);
        place.kill_node(victim)?;
        landed += 1;
        pause(Duration::from_millis(rng.u64(DEAD_FOR_MS)));
        place.start_node(victim)?;
        if landed < most {
            place.whole_again()?;
        }
        next_in = Duration::from_millis(rng.u64(FIRST_AFTER_MS));
    }
    Ok(landed)
}

/// Runs a program on the place while its chunkservers are killed; fails if none died on the way.
pub(crate) fn under_faults(
    place: &mut Place,
    rng: &mut fastrand::Rng,
    most: u32,
    tool: crate::tool::Tool,
) -> anyhow::Result<String> {
    let mut running = tool.start()?;
    let landed = kill_servers(place, rng, most, || running.is_done())?;
    let output = running.ok()?;
    ensure!(
        landed > 0 || most == 0,
        "it was done before a chunkserver died: nothing was proved"
    );
    println!("{landed} chunkservers killed on the way");
    Ok(output)
}
