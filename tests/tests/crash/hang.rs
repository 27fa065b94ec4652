//! `dfs put` and `dfs get` while a chunkserver of theirs is killed or stops in its tracks: a pause, no error.

use super::nodes::{Cluster, Shape, binary, within};
use super::{alone, run, scaled, seeded};
use anyhow::{Context as _, ensure};
use dfs_stdx::Rng;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;

const SHAPE: Shape = Shape {
    servers: 4,
    chunk_bytes: 8 << 20,
    fast: false,
};
const PIECE_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Kill,
    Stop,
}

impl Harm {
    /// Longest pause the contract allows.
    fn pause_max(self) -> Duration {
        match self {
            Harm::Kill => Duration::from_secs(1),
            Harm::Stop => Duration::from_secs(6),
        }
    }

    fn strike(self, cluster: &mut Cluster, server: usize) -> anyhow::Result<()> {
        let node = &mut cluster.servers[server - 1];
        match self {
            Harm::Kill => node.kill(),
            Harm::Stop => node.hold(),
        }
    }

    fn heal(self, cluster: &mut Cluster, server: usize) -> anyhow::Result<()> {
        let node = &mut cluster.servers[server - 1];
        match self {
            Harm::Kill => node.start(),
            Harm::Stop => node.resume(),
        }
    }
}

fn dfs(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(words)
        .args(["--json", "--master", &cluster.addr])
        .kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The server that wrote to a chunk file last: the file being put is on it.
fn busiest(cluster: &Cluster) -> anyhow::Result<usize> {
    let newest = |folder: &Path| -> anyhow::Result<_> {
        let mut newest = None;
        for low in std::fs::read_dir(folder)? {
            for file in std::fs::read_dir(low?.path())? {
                newest = newest.max(Some(file?.metadata()?.modified()?));
            }
        }
        Ok(newest)
    };
    let mut servers = Vec::new();
    for n in 1..=SHAPE.servers {
        servers.push((newest(&cluster.chunk_folder(n)).unwrap_or(None), n));
    }
    let busiest = servers.into_iter().max().context("there are servers")?;
    ensure!(busiest.0.is_some(), "no chunk file anywhere");
    Ok(busiest.1)
}

/// What a command said at its end.
async fn said(child: Child) -> anyhow::Result<serde_json::Value> {
    let output = within(60, child.wait_with_output()).await??;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success() && error.is_empty(),
        "{}: {error}",
        output.status
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Puts `pieces` MiB under `path`, strikes in the middle; returns their digest.
async fn put(
    cluster: &mut Cluster,
    harm: Harm,
    path: &str,
    pieces: u64,
    rng: &Rng,
) -> anyhow::Result<Vec<u8>> {
    let mut child = dfs(cluster, &["put", "-", path]).spawn()?;
    let mut input = child.stdin.take().context("it is piped")?;
    let (mut hash, mut struck) = (Sha256::new(), 0);
    for piece in 0..pieces {
        if piece == pieces / 2 {
            struck = busiest(cluster)?;
            harm.strike(cluster, struck)?;
        }
        let bytes: Vec<u8> = (0..PIECE_BYTES / 8)
            .flat_map(|_| rng.u64().to_le_bytes())
            .collect();
        hash.update(&bytes);
        within(30, input.write_all(&bytes))
            .await?
            .context("put takes no more")?;
    }
    drop(input);
    let said = said(child).await.context("put")?;
    let (stall, failovers) = (said["longest_stall_ms"].as_u64(), said["failovers"].as_u64());
    println!("hang: {harm:?} of server {struck} during put: {said}");
    let stall = Duration::from_millis(stall.context("longest_stall_ms")?);
    ensure!(failovers.is_some_and(|n| n > 0), "the fault has not landed");
    ensure!(
        cfg!(debug_assertions) || stall < harm.pause_max(),
        "{harm:?} of a server made put pause for {stall:?}"
    );
    harm.heal(cluster, struck)?;
    Ok(hash.finalize().to_vec())
}

/// Gets it to a pipe, strikes in the middle; returns the digest of what came, and the longest wait for a piece.
async fn get(
    cluster: &mut Cluster,
    harm: Harm,
    path: &str,
    pieces: u64,
) -> anyhow::Result<(Vec<u8>, Duration)> {
    let mut child = dfs(cluster, &["get", path, "-"]).spawn()?;
    let mut output = child.stdout.take().context("it is piped")?;
    let (mut hash, mut buffer, mut worst, mut struck) =
        (Sha256::new(), vec![0; PIECE_BYTES], Duration::ZERO, 0);
    let mut came = 0_u64;
    loop {
        if struck == 0 && came >= pieces / 3 * PIECE_BYTES as u64 {
            struck = busiest(cluster)?;
            harm.strike(cluster, struck)?;
        }
        let start = Instant::now();
        let read = within(30, output.read(&mut buffer))
            .await?
            .context("get gives no more")?;
        worst = worst.max(start.elapsed());
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        came += read as u64;
    }
    let ended = within(30, child.wait_with_output()).await??;
    ensure!(
        ended.status.success(),
        "get: {}: {}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr)
    );
    harm.heal(cluster, struck)?;
    Ok((hash.finalize().to_vec(), worst))
}

async fn there_and_back(harm: Harm) -> anyhow::Result<()> {
    let (rng, pieces) = (seeded("hang"), scaled("DFS_HANG_MIB", 256, 64));
    let mut cluster = Cluster::start(&SHAPE).await?;
    let client = cluster.client().await?;
    let put = put(&mut cluster, harm, "/file", pieces, &rng).await?;
    cluster.all_alive(&client).await?;
    let healed = cluster.all_identical(&client, &["/file".to_owned()], 120).await?;
    let (got, worst) = get(&mut cluster, harm, "/file", pieces).await?;
    ensure!(put == got, "get gave other bytes than put took");
    println!("hang: {harm:?}: three good replicas again after {healed:.1?}; longest wait of get {worst:.1?}");
    ensure!(
        cfg!(debug_assertions) || worst < harm.pause_max(),
        "{harm:?} of a server made get pause for {worst:?}"
    );
    Ok(())
}

#[test]
fn hang_of_a_chunkserver_is_a_pause_under_six_seconds() {
    let _alone = alone();
    run(10, there_and_back(Harm::Stop));
}

#[test]
fn hang_for_ever_by_death_is_a_pause_under_a_second() {
    let _alone = alone();
    run(10, there_and_back(Harm::Kill));
}
