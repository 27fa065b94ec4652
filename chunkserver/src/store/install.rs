//! Sync's last step: a replica takes over another one's table and the blocks in which it differs.
//!
//! A whole member stays whole at every instant: the difference is *staged* in a file of its own, whose rename is the
//! commit point, and then applied; a crash in between is made good at start. One that is not whole is changed in
//! place: its header says *synced* only when everything is on stable storage.
//!
//! ```text
//! offset  size    part of HANDLE.install
//! 0       8       magic "dfsinst1"
//! 8       4       format, 1
//! 12      4       version it makes the replica ready for
//! 16      4       loss
//! 20      4       blocks of the target (n)
//! 24      8       chunk handle
//! 32      8       length, bytes
//! 40      4       blocks that follow (m)
//! 44      4       writers (w), at most 64
//! 48      w x 20  writers
//! 2048    n x 4   table of the target
//! 6144    m x 4   numbers of the blocks that follow
//! 12284   4       CRC-32 of all before it
//! 12288   m x 64 KiB   the blocks
//! ```

use super::core::{Body, Core};
use super::error::{Error, Result};
use super::file::Replica;
use super::format::{TABLE_AT, Writer, decode_table, encode_table};
use super::home::Home;
use super::read::{block_verifies, index, number};
use dfs_proto::checksum::crc;
use dfs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, WRITERS_MAX};
use dfs_proto::span::{block_length, blocks_of};
use dfs_proto::{ChunkHandle, Version, WriterId};
use dfs_stdx::disk::{File, Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"dfsinst1";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 12288;
const WRITERS_AT: usize = 48;
const CRCS_AT: usize = 2048;
const LIST_AT: usize = 6144;
const CRC_AT: usize = HEADER_BYTES - 4;

/// What a replica is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The version it is ready for then; `None`: only a base to sync from later.
    pub version: Option<Version>,
    /// The newest version whose source had lost power.
    pub loss: Version,
    /// Bytes.
    pub length: u64,
    /// A CRC for each block.
    pub crcs: Vec<u32>,
    /// Oldest first.
    pub writers: Vec<Writer>,
}

/// How a replica takes over a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// For a whole replica.
    Staged,
    /// For an old or lost one.
    InPlace,
}

/// A sync under way: fill in [`Install::needed`], then commit. Dropped before, it leaves nothing that counts.
#[derive(Debug)]
pub struct Install {
    replica: Arc<Replica>,
    target: Target,
    how: How,
    needed: Vec<u32>,
    file: Arc<dyn File>,
    staged: PathBuf,
}

impl Install {
    /// Begins; compares tables. A replica that is not whole, or has rot, reads its blocks first: its table are claims only.
    ///
    /// # Errors
    /// [`Error::Refused`] if the target makes no sense; the disk's.
    pub fn begin(replica: &Arc<Replica>, target: Target, how: How) -> Result<Install> {
        if target.length > CHUNK_BYTES_MAX
            || target.crcs.len() as u64 != blocks_of(target.length)
            || target.writers.len() > WRITERS_MAX
            || how == How::Staged && target.version.is_none()
        {
            return Err(Error::Refused("a sync target that makes no sense".into()));
        }
        replica.change(|core| {
            core.make_sure()?;
            let body = core.load()?;
            let mut needed = Vec::new();
            for block in 0..blocks_of(target.length) {
                let verify = how == How::InPlace || core.rotten || core.may_be_torn(block);
                if !holds(&body, core.slot.length, &target, block, verify)? {
                    needed.push(number(block));
                }
            }
            let staged = core.home.tmp(&format!("{}.install", replica.handle()));
            let file = match how {
                How::Staged => core.home.disk.open(&staged, Open::Always)?,
                How::InPlace => body.file,
            };
            if how == How::Staged {
                file.set_length(0)?;
            }
            Ok(Install {
                replica: replica.clone(),
                target,
                how,
                needed,
                file,
                staged,
            })
        })
    }

    /// The blocks it lacks, in order.
    #[must_use]
    pub fn needed(&self) -> &[u32] {
        &self.needed
    }

    /// Bytes it lacks.
    #[must_use]
    pub fn needed_bytes(&self) -> u64 {
        self.needed
            .iter()
            .map(|b| block_length(u64::from(*b), self.target.length))
            .sum()
    }

