//! The mount: a POSIX file system over the client library.
//!
//! * [`vfs`] is the file system: async, without a word of the kernel's, tested without it.
//! * [`mount`] is a mount's life. Between it and the file system stands the edge: `filesystem` decodes the kernel's
//!   requests and replies to them, `desk` and `parked` wait for what cannot be answered at once, `interrupt` looks whether
//!   the program that waits is still willing to, `notify` tells the kernel what to forget.
//! * [`options`] is what `-o` understands, [`stats`] and [`metrics`] say what a mount has done.

mod attr;
mod caller;
mod capabilities;
mod decode;
mod desk;
mod device;
mod dotstats;
mod errno;
mod filesystem;
mod interrupt;
mod listing;
pub mod metrics;
pub mod mount;
pub mod mounts;
mod notify;
pub mod options;
mod parked;
pub mod stats;
pub mod vfs;

pub use device::{remount, unmount};
pub use dotstats::NAME as STATS_FILE;
pub use mount::{Error, Mounted, Settings};
pub use options::Options;
