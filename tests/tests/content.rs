//! A file's bytes in two mounts against a vector of bytes: random operations, small chunks, a tiny cache, servers that
//! are killed and come back; compared after every step.
//!
//! `DFS_RUNS=1000` sets how many runs, `DFS_SEED=7` picks one, `DFS_TRACE=1` prints what happens.

use anyhow::ensure;
use dfs_client::{Client, Metadata, OpenOptions, SetAttributes, Settings};
use dfs_fuse::vfs::content::{Content, Limits, Opening, Seek, Shared};
use dfs_proto::limits::Parameters;
use dfs_stdx::{Clock, Rng};
use dfs_tests::sim::{History, Node, SimNet, SimWorld};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const CHUNK_BYTES: u64 = 64 * 1024;
const FILE_BYTES_MAX: u64 = 300_000;
const FILES: usize = 2;
/// A call ends within its deadline, and a step makes few.
const STEP_DEADLINE: Duration = Duration::from_secs(150);

/// One file in one mount.
struct Open {
    content: Arc<Content>,
    opening: Opening,
}

struct Mount {
    client: Client,
    shared: Arc<Shared>,
    files: Vec<Open>,
}

impl Mount {
    async fn start(client: Client, paths: &[String], rng: &Rng) -> anyhow::Result<Mount> {
        let limits = Limits {
            dirty_bytes: 40_000 + rng.below(200_000),
            cache_bytes: 30_000 + rng.below(300_000),
            readahead_bytes: 100_000 + rng.below(200_000),
            ..Limits::default()
        };
        let shared = Shared::start(&client, limits);
        let mut mount = Mount {
            client,
            shared,
            files: Vec::new(),
        };
        for path in paths {
            let metadata = mount.client.stat(path).await?;
            mount.files.push(mount.open(&metadata));
        }
        Ok(mount)
    }

    fn open(&self, metadata: &Metadata) -> Open {
        let content = Content::new(&self.shared, metadata);
        let opening = content.open(true);
        Open { content, opening }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64, u64),
    Append(u64),
    Read(u64, u64),
    Stream(u64),
    Truncate(u64),
    Punch(u64, u64),
    Zero(u64, u64, bool),
    Allocate(u64, u64),
    Seek(u64, bool),
    Copy(u64, u64, u64),
    Flush,
    Sync,
    Reopen,
    DropCaches,
    Wait(u64),
    Switch,
}

fn random_step(rng: &Rng) -> Step {
    let at = rng.below(FILE_BYTES_MAX);
    // Often near the edge of a chunk, often small.
    let at = match rng.below(3) {
        0 => (at / CHUNK_BYTES * CHUNK_BYTES + rng.below(200)).saturating_sub(100),
        _ => at,
    };
    let length = match rng.below(3) {
        0 => 1 + rng.below(100),
        1 => 1 + rng.below(5_000),
        _ => 1 + rng.below(150_000),
    }
    .min(FILE_BYTES_MAX - at);
    match rng.below(40) {
        0..=9 => Step::Write(at, length),
        10..=11 => Step::Append(length.min(3_000)),
        12..=18 => Step::Read(at, length),
        19 => Step::Stream(1 + rng.below(40_000)),
        20..=22 => Step::Truncate(at),
        23..=24 => Step::Punch(at, length),
        25 => Step::Zero(at, length, rng.below(2) == 0),
        26 => Step::Allocate(at, length),
        27..=28 => Step::Seek(at, rng.below(2) == 0),
        29 => Step::Copy(at, rng.below(FILE_BYTES_MAX), length),
        30..=31 => Step::Flush,
        32 => Step::Sync,
        33 => Step::Reopen,
        34 => Step::DropCaches,
        35 => Step::Wait(rng.below(2_500)),
        _ => Step::Switch,
    }
}

fn fill(rng: &Rng, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).expect("small")];
    fastrand::Rng::with_seed(rng.u64()).fill(&mut bytes);
    bytes
}

fn put(reference: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if reference.len() < at + bytes.len() {
        reference.resize(at + bytes.len(), 0);
    }
    reference[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The same bytes, or where they begin to differ.
fn same(found: &[u8], expected: &[u8], offset: u64) -> anyhow::Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{} bytes at {offset} instead of {}",
        found.len(),
        expected.len()
    );
    if let Some(at) = (0..found.len()).find(|i| found[*i] != expected[*i]) {
        let until = (at..found.len()).find(|i| found[*i] == expected[*i]);
        anyhow::bail!(
            "byte {} is {} instead of {} (and so on to {:?})",
            offset + at as u64,
            found[at],
            expected[at],
            until.map(|u| offset + u as u64)
        );
    }
    Ok(())
}

struct Run {
    mounts: Vec<Mount>,
    now: usize,
    references: Vec<Vec<u8>>,
    rng: Rng,
}

