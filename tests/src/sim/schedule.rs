//! When faults land: drawn from the seed, within what the contract allows.

use super::{Node, SimWorld};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many faults of each kind landed. A run in which a kind never landed has proved nothing about it.
#[derive(Clone, Debug, Default)]
pub struct Landed(pub BTreeMap<&'static str, u32>);

impl Landed {
    fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Landed) {
        for (kind, n) in &other.0 {
            *self.0.entry(kind).or_default() += n;
        }
    }
}

/// One fault at a time: a node down or a link cut for a while, then whole again for a while.
///
/// One chunkserver at a time keeps every chunk inside contract C1 (all but one member may be lost, but a replica that was
/// cut off must be synced again before the next one goes); the master may die at any moment.
#[derive(Debug)]
pub struct Schedule {
    chunkservers: u64,
    next: Duration,
    under_way: Option<UnderWay>,
    /// What landed.
    pub landed: Landed,
}

#[derive(Clone, Debug)]
enum UnderWay {
    Down(Node),
    Cut(String, String),
}

impl Schedule {
    /// The first fault comes at `first`.
    #[must_use]
    pub fn new(chunkservers: u64, first: Duration) -> Schedule {
        Schedule {
            chunkservers,
            next: first,
            under_way: None,
            landed: Landed::default(),
        }
    }

    /// To be called every virtual millisecond.
    pub fn step(&mut self, world: &mut SimWorld, now: Duration) {
        if now < self.next {
            return;
        }
        let wait = match self.under_way.take() {
            Some(under_way) => {
                end(world, &under_way);
                500 + world.rng().below(1_500)
            }
            None => {
                self.begin(world);
                50 + world.rng().below(2_500)
            }
        };
        self.next = now + Duration::from_millis(wait);
    }

    /// Ends what is under way.
    pub fn finish(&mut self, world: &mut SimWorld) {
        if let Some(under_way) = self.under_way.take() {
            end(world, &under_way);
        }
        world.heal();
    }

    fn begin(&mut self, world: &mut SimWorld) {
        let pick = |n: u64| usize::try_from(n).expect("few");
        let chunkserver = Node::Chunkserver(pick(world.rng().below(self.chunkservers)));
        let (kind, under_way) = match world.rng().below(8) {
            0 | 1 => ("kill chunkserver", UnderWay::Down(chunkserver)),
            // Only two machines ever lose power: every chunk keeps a member that has lost nothing, whatever the timing.
            2 | 3 => (
                "power cut chunkserver",
                UnderWay::Down(Node::Chunkserver(pick(world.rng().below(2)))),
            ),
            4 => ("kill master", UnderWay::Down(Node::Master)),
            5 => ("power cut master", UnderWay::Down(Node::Master)),
            6 => (
                "cut off from the master",
                UnderWay::Cut("master".into(), chunkserver.host()),
            ),
            _ => {
                let hosts = world.hosts();
                let other = hosts[pick(world.rng().below(hosts.len() as u64))].clone();
                if other == chunkserver.host() {
                    return;
                }
                ("cut link", UnderWay::Cut(chunkserver.host(), other))
            }
        };
        match &under_way {
            UnderWay::Down(node) if kind.starts_with("kill") => world.kill(node),
            UnderWay::Down(node) => world.power_cut(node),
            UnderWay::Cut(a, b) => world.partition(a, b),
        }
        self.landed.count(kind);
        self.under_way = Some(under_way);
    }
}

fn end(world: &mut SimWorld, under_way: &UnderWay) {
    match under_way {
        UnderWay::Down(node) => world.start(node),
        UnderWay::Cut(a, b) => world.repair(a, b),
    }
}
