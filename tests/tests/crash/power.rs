//! Power cuts: of the master, of one chunkserver that soon returns, of everything at once.

use super::cells::{CellWorker, Style};
use super::load::{Landed, Load, Pulse};
use super::names::NameWorker;
use super::nodes::{Cluster, Shape};
use super::{alone, moment, run, scaled, seeded};
use anyhow::{Context as _, ensure};
use dfs_client::Client;
use dfs_stdx::Rng;
use dfs_tests::cuts::{self, Bench, Place, PowerDisk};
use dfs_tests::manifest::After;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SHAPE: Shape = Shape {
    servers: 3,
    chunk_bytes: 256 * 1024,
    fast: false,
};
const DISK_BYTES: u64 = 192 << 20;
const BENCH_BYTES: u64 = 2 << 30;
/// Replicas are whole and alike again within it.
const HEALED_SECONDS: u64 = 60;
/// After so many cuts of one chunkserver everything is read from it alone.
const ALONE_EVERY: u64 = 4;

/// A cluster on disks of its own, under load.
struct Rig {
    // In this order: processes end before their disks go.
    cluster: Cluster,
    disks: Vec<PowerDisk>,
    _bench: Bench,
    pulse: Arc<Pulse>,
    workers: (Vec<NameWorker>, Vec<CellWorker>),
    reader: Client,
    landed: Landed,
    rng: Rng,
}

impl Rig {
    async fn start(name: &str) -> anyhow::Result<Rig> {
        let rng = seeded(name);
        let bench = Bench::new(BENCH_BYTES)?;
        let disks: Vec<PowerDisk> = (0..=SHAPE.servers)
            .map(|n| bench.disk(&format!("disk-{n}"), DISK_BYTES))
            .collect::<anyhow::Result<_>>()?;
        let folders = disks.iter().map(|disk| disk.path().to_owned()).collect();
        let mut cluster = Cluster::prepare(&SHAPE, folders)?;
        cluster.start_all().await?;
        let (mut names, mut cells) = (Vec::new(), Vec::new());
        for n in 0..2 {
            names.push(NameWorker::new(cluster.client().await?, &format!("/names-{n}"), rng.fork()).await?);
        }
        for (n, style) in [Style::Overwrite, Style::Append, Style::Overwrite, Style::Append]
            .into_iter()
            .enumerate()
        {
            let number = u32::try_from(n)?;
            cells.push(CellWorker::new(cluster.client().await?, number, style, rng.fork()).await?);
        }
        let reader = cluster.client().await?;
        let (pulse, landed) = (Arc::default(), Landed::default());
        Ok(Rig {
            cluster,
            disks,
            _bench: bench,
            pulse,
            workers: (names, cells),
            reader,
            landed,
            rng,
        })
    }

    fn load(&mut self) -> (Load<NameWorker>, Load<CellWorker>) {
        let (names, cells) = std::mem::take(&mut self.workers);
        (
            Load::start(names, self.pulse.clone()),
            Load::start(cells, self.pulse.clone()),
        )
    }

    /// Power goes for these nodes (0 is the master) at one moment: none of them does anything between the cut and its
    /// end, so none can tell anybody that its disk fails.
    fn cut(&mut self, nodes: &[usize]) -> anyhow::Result<()> {
        for node in nodes {
            self.node(*node).hold()?;
        }
        self.landed.count(self.pulse.under_way());
        cuts::cut(nodes.iter().map(|node| &self.disks[*node]))?;
        for node in nodes {
            self.node(*node).kill()?;
        }
        Ok(())
    }

    fn restore(&mut self, nodes: &[usize]) -> anyhow::Result<()> {
        for node in nodes {
            self.disks[*node].restore()?;
            self.node(*node).start()?;
        }
        Ok(())
    }

    fn node(&mut self, node: usize) -> &mut super::nodes::Node {
        match node {
            0 => &mut self.cluster.master,
            n => &mut self.cluster.servers[n - 1],
        }
    }

    async fn stop(&mut self, (names, cells): (Load<NameWorker>, Load<CellWorker>)) -> anyhow::Result<()> {
        self.workers = (names.stop().await?, cells.stop().await?);
        for worker in &mut self.workers.1 {
            worker.release().await;
        }
        Ok(())
    }

    async fn check(&mut self, after: After) -> anyhow::Result<()> {
        for worker in &self.workers.0 {
            worker.check(&self.reader).await?;
        }
        for worker in &mut self.workers.1 {
            worker.settle(&self.reader, after).await?;
        }
        Ok(())
    }

    async fn healed(&self) -> anyhow::Result<Duration> {
        let files: Vec<String> = self
            .workers
            .1
            .iter()
            .map(|worker| worker.path().to_owned())
            .collect();
        self.cluster
            .all_identical(&self.reader, &files, HEALED_SECONDS)
            .await
            .context("after a power cut")
    }

    /// Reads everything while only this chunkserver runs: it must hold all of it.
    async fn check_alone(&mut self, node: usize) -> anyhow::Result<()> {
        let others: Vec<usize> = (1..=SHAPE.servers).filter(|other| *other != node).collect();
        for other in &others {
            self.node(*other).kill()?;
        }
        self.check(After::OneNode)
            .await
            .with_context(|| format!("only chunkserver {node} runs"))?;
        for other in &others {
            self.node(*other).start()?;
        }
        self.cluster.all_alive(&self.reader).await
    }

