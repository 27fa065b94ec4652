//! One of five chunkservers gone for good: chunks with one copy left have two at once, all others their goal after the
//! grace time, while somebody reads. And one that only restarts: nothing is copied.

use super::nodes::{Cluster, Shape, within};
use super::{alone, run, scaled};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dfs_client::{Client, OpenOptions};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Larger than what a sync may pull: members are copied first.
const SHAPE: Shape = Shape {
    servers: 5,
    chunk_bytes: 8 << 20,
    fast: true,
};
/// A tenth of what the documentation says: the cluster is a fast one.
const DEAD: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(6);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the master logs when bytes are copied in the background.
const COPIED: &str = "a copy begins";

/// Writes files of one full chunk each.
async fn fill(client: &Client, goal: u32, count: u64) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for n in 0..count {
        let name = format!("/goal-{goal}-{n}");
        let options = OpenOptions::new().write(true).create(true).goal(goal);
        let mut file = client.open_with(&name, options).await?;
        let piece = Bytes::from(vec![u8::try_from(n % 251)?; 1 << 20]);
        for at in 0..SHAPE.chunk_bytes >> 20 {
            file.write_at(at << 20, piece.clone()).await?;
        }
        file.sync_all().await?;
        file.close().await?;
        names.push(name);
    }
    Ok(names)
}

/// How many members of each file's chunks are not `gone`.
async fn living(client: &Client, files: &[String], gone: u32) -> anyhow::Result<Vec<usize>> {
    let mut counts = Vec::new();
    for file in files {
        let chunks = client.chunks(file).await?;
        let of_chunk = |c: &dfs_client::ChunkState| c.members.iter().filter(|m| m.node.0 != gone).count();
        counts.push(chunks.iter().map(of_chunk).min().context("a file of one chunk")?);
    }
    Ok(counts)
}

/// Reads until told to stop; how long each read took.
async fn reader(
    client: Client,
    files: Vec<String>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    loop {
        for name in &files {
            if *stop.borrow_and_update() {
                return Ok(took);
            }
            let start = Instant::now();
            let mut file = client.open(name).await?;
            let bytes = file.read_at((1 << 20) - 100, 200).await?;
            ensure!(
                bytes.len() == 200 && bytes.iter().all(|b| *b == bytes[0]),
                "{name}: wrong bytes"
            );
            took.push(start.elapsed());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() * 99 / 100]
}

async fn reads_for(
    client: &Client,
    files: &[String],
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Duration> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let reads = tokio::spawn(reader(client.clone(), files.to_vec(), stopped));
    let done = work.await;
    stop.send_replace(true);
    let took = reads.await??;
    done?;
    Ok(p99(took))
}

/// The server with most chunks of these files, from 1, and its number.
async fn busiest(cluster: &Cluster, client: &Client) -> anyhow::Result<(usize, u32)> {
    let nodes = client.nodes().await?;
    let most = nodes
        .iter()
        .max_by_key(|n| n.chunks)
        .context("there are servers")?;
    let index = (1..=SHAPE.servers).find(|n| cluster.server_addr(*n) == most.addr);
    Ok((index.context("its address is known")?, most.node.0))
}

async fn wait_for(
    client: &Client,
    files: &[String],
    (gone, wanted): (u32, usize),
    start: Instant,
    limit: Duration,
) -> anyhow::Result<Duration> {
    loop {
        let counts = living(client, files, gone).await?;
        let fewest = counts.into_iter().min().unwrap_or(wanted);
        if fewest >= wanted {
            return Ok(start.elapsed());
        }
        ensure!(
            start.elapsed() < limit,
            "{fewest} of {wanted} live members after {limit:?}"
        );
        sleep(LOOK_EVERY).await;
    }
}

#[test]
fn a_lost_server_is_made_up_for_in_order_of_urgency_and_a_restart_copies_nothing() {
    let _alone = alone();
    let files = scaled("DFS_REPAIR_FILES", 40, 6);
    run(10, async move {
        let mut cluster = Cluster::start(&SHAPE).await?;
        let client = cluster.client().await?;
        let triples = fill(&client, 3, files).await?;
        let (victim, gone) = busiest(&cluster, &client).await?;
        restart(&mut cluster, &client, victim).await?;
        let pairs = fill(&client, 2, files).await?;
        let all: Vec<String> = pairs.iter().chain(&triples).cloned().collect();
        let before = reads_for(&client, &all, async {
            sleep(Duration::from_secs(3)).await;
            Ok(())
        })
        .await?;
        cluster.servers[victim - 1].kill()?;
        let start = Instant::now();
        let mut seconds = (Duration::ZERO, Duration::ZERO);
        let during = reads_for(&client, &all, async {
            seconds.0 = wait_for(&client, &pairs, (gone, 2), start, DEAD + Duration::from_secs(3)).await?;
            let urgent = cluster.master.said(COPIED);
            ensure!(urgent > 0, "nothing was copied for chunks with one copy left");
            ensure!(
                start.elapsed() > DEAD + GRACE || urgent <= pairs.len(),
                "others did not wait"
            );
            let limit = DEAD + GRACE + Duration::from_secs(20);
            seconds.1 = wait_for(&client, &triples, (gone, 3), start, limit).await?;
            Ok(())
        })
        .await?;
        ensure!(
            seconds.1 > DEAD + GRACE - Duration::from_secs(1),
            "goals were met before the grace time: {seconds:?}"
        );
        println!(
            "repair: {files} + {files} files of 8 MiB: one copy left: two after {:.1} s, goal after {:.1} s (dead {DEAD:?}, grace {GRACE:?}); \
             reads p99 {before:?} before, {during:?} meanwhile",
            seconds.0.as_secs_f64(),
            seconds.1.as_secs_f64()
        );
        cluster.all_identical(&client, &all, 60).await?;
        cluster.servers[victim - 1].start()?;
        cluster.all_alive(&client).await?;
        let healthy = within(60, async {
            loop {
                let status = client.status().await?;
                if status.chunks.ok == status.chunks.chunks && status.chunks.stale == 0 {
                    return anyhow::Ok(());
                }
                sleep(LOOK_EVERY).await;
            }
        });
        healthy.await.context("what came back is stale, and goes")??;
        Ok(())
    });
}

/// A server is killed and comes back: nothing is copied, now or later.
async fn restart(cluster: &mut Cluster, client: &Client, victim: usize) -> anyhow::Result<()> {
    cluster.servers[victim - 1].kill()?;
    sleep(DEAD + GRACE / 2).await;
    cluster.servers[victim - 1].start()?;
    cluster.all_alive(client).await?;
    let copies = cluster.master.said(COPIED);
    ensure!(copies == 0, "{copies} copies for a restart");
    Ok(())
}
