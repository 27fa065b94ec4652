//! SIGKILL for the master, again and again: what it acknowledged is there, once; it is back at once; readers go on.

use super::cells::{CellWorker, Style, content};
use super::load::{Landed, Load, Pulse};
use super::names::NameWorker;
use super::nodes::{Cluster, Shape, within};
use super::{alone, moment, run, scaled, seeded};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dfs_client::{Client, InodeId, Kind, Make};
use dfs_stdx::Rng;
use dfs_tests::manifest::After;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SHAPE: Shape = Shape {
    servers: 3,
    chunk_bytes: 256 * 1024,
    fast: false,
};
/// What a user accepts as "at once".
const BACK_WITHIN: Duration = Duration::from_secs(1);
const KILLS_A_ROUND: u64 = 5;

#[test]
fn a_master_killed_in_a_loop_loses_and_doubles_nothing() {
    let _alone = alone();
    run(40, async {
        let (rng, kills) = (seeded("kill"), scaled("DFS_KILLS", 10, 4));
        let mut cluster = Cluster::start(&SHAPE).await?;
        let mut workers = workers(&cluster, &rng).await?;
        let (mut landed, mut back) = (Landed::default(), Vec::new());
        let (pulse, reader) = (Arc::new(Pulse::default()), cluster.client().await?);
        for _ in 0..kills.div_ceil(KILLS_A_ROUND) {
            let names = Load::start(workers.0, pulse.clone());
            let cells = Load::start(workers.1, pulse.clone());
            for _ in 0..KILLS_A_ROUND {
                pulse.beats(20 + rng.below(200)).await?;
                sleep(moment(&rng, 0, 50)).await;
                landed.count(pulse.under_way());
                cluster.master.kill()?;
                back.push(back_after(&mut cluster).await?);
            }
            pulse.beats(20).await?;
            workers = (names.stop().await?, cells.stop().await?);
            check(&mut workers, &reader).await?;
        }
        ensure!(
            pulse.failed() == 0,
            "{} operations failed though the master was back at once",
            pulse.failed()
        );
        let more = format!(
            "{} operations answered; back after {}",
            pulse.answered(),
            figures(&mut back)
        );
        landed.report("kill", kills, &more)
    });
}

type Workers = (Vec<NameWorker>, Vec<CellWorker>);

/// Each has a client, and so a session, of its own.
async fn workers(cluster: &Cluster, rng: &Rng) -> anyhow::Result<Workers> {
    let (mut names, mut cells) = (Vec::new(), Vec::new());
    for n in 0..4 {
        names.push(NameWorker::new(cluster.client().await?, &format!("/names-{n}"), rng.fork()).await?);
    }
    for (n, style) in [Style::Append, Style::Append, Style::Overwrite]
        .into_iter()
        .enumerate()
    {
        let number = u32::try_from(n)?;
        cells.push(CellWorker::new(cluster.client().await?, number, style, rng.fork()).await?);
    }
    Ok((names, cells))
}

async fn check((names, cells): &mut Workers, reader: &Client) -> anyhow::Result<()> {
    for worker in names {
        worker.check(reader).await?;
    }
    for worker in cells {
        worker.release().await;
        worker.settle(reader, After::OneNode).await?;
    }
    Ok(())
}

/// Starts the master that was killed; how long it took until somebody new got an answer.
async fn back_after(cluster: &mut Cluster) -> anyhow::Result<Duration> {
    let start = Instant::now();
    cluster.master.start()?;
    let client = cluster.client().await?;
    client.exists("/").await?;
    let back = start.elapsed();
    client.disconnect().await?;
    Ok(back)
}

/// The middle and the worst of some durations.
fn figures(durations: &mut [Duration]) -> String {
    durations.sort();
    let at = |index: usize| durations.get(index).map_or(0, Duration::as_millis);
    format!(
        "{} ms in the middle, {} ms at worst",
        at(durations.len() / 2),
        at(durations.len().saturating_sub(1))
    )
}

#[test]
fn a_killed_master_with_many_files_is_back_within_a_second() {
    let _alone = alone();
    run(20, async {
        let files = scaled("DFS_FILES", 20_000, 2_000);
        let mut cluster = Cluster::start(&SHAPE).await?;
        let client = cluster.client().await?;
        let took = fill(&client, files).await?;
        let mut back = Vec::new();
        for round in 0..5 {
            client.mkdir(format!("/after-{round}")).await?;
            cluster.master.kill()?;
            back.push(back_after(&mut cluster).await?);
        }
        let status = client.status().await?;
        ensure!(status.files == files, "{} files of {files}", status.files);
        println!(
            "kill: {files} files, made in {took:.1?}; back after {}",
            figures(&mut back)
        );
        let middle = back[back.len() / 2];
        ensure!(
            cfg!(debug_assertions) || middle < BACK_WITHIN,
            "back after {middle:?}"
        );
        Ok(())
    });
}

/// Makes so many files, a thousand in a directory, many at a time.
async fn fill(client: &Client, files: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for folder in 0..files.div_ceil(1_000) {
        let parent = client.mkdir(format!("/folder-{folder}")).await?.inode;
        for lane in 0..8 {
            let (inodes, last) = (client.inodes().clone(), (files - folder * 1_000).min(1_000));
            tasks.spawn(async move {
                for n in (lane..last).step_by(8) {
                    make(&inodes, parent, &format!("file-{n}")).await?;
                }
                dfs_client::Result::Ok(())
            });
        }
        while tasks.len() > 64 {
            tasks.join_next().await.expect("there are some")??;
        }
    }
    while let Some(made) = tasks.join_next().await {
        made??;
    }
    Ok(start.elapsed())
}

async fn make(inodes: &dfs_client::Inodes, parent: InodeId, name: &str) -> dfs_client::Result<()> {
    let make = Make {
        kind: Kind::File,
        mode: 0o644,
        rdev: 0,
        target: Vec::new(),
    };
    inodes.make(parent, name.as_bytes(), make).await.map(drop)
}

#[test]
fn readers_of_open_files_go_on_while_the_killed_master_is_away() {
    let _alone = alone();
    run(5, async {
        let rng = seeded("away");
        let mut cluster = Cluster::start(&SHAPE).await?;
        let client = cluster.client().await?;
        let written: Vec<u8> = (0..3_000_000_u32)
            .map(|n| (n >> 3).to_le_bytes()[0] ^ (n >> 11).to_le_bytes()[0])
            .collect();
        let file = client.create("/file").await?;
        file.handle().write_at(0, Bytes::from(written.clone())).await?;
        file.close().await?;
        let file = client.open("/file").await?;
        file.handle().read_at(0, 1).await?;
        cluster.master.kill()?;
        // Longer than a session lives: from then on every answer is a detached one.
        let (end, mut worst, mut reads) = (Instant::now() + Duration::from_secs(7), Duration::ZERO, 0_u32);
        while Instant::now() < end {
            let start = Instant::now();
            let at = usize::try_from(rng.below(2_900_000))?;
            let read = within(10, file.handle().read_at(at as u64, 100_000))
                .await?
                .context("read while the master is away")?;
            ensure!(read[..] == written[at..at + 100_000], "wrong bytes at {at}");
            (worst, reads) = (worst.max(start.elapsed()), reads + 1);
            sleep(Duration::from_millis(5)).await;
        }
        cluster.master.start()?;
        ensure!(
            content(&cluster.client().await?, "/file").await? == written,
            "wrong bytes afterwards"
        );
        println!("away: {reads} reads without a master, the longest took {worst:.1?}");
        Ok(())
    });
}