impl Run {
    async fn read(&self, file: usize, offset: u64, length: u64) -> anyhow::Result<()> {
        let open = &self.mounts[self.now].files[file];
        let length = usize::try_from(length)?;
        let found = open.content.read(&open.opening, offset, length).await?.concat();
        let reference = &self.references[file];
        let start = usize::try_from(offset)?.min(reference.len());
        let end = (start + length).min(reference.len());
        same(&found, &reference[start..end], offset)
    }

    /// Everything of this mount is committed, and the other one hears of it.
    async fn switch(&mut self) -> anyhow::Result<()> {
        for file in 0..FILES {
            let open = &self.mounts[self.now].files[file];
            open.content.flush(&open.opening).await?;
        }
        let other = 1 - self.now;
        for open in &self.mounts[other].files {
            let metadata = self.mounts[other]
                .client
                .inodes()
                .stat(open.content.inode())
                .await?;
            open.content.changed(&metadata);
        }
        self.now = other;
        Ok(())
    }

    async fn step(&mut self, file: usize, step: Step) -> anyhow::Result<()> {
        let open = &self.mounts[self.now].files[file];
        let (content, opening) = (&open.content, &open.opening);
        let reference = &mut self.references[file];
        let index = |n: u64| usize::try_from(n).expect("small");
        match step {
            Step::Write(at, length) => {
                let bytes = fill(&self.rng, length);
                let taken = content.try_write(opening, at, &bytes);
                match taken {
                    Some(written) => written?,
                    None => content.write(opening, at, &bytes).await?,
                }
                put(reference, index(at), &bytes);
            }
            Step::Append(length) => {
                if reference.len() as u64 > FILE_BYTES_MAX {
                    return Ok(());
                }
                let bytes = fill(&self.rng, length);
                let at = reference.len();
                content.write(opening, at as u64, &bytes).await?;
                put(reference, at, &bytes);
            }
            Step::Read(at, length) => self.read(file, at, length).await?,
            Step::Stream(piece) => {
                let end = reference.len() as u64;
                for at in (0..end).step_by(index(piece)) {
                    self.read(file, at, piece).await?;
                }
            }
            Step::Truncate(size) => {
                let set = SetAttributes {
                    size: Some(size),
                    ..SetAttributes::default()
                };
                let metadata = content.truncate(set).await?;
                ensure!(metadata.size == size, "cut to {size}, answered {}", metadata.size);
                reference.resize(index(size), 0);
            }
            Step::Punch(at, length) => {
                content.punch(at, length).await?;
                let end = reference.len().min(index(at + length));
                reference
                    .get_mut(index(at)..end)
                    .into_iter()
                    .for_each(|r| r.fill(0));
            }
            Step::Zero(at, length, keep) => {
                content.zero(at, length, keep).await?;
                if !keep {
                    reference.resize(reference.len().max(index(at + length)), 0);
                }
                let end = reference.len().min(index(at + length));
                reference
                    .get_mut(index(at)..end)
                    .into_iter()
                    .for_each(|r| r.fill(0));
            }
            Step::Allocate(at, length) => {
                content.allocate(at, length, false).await?;
                reference.resize(reference.len().max(index(at + length)), 0);
            }
            Step::Seek(at, true) => {
                let found = content.seek(at, Seek::Data).await?;
                let until = found.map_or(reference.len(), index);
                let skipped = reference.get(index(at)..until).unwrap_or_default();
                ensure!(skipped.iter().all(|b| *b == 0), "data before {found:?}");
            }
            Step::Seek(at, false) => {
                let found = content.seek(at, Seek::Hole).await?;
                let size = reference.len() as u64;
                ensure!(found.is_some() == (at < size), "{found:?} of {size}");
                ensure!(found.is_none_or(|f| at <= f && f <= size), "{found:?} of {size}");
                let is_hole = found
                    .and_then(|f| reference.get(index(f)))
                    .is_none_or(|b| *b == 0);
                ensure!(is_hole, "data at {found:?}");
            }
            Step::Copy(from, to, length) => {
                let source = &self.mounts[self.now].files[1 - file].content;
                let copied = content.copy(source, from, to, length).await?;
                let available = (self.references[1 - file].len() as u64).saturating_sub(from);
                ensure!(copied == length.min(available), "{copied} of {length}");
                let bytes = self.references[1 - file]
                    .get(index(from)..index(from + copied))
                    .unwrap_or_default()
                    .to_vec();
                if !bytes.is_empty() {
                    put(&mut self.references[file], index(to), &bytes);
                }
            }
            Step::Flush => content.flush(opening).await?,
            Step::Sync => content.sync(opening).await?,
            Step::Reopen => {
                content.flush(opening).await?;
                let metadata = self.mounts[self.now]
                    .client
                    .inodes()
                    .stat(content.inode())
                    .await?;
                ensure!(
                    metadata.size == reference.len() as u64,
                    "the master says {}",
                    metadata.size
                );
                let again = self.mounts[self.now].open(&metadata);
                self.mounts[self.now].files[file] = again;
            }
            Step::DropCaches => content.drop_clean(),
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Step::Switch => self.switch().await?,
        }
        let open = &self.mounts[self.now].files[file];
        let mut seen = open.content_metadata();
        open.content.overlay(&mut seen);
        let size = self.references[file].len() as u64;
        ensure!(seen.size == size, "the size is {} instead of {size}", seen.size);
        Ok(())
    }
}

