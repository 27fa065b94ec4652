//! Becoming ready for a version: torn blocks are settled, the length is cut, the header says *synced*.

use super::core::{Body, Core};
use super::error::{Error, Result};
use super::file::Replica;
use super::format::{TABLE_AT, encode_table};
use super::read::{block_bytes, block_verifies, index, number};
use dfs_proto::Version;
use dfs_proto::checksum::crc;
use dfs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};
use dfs_proto::span::{block_length, blocks_of};

impl Replica {
    /// Blocks that fail their checksum and may be accepted as found if no member of the same kind has them: those in
    /// its own intents after a process crash, any after a power cut.
    ///
    /// # Errors
    /// The disk's.
    pub fn torn_blocks(&self) -> Result<Vec<u32>> {
        self.change(|core| {
            core.settle_slots()?;
            let body = core.load()?;
            let mut torn = Vec::new();
            for block in 0..blocks_of(core.slot.length) {
                if core.may_be_torn(block) && !block_verifies(&body, core.slot.length, block)? {
                    torn.push(number(block));
                }
            }
            Ok(torn)
        })
    }

    /// Writes back a block's right bytes, as its CRC has them: heals rot.
    ///
    /// # Errors
    /// [`Error::Refused`] if these are other bytes; the disk's.
    pub fn heal(&self, block: u32, bytes: &[u8]) -> Result<()> {
        self.change(|core| {
            core.settle_slots()?;
            let body = core.load()?;
            let expected = block_length(u64::from(block), core.slot.length);
            let right = bytes.len() as u64 == expected && body.crcs.get(block as usize) == Some(&crc(bytes));
            if !right || expected == 0 {
                return Err(Error::Refused("these are not the block's bytes".into()));
            }
            core.dirty = true;
            Ok(body
                .file
                .write_at(bytes, Core::data_at(u64::from(block) * BLOCK_BYTES))?)
        })
    }

    /// Accepts a torn block as it is found: bytes the application wrote, old and new mixed.
    ///
    /// # Errors
    /// [`Error::Refused`] for a block that cannot be torn: it is rotten; the disk's.
    pub fn accept(&self, block: u32) -> Result<()> {
        self.change(|core| {
            core.settle_slots()?;
            let body = core.load()?;
            let number = u64::from(block);
            if !core.may_be_torn(number) || number >= blocks_of(core.slot.length) {
                return Err(Error::Refused(format!("block {block} is rotten, not torn")));
            }
            let bytes = block_bytes(&body, core.slot.length, number)?;
            if bytes.len() as u64 != block_length(number, core.slot.length) {
                return Err(Error::Corrupt {
                    chunk: core.slot.handle,
                    block,
                });
            }
            let sum = crc(&bytes);
            drop(body);
            core.dirty = true;
            core.set_crcs(&[(number, sum)]);
            let file = core.load()?.file;
            file.write_at(&core.table_bytes(number, &[sum]), TABLE_AT + number * 4)?;
            core.write_slot()
        })
    }

    /// Gives a torn block the bytes that another member of the same kind has there.
    ///
    /// # Errors
    /// [`Error::Refused`] for a block that cannot be torn, or bytes of another length; the disk's.
    pub fn settle(&self, block: u32, bytes: &[u8]) -> Result<()> {
        self.change(|core| {
            core.settle_slots()?;
            let file = core.load()?.file;
            let number = u64::from(block);
            let length = block_length(number, core.slot.length);
            if !core.may_be_torn(number) || length == 0 || bytes.len() as u64 != length {
                return Err(Error::Refused(format!(
                    "block {block} is not to be replaced by these bytes"
                )));
            }
            core.dirty = true;
            file.write_at(bytes, Core::data_at(number * BLOCK_BYTES))?;
            let sum = crc(bytes);
            core.set_crcs(&[(number, sum)]);
            file.write_at(&core.table_bytes(number, &[sum]), TABLE_AT + number * 4)?;
            core.write_slot()
        })
    }

    /// Becomes ready for the version it has promised, as it is but for a cut to `truncate` bytes: durable.
    /// Torn blocks have to be settled before.
    ///
    /// # Errors
    /// [`Error::Stale`] if it has promised another version; the disk's.
    pub fn set_ready(&self, version: Version, loss: Version, truncate: Option<u64>) -> Result<()> {
        self.change(|core| {
            if core.slot.promised != version {
                return Err(Error::Stale(core.slot.promised));
            }
            core.settle_slots()?;
            core.sync()?;
            let length = truncate.unwrap_or(u64::MAX).min(core.slot.length);
            let cut = length < core.slot.length;
            if cut {
                core.cut_to(length)?;
            }
            core.ready(version, loss)?;
            if cut { core.drop_beyond() } else { Ok(()) }
        })
    }
}

impl Core {
    pub(super) fn may_be_torn(&self, block: u64) -> bool {
        let (start, end) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        self.lost || self.restarted && self.slot.intents.iter().any(|i| i.start < end && start < i.end)
    }

    /// Shortens the replica in memory; the block that is cut is verified first.
    fn cut_to(&mut self, length: u64) -> Result<()> {
        let body = self.load()?;
        let mut crcs = Vec::new();
        if !length.is_multiple_of(BLOCK_BYTES) {
            let block = length / BLOCK_BYTES;
            if !block_verifies(&body, self.slot.length, block)? {
                return Err(Error::Corrupt {
                    chunk: self.slot.handle,
                    block: number(block),
                });
            }
            let bytes = block_bytes(&body, self.slot.length, block)?;
            crcs.push((block, crc(&bytes[..index(length % BLOCK_BYTES)])));
        }
        drop(body);
        self.slot.length = length;
        self.set_crcs(&crcs);
        Ok(())
    }

    /// The header says *synced*, on stable storage; everything else has to be there already.
    pub(super) fn ready(&mut self, version: Version, loss: Version) -> Result<()> {
        let restarted = self.restarted;
        self.durably(|slot| {
            (slot.synced, slot.loss) = (version, loss);
            slot.intents.clear();
            slot.open &= !restarted;
            slot.durable = true;
        })?;
        self.lost = false;
        self.restarted = false;
        self.write_slot()
    }

    /// What lies beyond the length is cut off, durably, and the table claims nothing there: else bytes from before
    /// could verify as ones that were never written.
    pub(super) fn drop_beyond(&mut self) -> Result<()> {
        let body: Body = self.load()?;
        let end = Core::data_at(self.slot.length);
        if body.file.length()? <= end {
            return Ok(());
        }
        body.file.set_length(end)?;
        let held = blocks_of(self.slot.length);
        let rest = vec![0; index(blocks_of(CHUNK_BYTES_MAX) - held)];
        body.file.write_at(&encode_table(&rest), TABLE_AT + held * 4)?;
        self.home.synced(body.file.sync_data())
    }
}
