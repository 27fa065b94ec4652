//! Rot: flipped bits, cut and exchanged chunk files under a running cluster. Never a wrong byte.

use super::cells::content;
use super::nodes::{Cluster, Shape};
use super::{alone, run, scaled, seeded};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dfs_client::{ChunkHandle, Client, NodeId, Settings};
use dfs_proto::net::Tcp;
use dfs_stdx::{Clock, Rng};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

const SHAPE: Shape = Shape {
    servers: 4,
    chunk_bytes: 256 * 1024,
    fast: true,
};
const FILES: usize = 6;
const FILE_BYTES: usize = 1_000_000;
/// Everything is read after so many damages, each time by a client that prefers another server.
const READ_EVERY: u64 = 10;
/// A server is started again after so many, so that it has to find its replicas from what the disk says.
const RESTART_EVERY: u64 = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    FlipData,
    FlipHead,
    Cut,
    Swap,
}

/// A replica's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Replica {
    chunk: ChunkHandle,
    node: NodeId,
    path: PathBuf,
}

struct Rig {
    cluster: Cluster,
    client: Client,
    contents: Vec<(String, Vec<u8>)>,
    /// Damaged, and not known to have been healed.
    bad: BTreeSet<(ChunkHandle, NodeId)>,
    landed: BTreeMap<Damage, u64>,
    rng: Rng,
}

impl Rig {
    async fn start() -> anyhow::Result<Rig> {
        let (rng, cluster) = (seeded("rot"), Cluster::start(&SHAPE).await?);
        let client = cluster.client().await?;
        let mut contents = Vec::new();
        for n in 0..FILES {
            let bytes: Vec<u8> = (0..FILE_BYTES / 8)
                .flat_map(|_| rng.u64().to_le_bytes())
                .collect();
            let path = format!("/file-{n}");
            let file = client.create(&path).await?;
            file.handle().write_at(0, Bytes::from(bytes.clone())).await?;
            file.close().await?;
            contents.push((path, bytes));
        }
        let (bad, landed) = (BTreeSet::new(), BTreeMap::new());
        Ok(Rig {
            cluster,
            client,
            contents,
            bad,
            landed,
            rng,
        })
    }

    /// A member's file that may be damaged: another member of its chunk is good.
    async fn victim(&mut self) -> anyhow::Result<Option<Replica>> {
        let path = self.contents[self.below(FILES)].0.clone();
        let chunks = self.client.chunks(&path).await?;
        let chunk = &chunks[self.below(chunks.len())];
        for probe in self.client.probe(std::slice::from_ref(chunk), true).await? {
            let good = probe
                .replica
                .is_ok_and(|r| r.present && r.serving && r.bad_blocks.is_empty());
            if good
                && chunk
                    .members
                    .iter()
                    .any(|member| member.node == probe.member.node)
            {
                self.bad.remove(&(chunk.chunk, probe.member.node));
            } else {
                self.bad.insert((chunk.chunk, probe.member.node));
            }
        }
        let good: Vec<_> = chunk
            .members
            .iter()
            .filter(|m| !self.bad.contains(&(chunk.chunk, m.node)))
            .collect();
        let member = &chunk.members[self.below(chunk.members.len())];
        if chunk.changing || good.iter().all(|other| other.node == member.node) {
            return Ok(None);
        }
        let server = (1..=SHAPE.servers).find(|n| self.cluster.server_addr(*n) == member.addr);
        let folder = self
            .cluster
            .chunk_folder(server.context("a member is one of the servers")?);
        let name = format!("{:016x}", chunk.chunk.0);
        let path = folder.join(&name[14..]).join(&name);
        Ok(path.exists().then_some(Replica {
            chunk: chunk.chunk,
            node: member.node,
            path,
        }))
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).expect("small")
    }

    /// One more damage; false if none was possible now.
    async fn damage(&mut self) -> anyhow::Result<bool> {
        let kind = [Damage::FlipData, Damage::FlipHead, Damage::Cut, Damage::Swap][self.below(4)];
        let Some(replica) = self.victim().await? else {
            return Ok(false);
        };
        let file = File::options().read(true).write(true).open(&replica.path)?;
        let length = file.metadata()?.len();
        match kind {
            Damage::FlipData => flip(&file, self.rng.below(length), self.rng.below(8))?,
            Damage::FlipHead => flip(&file, self.rng.below(8192.min(length)), self.rng.below(8))?,
            Damage::Cut => file.set_len(self.rng.below(length))?,
            Damage::Swap => {
                self.bad.insert((replica.chunk, replica.node));
                let Some(other) = self.victim().await? else {
                    return Ok(false);
                };
                let (ours, theirs) = (std::fs::read(&replica.path)?, std::fs::read(&other.path)?);
                if ours == theirs {
                    return Ok(false);
                }
                std::fs::write(&replica.path, theirs)?;
                std::fs::write(&other.path, ours)?;
                self.bad.insert((other.chunk, other.node));
            }
        }
        self.bad.insert((replica.chunk, replica.node));
        *self.landed.entry(kind).or_default() += 1;
        Ok(true)
    }

    /// Reads everything by a new client that prefers one of the servers (from 1); how often it had to go elsewhere.
    async fn read_all(&self, server: usize) -> anyhow::Result<u64> {
        let mut settings = Settings::new(&self.cluster.addr)?;
        settings.host = format!("host-{server}");
        let client = Client::connect_with(settings, Arc::new(Tcp), Clock::system(), Rng::system()).await?;
        for (path, bytes) in &self.contents {
            let found = content(&client, path).await?;
            let differs = found.iter().zip(bytes).position(|(a, b)| a != b);
            ensure!(
                found.len() == bytes.len() && differs.is_none(),
                "{path}: wrong from byte {differs:?}"
            );
        }
        let failovers = client.stats().failovers;
        client.disconnect().await?;
        Ok(failovers)
    }
}

fn flip(file: &File, at: u64, bit: u64) -> anyhow::Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << bit;
    Ok(file.write_all_at(&byte, at)?)
}

#[test]
fn rotten_chunk_files_never_show() {
    let _alone = alone();
    run(30, async {
        let (mut rig, wanted) = (Rig::start().await?, scaled("DFS_ROTS", 100, 30));
        let (mut landed, mut elsewhere, mut tries) = (0, 0, 0_usize);
        while landed < wanted {
            tries += 1;
            ensure!(
                tries < 10_000,
                "only {landed} damages landed: nothing is healed any more"
            );
            let damaged = rig.damage().await?;
            landed += u64::from(damaged);
            if !damaged || landed % READ_EVERY == 0 {
                let met = rig.read_all(1 + tries % SHAPE.servers).await;
                elsewhere += met.with_context(|| format!("after {:?}", rig.landed))?;
            }
            if damaged && landed % RESTART_EVERY == 0 {
                let server = rig.below(SHAPE.servers);
                rig.cluster.servers[server].restart()?;
                rig.cluster.all_alive(&rig.client).await?;
            }
        }
        println!(
            "rot: {:?} landed, {elsewhere} reads went on to another replica",
            rig.landed
        );
        ensure!(elsewhere > 0, "no reader met any of the damage");
        let paths: Vec<String> = rig.contents.iter().map(|(path, _)| path.clone()).collect();
        let healed = rig
            .cluster
            .all_identical(&rig.client, &paths, 120)
            .await
            .context("rot that was met is to be healed")?;
        println!("rot: healed after {healed:.1?}");
        rig.read_all(1).await.map(drop)
    });
}
