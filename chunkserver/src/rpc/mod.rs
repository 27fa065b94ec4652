//! Streams in, streams out.

pub(crate) mod master;
pub(crate) mod probe;
pub(crate) mod pull;
