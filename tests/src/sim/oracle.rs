//! What must hold once faults have stopped.

use super::History;
use super::writers::Ledger;
use anyhow::{Context as _, ensure};
use dfs_client::{ChunkState, Client};
use std::time::Duration;

/// Every acknowledged write is there, and every chunk has `goal` identical replicas, within `bound` of virtual time.
///
/// # Errors
/// What does not hold.
pub async fn converges(
    client: Client,
    history: History,
    ledger: Ledger,
    bound: Duration,
) -> anyhow::Result<()> {
    let expected = ledger.lock().expect("no panic").clone();
    for file in &expected {
        let bytes = client
            .open(&file.path)
            .await?
            .read_at(0, 1 << 20)
            .await
            .context(file.path.clone())?;
        let verdict = file.allows(&bytes);
        history.note(format!("{} finally {} {verdict:?}", file.path, bytes.len()));
        ensure!(
            verdict.is_ok(),
            "{}: slot {verdict:?} lost what was acknowledged",
            file.path
        );
    }
    let end = tokio::time::Instant::now() + bound;
    for file in &expected {
        loop {
            let chunks = client.chunks(&file.path).await?;
            let trouble = members_differ(&client, &chunks).await?;
            let Some(trouble) = trouble else { break };
            ensure!(tokio::time::Instant::now() < end, "{}: {trouble}", file.path);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    history.note("converged");
    Ok(())
}

/// Why the chunks are not at goal with identical members; `None` if they are.
async fn members_differ(client: &Client, chunks: &[ChunkState]) -> anyhow::Result<Option<String>> {
    let probes = client.probe(chunks, true).await?;
    for chunk in chunks {
        let members: Vec<_> = probes
            .iter()
            .filter(|p| p.chunk == chunk.chunk && chunk.members.iter().any(|m| m.node == p.member.node))
            .collect();
        if chunk.members.len() < chunk.goal as usize {
            return Ok(Some(format!(
                "{}: {} of {} members",
                chunk.chunk,
                chunk.members.len(),
                chunk.goal
            )));
        }
        let mut digests = Vec::new();
        for probe in members {
            match &probe.replica {
                Ok(r) if r.present && r.bad_blocks.is_empty() && r.serving => digests.push(r.digest),
                other => {
                    return Ok(Some(format!(
                        "{} on {}: {other:?}",
                        chunk.chunk, probe.member.node
                    )));
                }
            }
        }
        if digests.windows(2).any(|w| w[0] != w[1]) || digests.len() != chunk.members.len() {
            return Ok(Some(format!("{}: digests {digests:x?}", chunk.chunk)));
        }
    }
    Ok(None)
}
