//! What was acknowledged, kept outside the system under test: the rigs that kill compare it with what they find.
//!
//! Bytes are written in cells of 4 KiB whose content says which file, cell and generation they are, so that a cell
//! read back is one of the generations written there, zeros, or foreign. Names are compared by the inode they lead to.
//! A fact goes in only after its acknowledgement; an operation without an answer leaves both outcomes open.

use anyhow::{bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Bytes of a cell: a page, below which a local file system tears nothing.
pub const CELL_BYTES: usize = 4096;
const MAGIC: u32 = 0x4345_4c4c;
const HEAD_BYTES: usize = 16;

/// The content of a cell: never zeros, different in every file, place and generation.
#[must_use]
pub fn cell_bytes(file: u32, cell: u32, generation: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CELL_BYTES);
    for word in [MAGIC, file, cell, generation] {
        bytes.extend(word.to_le_bytes());
    }
    let mut state = (u64::from(file) << 40) ^ (u64::from(cell) << 20) ^ u64::from(generation);
    while bytes.len() < CELL_BYTES {
        // splitmix64: https://prng.di.unimi.it/splitmix64.c, public domain.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((z ^ (z >> 31)).to_le_bytes());
    }
    bytes
}

/// What a cell that was read turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A generation of this very cell; 0 stands for "behind the end of the file".
    Generation(u32),
    /// Nothing but zeros.
    Zeros,
    /// An error that says so.
    Lost,
    /// Bytes that were never written here.
    Foreign,
}

/// Reads a cell of `file` at `cell`.
#[must_use]
pub fn read_cell(file: u32, cell: u32, bytes: &[u8]) -> Seen {
    if bytes.iter().all(|b| *b == 0) {
        return Seen::Zeros;
    }
    let word = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_le_bytes)
    };
    let generation = word(HEAD_BYTES - 4).unwrap_or(0);
    match generation != 0 && bytes == cell_bytes(file, cell, generation) {
        true => Seen::Generation(generation),
        false => Seen::Foreign,
    }
}

/// What has happened since the cells were last settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Faults that spare one member: no acknowledged byte may be missing.
    OneNode,
    /// A power cut of everything, the `n`th: no fsynced byte may be missing, nor one acknowledged after it.
    Everything(u32),
}

#[derive(Clone, Debug, Default)]
struct Cell {
    /// On stable storage everywhere.
    durable: u32,
    /// Attempted after `durable`.
    since: BTreeSet<u32>,
    /// The last one acknowledged, and how many cuts of everything had gone before.
    acknowledged: u32,
    acknowledged_after: u32,
    /// Begun before a cut of everything and answered after it: may have been written anew, and not synced, after it.
    straddled: u32,
    /// Attempted, and never answered.
    doubtful: BTreeSet<u32>,
    /// Written, and not synced, through a handle that is gone: a sync is about what its own handle wrote.
    orphaned: bool,
    /// Never durable, lost in a power cut, and left behind as a hole in a file that goes on.
    hole: bool,
}

impl Cell {
    /// Zeros are right only where no byte was ever sure to stay.
    fn may_be_a_hole(&self, after: After) -> bool {
        let lost = matches!(after, After::Everything(cuts) if self.acknowledged_after < cuts);
        (lost && self.durable == 0) || (self.hole && self.acknowledged == 0)
    }

    /// Takes what was found as the truth. What survived a cut of everything is durable, unless it came after the cut.
    fn settle(&mut self, generation: u32, after: After) {
        let survived = generation != self.straddled && !self.doubtful.contains(&generation);
        self.acknowledged = generation;
        self.straddled = 0;
        self.doubtful.clear();
        if let After::Everything(_) = after {
            if survived {
                self.durable = generation;
            }
            self.since = BTreeSet::from([generation]);
        }
        self.orphaned = self.durable != generation;
    }

    fn allows(&self, generation: u32, after: After) -> bool {
        let kept = generation == self.acknowledged || self.doubtful.contains(&generation);
        match after {
            After::Everything(cuts) if self.acknowledged_after < cuts => {
                kept || generation == self.durable || self.since.contains(&generation)
            }
            After::OneNode | After::Everything(_) => kept,
        }
    }
}

