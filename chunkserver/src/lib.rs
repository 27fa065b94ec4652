//! A chunkserver: a careful disk with a chain on top.
//!
//! Order of reading: [`rpc`] (streams in, streams out), [`chain`] (one chunk's life), [`store`] (files), and beside
//! them the session with the master. It asks nobody where bytes belong: a signed capability says so.

pub mod fence;
pub mod store;