    /// The replica that takes over.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Fills in a needed block. For a base the chunk may have been written since its table was told: these are its
    /// bytes then, and the target follows.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is not needed, or these are not its bytes; the disk's.
    pub fn put(&mut self, block: u32, bytes: &[u8]) -> Result<()> {
        let expected = index(block_length(u64::from(block), self.target.length));
        let bytes = match self.target.version {
            None => bytes.get(..expected).unwrap_or(bytes),
            Some(_) => bytes,
        };
        if self.target.version.is_none() && bytes.len() == expected && expected > 0 {
            self.target.crcs[block as usize] = crc(bytes);
        }
        let place = self.needed.binary_search(&block);
        let (Ok(place), true) = (place, self.target.fits(block, bytes)) else {
            return Err(Error::Refused(format!("not the bytes of block {block}")));
        };
        match self.how {
            How::Staged => Ok(self.file.write_at(bytes, staged_at(place))?),
            How::InPlace => self.replica.change(|core| {
                core.dirty = true;
                Ok(self
                    .file
                    .write_at(bytes, Core::data_at(u64::from(block) * BLOCK_BYTES))?)
            }),
        }
    }

    /// Makes the replica what the target says, durably. Every needed block has to be in.
    ///
    /// # Errors
    /// [`Error::Stale`] if it has promised another version meanwhile; the disk's.
    pub fn commit(self) -> Result<()> {
        self.replica.change(|core| {
            if let Some(version) = self.target.version
                && core.slot.promised != version
            {
                return Err(Error::Stale(core.slot.promised));
            }
            match self.how {
                How::InPlace => core.take_over(&self.target),
                How::Staged => {
                    self.file
                        .write_at(&self.target.encode(core.slot.handle, &self.needed), 0)?;
                    core.home.synced(self.file.sync_data())?;
                    let install = install_path(&core.path);
                    core.home.disk.rename(&self.staged, &install)?;
                    // A name that moves between folders is durable when both are.
                    for moved in [&install, &self.staged] {
                        core.home.sync_dir(moved.parent().expect("it lies in a folder"))?;
                    }
                    core.redo(&*self.file, &self.target, &self.needed)?;
                    Ok(core.home.disk.remove(&install)?)
                }
            }
        })
    }
}

/// Where a replica's staged sync waits.
pub(super) fn install_path(replica: &Path) -> PathBuf {
    replica.with_extension("install")
}

/// At start: carries out a staged sync that was committed, drops one that was not or is done.
pub(super) fn recover(home: &Home, replica: Option<&Replica>, install: &Path) -> Result<()> {
    let file = home.disk.open(install, Open::ReadOnly)?;
    let mut header = vec![0; HEADER_BYTES];
    let read = file.read_at(&mut header, 0)?;
    let decoded = if read == HEADER_BYTES {
        Target::decode(&header)
    } else {
        None
    };
    if let (Some((handle, target, needed)), Some(replica)) = (decoded, replica) {
        replica.change(|core| {
            let due = core.slot.handle == handle && target.version > Some(core.slot.synced);
            if due {
                core.redo(&*file, &target, &needed)
            } else {
                Ok(())
            }
        })?;
    }
    Ok(home.disk.remove(install)?)
}

fn staged_at(place: usize) -> u64 {
    HEADER_BYTES as u64 + place as u64 * BLOCK_BYTES
}

/// True if the replica has the target's block already.
fn holds(body: &Body, length: u64, target: &Target, block: u64, verify: bool) -> Result<bool> {
    let same = block_length(block, length) == block_length(block, target.length)
        && body.crcs.get(index(block)) == Some(&target.crcs[index(block)]);
    Ok(same && (!verify || block_verifies(body, length, block)?))
}

impl Core {
    /// Carries out a staged sync: the same outcome however often it is done.
    fn redo(&mut self, staged: &dyn File, target: &Target, needed: &[u32]) -> Result<()> {
        // First: settling cuts off what lies beyond the length of before.
        self.settle_slots()?;
        let body = self.load()?;
        for (place, block) in needed.iter().enumerate() {
            let mut bytes = vec![0; index(block_length(u64::from(*block), target.length))];
            let read = staged.read_at(&mut bytes, staged_at(place))?;
            if read != bytes.len() || !target.fits(*block, &bytes) {
                return Err(Error::Corrupt {
                    chunk: self.slot.handle,
                    block: *block,
                });
            }
            body.file
                .write_at(&bytes, Core::data_at(u64::from(*block) * BLOCK_BYTES))?;
        }
        self.take_over(target)
    }

