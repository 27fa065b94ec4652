//! Records by their ids. What the store holds was written here, so a record that does not decode is a broken invariant.

use dfs_proto::{ChunkHandle, Code, Error, InodeId, NodeId, Result, limits};

use crate::store::records::{Chunk, Cluster, Counters, Dentry, Extent, Inode, Kind, Server};
use crate::store::{Read, Txn, keys};

pub(super) fn decode<M: prost::Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("the store holds only records the state wrote")
}

pub(super) fn load<M: prost::Message + Default>(read: &dyn Read, key: &[u8]) -> Option<M> {
    read.get(key).map(|bytes| decode(&bytes))
}

pub(super) fn save(txn: &mut Txn<'_>, key: Vec<u8>, record: &impl prost::Message) {
    txn.put(key, record.encode_to_vec());
}

/// The cluster and what it was born with; `None` before genesis.
#[must_use]
pub fn cluster(read: &dyn Read) -> Option<Cluster> {
    load(read, &keys::single(keys::CLUSTER))
}

/// What the cluster was born with.
///
/// # Panics
/// Before genesis: it is the first command of every log.
#[must_use]
pub fn parameters(read: &dyn Read) -> limits::Parameters {
    cluster(read)
        .expect("genesis is the first command of every log")
        .parameters
        .into()
}

/// The next free ids, and how many files, directories and chunks there are.
#[must_use]
pub fn counters(read: &dyn Read) -> Counters {
    load(read, &keys::single(keys::COUNTERS)).unwrap_or_default()
}

pub(super) fn count(txn: &mut Txn<'_>, change: impl FnOnce(&mut Counters)) {
    let mut counters = counters(txn);
    change(&mut counters);
    save(txn, keys::single(keys::COUNTERS), &counters);
}

/// The record of an inode.
///
/// # Errors
/// `NotFound`.
pub fn inode(read: &dyn Read, id: InodeId) -> Result<Inode> {
    load(read, &keys::inode(id)).ok_or_else(|| Error::new(Code::NotFound, ""))
}

/// An inode that a dentry or a chunk names: it must be there.
pub(super) fn known_inode(read: &dyn Read, id: InodeId) -> Inode {
    load(read, &keys::inode(id)).unwrap_or_else(|| panic!("inode {id} is referred to and not there"))
}

pub(super) fn save_inode(txn: &mut Txn<'_>, id: InodeId, inode: &Inode) {
    save(txn, keys::inode(id), inode);
}

/// Changes a record that must be there.
pub(super) fn edit_inode(txn: &mut Txn<'_>, id: InodeId, change: impl FnOnce(&mut Inode)) {
    let mut inode = known_inode(txn, id);
    change(&mut inode);
    save_inode(txn, id, &inode);
}

pub(super) fn directory(read: &dyn Read, id: InodeId) -> Result<Inode> {
    let found = inode(read, id)?;
    if found.kind() == Kind::Directory {
        Ok(found)
    } else {
        Err(Code::NotADirectory.into())
    }
}

pub(super) fn file(read: &dyn Read, id: InodeId) -> Result<Inode> {
    let found = inode(read, id)?;
    match found.kind() {
        Kind::File => Ok(found),
        Kind::Directory => Err(Code::IsADirectory.into()),
        Kind::Unspecified
        | Kind::Symlink
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharacterDevice
        | Kind::BlockDevice => Err(Error::new(Code::InvalidArgument, "not a regular file")),
    }
}

pub(super) fn dentry(read: &dyn Read, parent: InodeId, name: &[u8]) -> Option<Dentry> {
    load(read, &keys::dentry(parent, name))
}

pub(super) fn extent(read: &dyn Read, inode: InodeId, offset: u64) -> Option<Extent> {
    load(read, &keys::extent(inode, offset))
}

/// The record of a chunk.
#[must_use]
pub(super) fn chunk(read: &dyn Read, handle: ChunkHandle) -> Option<Chunk> {
    load(read, &keys::chunk(handle))
}

/// A chunk that an extent refers to: it must be there.
pub(super) fn known_chunk(read: &dyn Read, handle: ChunkHandle) -> Chunk {
    chunk(read, handle).unwrap_or_else(|| panic!("chunk {handle} is referred to and not there"))
}

pub(super) fn save_chunk(txn: &mut Txn<'_>, handle: ChunkHandle, chunk: &Chunk) {
    save(txn, keys::chunk(handle), chunk);
}

/// The record of a server.
#[must_use]
pub fn server(read: &dyn Read, node: NodeId) -> Option<Server> {
    load(read, &keys::server(node))
}
