//! The store on a disk in memory whose process dies, whose power is cut, and whose bits rot.

mod crashes;
mod faults;
mod replicas;
mod syncs;

use super::*;
use bytes::Bytes;
use dfs_proto::checksum::of_pieces;
use dfs_proto::{ChunkHandle, NodeId, Version, WriterId};
use dfs_stdx::Rng;
use dfs_stdx::disk::MemDisk;
use std::path::PathBuf;
use std::sync::Arc;

const CHUNK: ChunkHandle = ChunkHandle(0xabc);
const WRITER: WriterId = WriterId(9);
const BLOCK: u64 = dfs_proto::limits::BLOCK_BYTES;

fn options() -> Options {
    Options {
        dirs: vec!["/d".into()],
        notes: Some("/run".into()),
        ..Options::default()
    }
}

fn open(disk: &MemDisk) -> Store {
    try_open(disk).unwrap()
}

fn try_open(disk: &MemDisk) -> Result<Store> {
    Store::open(Arc::new(disk.clone()), &options(), &Rng::seeded(3))
}

fn path() -> PathBuf {
    format!("/d/chunks/bc/{CHUNK}").into()
}

fn create(store: &Store) -> Arc<Replica> {
    store
        .create(CHUNK, Version(1), Version(1), vec![NodeId(1)])
        .unwrap()
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let rng = Rng::seeded(seed);
    let words = (0..length.div_ceil(8)).flat_map(|_| (rng.u64() | 0x0101_0101_0101_0101).to_le_bytes());
    words.take(length).collect()
}

fn packet(sequence: u64, offset: u64, data: &[u8]) -> Packet {
    Packet {
        writer: WRITER,
        sequence,
        offset,
        data: Bytes::copy_from_slice(data),
        checksums: of_pieces(offset, data),
    }
}

fn content(replica: &Replica) -> Vec<u8> {
    let length = replica.state().length;
    replica.read(0..length).unwrap().bytes.to_vec()
}

/// What the bytes become: a gap is zeros.
fn write(model: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + data.len());
    if model.len() < end {
        model.resize(end, 0);
    }
    model[start..end].copy_from_slice(data);
}
