//! Metadata alone: changes and questions of the client library at a real master process with its log on tmpfs.
//!
//! `bench-meta [--count 20000] [--dir /dev/shm/dfs-bench-meta] [--in-flight 1,8,64] [--rounds 1] [--masters A,B]`:
//! `--masters` names other builds of this program whose masters are measured in turn with this one's, in one run. CPU is
//! the master's. The row "grpc" asks what "stat" asks over gRPC. The last line is JSON.
#![expect(clippy::print_stdout, reason = "the table is this program's output")]

use anyhow::{Context as _, Result, bail, ensure};
use dfs_benches::{Running, cpu_of};
use dfs_client::{Client, InodeId, Kind, Make, RenameMode};
use dfs_master::{Config, Master, View};
use dfs_proto::limits::Parameters;
use dfs_proto::net::{Tcp, channel};
use dfs_proto::pb::{self, namespace_client::NamespaceClient, query_request::Query};
use dfs_proto::world::World;
use dfs_stdx::Clock;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::transport::Channel;

const CACHE_BYTES: u64 = 256 << 20;
const PAGE_ENTRIES: u32 = 1024;

struct Options {
    count: u64,
    dir: PathBuf,
    in_flight: Vec<u64>,
    rounds: u64,
    masters: Vec<PathBuf>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options {
            count: 20_000,
            dir: "/dev/shm/dfs-bench-meta".into(),
            in_flight: vec![1, 8, 64],
            rounds: 1,
            masters: vec![std::env::current_exe()?],
        };
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--count" => options.count = value.parse()?,
                "--dir" => options.dir = value.into(),
                "--in-flight" => {
                    options.in_flight = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--rounds" => options.rounds = value.parse()?,
                "--masters" => options.masters.extend(value.split(',').map(PathBuf::from)),
                _ => bail!("unknown option {flag}: see the head of this program"),
            }
        }
        Ok(options)
    }
}

/// A row's figures.
#[derive(Clone, Debug)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

#[derive(Clone)]
struct Bench {
    client: Client,
    stub: NamespaceClient<Channel>,
    directory: InodeId,
    files: Arc<BTreeMap<u64, InodeId>>,
    count: u64,
}

fn name(n: u64) -> Vec<u8> {
    format!("file-{n:08}").into_bytes()
}

fn file() -> Make {
    Make {
        kind: Kind::File,
        mode: 0o644,
        rdev: 0,
        target: Vec::new(),
    }
}

impl Bench {
    async fn one(&self, row: &str, n: u64) -> Result<()> {
        let (inodes, directory) = (self.client.inodes(), self.directory);
        let inode = || self.files.get(&n).copied().context("it was created");
        match row {
            "create" => drop(inodes.make(directory, &name(n), file()).await?),
            "lookup" => {
                inodes.lookup(directory, &name(n)).await?;
            }
            "stat" => {
                inodes.stat(inode()?).await?;
            }
            "grpc" => self.over_grpc(inode()?).await?,
            "rename" => {
                let to = name(n + self.count);
                drop(
                    inodes
                        .rename(
                            (directory, &name(n)),
                            (directory, &to),
                            RenameMode::Replace,
                            false,
                        )
                        .await?,
                );
            }
            "unlink" => drop(inodes.unlink(directory, &name(n + self.count), false).await?),
            _ => bail!("no such row"),
        }
        Ok(())
    }

    async fn over_grpc(&self, inode: InodeId) -> Result<()> {
        let asked = pb::QueryRequest {
            client: 0,
            caller: Some(pb::Caller::default()),
            query: Some(Query::GetAttributes(pb::GetAttributes { inode: inode.0 })),
        };
        self.stub.clone().query(asked).await?;
        Ok(())
    }

    /// All calls of a row; how long each took, microseconds.
    async fn row(&self, row: &'static str, in_flight: u64) -> Result<Vec<f64>> {
        let next = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..in_flight {
            let (bench, next) = (self.clone(), next.clone());
            workers.spawn(async move {
                let (clock, mut took) = (Clock::system(), Vec::new());
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= bench.count {
                        return Ok::<_, anyhow::Error>(took);
                    }
                    let begun = clock.now();
                    bench.one(row, n).await?;
                    took.push(begun.elapsed().as_secs_f64() * 1e6);
                }
            });
        }
        let mut all = Vec::new();
        while let Some(took) = workers.join_next().await {
            all.extend(took??);
        }
        Ok(all)
    }

    /// Lists the directory, and learns its files.
    async fn list(&mut self) -> Result<Vec<f64>> {
        let (clock, mut took, mut cursor) = (Clock::system(), Vec::new(), 0);
        let mut files = BTreeMap::new();
        loop {
            let begun = clock.now();
            let page = self
                .client
                .inodes()
                .read_dir(self.directory, cursor, PAGE_ENTRIES)
                .await?;
            took.push(begun.elapsed().as_secs_f64() * 1e6);
            for entry in &page.entries {
                let n = String::from_utf8_lossy(&entry.name)
                    .trim_start_matches("file-")
                    .parse()?;
                files.insert(n, entry.metadata.inode);
            }
            match page.entries.last() {
                Some(last) if !page.end => cursor = last.cursor,
                Some(_) | None => break,
            }
        }
        self.files = Arc::new(files);
        Ok(took)
    }
}

