//! Chunkservers as hard facts: who they are, where, which disks failed for good. Who is alive is not known here.

use dfs_proto::{Code, Error, NodeId, Result};

use super::context::Context;
use super::tables;
use crate::command::{DiskFailed, Done, RegisterServer, RemoveServer, Reply, ServerRegistered};
use crate::store::records::{Disk, Server};
use crate::store::{Read, Txn, keys};

/// Length of the identity of a server and of a disk, bytes.
const IDENTITY_BYTES: usize = 16;
/// Disks a server may ever have had.
const DISKS_MAX: usize = 256;
/// Longest address, label and path, bytes.
const LABEL_BYTES_MAX: usize = 4_096;

/// All servers, removed ones too.
#[must_use]
pub fn servers(read: &dyn Read) -> Vec<(NodeId, Server)> {
    read.scan_prefix(&[keys::SERVER])
        .map(|(key, value)| (node_of(&key[1..]), tables::decode(&value)))
        .collect()
}

/// The server with this identity.
#[must_use]
pub fn server_by_identity(read: &dyn Read, identity: &[u8]) -> Option<NodeId> {
    read.get(&keys::identity(identity)).map(|bytes| node_of(&bytes))
}

/// The server that brought this disk.
#[must_use]
pub fn server_by_disk(read: &dyn Read, disk: &[u8]) -> Option<NodeId> {
    read.get(&keys::disk(disk)).map(|bytes| node_of(&bytes))
}

fn node_of(bytes: &[u8]) -> NodeId {
    NodeId(u32::try_from(keys::number(bytes)).expect("a node's number has four bytes"))
}

fn known(read: &dyn Read, node: NodeId) -> Result<Server> {
    tables::server(read, node)
        .ok_or_else(|| Error::new(Code::NotFound, format!("no server has number {node}")).on_node(node))
}

pub(super) fn register(ctx: &mut Context<'_, '_>, asked: &RegisterServer) -> Result<Reply> {
    check_shape(asked)?;
    let node = match server_by_identity(ctx.txn, &asked.identity) {
        Some(node) => node,
        None => number_new(ctx, asked)?,
    };
    let mut server = tables::server(ctx.txn, node).unwrap_or_default();
    if server.removed {
        return Err(Error::new(Code::NotPermitted, format!("server {node} was removed")).on_node(node));
    }
    server.identity = asked.identity.clone();
    server.addr = asked.addr.clone();
    server.host = asked.host.clone();
    server.rack = asked.rack.clone();
    for disk in &asked.disks {
        take_disk(ctx.txn, node, &mut server, disk)?;
    }
    tables::save(ctx.txn, keys::server(node), &server);
    Ok(Reply::Server(ServerRegistered { node: node.0 }))
}

fn check_shape(asked: &RegisterServer) -> Result<()> {
    let labels = [&asked.addr, &asked.host, &asked.rack];
    let fits = asked.identity.len() == IDENTITY_BYTES
        && asked.disks.len() <= DISKS_MAX
        && asked
            .disks
            .iter()
            .all(|d| d.id.len() == IDENTITY_BYTES && d.path.len() <= LABEL_BYTES_MAX)
        && labels.iter().all(|l| l.len() <= LABEL_BYTES_MAX)
        && !asked.addr.is_empty();
    if fits {
        Ok(())
    } else {
        Err(Error::new(
            Code::InvalidArgument,
            "a server needs an identity and an address",
        ))
    }
}

/// A server that was never seen; the one it replaces never comes back.
fn number_new(ctx: &mut Context<'_, '_>, asked: &RegisterServer) -> Result<NodeId> {
    if asked.replace {
        let replaced = servers(ctx.txn)
            .into_iter()
            .find(|(_, s)| s.addr == asked.addr && !s.removed);
        if let Some((node, mut server)) = replaced {
            server.removed = true;
            tables::save(ctx.txn, keys::server(node), &server);
        }
    }
    let mut node = 0;
    tables::count(ctx.txn, |c| {
        node = c.next_node;
        c.next_node += 1;
    });
    ctx.txn.put(keys::identity(&asked.identity), node.to_be_bytes());
    Ok(NodeId(node))
}

fn take_disk(txn: &mut Txn<'_>, node: NodeId, server: &mut Server, disk: &Disk) -> Result<()> {
    match server_by_disk(txn, &disk.id) {
        Some(other) if other != node => Err(Error::new(
            Code::InvalidArgument,
            format!("{} is a copy of a disk of server {other}", disk.path),
        )
        .on_node(other)),
        Some(_) => {
            let known = server
                .disks
                .iter_mut()
                .find(|d| d.id == disk.id)
                .expect("the index of disks and the servers agree");
            known.path = disk.path.clone();
            known.failed |= disk.failed;
            Ok(())
        }
        None if server.disks.len() == DISKS_MAX => {
            Err(Error::new(Code::TooLarge, "the server had too many disks").on_node(node))
        }
        None => {
            txn.put(keys::disk(&disk.id), node.0.to_be_bytes());
            server.disks.push(disk.clone());
            Ok(())
        }
    }
}

pub(super) fn disk_failed(ctx: &mut Context<'_, '_>, failed: &DiskFailed) -> Result<Reply> {
    let node = NodeId(failed.node);
    let mut server = known(ctx.txn, node)?;
    let disk = server.disks.iter_mut().find(|d| d.id == failed.disk);
    let disk = disk.ok_or_else(|| Error::new(Code::NotFound, "the server has no such disk").on_node(node))?;
    disk.failed = true;
    tables::save(ctx.txn, keys::server(node), &server);
    Ok(Reply::Done(Done::default()))
}

pub(super) fn remove(ctx: &mut Context<'_, '_>, gone: &RemoveServer) -> Result<Reply> {
    let node = NodeId(gone.node);
    let mut server = known(ctx.txn, node)?;
    server.removed = true;
    tables::save(ctx.txn, keys::server(node), &server);
    Ok(Reply::Done(Done::default()))
}
