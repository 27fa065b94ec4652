//! The data path alone: what a mount asks of chunkservers, row by row, with a real cluster of three on tmpfs.
//!
//! `bench-data [--seconds 3] [--mib 512] [--dir /dev/shm/dfs-bench-data] [--rows small,sync,write,read,stream]`; the dfs
//! binary is the one built beside this one. CPU is that of all processes, this one included. The last line is JSON.
#![expect(clippy::print_stdout, reason = "the table is this program's output")]

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use dfs_benches::{Running, cpu_of};
use dfs_client::{Client, Handle, OpenOptions};
use dfs_proto::checksum::of_pieces;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Dial as _, Tcp, channel};
use dfs_proto::pb::{self, from_server, mutate_reply, mutate_request, to_server};
use futures::stream::{FuturesUnordered, StreamExt as _};
use pb::namespace_client::NamespaceClient;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};

const PAGE: usize = 4096;
const MIB: u64 = 1 << 20;

struct Options {
    seconds: u64,
    mib: u64,
    dir: PathBuf,
    rows: String,
}

impl Options {
    fn parse() -> Result<Options> {
        let mut options = Options {
            seconds: 3,
            mib: 512,
            dir: "/dev/shm/dfs-bench-data".into(),
            rows: "small,sync,write,read,stream".into(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--seconds" => options.seconds = value.parse()?,
                "--mib" => options.mib = value.parse()?,
                "--dir" => options.dir = value.into(),
                "--rows" => options.rows = value,
                _ => bail!("unknown option {flag}: see the head of this program"),
            }
        }
        Ok(options)
    }
}

/// A cluster of its own, and what its processes have used.
struct Cluster {
    _up: Running,
    pids: Vec<u32>,
    master: String,
}

impl Cluster {
    fn start(options: &Options) -> Result<Cluster> {
        let program = std::env::current_exe()?.with_file_name("dfs");
        let mut child = Command::new(program)
            .args(["up", "--port", "0", "--dir"])
            .arg(&options.dir)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        let up = Running(child);
        ensure!(line.starts_with("ready"), "dfs up said {line:?}");
        let found: serde_json::Value =
            serde_json::from_slice(&std::fs::read(options.dir.join("cluster.json"))?)?;
        let nodes = found["chunkservers"].as_array().context("no chunkservers")?;
        let pid = |node: &serde_json::Value| node["pid"].as_u64().and_then(|p| u32::try_from(p).ok());
        let pids = nodes.iter().chain([&found["master"]]).filter_map(pid).collect();
        let master = found["master"]["addr"].as_str().context("no master")?.to_owned();
        Ok(Cluster {
            _up: up,
            pids,
            master,
        })
    }

    fn cpu(&self) -> Result<Duration> {
        self.pids
            .iter()
            .chain([&std::process::id()])
            .map(|p| cpu_of(*p))
            .sum()
    }
}

/// Measures and prints rows; keeps them for the last line.
struct Table {
    cluster: Cluster,
    rows: BTreeMap<String, f64>,
}

struct Mark {
    cpu: Duration,
    at: std::time::Instant,
}

impl Table {
    fn begin(&self) -> Result<Mark> {
        Ok(Mark {
            cpu: self.cluster.cpu()?,
            at: dfs_stdx::Clock::system().now().into_std(),
        })
    }

    fn end(&mut self, name: &str, mark: &Mark, count: u64) -> Result<()> {
        let wall = mark.at.elapsed().as_secs_f64();
        let cpu = self.cluster.cpu()?.saturating_sub(mark.cpu).as_secs_f64();
        let (rate, micros) = (count as f64 / wall, wall * 1e6 / count as f64);
        println!(
            "{name:34} {rate:9.0}/s {micros:9.1} us   {:7.1} us CPU",
            cpu * 1e6 / count as f64
        );
        self.rows.insert(name.to_owned(), rate);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse()?;
    std::fs::create_dir_all(&options.dir)?;
    let result = run(&options).await;
    std::fs::remove_dir_all(&options.dir)?;
    result
}

async fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::start(options)?;
    let client = Client::connect(&cluster.master).await?;
    let mut table = Table {
        cluster,
        rows: BTreeMap::new(),
    };
    let wanted = |row: &str| options.rows.split(',').any(|r| r == row);
    if wanted("small") {
        small_files(options, &mut table).await?;
    }
    if wanted("sync") {
        synced_packets(options, &mut table, &client).await?;
    }
    if wanted("stream") {
        streams(options, &mut table, &client).await?;
    }
    if wanted("write") || wanted("read") {
        let file = big_file(options, &client).await?;
        if wanted("read") {
            random_reads(options, &mut table, &file).await?;
        }
        if wanted("write") {
            random_writes(options, &mut table, &file).await?;
        }
        file.close().await?;
    }
    println!("{}", serde_json::to_string(&table.rows)?);
    Ok(())
}

