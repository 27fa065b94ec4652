//! Keys of the one tree: a table byte, then ids big-endian, so that ranges are what the state asks for.
//!
//! 0x00 and 0xff belong to the store. docs/formats.md lists the tables in this order.

use dfs_proto::{ChunkHandle, ClientId, InodeId, NodeId};

use super::Key;

/// [`super::records::Cluster`].
pub const CLUSTER: u8 = 0x01;
/// [`super::records::Counters`].
pub const COUNTERS: u8 = 0x02;
/// [`super::records::Keys`].
pub const KEYS: u8 = 0x03;
/// inode -> [`super::records::Inode`].
pub const INODE: u8 = 0x10;
/// parent, name -> [`super::records::Dentry`].
pub const DENTRY: u8 = 0x11;
/// parent, cursor -> name.
pub const CURSOR: u8 = 0x12;
/// inode, offset -> [`super::records::Extent`].
pub const EXTENT: u8 = 0x13;
/// inode, name -> the value itself.
pub const XATTR: u8 = 0x14;
/// inode without a name, client -> nothing: that session may have it open.
pub const HOLDER: u8 = 0x15;
/// inode, family, client, owner, first byte -> [`super::records::Lock`].
pub const LOCK: u8 = 0x16;
/// chunk -> [`super::records::Chunk`].
pub const CHUNK: u8 = 0x20;
/// chunk -> nothing: it has an unfinished proposal.
pub const PROPOSAL: u8 = 0x21;
/// time since when nothing refers to it, chunk -> nothing.
pub const COLLECT: u8 = 0x22;
/// client -> [`super::records::Client`].
pub const CLIENT: u8 = 0x30;
/// nonce -> client, 8 bytes big-endian.
pub const NONCE: u8 = 0x31;
/// client, sequence -> an encoded outcome (`command::outcome_to_bytes`).
pub const RESULT: u8 = 0x32;
/// client, inode without a name -> nothing: the other way round of [`HOLDER`].
pub const HELD: u8 = 0x33;
/// client, inode -> nothing: it has locks there.
pub const LOCKER: u8 = 0x34;
/// node -> [`super::records::Server`].
pub const SERVER: u8 = 0x40;
/// identity -> node, 4 bytes big-endian.
pub const IDENTITY: u8 = 0x41;
/// disk id -> node, 4 bytes big-endian.
pub const DISK: u8 = 0x42;

/// entry of the trash -> [`super::records::Trashed`].
pub const TRASH: u8 = 0x50;
/// time when it is due, entry of the trash -> nothing.
pub const TRASH_DUE: u8 = 0x51;

fn key(table: u8, parts: &[&[u8]]) -> Key {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(table);
    parts.iter().for_each(|p| key.extend_from_slice(p));
    key
}

/// One record of a table that has one.
#[must_use]
pub fn single(table: u8) -> Key {
    vec![table]
}

/// A record of an inode.
#[must_use]
pub fn inode(inode: InodeId) -> Key {
    key(INODE, &[&inode.0.to_be_bytes()])
}

/// A name in a directory.
#[must_use]
pub fn dentry(parent: InodeId, name: &[u8]) -> Key {
    key(DENTRY, &[&parent.0.to_be_bytes(), name])
}

/// A place in the order of a directory.
#[must_use]
pub fn cursor(parent: InodeId, cursor: u64) -> Key {
    key(CURSOR, &[&parent.0.to_be_bytes(), &cursor.to_be_bytes()])
}

/// A slot of a file.
#[must_use]
pub fn extent(inode: InodeId, offset: u64) -> Key {
    key(EXTENT, &[&inode.0.to_be_bytes(), &offset.to_be_bytes()])
}

/// An extended attribute.
#[must_use]
pub fn xattr(inode: InodeId, name: &[u8]) -> Key {
    key(XATTR, &[&inode.0.to_be_bytes(), name])
}

/// A session that keeps a removed inode.
#[must_use]
pub fn holder(inode: InodeId, client: ClientId) -> Key {
    key(HOLDER, &[&inode.0.to_be_bytes(), &client.0.to_be_bytes()])
}

/// A removed inode that a session keeps.
#[must_use]
pub fn held(client: ClientId, inode: InodeId) -> Key {
    key(HELD, &[&client.0.to_be_bytes(), &inode.0.to_be_bytes()])
}

/// A locked range.
#[must_use]
pub fn lock(inode: InodeId, flock: bool, owner: (ClientId, u64), start: u64) -> Key {
    let (client, owner) = (owner.0.0.to_be_bytes(), owner.1.to_be_bytes());
    key(
        LOCK,
        &[
            &inode.0.to_be_bytes(),
            &[u8::from(flock)],
            &client,
            &owner,
            &start.to_be_bytes(),
        ],
    )
}

/// Of a key made by [`lock`]: inode, family, client and owner, first byte.
#[must_use]
pub fn lock_parts(key: &[u8]) -> (InodeId, bool, (ClientId, u64), u64) {
    let owner = (ClientId(number(&key[10..18])), number(&key[18..26]));
    (InodeId(number(&key[1..9])), key[9] != 0, owner, last_number(key))
}

