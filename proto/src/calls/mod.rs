//! Calls to the master over frames: many small messages on one connection, answered by id, in any order.
//!
//! ```text
//! offset  size  field
//! 0       4     length n of the message, little-endian
//! 4       n     one protobuf message of namespace.proto: ToMaster one way, FromMaster the other
//! ```
//! Whoever dials sends [`PREAMBLE`] first: it tells these connections from HTTP/2 on the same port ([`mod@port`]).
//! [`mod@line`] is the caller's end, [`mod@serve`] the other one; both write through an [`Outbox`]. Nothing is
//! retried here: a call whose connection fails ends in `Unavailable`, and the caller decides.
//!
//! A connection is checked as HTTP/2's keepalive would: a caller that hears nothing for [`SILENCE_MAX`] asks for a sign
//! of life, and gives the connection up [`PING_DEADLINE`] later. So does a server that hears nothing for much longer.

mod frames;
pub mod line;
mod outbox;
pub mod port;
pub mod serve;
#[cfg(test)]
mod tests;

pub use frames::FramesReader;
pub use line::Line;
pub use outbox::Outbox;
pub use serve::{Answer, Ask, Service};

use crate::limits::MESSAGE_BYTES_MAX;
use std::time::Duration;

/// What a dialler sends first: protocol and version. No HTTP/2 connection begins like this.
pub const PREAMBLE: &[u8; 8] = b"dfscall\x01";
/// Largest request, bytes: an extended attribute of the greatest length and a caller in thousands of groups fit.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Largest answer, bytes: a page of a directory fits.
pub const ANSWER_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Calls of one connection that are worked on at once.
pub const CALLS_MAX: usize = 1_024;
/// Bytes that may wait for the network before no more is taken in.
const QUEUED_BYTES_MAX: usize = 1024 * 1024;
/// A caller that hears nothing for so long asks whether anyone is there.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);
/// And takes the connection for dead if nothing comes for so long then.
pub const PING_DEADLINE: Duration = Duration::from_secs(3);
/// A caller that says nothing for so long is gone: it would have asked several times.
const CALLER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Whoever does not say what it speaks within this is cut off.
const PREAMBLE_DEADLINE: Duration = Duration::from_secs(5);
