//! `dfs put` and `dfs get` of one file against the floor, in one interleaved run on tmpfs, as whole processes.
//!
//! `bench-floor [--mib 1024] [--rounds 5] [--dir /dev/shm/dfs-bench]`; the dfs binary is the one built beside this one.
//! The last line is `{"put_ratio":x,"get_ratio":y}`: median of dfs's throughput over the floor's, round by round.
#![expect(clippy::print_stdout, reason = "the table is this program's output")]

use anyhow::{Context as _, Result, ensure};
use dfs_benches::{Running, cpu_of, median, timed};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn main() -> Result<()> {
    let options = Options::parse()?;
    std::fs::create_dir_all(&options.dir)?;
    let result = run(&options);
    std::fs::remove_dir_all(&options.dir)?;
    result
}

struct Options {
    mib: u64,
    rounds: usize,
    dir: PathBuf,
}

impl Options {
    fn parse() -> Result<Options> {
        let mut options = Options {
            mib: 1024,
            rounds: 5,
            dir: "/dev/shm/dfs-bench".into(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--mib" => options.mib = value.parse()?,
                "--rounds" => options.rounds = value.parse()?,
                "--dir" => options.dir = value.into(),
                _ => anyhow::bail!("unknown option {flag}: see the head of this program"),
            }
        }
        Ok(options)
    }

    fn beside(name: &str) -> Result<PathBuf> {
        let path = std::env::current_exe()?.with_file_name(name);
        ensure!(
            path.exists(),
            "{} is missing: cargo build --release -p dfs -p dfs-benches",
            path.display()
        );
        Ok(path)
    }
}

/// One of the two systems: how it puts, gets and forgets, and whose CPU time is its own.
struct System {
    name: &'static str,
    servers: Vec<u32>,
    put: Vec<String>,
    get: Vec<String>,
    forget: Option<Vec<String>>,
}

#[derive(Default)]
struct Figures {
    put: Vec<f64>,
    get: Vec<f64>,
    cpu: Vec<f64>,
}

fn run(options: &Options) -> Result<()> {
    let (source, back) = (options.dir.join("source"), options.dir.join("back"));
    write_random(&source, options.mib)?;
    let (floor, _floor_processes) = start_floor(&options.dir, &source, &back)?;
    let (dfs, _up) = start_dfs(&options.dir, &source, &back)?;
    let systems = [dfs, floor];
    let mut figures = [Figures::default(), Figures::default()];
    for round in 0..=options.rounds {
        for (system, figures) in systems.iter().zip(&mut figures) {
            let (put, get, cpu) = one_round(system, &source, &back, options.mib)?;
            if round > 0 {
                figures.put.push(put);
                figures.get.push(get);
                figures.cpu.push(cpu);
            }
        }
        wait_for_room(&options.dir.join("dfs"), 256 << 20)?;
    }
    for (system, f) in systems.iter().zip(&figures) {
        let (put, get, cpu) = (median(&f.put), median(&f.get), median(&f.cpu));
        println!(
            "{:6} put {put:7.0} MiB/s   get {get:7.0} MiB/s   put+get {cpu:5.2} CPU-s/GiB",
            system.name
        );
    }
    let ratio = |of: fn(&Figures) -> &Vec<f64>| {
        median(
            &of(&figures[0])
                .iter()
                .zip(of(&figures[1]))
                .map(|(a, b)| a / b)
                .collect::<Vec<_>>(),
        )
    };
    println!(
        "{{\"put_ratio\":{:.3},\"get_ratio\":{:.3}}}",
        ratio(|f| &f.put),
        ratio(|f| &f.get)
    );
    Ok(())
}

