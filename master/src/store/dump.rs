//! Dumps: all entries of a store at one applied index, in one file that outlives any store.
//!
//! A file is a header, blocks of entries in key order, and a footer that counts them (docs/formats.md). It is written
//! under another name, synced and renamed: a file with a dump's name is whole, or rotten, and says which.
//! The newest dump and the log from there on are the state; the one before it is kept in case the newest rots.

use bytes::{Buf, BufMut};
use dfs_proto::ids::ClusterId;
use dfs_stdx::disk::{self, Disk, File, Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Pair;

/// First bytes of a dump.
pub const MAGIC: [u8; 8] = *b"dfs.dump";
/// Version of the layout.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes before a block's entries, and before the footer's fields.
pub const BLOCK_HEADER_BYTES: usize = 8;
/// Bytes of the footer's fields.
pub const FOOTER_BYTES: usize = 20;
/// A block is written when it has so many bytes.
const BLOCK_BYTES: usize = 256 * 1024;
/// Longest block that is read: one that was nearly full, and the largest entry.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Name of a dump that is being written.
const UNFINISHED: &str = "dump.tmp";
/// How many dumps are kept.
const KEPT: usize = 2;

/// What a dump cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk fails.
    #[error("a dump cannot be read or written: {0}")]
    Disk(#[from] disk::Error),
    /// The file is not what was written.
    #[error("the dump {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// Result of dumps.
pub type Result<T> = std::result::Result<T, Error>;

/// What a dump says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Index of the last command in it.
    pub applied: u64,
    /// A term no greater was given to any record up to `applied`.
    pub term: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_slice(&self.cluster.0);
        out.put_u64_le(self.applied);
        out.put_u64_le(self.term);
        out.put_bytes(0, HEADER_BYTES - 4 - out.len());
        out.put_u32_le(crc32fast::hash(&out));
        out.try_into().expect("the fields and the padding fill it")
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> std::result::Result<Header, &'static str> {
        let (mut fields, mut crc) = bytes.split_at(HEADER_BYTES - 4);
        if crc.get_u32_le() != crc32fast::hash(fields) || fields[..8] != MAGIC {
            return Err("its header fails its checksum");
        }
        fields.advance(8);
        if fields.get_u32_le() != FORMAT_VERSION {
            return Err("its format is of another version than this program's");
        }
        let mut cluster = ClusterId::default();
        fields.copy_to_slice(&mut cluster.0);
        Ok(Header {
            cluster,
            applied: fields.get_u64_le(),
            term: fields.get_u64_le(),
        })
    }
}

/// What the footer compares: counts, and a checksum over all checksums, so that no block can be missing or moved.
#[derive(Clone, Debug, Default)]
struct Tally {
    entries: u64,
    blocks: u64,
    digest: crc32fast::Hasher,
}

impl Tally {
    fn of(header: &[u8; HEADER_BYTES]) -> Tally {
        let mut tally = Tally::default();
        tally.digest.update(&header[HEADER_BYTES - 4..]);
        tally
    }

    fn block(&mut self, entries: u64, crc: u32) {
        self.entries += entries;
        self.blocks += 1;
        self.digest.update(&crc.to_le_bytes());
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.put_u64_le(self.entries);
        out.put_u64_le(self.blocks);
        out.put_u32_le(self.digest.clone().finalize());
        out
    }
}

fn framed(length: usize, body: &[u8]) -> (Vec<u8>, u32) {
    let length = u32::try_from(length)
        .expect("a block is far below 4 GiB")
        .to_le_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(body);
    let crc = hasher.finalize();
    let mut out = Vec::with_capacity(BLOCK_HEADER_BYTES + body.len());
    out.put_slice(&length);
    out.put_u32_le(crc);
    out.put_slice(body);
    (out, crc)
}

/// A dump that is being written. Dropped before [`Writer::finish`], it never was one.
#[derive(Debug)]
pub struct Writer {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    file: Arc<dyn File>,
    header: Header,
    length: u64,
    block: Vec<u8>,
    block_entries: u64,
    tally: Tally,
}