    /// The blocks are in: table and everything durable, then the header.
    fn take_over(&mut self, target: &Target) -> Result<()> {
        self.settle_slots()?;
        let body = self.load()?;
        body.file.write_at(&self.table_bytes(0, &target.crcs), TABLE_AT)?;
        self.home.synced(body.file.sync_data())?;
        self.slot.length = target.length;
        self.slot.writers = target.writers.clone();
        self.slot.tail_crc = match target.crcs.last() {
            Some(last) if !target.length.is_multiple_of(BLOCK_BYTES) => *last,
            Some(_) | None => 0,
        };
        self.body = Some(Body {
            file: body.file,
            crcs: Arc::new(target.crcs.clone()),
            fine: Arc::default(),
        });
        match target.version {
            Some(version) => {
                self.ready(version, target.loss)?;
                self.rotten = false;
            }
            None => {
                self.slot.durable = true;
                self.write_slot()?;
                self.sync()?;
            }
        }
        self.drop_beyond()
    }
}

impl Target {
    fn fits(&self, block: u32, bytes: &[u8]) -> bool {
        bytes.len() as u64 == block_length(u64::from(block), self.length)
            && self.crcs.get(block as usize) == Some(&crc(bytes))
    }

    fn encode(&self, handle: ChunkHandle, needed: &[u32]) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let u32_of = |n: usize| u32::try_from(n).expect("counts are small").to_le_bytes();
        put(0, MAGIC);
        put(8, &FORMAT.to_le_bytes());
        put(12, &self.version.unwrap_or_default().0.to_le_bytes());
        put(16, &self.loss.0.to_le_bytes());
        put(20, &u32_of(self.crcs.len()));
        put(24, &handle.0.to_le_bytes());
        put(32, &self.length.to_le_bytes());
        put(40, &u32_of(needed.len()));
        put(44, &u32_of(self.writers.len()));
        for (n, writer) in self.writers.iter().enumerate() {
            put(WRITERS_AT + n * 20, &writer.encode());
        }
        put(CRCS_AT, &encode_table(&self.crcs));
        put(LIST_AT, &encode_table(needed));
        let sum = crc(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// What a header says: the chunk, the target, and which blocks follow.
    fn decode(bytes: &[u8]) -> Option<(ChunkHandle, Target, Vec<u32>)> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes.len() != HEADER_BYTES
            || &bytes[..8] != MAGIC
            || u32_at(8) != FORMAT
            || u32_at(CRC_AT) != crc(&bytes[..CRC_AT])
        {
            return None;
        }
        let (blocks, needed, writers) = (u32_at(20) as usize, u32_at(40) as usize, u32_at(44) as usize);
        let length = u64_at(32);
        if length > CHUNK_BYTES_MAX
            || blocks as u64 != blocks_of(length)
            || needed > blocks
            || writers > WRITERS_MAX
        {
            return None;
        }
        let writer = |n: usize| {
            let at = WRITERS_AT + n * 20;
            Writer {
                writer: WriterId(u64_at(at)),
                sequence: u64_at(at + 8),
                offset: u32_at(at + 16),
            }
        };
        let target = Target {
            version: Some(Version(u32_at(12))),
            loss: Version(u32_at(16)),
            length,
            crcs: decode_table(&bytes[CRCS_AT..CRCS_AT + blocks * 4]),
            writers: (0..writers).map(writer).collect(),
        };
        let list = decode_table(&bytes[LIST_AT..LIST_AT + needed * 4]);
        let in_order = list.is_sorted() && list.iter().all(|b| (*b as usize) < blocks);
        in_order.then_some((ChunkHandle(u64_at(24)), target, list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target() -> Target {
        Target {
            version: Some(Version(4)),
            loss: Version(2),
            length: BLOCK_BYTES + 5,
            crcs: vec![1, 2],
            writers: vec![Writer {
                writer: WriterId(3),
                sequence: 4,
                offset: 5,
            }],
        }
    }

    #[test]
    fn a_staged_header_says_what_was_written_and_every_flip_is_found() {
        let good = target().encode(ChunkHandle(9), &[1]);
        assert_eq!(Target::decode(&good), Some((ChunkHandle(9), target(), vec![1])));
        for byte in 0..HEADER_BYTES {
            let mut bytes = good.clone();
            bytes[byte] ^= 4;
            assert_eq!(Target::decode(&bytes), None, "byte {byte}");
        }
    }

    proptest! {
        #[test]
        fn wrong_fields_under_a_right_checksum_do_not_panic(at in 8usize..CRC_AT - 8, value in any::<u64>()) {
            let mut bytes = target().encode(ChunkHandle(9), &[1]);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let sum = crc(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
            let _ = Target::decode(&bytes);
        }
    }
}
