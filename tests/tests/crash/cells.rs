//! A worker on the bytes of one file: overwrites of what is there, appends, fsyncs.

use super::load::{Act, Pulse, Worker};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dfs_client::{Client, Code, File, Handle, OpenOptions};
use dfs_stdx::Rng;
use dfs_tests::manifest::{After, CELL_BYTES, Cells};
use std::collections::BTreeSet;

/// Cells of a file that is only overwritten: a megabyte, several chunks of the rigs' clusters.
const FIXED_CELLS: u32 = 256;
/// An appended file is not grown beyond: comparing it takes time.
const GROWN_CELLS_MAX: u32 = 2_048;
/// One operation in so many is an fsync.
const SYNC_ONE_IN: u64 = 6;
const READ_BYTES: usize = 1 << 20;

/// How a worker changes its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Only what was there and fsynced at the start.
    Overwrite,
    /// Only at the end.
    Append,
}

/// The only writer of its file.
pub(crate) struct CellWorker {
    client: Client,
    path: String,
    style: Style,
    cells: Cells,
    /// Cells that are surely there: behind them nothing is overwritten, or a lost append would leave a true hole.
    sure: u32,
    /// An append without an answer: where the end is, the next comparison tells.
    end_unknown: bool,
    file: Option<File>,
    rng: Rng,
    /// Cells that were found to be lost, over all comparisons.
    lost: u32,
}

impl CellWorker {
    /// Makes the file; one that is to be overwritten is written and fsynced.
    pub(crate) async fn new(
        client: Client,
        number: u32,
        style: Style,
        rng: Rng,
    ) -> anyhow::Result<CellWorker> {
        let path = format!("/bytes-{number}");
        let options = OpenOptions::new()
            .write(true)
            .create_new(true)
            .sync_on_close(false);
        let mut file = client.open_with(&path, options).await?;
        let mut cells = Cells::new(number);
        if style == Style::Overwrite {
            let (bytes, generation) = cells.attempt(0..FIXED_CELLS);
            file.handle().write_at(0, Bytes::from(bytes)).await?;
            cells.acknowledged(0..FIXED_CELLS, generation, 0, 0);
            file.sync_all().await?;
            cells.synced();
        }
        let sure = cells.len();
        Ok(CellWorker {
            client,
            path,
            style,
            cells,
            sure,
            end_unknown: false,
            file: Some(file),
            rng,
            lost: 0,
        })
    }

    /// Cells that were found to be lost so far.
    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// Its file.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Lets the file go: what comes next begins with a new handle.
    pub(crate) async fn release(&mut self) {
        if let Some(file) = self.file.take() {
            // After a power cut of everything its error is the writer's notice; the manifest knows already.
            let _ = file.close().await;
        }
        self.cells.handle_gone();
    }

    async fn write(&mut self, file: &Handle, pulse: &Pulse) -> dfs_client::Result<()> {
        let length = 1 + u32::try_from(self.rng.below(40)).expect("small");
        let grow = self.style == Style::Append && !self.end_unknown && self.sure + length <= GROWN_CELLS_MAX;
        let (act, start) = match grow || self.sure == 0 {
            true => (Act::Append, self.sure),
            false => (
                Act::Overwrite,
                u32::try_from(self.rng.below(u64::from(self.sure))).expect("small"),
            ),
        };
        let end = if act == Act::Append {
            start + length
        } else {
            (start + length).min(self.sure)
        };
        let (bytes, generation) = self.cells.attempt(start..end);
        let (offset, cuts) = (u64::from(start) * CELL_BYTES as u64, pulse.cuts());
        self.end_unknown |= act == Act::Append;
        pulse
            .during(act, file.write_at(offset, Bytes::from(bytes)))
            .await?;
        self.cells
            .acknowledged(start..end, generation, cuts, pulse.cuts());
        self.sure = self.sure.max(end);
        self.end_unknown = false;
        Ok(())
    }

    /// Compares the file, seen by `client`, with what was acknowledged, and takes it as the truth from now on.
    pub(crate) async fn settle(&mut self, client: &Client, after: After) -> anyhow::Result<()> {
        let (bytes, lost) = found(client, &self.path).await?;
        self.lost += u32::try_from(lost.len())?;
        self.cells
            .settle(&bytes, &lost, after)
            .with_context(|| self.path.clone())?;
        (self.sure, self.end_unknown) = (self.cells.len(), false);
        Ok(())
    }
}

/// All bytes of a file.
pub(crate) async fn content(client: &Client, path: &str) -> anyhow::Result<Vec<u8>> {
    let (bytes, lost) = found(client, path).await?;
    ensure!(lost.is_empty(), "{path}: cells {lost:?} are lost");
    Ok(bytes)
}

/// All bytes of a file, and the cells that cannot be read because a power cut of everything took them (zeros here).
async fn found(client: &Client, path: &str) -> anyhow::Result<(Vec<u8>, BTreeSet<u32>)> {
    let file = client.open(path).await.with_context(|| format!("open {path}"))?;
    let file = file.handle();
    let length = usize::try_from(file.len().await?)?;
    let (mut bytes, mut lost) = (Vec::with_capacity(length), BTreeSet::new());
    // After a loss cell by cell, up to the end of what was asked for.
    let mut by_cell = 0;
    while bytes.len() < length {
        let wanted = if bytes.len() < by_cell {
            CELL_BYTES
        } else {
            READ_BYTES
        };
        let piece = match file.read_at(bytes.len() as u64, wanted).await {
            Err(error) if error.code == Code::Lost && wanted > CELL_BYTES => {
                by_cell = bytes.len() + wanted;
                continue;
            }
            Err(error) if error.code == Code::Lost => {
                lost.insert(u32::try_from(bytes.len() / CELL_BYTES)?);
                Bytes::from(vec![0; CELL_BYTES.min(length - bytes.len())])
            }
            piece => piece.with_context(|| format!("read {path} at {}", bytes.len()))?,
        };
        ensure!(
            !piece.is_empty(),
            "{path} ends at {} instead of {length}",
            bytes.len()
        );
        bytes.extend(piece);
    }
    Ok((bytes, lost))
}

impl Worker for CellWorker {
    async fn step(&mut self, pulse: &Pulse) -> anyhow::Result<()> {
        let Some(mut file) = self.file.take() else {
            let options = OpenOptions::new().write(true).sync_on_close(false);
            self.file = self.client.open_with(&self.path, options).await.ok();
            return Ok(());
        };
        let ended = match self.rng.below(SYNC_ONE_IN) {
            0 => {
                let ended = pulse.during(Act::Sync, file.sync_all()).await;
                if ended.is_ok() {
                    self.cells.synced();
                }
                ended
            }
            _ => self.write(file.handle(), pulse).await,
        };
        match ended {
            Ok(()) => self.file = Some(file),
            // The answer is missing for good: what happens next begins with a new handle.
            Err(error) => {
                println!("{}: {error}", self.path);
                self.cells.handle_gone();
            }
        }
        Ok(())
    }
}
