//! Replicas on disks. Synchronous: everything here runs on the pool, and touches the world through `Disk` only.
//!
//! [`format`] is the file's bytes, [`file`] one replica and the order of its changes, [`apply`] and [`read`] its
//! bytes, [`ready`] and [`install`] how it becomes whole at a version, [`index`] all replicas of a server.

pub mod apply;
mod birth;
mod core;
pub mod error;
pub mod file;
mod fine;
pub mod format;
mod fsynced;
mod graves;
pub mod home;
pub mod identity;
pub mod index;
pub mod install;
pub mod read;
pub mod ready;
mod removal;

pub use apply::Packet;
pub use error::{Error, Result};
pub use file::{Kind, Replica, State, Table};
pub use index::{DiskState, Options, Store};
pub use install::{How, Install, Target};

#[cfg(test)]
mod tests;
