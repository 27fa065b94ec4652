//! Record append beside a plain stream, on a cluster that runs: `bench-records MASTER [SECONDS]`.
//!
//! Fifty producers append records of 100 bytes, 1 KiB and 16 KiB to one file, each with one record under way; then one
//! writer streams to another file. A row a line, as JSON.
#![expect(clippy::print_stdout, reason = "the rows are this program's output")]

use anyhow::{Context as _, Result};
use bytes::Bytes;
use dfs_client::{Client, Handle, OpenOptions};
use serde_json::json;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const PRODUCERS: u64 = 50;
const LENGTHS: [usize; 3] = [100, 1024, 16 * 1024];

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let master = args.next().context("which master? HOST:PORT")?;
    let seconds = args.next().map_or(Ok(5), |s| s.parse())?;
    let client = Client::connect(&master).await?;
    for length in LENGTHS {
        let path = format!("/bench-records-{length}");
        let handle = open(&client, &path).await?;
        let begun = Instant::now();
        let records = append(&handle, length, begun + Duration::from_secs(seconds)).await?;
        let took = begun.elapsed().as_secs_f64();
        handle.close().await?;
        client.remove(&path).await?;
        row(
            "records of 50 producers",
            length,
            records as f64 / took,
            "record/s",
        );
        row(
            "bytes of 50 producers",
            length,
            mib(records * length as u64) / took,
            "MiB/s",
        );
    }
    let handle = open(&client, "/bench-stream").await?;
    let (begun, block) = (Instant::now(), Bytes::from(vec![7; 1 << 20]));
    let mut end = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        handle.queue_at(end, block.clone()).await?;
        end += block.len() as u64;
    }
    handle.flush().await?;
    row(
        "stream",
        block.len(),
        mib(end) / begun.elapsed().as_secs_f64(),
        "MiB/s",
    );
    handle.close().await?;
    client.remove("/bench-stream").await?;
    Ok(())
}

async fn open(client: &Client, path: &str) -> Result<Handle> {
    let options = OpenOptions::new().write(true).create(true).truncate(true);
    Ok(client.open_with(path, options).await?.handle().clone())
}

/// All producers until then; how many records they appended.
async fn append(handle: &Handle, length: usize, until: Instant) -> Result<u64> {
    let mut producers = JoinSet::new();
    for producer in 1..=PRODUCERS {
        let (handle, record) = (handle.clone(), Bytes::from(vec![b'r'; length]));
        producers.spawn(async move {
            let mut sequence = 0;
            while Instant::now() < until {
                sequence += 1;
                handle.append_record(producer, sequence, record.clone()).await?;
            }
            dfs_client::Result::Ok(sequence)
        });
    }
    let mut records = 0;
    while let Some(appended) = producers.join_next().await {
        records += appended??;
    }
    Ok(records)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn row(name: &str, length: usize, value: f64, unit: &str) {
    println!(
        "{}",
        json!({"row": name, "length": length, "value": value, "unit": unit})
    );
}
