//! The cluster itself: its birth and the keys that sign its capabilities.

use dfs_proto::{Code, Error, InodeId, Result, limits};

use super::access::MODE_BITS;
use super::context::Context;
use super::tables;
use crate::command::{Done, Genesis, Reply, RotateKey};
use crate::store::records::{Cluster, Counters, Inode, Key, Keys, Kind};
use crate::store::{Read, keys};

/// Length of a cluster's id, bytes.
const CLUSTER_BYTES: usize = 16;
/// Length of a key's secret, bytes.
const SECRET_BYTES: usize = 32;
/// Keys that count: the newest and the one before it.
const KEYS_MAX: usize = 2;

/// The keys that count, newest first, and when the newest one came.
#[must_use]
pub fn signing_keys(read: &dyn Read) -> Keys {
    tables::load(read, &keys::single(keys::KEYS)).unwrap_or_default()
}

pub(super) fn genesis(ctx: &mut Context<'_, '_>, born: &Genesis) -> Result<Reply> {
    if tables::cluster(ctx.txn).is_some() {
        return Err(Error::new(Code::AlreadyExists, "the cluster is born"));
    }
    let parameters = born.parameters.unwrap_or_default();
    if born.cluster.len() != CLUSTER_BYTES || !limits::Parameters::from(parameters).are_valid() {
        return Err(Error::new(
            Code::InvalidArgument,
            "no cluster can live with these parameters",
        ));
    }
    let cluster = Cluster {
        id: born.cluster.clone(),
        parameters,
        born_ns: ctx.now_ns,
    };
    tables::save(ctx.txn, keys::single(keys::CLUSTER), &cluster);
    let counters = Counters {
        next_inode: InodeId::ROOT.0 + 1,
        next_chunk: 1,
        next_client: 1,
        next_node: 1,
        directories: 1,
        ..Counters::default()
    };
    tables::save(ctx.txn, keys::single(keys::COUNTERS), &counters);
    let root = Inode {
        kind: Kind::Directory as i32,
        mode: born.mode & MODE_BITS,
        uid: born.uid,
        gid: born.gid,
        nlink: 2,
        atime_ns: ctx.now_ns,
        mtime_ns: ctx.now_ns,
        ctime_ns: ctx.now_ns,
        change: 1,
        parent: InodeId::ROOT.0,
        ..Inode::default()
    };
    tables::save_inode(ctx.txn, InodeId::ROOT, &root);
    Ok(Reply::Done(Done::default()))
}

pub(super) fn rotate_key(ctx: &mut Context<'_, '_>, new: &RotateKey) -> Result<Reply> {
    let mut all = signing_keys(ctx.txn);
    let next = all.keys.first().map_or(1, |k| k.id + 1);
    if new.id != next {
        return Err(Error::new(Code::Stale, format!("the next key is number {next}")));
    }
    if new.secret.len() != SECRET_BYTES {
        return Err(Error::new(Code::InvalidArgument, "a key has 32 bytes"));
    }
    let key = Key {
        id: new.id,
        secret: new.secret.clone(),
    };
    all.keys.insert(0, key);
    all.keys.truncate(KEYS_MAX);
    all.rotated_ns = ctx.now_ns;
    tables::save(ctx.txn, keys::single(keys::KEYS), &all);
    Ok(Reply::Done(Done::default()))
}
