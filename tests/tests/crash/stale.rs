//! A chunkserver that the master cannot reach any more, but clients can: what is overwritten elsewhere is never read
//! there, neither by a client that follows the master nor by one that has nothing but its cached token.

use super::nodes::{Cluster, Shape, within};
use super::{alone, run, scaled, seeded};
use anyhow::{bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use dfs_client::{Client, OpenOptions, Settings};
use dfs_proto::net::{BoxStream, Dial, Tcp};
use dfs_stdx::{Clock, Rng};
use dfs_tests::manifest::{CELL_BYTES, Seen, cell_bytes, read_cell};
use dfs_tests::proxy::{Direction, Fault, Proxy};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

const SHAPE: Shape = Shape {
    servers: 3,
    chunk_bytes: 256 * 1024,
    fast: true,
};
const PATH: &str = "/file";
/// Overwrites that are acknowledged while the server is cut off.
const OVERWRITES: u32 = 60;
/// Readers of each kind: some are to be on their way when an overwrite is acknowledged.
const READERS: usize = 3;
/// A read that waits longer is given up, and begun again with what is cached.
const PATIENCE: Duration = Duration::from_millis(150);

/// Reaches one server by a way of its own.
#[derive(Debug)]
struct Detour {
    from: String,
    to: String,
}

#[async_trait]
impl Dial for Detour {
    async fn dial(&self, addr: &str) -> io::Result<BoxStream> {
        Tcp.dial(if addr == self.from { &self.to } else { addr }).await
    }
}

/// What reader and writer tell each other.
#[derive(Debug, Default)]
struct Board {
    acknowledged: AtomicU32,
    stop: AtomicBool,
    good: AtomicU64,
    failed: AtomicU64,
}

/// A client that prefers server 1, and reaches it whatever is cut between the servers.
async fn reader(master: &str, from: &str, to: &str) -> anyhow::Result<Client> {
    let mut settings = Settings::new(master)?;
    settings.host = "host-1".into();
    let dial = Arc::new(Detour {
        from: from.into(),
        to: to.into(),
    });
    Ok(Client::connect_with(settings, dial, Clock::system(), Rng::system()).await?)
}

/// Reads the first cell again and again: it is never older than what was acknowledged before the read began.
async fn watch(client: Client, board: Arc<Board>) -> anyhow::Result<()> {
    let file = client.open(PATH).await?;
    while !board.stop.load(Ordering::Relaxed) {
        let floor = board.acknowledged.load(Ordering::SeqCst);
        let read = tokio::time::timeout(PATIENCE, file.handle().read_at(0, CELL_BYTES)).await;
        match read {
            Ok(Ok(bytes)) => match read_cell(0, 0, &bytes) {
                Seen::Generation(generation) if generation >= floor => {
                    board.good.fetch_add(1, Ordering::Relaxed)
                }
                seen => bail!("{seen:?} was read after {floor} was acknowledged"),
            },
            // An error is better than an old byte; a client without a master may have nothing better.
            Ok(Err(_)) | Err(_) => board.failed.fetch_add(1, Ordering::Relaxed),
        };
        sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Overwrites the first cell with one generation after the other.
async fn overwrite(client: &Client, board: &Board, times: u32) -> anyhow::Result<()> {
    let file = client.open_with(PATH, OpenOptions::new().write(true)).await?;
    for _ in 0..times {
        let generation = board.acknowledged.load(Ordering::SeqCst) + 1;
        file.handle()
            .write_at(0, Bytes::from(cell_bytes(0, 0, generation)))
            .await?;
        board.acknowledged.store(generation, Ordering::SeqCst);
        sleep(Duration::from_millis(10)).await;
    }
    Ok(file.close().await?)
}

#[test]
fn stale_bytes_are_never_read_from_a_server_cut_off_from_the_master() {
    let _alone = alone();
    run(20, async {
        let (_rng, rounds) = (seeded("stale"), scaled("DFS_STALES", 10, 3));
        let mut cluster = Cluster::prepare(&SHAPE, Vec::new())?;
        let real = cluster.server_addr(1);
        let to_master = Proxy::start(&cluster.spare_addr(1), &cluster.addr).await?;
        let advertised = Proxy::start(&cluster.spare_addr(2), &real).await?;
        let direct = Proxy::start(&cluster.spare_addr(3), &real).await?;
        let lone_master = Proxy::start(&cluster.spare_addr(4), &cluster.addr).await?;
        cluster.detour(1, to_master.addr(), advertised.addr());
        cluster.start_all().await?;

        let writer = cluster.client().await?;
        let board = Arc::new(Board::default());
        writer.create(PATH).await?.close().await?;
        overwrite(&writer, &board, 1).await?;
        let (mut asked, mut read_while_cut, mut worst) = (0, 0, Duration::ZERO);
        for round in 0..rounds {
            cluster.all_identical(&writer, &[PATH.to_owned()], 60).await?;
            board.stop.store(false, Ordering::Relaxed);
            let mut watchers = Vec::new();
            for master in [&cluster.addr, lone_master.addr()] {
                let client = reader(master, advertised.addr(), direct.addr()).await?;
                watchers.extend((0..READERS).map(|_| tokio::spawn(watch(client.clone(), board.clone()))));
            }
            overwrite(&writer, &board, 3).await?;
            let fault = if round % 2 == 0 { Fault::Hold } else { Fault::Reset };
            for proxy in [&to_master, &advertised, &lone_master] {
                proxy.set_both(fault);
            }
            let start = tokio::time::Instant::now();
            let (moved, good) = (direct.moved(Direction::Up), board.good.load(Ordering::Relaxed));
            within(30, overwrite(&writer, &board, 1)).await??;
            worst = worst.max(start.elapsed());
            within(30, overwrite(&writer, &board, OVERWRITES)).await??;
            asked += direct.moved(Direction::Up) - moved;
            read_while_cut += board.good.load(Ordering::Relaxed) - good;
            board.stop.store(true, Ordering::Relaxed);
            for watcher in watchers {
                watcher.await??;
            }
            for proxy in [&to_master, &advertised, &lone_master] {
                proxy.set_both(Fault::None);
            }
        }
        let (good, failed) = (
            board.good.load(Ordering::Relaxed),
            board.failed.load(Ordering::Relaxed),
        );
        println!(
            "stale: {rounds} cuts landed, {asked} bytes of questions reached the server that was cut off, \
             {read_while_cut} of {good} reads answered during a cut ({failed} without an answer); \
             an overwrite waited {worst:.1?} at worst"
        );
        ensure!(asked > 0, "nobody asked the server that was cut off");
        ensure!(read_while_cut > 0, "no read was answered during a cut");
        Ok(())
    });
}
