//! SIGKILL for the head, the middle, the tail and the master under record append, again and again: each record that
//! fifty producers append is in the file once, whole, where it was said to be and in its producer's order; and who
//! follows the file hears the same bytes.

use super::nodes::{Cluster, Shape, within};
use super::{alone, moment, run, scaled, seeded};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dfs_client::{Client, Code, Handle, OpenOptions};
use dfs_stdx::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SHAPE: Shape = Shape {
    servers: 5,
    chunk_bytes: 1024 * 1024,
    fast: true,
};
const PRODUCERS: u64 = 50;
/// Clients, and so sessions, that the producers share.
const CLIENTS: u64 = 5;
const FOLLOWERS: usize = 3;
const PATH: &str = "/records";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Head,
    Middle,
    Tail,
    Master,
}

const VICTIMS: [Victim; 4] = [Victim::Head, Victim::Middle, Victim::Tail, Victim::Master];

/// What the producers are at.
#[derive(Debug, Default)]
struct Work {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// Calls that ended with an error and were made again.
    repeated: AtomicU64,
    under_way: AtomicU64,
}

/// Where a producer's records are said to be, in order.
type Places = Vec<(Option<u64>, Bytes)>;

#[test]
fn records_of_fifty_producers_are_there_once_and_in_order_over_kills() {
    let _alone = alone();
    run(85, async {
        let (rng, kills) = (seeded("records"), scaled("DFS_RECORD_KILLS", 40, 8));
        let mut cluster = Cluster::start(&SHAPE).await?;
        let client = cluster.client().await?;
        client.create(PATH).await?.close().await?;
        let work = Arc::new(Work::default());
        let (producers, handles) = produce(&cluster, &work, &rng).await?;
        let mut followers = JoinSet::new();
        let end = Arc::new(AtomicU64::new(u64::MAX));
        for _ in 0..FOLLOWERS {
            followers.spawn(follow(cluster.client().await?, end.clone()));
        }
        let mut landed = BTreeMap::new();
        for number in 0..kills {
            let victim = VICTIMS[usize::try_from(number % 4)?];
            progress(&work, 20 + rng.below(100)).await?;
            sleep(moment(&rng, 0, 40)).await;
            *landed.entry(victim).or_insert(0) += work.under_way.load(Ordering::Relaxed);
            kill(&mut cluster, &client, victim, &rng).await?;
        }
        progress(&work, 200).await?;
        work.stop.store(true, Ordering::Relaxed);
        let places = ended(producers).await?;
        for handle in handles {
            handle.close().await?;
        }
        let bytes = whole(&client).await?;
        let records = check(&bytes, &places)?;
        end.store(bytes.len() as u64, Ordering::Relaxed);
        while let Some(heard) = within(60, followers.join_next()).await? {
            ensure!(heard?? == bytes, "a follower heard other bytes");
        }
        cluster.all_identical(&client, &[PATH.to_owned()], 60).await?;
        ensure!(
            VICTIMS.iter().all(|v| landed.get(v).is_some_and(|hit| *hit > 0)),
            "a kind of kill hit nothing: {landed:?}"
        );
        println!(
            "records: {kills} kills, hit while under way: {landed:?}; {records} records, {} bytes, {} calls repeated",
            bytes.len(),
            work.repeated.load(Ordering::Relaxed)
        );
        Ok(())
    });
}

async fn produce(
    cluster: &Cluster,
    work: &Arc<Work>,
    rng: &Rng,
) -> anyhow::Result<(JoinSet<anyhow::Result<(u64, Places)>>, Vec<Handle>)> {
    let mut handles = Vec::new();
    for _ in 0..CLIENTS {
        let file = cluster
            .client()
            .await?
            .open_with(PATH, OpenOptions::new().write(true))
            .await?;
        handles.push(file.handle().clone());
    }
    let mut producers = JoinSet::new();
    for producer in 1..=PRODUCERS {
        let handle = handles[usize::try_from(producer % CLIENTS)?].clone();
        let (work, rng) = (work.clone(), rng.fork());
        producers.spawn(async move { Ok((producer, appended(producer, &handle, &work, &rng).await?)) });
    }
    Ok((producers, handles))
}

/// A producer's life: one record after the other, each until it is acknowledged.
async fn appended(producer: u64, handle: &Handle, work: &Work, rng: &Rng) -> anyhow::Result<Places> {
    let mut places = Vec::new();
    while !work.stop.load(Ordering::Relaxed) {
        let sequence = places.len() as u64 + 1;
        let length = match rng.below(20) {
            0 => rng.below(100_000),
            _ => rng.below(2_000),
        };
        let record = record(producer, sequence, usize::try_from(length)?);
        let given_up = Instant::now() + Duration::from_secs(120);
        work.under_way.fetch_add(1, Ordering::Relaxed);
        let appended = loop {
            match handle.append_record(producer, sequence, record.clone()).await {
                Ok(appended) => break appended,
                Err(error) if Instant::now() < given_up && error.code != Code::InvalidArgument => {
                    work.repeated.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error).context(format!("record {sequence} of {producer}")),
            }
        };
        work.under_way.fetch_sub(1, Ordering::Relaxed);
        work.acknowledged.fetch_add(1, Ordering::Relaxed);
        places.push((appended.offset, record));
        sleep(moment(rng, 0, 20)).await;
    }
    Ok(places)
}

