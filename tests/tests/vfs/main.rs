//! The mount's file system without the kernel, against a cluster in this process; several mounts see each other.

mod cluster;
mod model;
mod operations;
mod together;