/// The cells of one file with a single, sequential writer.
#[derive(Clone, Debug)]
pub struct Cells {
    file: u32,
    cells: Vec<Cell>,
    generation: u32,
}

impl Cells {
    /// An empty file, told from others by `file`.
    #[must_use]
    pub fn new(file: u32) -> Cells {
        Cells {
            file,
            cells: Vec::new(),
            generation: 0,
        }
    }

    /// Cells up to the end of all attempts.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.cells.len()).expect("files of rigs are small")
    }

    /// True if nothing was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Notes that a write of these cells is about to begin; returns its bytes and its generation.
    pub fn attempt(&mut self, range: Range<u32>) -> (Vec<u8>, u32) {
        self.generation += 1;
        let generation = self.generation;
        self.cells
            .resize(self.cells.len().max(range.end as usize), Cell::default());
        let mut bytes = Vec::with_capacity(range.len() * CELL_BYTES);
        for at in range {
            let cell = &mut self.cells[at as usize];
            cell.since.insert(generation);
            cell.doubtful.insert(generation);
            bytes.extend(cell_bytes(self.file, at, generation));
        }
        (bytes, generation)
    }

    /// Notes that the write was acknowledged; it began and ended after so many cuts of everything. One that began before
    /// a cut may have had its first bytes acknowledged, and lost, before its last ones were sent.
    pub fn acknowledged(&mut self, range: Range<u32>, generation: u32, began: u32, ended: u32) {
        for cell in &mut self.cells[range.start as usize..range.end as usize] {
            cell.acknowledged = generation;
            cell.acknowledged_after = began;
            cell.doubtful.remove(&generation);
            cell.orphaned = false;
            if began < ended {
                cell.straddled = generation;
            }
        }
    }

    /// Notes that an fsync was acknowledged which began after all that is acknowledged.
    pub fn synced(&mut self) {
        for cell in self.cells.iter_mut().filter(|cell| !cell.orphaned) {
            cell.durable = cell.acknowledged;
            cell.since = cell.doubtful.clone();
        }
    }

    /// Notes that the handle through which all was written is gone: what it has not synced no other handle's sync is
    /// about (docs/semantics.md).
    pub fn handle_gone(&mut self) {
        for cell in &mut self.cells {
            cell.orphaned |= cell.durable != cell.acknowledged;
        }
    }

    /// Compares with the whole content of the file, of which `lost` cells could not be read for a power cut's sake, and
    /// takes it as the truth from now on.
    ///
    /// # Errors
    /// The first cell that is not what it may be.
    pub fn settle(&mut self, bytes: &[u8], lost: &BTreeSet<u32>, after: After) -> anyhow::Result<()> {
        ensure!(
            bytes.len().is_multiple_of(CELL_BYTES),
            "file {}: {} bytes are no whole cells",
            self.file,
            bytes.len()
        );
        ensure!(
            bytes.len() <= self.cells.len() * CELL_BYTES,
            "file {}: longer than all that was written",
            self.file
        );
        let mut found = bytes.chunks(CELL_BYTES);
        for (at, cell) in self.cells.iter_mut().enumerate() {
            let at = u32::try_from(at).expect("files of rigs are small");
            let seen = match found.next() {
                None => Seen::Generation(0),
                Some(_) if lost.contains(&at) => Seen::Lost,
                Some(bytes) => read_cell(self.file, at, bytes),
            };
            match seen {
                Seen::Zeros | Seen::Lost if cell.may_be_a_hole(after) => {
                    *cell = Cell {
                        hole: true,
                        ..Cell::default()
                    }
                }
                Seen::Generation(generation) if cell.allows(generation, after) => {
                    cell.settle(generation, after)
                }
                seen => bail!(
                    "file {} cell {at} after {after:?}: {seen:?} instead of {cell:?}",
                    self.file
                ),
            }
        }
        self.cells.truncate(bytes.len() / CELL_BYTES);
        Ok(())
    }
}

/// A name's inode; none if it leads nowhere.
pub type Leads = Option<u64>;

/// The names of one directory with a single, sequential writer.
#[derive(Clone, Debug, Default)]
pub struct Names {
    certain: BTreeMap<String, u64>,
    doubts: Vec<Doubt>,
}

/// An operation without an answer: all its names are as before, or all are as after.
#[derive(Clone, Debug)]
struct Doubt {
    before: Vec<(String, Leads)>,
    after: Vec<(String, Leads)>,
}

