//! The clients of the simulation: each overwrites and reads its own files, and remembers what it was told.

use super::History;
use crate::model::bytes_of;
use bytes::Bytes;
use dfs_client::{Client, File, OpenOptions};
use dfs_stdx::Rng;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FILE_BYTES: u64 = 200_000;
const SLOT_BYTES: u64 = 10_000;

/// What a file may hold, slot by slot.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its path.
    pub path: String,
    /// For each slot the seeds that may be found there; 0 is "never written".
    pub slots: Vec<Vec<u64>>,
}

impl Expected {
    fn new(path: String) -> Expected {
        let slots = usize::try_from(FILE_BYTES / SLOT_BYTES).expect("few");
        Expected {
            path,
            slots: vec![vec![0]; slots],
        }
    }

    /// True if `bytes` (from the file's start) are what this allows; else the first slot that is wrong.
    ///
    /// # Errors
    /// The slot's number.
    pub fn allows(&self, bytes: &[u8]) -> Result<(), usize> {
        let slot_bytes = usize::try_from(SLOT_BYTES).expect("small");
        for (n, seeds) in self.slots.iter().enumerate() {
            let found = bytes.get(n * slot_bytes..).unwrap_or_default();
            let found = &found[..found.len().min(slot_bytes)];
            let fits = |seed: &u64| match seed {
                0 => found.iter().all(|b| *b == 0),
                seed => found == bytes_of(*seed, SLOT_BYTES),
            };
            if !seeds.iter().any(fits) {
                return Err(n);
            }
        }
        Ok(())
    }
}

/// Expectations shared with the test that checks them when all is healed.
pub type Ledger = Arc<Mutex<Vec<Expected>>>;

/// Writes whole slots of a few files at random, fsyncs now and then, reads back, for `duration` of virtual time.
///
/// # Errors
/// If a read gives bytes that were never acknowledged there, or a call fails that must not.
pub async fn work(
    client: Client,
    rng: Rng,
    history: History,
    name: String,
    ledger: Ledger,
) -> anyhow::Result<()> {
    let end = tokio::time::Instant::now() + Duration::from_secs(25);
    let mut files = Vec::new();
    for n in 0..2 {
        let path = format!("/{name}-{n}");
        files.push((open(&client, &path).await?, Expected::new(path)));
    }
    while tokio::time::Instant::now() < end {
        let which = usize::try_from(rng.below(files.len() as u64)).expect("few");
        let (file, expected) = &mut files[which];
        let slot = usize::try_from(rng.below(expected.slots.len() as u64)).expect("few");
        match rng.below(10) {
            0..=5 => write(file, expected, slot, 1 + rng.below(u64::MAX - 1), &history).await,
            6 => drop(
                file.handle()
                    .sync_all()
                    .await
                    .map_err(|e| history.note(format!("{} sync {e}", expected.path))),
            ),
            _ => check(file, expected, &history).await?,
        }
        tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
    }
    let mut ledger = ledger.lock().expect("no panic");
    for (file, expected) in files {
        drop(file);
        ledger.push(expected);
    }
    Ok(())
}

async fn open(client: &Client, path: &str) -> anyhow::Result<File> {
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .sync_on_close(false);
    Ok(client.open_with(path, options).await?)
}

async fn write(file: &File, expected: &mut Expected, slot: usize, seed: u64, history: &History) {
    let bytes = Bytes::from(bytes_of(seed, SLOT_BYTES));
    let result = file.handle().write_at(slot as u64 * SLOT_BYTES, bytes).await;
    match &result {
        Ok(()) => expected.slots[slot] = vec![seed],
        Err(_) => expected.slots[slot].push(seed),
    }
    history.note(format!(
        "{} write {slot} {seed:x} {:?}",
        expected.path,
        result.map_err(|e| e.code)
    ));
}

async fn check(file: &File, expected: &Expected, history: &History) -> anyhow::Result<()> {
    match file.handle().read_at(0, usize::try_from(FILE_BYTES)?).await {
        Ok(bytes) => {
            let verdict = expected.allows(&bytes);
            history.note(format!("{} read {} {verdict:?}", expected.path, bytes.len()));
            anyhow::ensure!(
                verdict.is_ok(),
                "{}: slot {:?} holds what was never acknowledged",
                expected.path,
                verdict
            );
        }
        Err(error) => history.note(format!("{} read {error}", expected.path)),
    }
    Ok(())
}
