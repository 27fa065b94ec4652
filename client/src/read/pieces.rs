//! Bytes put together from what several answers brought.

use bytes::{Bytes, BytesMut};
use dfs_proto::limits::PACKET_BYTES_MAX;

/// So many zeros: up to a packet without memory of their own.
pub(super) fn zeros(length: u64) -> Bytes {
    static ZEROS: [u8; PACKET_BYTES_MAX] = [0; PACKET_BYTES_MAX];
    let length = usize::try_from(length).expect("a part is addressable");
    if length <= ZEROS.len() {
        return Bytes::from_static(&ZEROS[..length]);
    }
    BytesMut::zeroed(length).freeze()
}

/// One buffer; without a copy if there is only one piece.
pub(super) fn join(mut pieces: Vec<Bytes>) -> Bytes {
    pieces.retain(|p| !p.is_empty());
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|p| all.extend_from_slice(p));
    all.freeze()
}