impl Writer {
    /// Begins a dump in `folder`.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn begin(disk: Arc<dyn Disk>, folder: &Path, header: Header) -> Result<Writer> {
        disk.create_dir_all(folder)?;
        let file = disk.open(&folder.join(UNFINISHED), Open::Always)?;
        file.set_length(0)?;
        let bytes = header.encode();
        file.write_at(&bytes, 0)?;
        Ok(Writer {
            disk,
            folder: folder.to_owned(),
            file,
            header,
            length: HEADER_BYTES as u64,
            block: Vec::new(),
            block_entries: 0,
            tally: Tally::of(&bytes),
        })
    }

    /// Adds an entry; they come in key order.
    ///
    /// # Errors
    /// If the disk fails.
    ///
    /// # Panics
    /// If the key has 64 KiB or more.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.block
            .put_u16_le(u16::try_from(key.len()).expect("keys are short"));
        self.block
            .put_u32_le(u32::try_from(value.len()).expect("values are short"));
        self.block.put_slice(key);
        self.block.put_slice(value);
        self.block_entries += 1;
        if self.block.len() >= BLOCK_BYTES {
            self.write_block()
        } else {
            Ok(())
        }
    }

    fn write_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let (bytes, crc) = framed(self.block.len(), &self.block);
        self.file.write_at(&bytes, self.length)?;
        self.length += bytes.len() as u64;
        self.tally.block(self.block_entries, crc);
        self.block.clear();
        self.block_entries = 0;
        Ok(())
    }

    /// Makes the dump durable, gives it its name and removes all but the newest. Returns what is there then.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(mut self) -> Result<Vec<Found>> {
        self.write_block()?;
        let (bytes, _) = framed(0, &self.tally.encode());
        self.file.write_at(&bytes, self.length)?;
        self.file.sync_data()?;
        let path = self.folder.join(format!("{:020}.dump", self.header.applied));
        self.disk.rename(&self.folder.join(UNFINISHED), &path)?;
        self.disk.sync_dir(&self.folder)?;
        let mut found = list(&*self.disk, &self.folder)?;
        for old in found.drain(KEPT.min(found.len())..) {
            self.disk.remove(&old.path)?;
        }
        Ok(found)
    }
}

/// A dump in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index of the last command in it, by its name.
    pub applied: u64,
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// The dumps of a folder, newest first. None if there is no such folder.
///
/// # Errors
/// If the disk fails.
pub fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<Found>> {
    if !disk.exists(folder)? {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for name in disk.list(folder)?.iter().rev() {
        if let Some(applied) = name.strip_suffix(".dump").and_then(|index| index.parse().ok()) {
            let path = folder.join(name);
            let bytes = disk.open(&path, Open::ReadOnly)?.length()?;
            found.push(Found { applied, path, bytes });
        }
    }
    Ok(found)
}

/// A dump that is being read.
#[derive(Debug)]
pub struct Reader {
    file: Arc<dyn File>,
    path: PathBuf,
    header: Header,
    at: u64,
    tally: Tally,
    ended: bool,
}

impl Reader {
    /// Opens a dump.
    ///
    /// # Errors
    /// If the disk fails or the header is damaged.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Reader> {
        let file = disk.open(path, Open::ReadOnly)?;
        let mut bytes = [0; HEADER_BYTES];
        let damaged = |what| Error::Damaged {
            path: path.to_owned(),
            what,
        };
        if file.read_at(&mut bytes, 0)? < HEADER_BYTES {
            return Err(damaged("its header is cut short"));
        }
        let header = Header::decode(&bytes).map_err(damaged)?;
        let tally = Tally::of(&bytes);
        Ok(Reader {
            file,
            path: path.to_owned(),
            header,
            at: HEADER_BYTES as u64,
            tally,
            ended: false,
        })
    }

    /// What the dump says of itself.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// The entries of the next block; `None` behind the last one, once the footer has proved that none is missing.
    ///
    /// # Errors
    /// If the disk fails or the dump is damaged: what was read before is of no use.
    pub fn next_block(&mut self) -> Result<Option<Vec<Pair>>> {
        if self.ended {
            return Ok(None);
        }
        let mut bytes = self.read(BLOCK_HEADER_BYTES)?;
        let mut head = bytes.as_slice();
        let (length, crc) = (head.get_u32_le() as usize, head.get_u32_le());
        if length > BLOCK_BYTES_MAX {
            return Err(self.damaged("a block has a wild length"));
        }
        let body = self.read(if length == 0 { FOOTER_BYTES } else { length })?;
        bytes.truncate(4);
        bytes.extend(&body);
        if crc32fast::hash(&bytes) != crc {
            return Err(self.damaged("a block fails its checksum"));
        }
        if length == 0 {
            return self.check_footer(&body).map(|()| None);
        }
        let entries = entries(&body).ok_or_else(|| self.damaged("a block's entries do not fill it"))?;
        self.tally.block(entries.len() as u64, crc);
        Ok(Some(entries))
    }

    fn check_footer(&mut self, footer: &[u8]) -> Result<()> {
        if footer != self.tally.encode() || self.file.length()? != self.at {
            return Err(self.damaged("its footer does not fit its blocks"));
        }
        self.ended = true;
        Ok(())
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        if self.file.read_at(&mut bytes, self.at)? < length {
            return Err(self.damaged("it is cut short"));
        }
        self.at += length as u64;
        Ok(bytes)
    }

    fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            what,
        }
    }
}