    fn report(&self, name: &str, wanted: u64, more: &str) -> anyhow::Result<()> {
        let rebuilt = self.cluster.master.said("rebuil");
        let more = format!(
            "{} operations answered, sled rebuilt {rebuilt} times; {more}",
            self.pulse.answered()
        );
        self.landed.report(name, wanted, &more)
    }
}

#[test]
fn power_of_the_master_takes_nothing_it_acknowledged() {
    let _alone = alone();
    if cuts::in_private_mounts("power::power_of_the_master_takes_nothing_it_acknowledged") == Place::Done {
        return;
    }
    run(40, async {
        let (mut rig, wanted) = (
            Rig::start("power of the master").await?,
            scaled("DFS_CUTS", 20, 3),
        );
        let mut worst = Duration::ZERO;
        for cut in 0..wanted {
            let load = rig.load();
            rig.pulse.beats(10 + rig.rng.below(100)).await?;
            sleep(moment(&rig.rng, 0, 100)).await;
            rig.cut(&[0])?;
            let start = Instant::now();
            rig.restore(&[0])?;
            rig.pulse.beats(10).await?;
            worst = worst.max(start.elapsed());
            rig.stop(load).await?;
            rig.check(After::OneNode)
                .await
                .with_context(|| format!("after cut {cut}"))?;
        }
        ensure!(
            rig.pulse.failed() == 0,
            "{} operations failed",
            rig.pulse.failed()
        );
        rig.healed().await?;
        rig.report(
            "power of the master",
            wanted,
            &format!("work went on after {worst:.1?} at worst"),
        )
    });
}

#[test]
fn power_of_one_chunkserver_takes_no_acknowledged_byte() {
    let _alone = alone();
    if cuts::in_private_mounts("power::power_of_one_chunkserver_takes_no_acknowledged_byte") == Place::Done {
        return;
    }
    run(60, async {
        let (mut rig, wanted) = (
            Rig::start("power of one chunkserver").await?,
            scaled("DFS_CUTS", 20, 3),
        );
        let mut worst = Duration::ZERO;
        for cut in 0..wanted {
            let node = 1 + usize::try_from(rig.rng.below(SHAPE.servers as u64))?;
            let load = rig.load();
            rig.pulse.beats(10 + rig.rng.below(100)).await?;
            sleep(moment(&rig.rng, 0, 100)).await;
            // Half of the time nobody writes any more: then nobody but the replica itself can know what it lost.
            // The last cut falls into work, so that every run has some.
            if rig.rng.below(2) == 0 && cut + 1 < wanted {
                rig.stop(load).await?;
                rig.cut(&[node])?;
                rig.restore(&[node])?;
            } else {
                rig.cut(&[node])?;
                rig.restore(&[node])?;
                rig.pulse.beats(10).await?;
                rig.stop(load).await?;
            }
            rig.check(After::OneNode)
                .await
                .with_context(|| format!("after cut {cut}, of chunkserver {node}"))?;
            worst = worst.max(rig.healed().await?);
            if cut % ALONE_EVERY == 0 {
                rig.check_alone(node)
                    .await
                    .with_context(|| format!("after cut {cut}"))?;
            }
        }
        ensure!(
            rig.pulse.failed() == 0,
            "{} operations failed",
            rig.pulse.failed()
        );
        rig.report(
            "power of one chunkserver",
            wanted,
            &format!("replicas alike after {worst:.1?} at worst"),
        )
    });
}

#[test]
fn power_of_everything_takes_nothing_that_was_fsynced() {
    let _alone = alone();
    if cuts::in_private_mounts("power::power_of_everything_takes_nothing_that_was_fsynced") == Place::Done {
        return;
    }
    run(60, async {
        let (mut rig, wanted) = (
            Rig::start("power of everything").await?,
            scaled("DFS_CUTS", 20, 3),
        );
        let all: Vec<usize> = (0..=SHAPE.servers).collect();
        let mut worst = Duration::ZERO;
        for cut in 0..wanted {
            let load = rig.load();
            rig.pulse.beats(10 + rig.rng.below(100)).await?;
            sleep(moment(&rig.rng, 0, 300)).await;
            rig.cut(&all)?;
            rig.pulse.stop();
            // Answers that were on their way when the power went have arrived by then.
            sleep(Duration::from_millis(50)).await;
            rig.pulse.cut();
            rig.restore(&all)?;
            rig.cluster.all_alive(&rig.reader).await?;
            rig.stop(load).await?;
            let after = After::Everything(rig.pulse.cuts());
            rig.check(after)
                .await
                .with_context(|| format!("after cut {cut}"))?;
            worst = worst.max(rig.healed().await?);
        }
        let failed = rig.pulse.failed();
        let lost: u32 = rig.workers.1.iter().map(CellWorker::lost).sum();
        rig.report(
            "power of everything",
            wanted,
            &format!("{failed} ended in an error, {lost} cells told lost; alike after {worst:.1?} at worst"),
        )
    });
}