/// A head's connection and streams of packets on it, as the client library speaks.
struct Head {
    reader: FrameReader<ReadHalf<BoxStream>>,
    writer: FrameWriter<WriteHalf<BoxStream>>,
}

fn ask(body: to_server::Body) -> pb::ToServer {
    pb::ToServer {
        id: 1,
        body: Some(body),
    }
}

fn packet(sequence: u64, offset: u64, data: &Bytes, sync: bool) -> pb::ToServer {
    ask(to_server::Body::Packet(pb::Packet {
        sequence,
        offset,
        checksums: of_pieces(offset, data),
        sync,
        ..pb::Packet::default()
    }))
}

impl Head {
    async fn connect(addr: &str) -> Result<Head> {
        let (reader, writer) = tokio::io::split(Tcp.dial(addr).await?);
        let (reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
        writer.send_preamble().await?;
        Ok(Head { reader, writer })
    }

    async fn answer(&mut self) -> Result<from_server::Body> {
        let (message, _): (pb::FromServer, _) = self.reader.next().await?.context("closed")?;
        ensure!(message.error.is_none(), "{:?}", message.error);
        message.body.context("empty")
    }

    async fn open(&mut self, token: &pb::Signed, writer: u64) -> Result<()> {
        let open = pb::WriteOpen {
            capability: Some(token.clone()),
            writer,
            ..pb::WriteOpen::default()
        };
        let open = ask(to_server::Body::WriteOpen(open));
        Ok(self.writer.send(&open, Bytes::new()).await?)
    }

    async fn acknowledged(&mut self, sequence: u64) -> Result<()> {
        loop {
            match self.answer().await? {
                from_server::Body::Ack(ack) if ack.sequence >= sequence => return Ok(()),
                from_server::Body::Ack(_) | from_server::Body::WriteOpened(_) => {}
                other => bail!("{other:?}"),
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        let close = ask(to_server::Body::StreamClose(pb::StreamClose::default()));
        self.writer.send(&close, Bytes::new()).await?;
        while !matches!(self.answer().await?, from_server::Body::StreamClosed(_)) {}
        Ok(())
    }

    /// A whole small file, all in one go.
    async fn put(&mut self, token: &pb::Signed, data: &Bytes) -> Result<()> {
        self.open(token, 7).await?;
        self.writer.send(&packet(1, 0, data, false), data.clone()).await?;
        self.acknowledged(1).await?;
        self.close().await
    }
}

/// Grants for new files, straight from the master.
struct Grants {
    master: NamespaceClient<tonic::transport::Channel>,
    client: u64,
    sequence: u64,
    named: u64,
}

impl Grants {
    async fn open(addr: &str) -> Result<Grants> {
        let mut master = NamespaceClient::new(channel(Arc::new(Tcp), addr, None));
        let open = pb::OpenSessionRequest {
            nonce: fastrand::u64(1..),
            ..Default::default()
        };
        let client = master.open_session(open).await?.into_inner().client;
        Ok(Grants {
            master,
            client,
            sequence: 0,
            named: fastrand::u64(..),
        })
    }

    /// A new file's grant, and its head's address.
    async fn next(&mut self) -> Result<(pb::Signed, String)> {
        self.sequence += 1;
        self.named += 1;
        let make = pb::Make {
            parent: 1,
            name: format!("small-{:x}", self.named).into_bytes().into(),
            kind: pb::Kind::File.into(),
            mode: 0o644,
            grant: true,
            ..Default::default()
        };
        let request = pb::MutateRequest {
            id: Some(pb::RequestId {
                client: self.client,
                sequence: self.sequence,
                lowest_unanswered: self.sequence,
            }),
            caller: Some(pb::Caller::default()),
            change: Some(mutate_request::Change::Make(make)),
        };
        let reply = self.master.mutate(request).await?.into_inner();
        let Some(mutate_reply::Result::Made(made)) = reply.result else {
            bail!("not made");
        };
        let token = made.granted.and_then(|g| g.capability).context("no grant")?;
        let capability = dfs_proto::capability::peek(&token)?;
        let head = capability.members.first().context("no members")?.addr.clone();
        Ok((token, head))
    }
}

async fn small_files(options: &Options, table: &mut Table) -> Result<()> {
    let mut grants = Grants::open(&table.cluster.master).await?;
    let data = Bytes::from(vec![7; PAGE]);
    for flight in [1, 8] {
        let mut tokens = Vec::new();
        for _ in 0..400 * options.seconds * if flight == 1 { 1 } else { 2 } {
            tokens.push(grants.next().await?);
        }
        let mut lists = vec![Vec::new(); flight];
        for (n, token) in tokens.into_iter().enumerate() {
            lists[n % flight].push(token);
        }
        let mut workers = Vec::new();
        for list in lists {
            let mut heads: BTreeMap<String, Head> = BTreeMap::new();
            for (_, addr) in &list {
                if !heads.contains_key(addr) {
                    heads.insert(addr.clone(), Head::connect(addr).await?);
                }
            }
            // The first few warm the chains' links up.
            workers.push(put_all(heads, list, data.clone()));
        }
        let mut warm = Vec::new();
        for worker in workers {
            warm.push(worker);
        }
        let mark = table.begin()?;
        let mut tasks: Vec<_> = warm.into_iter().map(tokio::spawn).collect();
        let mut count = 0;
        for task in &mut tasks {
            count += task.await??;
        }
        table.end(&format!("small file, {flight} in flight"), &mark, count)?;
    }
    Ok(())
}

async fn put_all(
    mut heads: BTreeMap<String, Head>,
    list: Vec<(pb::Signed, String)>,
    data: Bytes,
) -> Result<u64> {
    for (token, addr) in &list {
        let head = heads.get_mut(addr).context("connected before")?;
        head.put(token, &data).await?;
    }
    Ok(list.len() as u64)
}

async fn synced_packets(options: &Options, table: &mut Table, client: &Client) -> Result<()> {
    let mut grants = Grants::open(&table.cluster.master).await?;
    let (token, addr) = grants.next().await?;
    let mut head = Head::connect(&addr).await?;
    let data = Bytes::from(vec![7; PAGE]);
    head.open(&token, 9).await?;
    let mut sequence = 0;
    for (name, sync, append) in [
        ("append 4 KiB", false, true),
        ("append 4 KiB + sync", true, true),
        ("overwrite 4 KiB", false, false),
        ("overwrite 4 KiB + sync", true, false),
    ] {
        let mark = table.begin()?;
        let from = sequence;
        while sequence < from + 1000 * options.seconds {
            sequence += 1;
            let at = if append {
                (sequence - 1) % 8192
            } else {
                fastrand::u64(..256)
            };
            let packet = packet(sequence, at * PAGE as u64, &data, sync);
            head.writer.send(&packet, data.clone()).await?;
            head.acknowledged(sequence).await?;
        }
        table.end(name, &mark, sequence - from)?;
    }
    head.close().await?;
    let file = client.create("/synced").await?;
    let file = file.handle().clone();
    file.write_at(0, Bytes::from(vec![1; MIB as usize])).await?;
    file.sync_all().await?;
    let mark = table.begin()?;
    let count = 500 * options.seconds;
    for _ in 0..count {
        file.queue_at(fastrand::u64(..256) * PAGE as u64, data.clone())
            .await?;
        file.sync_all().await?;
    }
    table.end("library: overwrite 4 KiB + sync_all", &mark, count)?;
    let mark = table.begin()?;
    for n in 0..count {
        file.queue_at(MIB + n * PAGE as u64, data.clone()).await?;
        file.sync_all().await?;
    }
    table.end("library: append 4 KiB + sync_all", &mark, count)?;
    file.close().await?;
    let mark = table.begin()?;
    let count = 200 * options.seconds;
    for n in 0..count {
        let small = client.create(format!("/library-{n}")).await?;
        let small = small.handle().clone();
        small.queue_at(0, data.clone()).await?;
        small.flush().await?;
    }
    table.end("library: create + 4 KiB + flush", &mark, count)
}

async fn streams(options: &Options, table: &mut Table, client: &Client) -> Result<()> {
    let megabyte = Bytes::from(vec![3; MIB as usize]);
    for round in 0..3 {
        let path = format!("/stream-{round}");
        let file = client.create(&path).await?;
        let file = file.handle().clone();
        let mark = table.begin()?;
        for n in 0..options.mib {
            file.queue_at(n * MIB, megabyte.clone()).await?;
        }
        file.close().await?;
        table.end(&format!("stream write, MiB, round {round}"), &mark, options.mib)?;
        let mut file = client.open(&path).await?;
        let mark = table.begin()?;
        let mut read = 0;
        while let Some(bytes) = file.next_bytes().await? {
            read += bytes.len() as u64;
        }
        ensure!(read == options.mib * MIB, "read {read}");
        table.end(&format!("stream read, MiB, round {round}"), &mark, options.mib)?;
        client.remove(&path).await?;
    }
    Ok(())
}

async fn big_file(options: &Options, client: &Client) -> Result<Handle> {
    let megabyte = Bytes::from(vec![5; MIB as usize]);
    let file = client.create("/big").await?.handle().clone();
    for n in 0..options.mib {
        file.queue_at(n * MIB, megabyte.clone()).await?;
    }
    file.close().await?;
    let both = OpenOptions::new().read(true).write(true).sync_on_close(false);
    Ok(client.open_with("/big", both).await?.handle().clone())
}

fn random_page(options: &Options) -> u64 {
    fastrand::u64(..options.mib * MIB / PAGE as u64) * PAGE as u64
}

async fn random_reads(options: &Options, table: &mut Table, file: &Handle) -> Result<()> {
    for flight in [1, 8] {
        let mark = table.begin()?;
        let end = mark.at + Duration::from_secs(options.seconds);
        let mut tasks = Vec::new();
        for _ in 0..flight {
            let file = file.clone();
            let pages: Vec<u64> = (0..4096).map(|_| random_page(options)).collect();
            tasks.push(tokio::spawn(async move {
                let mut count = 0u64;
                while dfs_stdx::Clock::system().now().into_std() < end {
                    for page in pages.iter().cycle().skip((count % 4096) as usize).take(64) {
                        ensure!(file.read_at(*page, PAGE).await?.len() == PAGE, "short");
                    }
                    count += 64;
                }
                Ok(count)
            }));
        }
        let mut count = 0;
        for task in tasks {
            count += task.await??;
        }
        table.end(&format!("random read 4 KiB, {flight} in flight"), &mark, count)?;
    }
    Ok(())
}

async fn random_writes(options: &Options, table: &mut Table, file: &Handle) -> Result<()> {
    let page = Bytes::from(vec![9; PAGE]);
    // One write to each chunk opens its lane.
    for chunk in 0..options.mib / 64 {
        file.queue_at(chunk * 64 * MIB, page.clone()).await?;
    }
    file.flush().await?;
    let mark = table.begin()?;
    let mut count = 0u64;
    while mark.at.elapsed() < Duration::from_secs(options.seconds) {
        for _ in 0..256 {
            file.queue_at(random_page(options), page.clone()).await?;
        }
        file.flush().await?;
        count += 256;
    }
    table.end("random overwrite 4 KiB, by 256", &mark, count)?;
    for flight in [1, 8] {
        let mark = table.begin()?;
        let mut count = 0u64;
        let mut running = FuturesUnordered::new();
        while mark.at.elapsed() < Duration::from_secs(options.seconds) {
            while running.len() < flight {
                running.push(file.write_at(random_page(options), page.clone()));
            }
            running.next().await.context("some are running")??;
            count += 1;
        }
        while let Some(done) = running.next().await {
            done?;
            count += 1;
        }
        table.end(
            &format!("random overwrite 4 KiB, {flight} in flight"),
            &mark,
            count,
        )?;
    }
    Ok(())
}
