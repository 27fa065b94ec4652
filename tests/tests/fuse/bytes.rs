//! What was acknowledged of the bytes of a file, kept outside the mount: cells that say who they are.

use anyhow::{bail, ensure};
use dfs_tests::manifest::{CELL_BYTES, Seen, cell_bytes, read_cell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

#[derive(Clone, Debug, Default)]
struct Cell {
    /// 0: it may be missing.
    acknowledged: u32,
    /// Written since.
    since: BTreeSet<u32>,
    /// Written by a mount that was killed before it acknowledged them. What of it was on its way may arrive after the
    /// next mount has looked, and counts in the file's length when the master has settled the dead writer's chunks.
    late: BTreeSet<u32>,
}

/// A file of cells with one writer.
#[derive(Debug)]
pub(crate) struct Cells {
    number: u32,
    cells: Vec<Cell>,
    generation: u32,
}

impl Cells {
    pub(crate) fn new(number: u32) -> Cells {
        Cells {
            number,
            cells: Vec::new(),
            generation: 0,
        }
    }

    /// Writes some cells, somewhere in the file or behind its end.
    pub(crate) fn write(&mut self, file: &File, rng: &mut fastrand::Rng, most: usize) -> io::Result<()> {
        let length = rng.usize(1..=40);
        let start = rng.usize(0..=self.cells.len().min(most));
        self.generation += 1;
        let end = start + length;
        if self.cells.len() < end {
            self.cells.resize(end, Cell::default());
        }
        let mut bytes = Vec::with_capacity(length * CELL_BYTES);
        for (at, cell) in (start..end).zip(&mut self.cells[start..end]) {
            let at = u32::try_from(at).expect("files of rigs are small");
            bytes.extend(cell_bytes(self.number, at, self.generation));
            cell.since.insert(self.generation);
        }
        file.write_all_at(&bytes, (start * CELL_BYTES) as u64)
    }

    /// Notes that an fsync or a close came back well after all writes.
    pub(crate) fn acknowledged(&mut self) {
        for cell in &mut self.cells {
            if let Some(last) = cell.since.pop_last() {
                cell.acknowledged = last;
                cell.since.clear();
                cell.late.clear();
            }
        }
    }

    /// Compares with all bytes of the file, and takes these as the truth from now on.
    pub(crate) fn settle(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let number = self.number;
        ensure!(
            bytes.len().is_multiple_of(CELL_BYTES) && bytes.len() <= self.cells.len() * CELL_BYTES,
            "file {number}: {} bytes, but {} cells were written",
            bytes.len(),
            self.cells.len()
        );
        let mut found = bytes.chunks(CELL_BYTES);
        for (at, cell) in self.cells.iter_mut().enumerate() {
            let place = u32::try_from(at).expect("files of rigs are small");
            let generation = match found.next().map(|bytes| read_cell(number, place, bytes)) {
                None | Some(Seen::Zeros) => 0,
                Some(Seen::Generation(generation)) => generation,
                Some(seen @ (Seen::Foreign | Seen::Lost)) => {
                    bail!("file {number} cell {at}: {seen:?} instead of {cell:?}")
                }
            };
            ensure!(
                generation == cell.acknowledged
                    || cell.since.contains(&generation)
                    || cell.late.contains(&generation),
                "file {number} cell {at}: generation {generation} instead of {cell:?}"
            );
            cell.acknowledged = generation;
            cell.late.append(&mut cell.since);
            // A writer's bytes arrive in its order.
            cell.late.retain(|late| *late > generation);
        }
        Ok(())
    }
}