fn one_round(system: &System, source: &Path, back: &Path, mib: u64) -> Result<(f64, f64, f64)> {
    let command = |argv: &[String]| {
        let mut c = Command::new(&argv[0]);
        c.args(&argv[1..]).stdout(Stdio::null());
        c
    };
    let cpu = || -> Result<Duration> {
        system
            .servers
            .iter()
            .chain([&std::process::id()])
            .map(|p| cpu_of(*p))
            .sum()
    };
    let before = cpu()?;
    let put = timed(&mut command(&system.put))?;
    let get = timed(&mut command(&system.get))?;
    let used = cpu()?.saturating_sub(before);
    ensure!(
        same(source, back)?,
        "{}: the bytes that came back differ",
        system.name
    );
    std::fs::remove_file(back)?;
    if let Some(forget) = &system.forget {
        timed(&mut command(forget))?;
    }
    let rate = |d: Duration| mib as f64 / d.as_secs_f64();
    Ok((
        rate(put.wall),
        rate(get.wall),
        used.as_secs_f64() * 1024.0 / mib as f64,
    ))
}

fn start_floor(dir: &Path, source: &Path, back: &Path) -> Result<(System, Vec<Running>)> {
    let program = Options::beside("chain-floor")?;
    let mut processes = Vec::new();
    let mut addr: Option<String> = None;
    for n in 0..3 {
        let folder = dir.join(format!("floor{n}"));
        std::fs::create_dir_all(&folder)?;
        let mut child = Command::new(&program)
            .arg("serve")
            .arg(&folder)
            .args(addr.as_deref())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        processes.push(Running(child));
        addr = Some(line.trim().to_owned());
    }
    let call = |what: &str, file: &Path| -> Vec<String> {
        let addr = addr.clone().unwrap_or_default();
        vec![
            program.display().to_string(),
            what.into(),
            file.display().to_string(),
            addr,
        ]
    };
    let servers = processes.iter().map(|p| p.0.id()).collect();
    let system = System {
        name: "floor",
        servers,
        put: call("put", source),
        get: call("get", back),
        forget: None,
    };
    Ok((system, processes))
}

fn start_dfs(dir: &Path, source: &Path, back: &Path) -> Result<(System, Running)> {
    let program = Options::beside("dfs")?.display().to_string();
    let data = dir.join("dfs");
    let mut child = Command::new(&program)
        .args(["up", "--port", "0", "--profile", "test", "--dir"])
        .arg(&data)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    let up = Running(child);
    ensure!(line.starts_with("ready"), "dfs up said {line:?}");
    let cluster: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("cluster.json"))?)?;
    let master = cluster["master"]["addr"]
        .as_str()
        .context("no master in cluster.json")?
        .to_owned();
    let nodes = cluster["chunkservers"]
        .as_array()
        .context("no chunkservers in cluster.json")?;
    let pid = |node: &serde_json::Value| {
        node["pid"]
            .as_u64()
            .and_then(|p| u32::try_from(p).ok())
            .context("no pid")
    };
    let servers = nodes
        .iter()
        .chain([&cluster["master"]])
        .map(pid)
        .collect::<Result<Vec<_>>>()?;
    let call = |args: &[&str]| -> Vec<String> {
        [program.as_str(), "--master", &master]
            .iter()
            .chain(args)
            .map(|s| (*s).to_owned())
            .collect()
    };
    let (source, back) = (source.display().to_string(), back.display().to_string());
    let system = System {
        name: "dfs",
        servers,
        put: call(&["put", &source, "/bench"]),
        get: call(&["get", "/bench", &back]),
        forget: Some(call(&["rm", "/bench"])),
    };
    Ok((system, up))
}

/// Bytes of all files below a folder. One that vanishes meanwhile counts as gone.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let size = |e: std::fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => bytes_below(&e.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Removed chunks are kept for a grace time; a tmpfs has no room to keep all rounds.
fn wait_for_room(dir: &Path, at_most: u64) -> Result<()> {
    for _ in 0..120 {
        if bytes_below(dir) <= at_most {
            return Ok(());
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "nothing tells when another program's space is back"
        )]
        std::thread::sleep(Duration::from_secs(1));
    }
    anyhow::bail!("removed files have not given their space back")
}

fn write_random(path: &Path, mib: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut file = std::fs::File::create(path)?;
    let mut block = vec![0; 1 << 20];
    for _ in 0..mib {
        rng.fill(&mut block);
        file.write_all(&block)?;
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> Result<bool> {
    Ok(Command::new("cmp").arg("-s").arg(a).arg(b).status()?.success())
}
