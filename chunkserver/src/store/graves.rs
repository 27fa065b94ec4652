//! What deleted replicas had promised: a late packet number 1 must not create them again, empty and readable.
//!
//! ```text
//! DATA/graves: records of 24 bytes, appended
//! 0   8   chunk handle
//! 8   8   remembered until, milliseconds since 1970-01-01 UTC
//! 16  4   promised
//! 20  4   CRC-32 of all before it
//! ```

use super::error::Result;
use super::home::Home;
use dfs_proto::checksum::crc;
use dfs_proto::{ChunkHandle, Version};
use dfs_stdx::disk::{File, Open};
use std::collections::BTreeMap;
use std::sync::Arc;

const RECORD_BYTES: usize = 24;
/// Records after which the file is written anew at start.
const COMPACT_RECORDS: u64 = 10_000;

/// The graves of one data directory.
#[derive(Debug)]
pub(super) struct Graves {
    home: Arc<Home>,
    file: Arc<dyn File>,
    end: u64,
    /// Its own name is on stable storage.
    named: bool,
    buried: BTreeMap<ChunkHandle, (Version, u64)>,
}

impl Graves {
    /// Reads them; a record that was cut off or is damaged ends the reading.
    pub(super) fn open(home: Arc<Home>) -> Result<Graves> {
        let path = home.dir.join("graves");
        let file = home.disk.open(&path, Open::Always)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).unwrap_or(0)];
        let read = file.read_at(&mut bytes, 0)?;
        let mut graves = Graves {
            home,
            file,
            end: 0,
            named: false,
            buried: BTreeMap::new(),
        };
        for (handle, promised, until) in bytes[..read]
            .as_chunks::<RECORD_BYTES>()
            .0
            .iter()
            .map_while(decode)
        {
            graves.buried.insert(handle, (promised, until));
            graves.end += RECORD_BYTES as u64;
        }
        Ok(graves)
    }

    /// What the chunk's deleted replica had promised; 0 if nothing is remembered.
    pub(super) fn promised(&self, handle: ChunkHandle) -> Version {
        self.buried
            .get(&handle)
            .map(|(promised, _)| *promised)
            .unwrap_or_default()
    }

    /// Remembers promises, durably: with one sync for all of them.
    pub(super) fn bury(&mut self, promises: &[(ChunkHandle, Version)], until_unix_ms: u64) -> Result<()> {
        let records: Vec<u8> = promises
            .iter()
            .flat_map(|(handle, promised)| encode(*handle, *promised, until_unix_ms))
            .collect();
        self.file.write_at(&records, self.end)?;
        self.home.synced(self.file.sync_data())?;
        if !self.named {
            self.home.sync_dir(&self.home.dir)?;
            self.named = true;
        }
        self.end += records.len() as u64;
        let remembered = promises
            .iter()
            .map(|(handle, promised)| (*handle, (*promised, until_unix_ms)));
        self.buried.extend(remembered);
        Ok(())
    }

    /// Forgets what nobody can hold a token for any more.
    pub(super) fn forget(&mut self, now_unix_ms: u64) -> Result<()> {
        self.buried.retain(|_, (_, until)| *until >= now_unix_ms);
        let records = self.end / RECORD_BYTES as u64;
        if records < COMPACT_RECORDS.max(2 * self.buried.len() as u64) {
            return Ok(());
        }
        let (path, new) = (self.home.dir.join("graves"), self.home.tmp("graves"));
        let file = self.home.disk.open(&new, Open::Always)?;
        let records: Vec<u8> = self
            .buried
            .iter()
            .flat_map(|(h, (p, until))| encode(*h, *p, *until))
            .collect();
        file.set_length(0)?;
        file.write_at(&records, 0)?;
        self.home.synced(file.sync_data())?;
        self.home.disk.rename(&new, &path)?;
        self.home.sync_dir(&self.home.dir)?;
        self.home.sync_dir(&self.home.dir.join("tmp"))?;
        (self.file, self.end) = (file, records.len() as u64);
        Ok(())
    }
}

fn encode(handle: ChunkHandle, promised: Version, until_unix_ms: u64) -> [u8; RECORD_BYTES] {
    let mut out = [0; RECORD_BYTES];
    out[..8].copy_from_slice(&handle.0.to_le_bytes());
    out[8..16].copy_from_slice(&until_unix_ms.to_le_bytes());
    out[16..20].copy_from_slice(&promised.0.to_le_bytes());
    let sum = crc(&out[..20]);
    out[20..].copy_from_slice(&sum.to_le_bytes());
    out
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<(ChunkHandle, Version, u64)> {
    let u32_at = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"));
    (u32_at(20) == crc(&record[..20])).then(|| (ChunkHandle(u64_at(0)), Version(u32_at(16)), u64_at(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grave_has_the_documented_bytes() {
        let record = encode(ChunkHandle(0x0102), Version(3), 4);
        assert_eq!(
            record[..20],
            [2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]
        );
        assert_eq!(decode(&record), Some((ChunkHandle(0x0102), Version(3), 4)));
        for bit in 0..RECORD_BYTES * 8 {
            let mut bytes = record;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None);
        }
    }
}
