//! The harness of dfs, and the suites every implementation of a seam passes.

pub mod cuts;
pub mod manifest;
pub mod process;
pub mod proxy;
pub mod suites;