impl Names {
    /// Names that certainly lead somewhere.
    #[must_use]
    pub fn certain(&self) -> &BTreeMap<String, u64> {
        &self.certain
    }

    /// Notes what an acknowledged operation did to names.
    pub fn acknowledged(&mut self, changes: &[(String, Leads)]) {
        for (name, leads) in changes {
            match leads {
                Some(inode) => self.certain.insert(name.clone(), *inode),
                None => self.certain.remove(name),
            };
        }
    }

    /// Notes an operation without an answer. Its names are not to be used again.
    pub fn doubtful(&mut self, changes: &[(String, Leads)]) {
        let before = changes
            .iter()
            .map(|(name, _)| (name.clone(), self.certain.remove(name)))
            .collect();
        self.doubts.push(Doubt {
            before,
            after: changes.to_vec(),
        });
    }

    /// Compares with a listing of the directory.
    ///
    /// # Errors
    /// The first name that is not what it may be.
    pub fn check(&self, found: &BTreeMap<String, u64>) -> anyhow::Result<()> {
        for (name, inode) in &self.certain {
            ensure!(
                found.get(name) == Some(inode),
                "{name} leads to {:?} instead of {inode}",
                found.get(name)
            );
        }
        let mut open = BTreeSet::new();
        for doubt in &self.doubts {
            // A creation whose answer is missing has an inode nobody was told: 0 stands for any.
            let is = |side: &[(String, Leads)]| {
                side.iter().all(|(name, leads)| match leads {
                    Some(0) => found.contains_key(name),
                    leads => found.get(name).copied() == *leads,
                })
            };
            ensure!(is(&doubt.before) || is(&doubt.after), "half done: {doubt:?}");
            open.extend(doubt.after.iter().map(|(name, _)| name));
        }
        for name in found.keys() {
            ensure!(
                self.certain.contains_key(name) || open.contains(name),
                "{name} was never made, or was removed"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(file: u32, generations: &[u32]) -> Vec<u8> {
        let cells = generations
            .iter()
            .zip(0..)
            .map(|(generation, at)| match generation {
                0 => vec![0; CELL_BYTES],
                generation => cell_bytes(file, at, *generation),
            });
        cells.collect::<Vec<_>>().concat()
    }

    fn written() -> Cells {
        let mut cells = Cells::new(7);
        for range in [0..4, 1..3] {
            let (_, generation) = cells.attempt(range.clone());
            cells.acknowledged(range, generation, 0, 0);
            if generation == 1 {
                cells.synced();
            }
        }
        cells
    }

    #[test]
    fn one_node_may_not_take_an_acknowledged_byte() {
        written()
            .settle(&content(7, &[1, 2, 2, 1]), &BTreeSet::new(), After::OneNode)
            .unwrap();
        for bad in [&[1, 1, 2, 1][..], &[1, 2, 2], &[1, 2, 0, 1], &[1, 3, 2, 1]] {
            assert!(
                written()
                    .settle(&content(7, bad), &BTreeSet::new(), After::OneNode)
                    .is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_power_cut_of_everything_may_take_what_was_not_synced_and_nothing_else() {
        for fine in [[1, 2, 2, 1], [1, 1, 2, 1], [1, 1, 1, 1]] {
            written()
                .settle(&content(7, &fine), &BTreeSet::new(), After::Everything(1))
                .unwrap();
        }
        for bad in [&[1, 1, 1][..], &[1, 0, 1, 1], &[2, 2, 2, 2]] {
            assert!(
                written()
                    .settle(&content(7, bad), &BTreeSet::new(), After::Everything(1))
                    .is_err(),
                "{bad:?}"
            );
        }
        assert!(
            written()
                .settle(&content(8, &[1, 2, 2, 1]), &BTreeSet::new(), After::Everything(1))
                .is_err(),
            "foreign"
        );
    }

    #[test]
    fn what_was_acknowledged_after_the_cut_counts() {
        let mut cells = written();
        let (_, generation) = cells.attempt(1..2);
        cells.acknowledged(1..2, generation, 1, 1);
        assert!(
            cells
                .clone()
                .settle(&content(7, &[1, 2, 1, 1]), &BTreeSet::new(), After::Everything(1))
                .is_err()
        );
        cells
            .settle(&content(7, &[1, 3, 1, 1]), &BTreeSet::new(), After::Everything(1))
            .unwrap();
        assert!(
            cells
                .settle(&content(7, &[1, 3, 2, 1]), &BTreeSet::new(), After::Everything(2))
                .is_err(),
            "settled is settled"
        );
    }

    #[test]
    fn what_was_written_across_a_cut_is_not_durable_for_being_seen() {
        let mut cells = written();
        let (_, generation) = cells.attempt(1..2);
        cells.acknowledged(1..2, generation, 0, 1);
        cells
            .settle(&content(7, &[1, 3, 2, 1]), &BTreeSet::new(), After::Everything(1))
            .unwrap();
        cells
            .clone()
            .settle(&content(7, &[1, 3, 2, 1]), &BTreeSet::new(), After::OneNode)
            .unwrap();
        assert!(
            cells
                .clone()
                .settle(&content(7, &[1, 1, 2, 1]), &BTreeSet::new(), After::OneNode)
                .is_err()
        );
        cells
            .settle(&content(7, &[1, 1, 2, 1]), &BTreeSet::new(), After::Everything(2))
            .unwrap();
    }

    #[test]
    fn a_sync_is_about_what_its_own_handle_wrote() {
        let mut cells = written();
        cells.handle_gone();
        cells.synced();
        for fine in [[1, 2, 2, 1], [1, 1, 1, 1]] {
            cells
                .clone()
                .settle(&content(7, &fine), &BTreeSet::new(), After::Everything(1))
                .unwrap();
        }
        let (_, generation) = cells.attempt(1..2);
        cells.acknowledged(1..2, generation, 0, 0);
        cells.synced();
        assert!(
            cells
                .clone()
                .settle(&content(7, &[1, 2, 2, 1]), &BTreeSet::new(), After::Everything(1))
                .is_err(),
            "written again, and synced by who wrote it"
        );
        cells
            .settle(&content(7, &[1, 3, 1, 1]), &BTreeSet::new(), After::Everything(1))
            .unwrap();
    }

    #[test]
    fn what_came_after_a_cut_is_not_made_durable_by_a_later_handle() {
        let mut cells = written();
        let (_, generation) = cells.attempt(1..2);
        cells.acknowledged(1..2, generation, 0, 1);
        cells
            .settle(&content(7, &[1, 3, 2, 1]), &BTreeSet::new(), After::Everything(1))
            .unwrap();
        cells.synced();
        for fine in [[1, 3, 2, 1], [1, 1, 2, 1]] {
            cells
                .clone()
                .settle(&content(7, &fine), &BTreeSet::new(), After::Everything(2))
                .unwrap();
        }
        assert!(
            cells
                .settle(&content(7, &[1, 3, 1, 1]), &BTreeSet::new(), After::Everything(2))
                .is_err(),
            "what survived the cut is durable"
        );
    }

    #[test]
    fn an_append_without_an_answer_may_be_there_or_not() {
        let mut cells = written();
        cells.attempt(4..6);
        cells
            .clone()
            .settle(&content(7, &[1, 2, 2, 1]), &BTreeSet::new(), After::OneNode)
            .unwrap();
        cells
            .clone()
            .settle(&content(7, &[1, 2, 2, 1, 3, 3]), &BTreeSet::new(), After::OneNode)
            .unwrap();
        assert!(
            cells
                .settle(&content(7, &[1, 2, 2, 1, 0, 3]), &BTreeSet::new(), After::OneNode)
                .is_err()
        );
    }

    #[test]
    fn half_a_rename_is_noticed() {
        let mut names = Names::default();
        names.acknowledged(&[("a".into(), Some(5)), ("b".into(), Some(6))]);
        names.doubtful(&[("a".into(), None), ("b".into(), Some(5))]);
        let found = |pairs: &[(&str, u64)]| pairs.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect();
        names.check(&found(&[("a", 5), ("b", 6)])).unwrap();
        names.check(&found(&[("b", 5)])).unwrap();
        for bad in [&[("a", 5), ("b", 5)][..], &[("b", 6)], &[("b", 5), ("c", 7)]] {
            assert!(names.check(&found(bad)).is_err(), "{bad:?}");
        }
    }
}
