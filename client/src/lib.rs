//! The client library of dfs: what programs embed to read and write files.

mod client;
mod convert;
mod file;
mod inodes;
mod settings;
mod types;

pub use client::Client;
pub use dfs_proto::capability::Member;
pub use dfs_proto::{ChunkHandle, Code, Error, InodeId, NodeId, Result, Retry, Version};
pub use file::{File, Handle};
pub use inodes::{Inodes, Make};
pub use settings::{OpenOptions, Settings};
pub use types::*;
