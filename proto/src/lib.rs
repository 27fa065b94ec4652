//! The language of dfs: ids, codes, checksums, span arithmetic, messages, and the network seam.
//!
//! Everything two roles must agree on is here, and nothing that only one of them knows.

pub mod calls;
pub mod capability;
pub mod checksum;
pub mod code;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod name;
pub mod net;
pub mod scrape;
pub mod span;
pub mod status;
pub mod world;

pub use code::{Code, Error, Result, Retry};
pub use ids::{ChunkHandle, ClientId, ClusterId, InodeId, NodeId, Version, WriterId};
pub use world::World;

/// The generated messages. They stop at the edges: `rpc/` modules and the clients' conversion file.
pub mod pb {
    #![expect(
        missing_docs,
        reason = "generated from .proto files, which carry the documentation"
    )]
    #![expect(
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes,
        reason = "generated"
    )]
    tonic::include_proto!("dfs.v1");
}