impl Open {
    /// Attributes that know nothing.
    fn content_metadata(&self) -> Metadata {
        Metadata {
            inode: self.content.inode(),
            kind: dfs_client::Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 0,
            allocated_bytes: 0,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            rdev: 0,
            goal: 3,
            chunk_bytes: CHUNK_BYTES,
            change: 0,
            chunks: 0,
            xattr_bytes: 0,
        }
    }
}

async fn second_client(rng: &Rng) -> anyhow::Result<Client> {
    let settings = Settings::new("master:7700")?;
    let since_epoch = turmoil::since_epoch().unwrap_or_default();
    let clock = Clock::simulated(u64::try_from(since_epoch.as_nanos())?);
    Ok(Client::connect_with(settings, Arc::new(SimNet), clock, rng.fork()).await?)
}

type Wanted = Rc<RefCell<Vec<bool>>>;

async fn compare(
    client: Client,
    rng: Rng,
    history: History,
    (steps, kills): (u64, Wanted),
) -> anyhow::Result<()> {
    let paths: Vec<String> = (0..FILES).map(|n| format!("/f{n}")).collect();
    while client.status().await?.alive < 4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for path in &paths {
        let options = OpenOptions::new().write(true).create_new(true);
        client.open_with(path, options).await?.close().await?;
    }
    let second = second_client(&rng).await?;
    let mut run = Run {
        mounts: Vec::new(),
        now: 0,
        references: vec![Vec::new(); FILES],
        rng: rng.fork(),
    };
    for client in [client, second] {
        run.mounts.push(Mount::start(client, &paths, &rng).await?);
    }
    for number in 0..steps {
        if rng.below(25) == 0 {
            kills.borrow_mut().push(rng.below(2) == 0);
        }
        let file = usize::try_from(rng.below(FILES as u64))?;
        let step = random_step(&rng);
        history.note(format!("{number} mount {} file {file} {step:?}", run.now));
        let done = tokio::time::timeout(STEP_DEADLINE, run.step(file, step)).await;
        let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("it hangs")));
        done.map_err(|e| anyhow::anyhow!("step {number}, file {file}, {step:?}: {e:#}"))?;
    }
    kills.borrow_mut().push(false);
    for _ in 0..2 {
        for file in 0..FILES {
            run.read(file, 0, FILE_BYTES_MAX * 3)
                .await
                .map_err(|e| anyhow::anyhow!("at the end, file {file}: {e:#}"))?;
        }
        run.switch().await?;
    }
    Ok(())
}

fn run(seed: u64, steps: u64) {
    let parameters = Parameters {
        chunk_bytes: CHUNK_BYTES,
        goal: 3,
        time_divisor: 10,
    };
    let mut world = SimWorld::new(seed, 4, parameters);
    let kills = Wanted::default();
    let asked = kills.clone();
    world.client("mounts", move |client, rng, history| {
        compare(client, rng, history, (steps, asked))
    });
    let mut down_since = None;
    world.run(Duration::from_secs(3_000), |world, now| {
        for kill in kills.borrow_mut().drain(..) {
            world.heal();
            if kill {
                let victim = usize::try_from(world.rng().below(4)).expect("few");
                world.kill(&Node::Chunkserver(victim));
                down_since = Some(now);
            }
        }
        if down_since.is_some_and(|since| now - since > Duration::from_secs(3)) {
            world.heal();
            down_since = None;
        }
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|v| v.parse().ok())
}

#[test]
fn a_file_in_two_mounts_is_its_reference() {
    let filter = tracing_subscriber::EnvFilter::from_env("DFS_LOG");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .init();
    let seeds = match number("DFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DFS_RUNS").unwrap_or(if cfg!(debug_assertions) { 6 } else { 100 }),
    };
    for seed in seeds {
        eprintln!("seed {seed}");
        run(seed, number("DFS_STEPS").unwrap_or(120));
    }
}

#[test]
fn the_comparison_can_fail() {
    assert!(same(&[1, 2], &[1, 3], 0).is_err() && same(&[1], &[1, 2], 0).is_err());
    assert!(same(&[1, 2], &[1, 2], 0).is_ok());
}