/// The mark of a session's locks on an inode.
#[must_use]
pub fn locker(client: ClientId, inode: InodeId) -> Key {
    key(LOCKER, &[&client.0.to_be_bytes(), &inode.0.to_be_bytes()])
}

/// A record of a chunk.
#[must_use]
pub fn chunk(chunk: ChunkHandle) -> Key {
    key(CHUNK, &[&chunk.0.to_be_bytes()])
}

/// The mark of an unfinished proposal.
#[must_use]
pub fn proposal(chunk: ChunkHandle) -> Key {
    key(PROPOSAL, &[&chunk.0.to_be_bytes()])
}

/// The mark of an unreferenced chunk. Times order also below 1970.
#[must_use]
pub fn collect(since_ns: i64, chunk: ChunkHandle) -> Key {
    let ordered = since_ns.cast_unsigned() ^ (1 << 63);
    key(COLLECT, &[&ordered.to_be_bytes(), &chunk.0.to_be_bytes()])
}

/// Time and chunk of a key made by [`collect`].
#[must_use]
pub fn collect_parts(key: &[u8]) -> (i64, ChunkHandle) {
    let ordered = number(&key[1..9]);
    (
        (ordered ^ (1 << 63)).cast_signed(),
        ChunkHandle(number(&key[9..])),
    )
}

/// A client session.
#[must_use]
pub fn client(client: ClientId) -> Key {
    key(CLIENT, &[&client.0.to_be_bytes()])
}

/// A client session by its nonce.
#[must_use]
pub fn nonce(nonce: u64) -> Key {
    key(NONCE, &[&nonce.to_be_bytes()])
}

/// A remembered result.
#[must_use]
pub fn result(client: ClientId, sequence: u64) -> Key {
    key(RESULT, &[&client.0.to_be_bytes(), &sequence.to_be_bytes()])
}

/// A server.
#[must_use]
pub fn server(node: NodeId) -> Key {
    key(SERVER, &[&node.0.to_be_bytes()])
}

/// A server by its identity.
#[must_use]
pub fn identity(identity: &[u8]) -> Key {
    key(IDENTITY, &[identity])
}

/// A server by one of its disks.
#[must_use]
pub fn disk(disk: &[u8]) -> Key {
    key(DISK, &[disk])
}

/// What is in the trash.
#[must_use]
pub fn trash(entry: u64) -> Key {
    key(TRASH, &[&entry.to_be_bytes()])
}

/// The mark of when it goes. Times order also below 1970.
#[must_use]
pub fn trash_due(due_ns: i64, entry: u64) -> Key {
    let ordered = due_ns.cast_unsigned() ^ (1 << 63);
    key(TRASH_DUE, &[&ordered.to_be_bytes(), &entry.to_be_bytes()])
}

/// All keys of a table that begin with this id.
#[must_use]
pub fn under(table: u8, id: u64) -> Key {
    key(table, &[&id.to_be_bytes()])
}

/// The big-endian number that is the whole of `bytes` (at most eight).
///
/// # Panics
/// If there are more.
#[must_use]
pub fn number(bytes: &[u8]) -> u64 {
    assert!(bytes.len() <= 8, "a number of {} bytes", bytes.len());
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// The last eight bytes of a key: the offset of an extent, a cursor, a sequence, an id.
///
/// # Panics
/// If the key is shorter.
#[must_use]
pub fn last_number(key: &[u8]) -> u64 {
    number(&key[key.len() - 8..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_order_as_numbers() {
        assert!(inode(InodeId(255)) < inode(InodeId(256)));
        assert!(extent(InodeId(1), u64::MAX) < extent(InodeId(2), 0));
        assert!(collect(-1, ChunkHandle(9)) < collect(0, ChunkHandle(1)));
    }

    #[test]
    fn a_key_tells_its_parts() {
        for since in [i64::MIN, -5, 0, 7, i64::MAX] {
            assert_eq!(
                collect_parts(&collect(since, ChunkHandle(3))),
                (since, ChunkHandle(3))
            );
        }
        assert_eq!(last_number(&extent(InodeId(4), 65_536)), 65_536);
        let owner = (ClientId(5), u64::MAX);
        assert_eq!(
            lock_parts(&lock(InodeId(4), true, owner, 9)),
            (InodeId(4), true, owner, 9)
        );
    }

    #[test]
    fn keys_have_golden_bytes() {
        assert_eq!(inode(InodeId(1)), [0x10, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(dentry(InodeId(1), b"a"), [0x11, 0, 0, 0, 0, 0, 0, 0, 1, b'a']);
        assert_eq!(server(NodeId(2)), [0x40, 0, 0, 0, 2]);
        assert_eq!(
            lock(InodeId(1), false, (ClientId(2), 3), 4),
            [
                0x16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0,
                0, 0, 0, 4
            ]
        );
    }
}
