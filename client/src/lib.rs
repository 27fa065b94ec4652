//! The client library of dfs: what programs embed to read and write files.
//!
//! A client asks the master *where* and moves bytes with chunkservers *itself*. Bytes get their checksums at the moment
//! of the write, and these are checked again at the moment of the read. A server that dies in between is a pause, not
//! an error.
//!
//! ```no_run
//! # async fn run() -> dfs_client::Result<()> {
//! use bytes::Bytes;
//! use dfs_client::{Client, OpenOptions};
//!
//! let client = Client::connect("127.0.0.1:7700").await?;
//!
//! // Write, durable on all replicas when `close` returns.
//! let mut file = client.create("/hello").await?;
//! file.write_bytes(Bytes::from_static(b"hello, world")).await?;
//! file.close().await?;
//!
//! // Read by offset.
//! let mut file = client.open("/hello").await?;
//! assert_eq!(&file.read_at(7, 5).await?[..], b"world");
//!
//! // Overwrite in the middle.
//! let mut file = client.open_with("/hello", OpenOptions::new().write(true)).await?;
//! file.write_at(7, Bytes::from_static(b"there")).await?;
//! file.close().await?;
//!
//! // What a MapReduce asks: which ranges, and where they are.
//! for split in client.splits("/hello", 64 << 20).await? {
//!     println!("{} + {} on {:?}", split.offset, split.length, split.hosts);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every call ends within its deadline (30 s unless [`Settings`] say otherwise) with a result or a typed [`Error`],
//! whose [`Code`] says what happened. Changes of names and attributes happen exactly once, whatever is retried.
//!
//! * [`Client`]: paths in, results out; [`File`]: tokio's `AsyncRead`, `AsyncWrite`, `AsyncSeek`.
//! * [`Inodes`] and [`Handle`]: the same by inode and offset, for a mount or a gateway.
//!
//! What this library does not do: it keeps no data (readahead ends with the file), and it does not order the writes of
//! several appending clients.

mod ahead;
mod append;
mod cache;
mod client;
mod convert;
mod engine;
#[cfg(test)]
mod fake;
mod file;
mod held;
mod inodes;
mod master;
mod meter;
mod operate;
mod plan;
mod read;
mod servers;
mod session;
mod settings;
mod splits;
mod stream;
mod trash;
mod types;
mod watch;
mod write;

pub use append::Appended;
pub use client::Client;
pub use dfs_proto::capability::Member;
pub use dfs_proto::{ChunkHandle, ClientId, Code, Error, InodeId, NodeId, Result, Retry, Version};
pub use file::Handle;
pub use inodes::{Inodes, Make};
pub use read::Follow;
pub use settings::{OpenOptions, Settings};
pub use stream::File;
pub use types::*;
pub use watch::{Watch, WatchControl};
pub use write::Delivery;