/// The figures of `calls` calls that took this long.
fn figures(mut took: Vec<f64>, wall: Duration, cpu: Duration, calls: u64) -> Figures {
    took.sort_by(f64::total_cmp);
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    Figures {
        per_second: calls as f64 / wall.as_secs_f64(),
        p50_us: at(50),
        p99_us: at(99),
        cpu_us: cpu.as_secs_f64() * 1e6 / calls as f64,
    }
}

/// All rows at one master.
async fn measure(options: &Options, program: &Path, into: &mut Table) -> Result<()> {
    let dir = options.dir.join("master");
    let mut child = Command::new(program)
        .arg("serve")
        .arg(&dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut addr = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut addr)?;
    let (pid, _master) = (child.id(), Running(child));
    ensure!(!addr.is_empty(), "the master did not start");
    let client = Client::connect(addr.trim()).await?;
    let stub = NamespaceClient::new(channel(Arc::new(Tcp), addr.trim(), None));
    for in_flight in &options.in_flight {
        let directory = client.mkdir(format!("/at-{in_flight}")).await?.inode;
        // One call in flight takes its time: fewer of them tell as much.
        let count = if *in_flight == 1 {
            options.count / 4
        } else {
            options.count
        };
        let mut bench = Bench {
            client: client.clone(),
            stub: stub.clone(),
            directory,
            files: Arc::default(),
            count,
        };
        for row in ["create", "list", "stat", "grpc", "lookup", "rename", "unlink"] {
            let (clock, cpu) = (Clock::system(), cpu_of(pid)?);
            let begun = clock.now();
            let took = if row == "list" {
                bench.list().await?
            } else {
                bench.row(row, *in_flight).await?
            };
            let wall = begun.elapsed();
            let figures = figures(took, wall, cpu_of(pid)?.saturating_sub(cpu), count);
            into.entry((row, *in_flight)).or_default().push(figures);
        }
    }
    client.disconnect().await?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

type Table = BTreeMap<(&'static str, u64), Vec<Figures>>;

/// The round with the middle rate.
fn middle(rounds: &[Figures]) -> Figures {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    sorted.swap_remove(sorted.len() / 2)
}

fn told(table: &Table) -> serde_json::Value {
    let mut all = serde_json::Map::new();
    println!("row       in flight        /s   p50 us   p99 us  master CPU us");
    for ((row, in_flight), rounds) in table {
        let f = middle(rounds);
        println!(
            "{row:9} {in_flight:9} {:9.0} {:8.0} {:8.0} {:14.1}",
            f.per_second, f.p50_us, f.p99_us, f.cpu_us
        );
        let figures = serde_json::json!({
            "per_second": f.per_second, "p50_us": f.p50_us, "p99_us": f.p99_us, "cpu_us": f.cpu_us,
        });
        all.insert(format!("{row}@{in_flight}"), figures);
    }
    all.into()
}

async fn bench(options: Options) -> Result<()> {
    let mut tables = vec![Table::new(); options.masters.len()];
    for _ in 0..options.rounds {
        for (program, table) in options.masters.iter().zip(&mut tables) {
            measure(&options, program, table).await?;
        }
    }
    let mut all = serde_json::Map::new();
    for (program, table) in options.masters.iter().zip(&tables) {
        println!("{}", program.display());
        all.insert(program.display().to_string(), told(table));
    }
    println!("{}", serde_json::Value::from(all));
    Ok(())
}

/// The master of a run, as `dfs master` starts it; killed by who started it.
async fn serve(dir: PathBuf) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let config = Config {
        listen: "127.0.0.1:0".into(),
        advertise: None,
        data_dir: dir,
        parameters: Parameters::default(),
        view: View::Sled {
            cache_bytes: CACHE_BYTES,
        },
        checkpoint_every: 10_000,
        repair_after: None,
    };
    let master = Master::start(config, World::real("master", 4)).await?;
    println!("{}", master.addr());
    std::io::stdout().flush()?;
    bail!("{}", master.failed().await)
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|a| a == "serve").is_some() {
        return serve(args.next().context("serve DIR")?.into()).await;
    }
    let options = Options::parse(args)?;
    // In a task of the runtime, as in a mount: the main thread would pay a change of threads for each answer.
    tokio::spawn(bench(options)).await?
}