fn entries(mut body: &[u8]) -> Option<Vec<Pair>> {
    let mut entries = Vec::new();
    while !body.is_empty() {
        let (mut head, rest) = body.split_at_checked(6)?;
        let (key_bytes, value_bytes) = (head.get_u16_le() as usize, head.get_u32_le() as usize);
        let (key, rest) = rest.split_at_checked(key_bytes)?;
        let (value, rest) = rest.split_at_checked(value_bytes)?;
        entries.push((key.to_vec(), value.to_vec()));
        body = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_stdx::disk::{Fault, MemDisk};

    const HEADER: Header = Header {
        cluster: ClusterId([7; 16]),
        applied: 9,
        term: 2,
    };

    fn pairs(count: u16) -> Vec<Pair> {
        (0..count)
            .map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 900]))
            .collect()
    }

    fn dumped(disk: &MemDisk, header: Header, pairs: &[Pair]) -> Result<Vec<Found>> {
        let mut writer = Writer::begin(Arc::new(disk.clone()), Path::new("/dumps"), header)?;
        for (key, value) in pairs {
            writer.add(key, value)?;
        }
        writer.finish()
    }

    fn read(disk: &MemDisk, path: &Path) -> Result<Vec<Pair>> {
        let mut reader = Reader::open(disk, path)?;
        let mut all = Vec::new();
        while let Some(block) = reader.next_block()? {
            all.extend(block);
        }
        assert_eq!(reader.next_block()?, None);
        Ok(all)
    }

    #[test]
    fn a_dump_gives_back_what_went_in_over_several_blocks() {
        let disk = MemDisk::new();
        let found = dumped(&disk, HEADER, &pairs(700)).unwrap();
        assert_eq!(read(&disk, &found[0].path).unwrap(), pairs(700));
        assert_eq!(Reader::open(&disk, &found[0].path).unwrap().header(), HEADER);
        assert!(found[0].bytes > 2 * BLOCK_BYTES as u64);
    }

    #[test]
    fn the_two_newest_are_kept() {
        let disk = MemDisk::new();
        for applied in [3, 5, 12] {
            dumped(&disk, Header { applied, ..HEADER }, &[]).unwrap();
        }
        let found = list(&disk, Path::new("/dumps")).unwrap();
        assert_eq!(found.iter().map(|dump| dump.applied).collect::<Vec<_>>(), [12, 5]);
        assert_eq!(read(&disk, &found[0].path).unwrap(), []);
        assert_eq!(list(&disk, Path::new("/none")).unwrap(), []);
    }

    #[test]
    fn the_bytes_of_a_dump_are_these() {
        let disk = MemDisk::new();
        let found = dumped(&disk, HEADER, &[(b"k".to_vec(), b"vw".to_vec())]).unwrap();
        let mut header = b"dfs.dump\x01\0\0\0".to_vec();
        header.extend([7; 16]);
        header.extend([9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        header.extend([0; 16]);
        let header_crc = crc32fast::hash(&header).to_le_bytes();
        let block = b"\x01\0\x02\0\0\0kvw";
        let block_crc = crc32fast::hash(&[&[9, 0, 0, 0], block.as_slice()].concat()).to_le_bytes();
        let digest = crc32fast::hash(&[header_crc, block_crc].concat()).to_le_bytes();
        let footer = [
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            digest.as_slice(),
        ]
        .concat();
        let footer_crc = crc32fast::hash(&[[0; 4].as_slice(), &footer].concat()).to_le_bytes();
        let parts: [&[u8]; 8] = [
            &header,
            &header_crc,
            &[9, 0, 0, 0],
            &block_crc,
            block,
            &[0; 4],
            &footer_crc,
            &footer,
        ];
        let mut bytes = vec![0; usize::try_from(found[0].bytes).unwrap()];
        disk.open(&found[0].path, Open::ReadOnly)
            .unwrap()
            .read_at(&mut bytes, 0)
            .unwrap();
        assert_eq!(bytes, parts.concat());
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let disk = MemDisk::new();
        let found = dumped(&disk, HEADER, &pairs(3)).unwrap();
        let path = &found[0].path;
        for offset in 0..found[0].bytes {
            assert!(disk.rot(path, offset, 2));
            assert!(
                matches!(read(&disk, path), Err(Error::Damaged { .. })),
                "flip at {offset}"
            );
            assert!(disk.rot(path, offset, 2));
        }
        assert_eq!(read(&disk, path).unwrap(), pairs(3));
        let file = disk.open(path, Open::Existing).unwrap();
        for length in (0..found[0].bytes).rev() {
            file.set_length(length).unwrap();
            assert!(
                matches!(read(&disk, path), Err(Error::Damaged { .. })),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn a_dump_that_fails_leaves_the_older_ones() {
        let disk = MemDisk::new();
        dumped(&disk, HEADER, &pairs(3)).unwrap();
        for operation in ["write_at", "sync_data", "rename", "sync_dir"] {
            disk.fault(Fault::io(operation).times(1));
            assert!(
                dumped(
                    &disk,
                    Header {
                        applied: 20,
                        ..HEADER
                    },
                    &pairs(2)
                )
                .is_err(),
                "{operation}"
            );
            let oldest = list(&disk, Path::new("/dumps")).unwrap().pop().unwrap();
            assert_eq!(read(&disk, &oldest.path).unwrap(), pairs(3));
        }
    }
}
