//! A seeded world: one master, some chunkservers and clients, the real code on a simulated network, disks in memory,
//! virtual time. One seed gives one history.
//!
//! A run has two phases: while the clients work, faults land as the schedule says; then faults stop, everything is
//! started and joined again, and the world **must** converge: acknowledged writes are there, members are identical.

pub mod net;
pub mod oracle;
pub mod schedule;
pub mod watchers;
pub mod world;
pub mod writers;

pub use net::SimNet;
pub use schedule::{Landed, Schedule};
pub use world::{History, Node, SimWorld};
