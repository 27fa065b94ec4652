//! The truth: names, files, chunks, sessions and servers as hard facts, and what commands make of them.
//!
//! Pure: [`apply`] reads and writes one transaction and knows nothing else, so that two runs of one log give the same
//! bytes. Questions are plain functions over [`crate::store::Read`]. Who is alive, who may write just now and which
//! replica is where are soft facts and live elsewhere; when something is done is the steward's business.

mod access;
mod apply;
mod attributes;
mod check;
mod chunks;
mod clients;
mod cluster;
mod context;
mod effects;
mod entries;
mod files;
mod goals;
mod locks;
mod lookup;
mod make;
mod names;
mod orphans;
mod paths;
mod purge;
mod records;
mod rename;
mod servers;
mod slots;
mod tables;
mod trash;
mod xattrs;

pub use access::{Access, check_access};
pub use apply::{apply, apply_seen};
pub use check::check;
pub use clients::{client, client_by_nonce, clients, stored_outcome};
pub use cluster::signing_keys;
pub use effects::{Effect, effects};
pub use goals::chunk;
pub use locks::{Owner, lock_conflict, locked_inodes, would_deadlock};
pub use lookup::{
    ENTRIES_MAX, Entry, Page, PageRequest, Resolved, SYMLINKS_MAX, get_attributes, lookup, read_directory,
    read_link, resolve,
};
pub use orphans::{dying, held, holders};
pub use paths::{Named, directory_path, names_of};
pub use purge::{MayEmpty, Walk, directory_in, may_empty, purgeable};
pub use records::record_slot;
pub use servers::{server_by_disk, server_by_identity, servers};
pub use slots::{
    EXTENTS_MAX, Located, Location, chunks_after, locate, proposals_after, unreferenced_before, writable_slot,
};
pub use tables::{cluster, counters, inode, parameters, server};
pub use trash::{retention, trash_directory, trash_due, trashed_after};
pub use xattrs::{get_xattr, list_xattr};

#[cfg(test)]
mod tests;