/// Says who made it and which it is, and has an end, so that half of one is seen.
fn record(producer: u64, sequence: u64, length: usize) -> Bytes {
    let mut text = format!("{producer}:{sequence}:").into_bytes();
    let fill = b'a' + u8::try_from((producer * 7 + sequence) % 26).expect("a letter");
    text.resize(text.len() + length, fill);
    text.push(b'\n');
    text.into()
}

/// So many records more are acknowledged.
async fn progress(work: &Work, records: u64) -> anyhow::Result<()> {
    let until = work.acknowledged.load(Ordering::Relaxed) + records;
    within(60, async {
        while work.acknowledged.load(Ordering::Relaxed) < until {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .context("records are appended no more")
}

/// Kills the node that has this part in the last chunk, and starts it again a moment later.
async fn kill(cluster: &mut Cluster, client: &Client, victim: Victim, rng: &Rng) -> anyhow::Result<()> {
    let pause = moment(rng, 0, 300);
    if victim == Victim::Master {
        cluster.master.kill()?;
        sleep(pause).await;
        cluster.master.start()?;
        let client = cluster.client().await?;
        return cluster.all_alive(&client).await;
    }
    let members = within(60, async {
        loop {
            let chunks = client.chunks(PATH).await.unwrap_or_default();
            if let Some(last) = chunks.last().filter(|c| c.members.len() == 3) {
                return last.members.clone();
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    let members = members
        .await
        .context("the last chunk does not come to three members")?;
    let place = match victim {
        Victim::Head => 0,
        Victim::Middle => 1,
        Victim::Tail | Victim::Master => 2,
    };
    let addr = &members[place].addr;
    let number = (1..=SHAPE.servers).find(|n| cluster.server_addr(*n) == *addr);
    let server = number.context("a member is one of ours")? - 1;
    cluster.servers[server].kill()?;
    sleep(pause).await;
    cluster.servers[server].start()?;
    cluster.all_alive(client).await
}

async fn ended(
    mut producers: JoinSet<anyhow::Result<(u64, Places)>>,
) -> anyhow::Result<BTreeMap<u64, Places>> {
    let mut places = BTreeMap::new();
    while let Some(producer) = within(150, producers.join_next()).await? {
        let (producer, its) = producer??;
        places.insert(producer, its);
    }
    Ok(places)
}

async fn whole(client: &Client) -> anyhow::Result<Vec<u8>> {
    let mut file = client.open(PATH).await?;
    let mut bytes = Vec::new();
    while let Some(next) = file.next_bytes().await? {
        bytes.extend_from_slice(&next);
    }
    Ok(bytes)
}

/// Each record is there once, whole and in order, and where it was said to be. How many there are.
fn check(bytes: &[u8], places: &BTreeMap<u64, Places>) -> anyhow::Result<usize> {
    let mut next: BTreeMap<u64, usize> = BTreeMap::new();
    let (mut at, mut records) = (0, 0);
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let about = || {
            format!(
                "at {at}: {:?}",
                String::from_utf8_lossy(&line[..line.len().min(40)])
            )
        };
        let producer = line.split(|b| *b == b':').next().unwrap_or_default();
        let producer: u64 = std::str::from_utf8(producer)?.parse().with_context(about)?;
        let number = next.entry(producer).or_default();
        let (offset, record) = places
            .get(&producer)
            .and_then(|p| p.get(*number))
            .with_context(|| format!("a record nobody appended, {}", about()))?;
        ensure!(
            line == &record[..],
            "record {} of {producer} is another one, {}",
            *number + 1,
            about()
        );
        ensure!(
            offset.is_none_or(|o| o == at),
            "record {} of {producer} was said to be at {offset:?}, {}",
            *number + 1,
            about()
        );
        *number += 1;
        at += line.len() as u64;
        records += 1;
    }
    for (producer, its) in places {
        let found = next.get(producer).copied().unwrap_or_default();
        ensure!(
            found == its.len(),
            "{found} of {} records of {producer}",
            its.len()
        );
    }
    Ok(records)
}

/// What a follower hears, to the end when that is known.
async fn follow(client: Client, end: Arc<AtomicU64>) -> anyhow::Result<Vec<u8>> {
    let file = client.open(PATH).await?;
    let mut following = file.handle().follow(0)?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < end.load(Ordering::Relaxed) {
        if let Ok(next) = tokio::time::timeout(Duration::from_secs(1), following.next()).await {
            bytes.extend_from_slice(&next?);
        }
    }
    Ok(bytes)
}
