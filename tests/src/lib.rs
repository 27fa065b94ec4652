//! The harness of dfs, and the suites every implementation of a seam passes.

pub mod cuts;
pub mod execute;
pub mod manifest;
pub mod model;
pub mod process;
pub mod proxy;
pub mod sim;
pub mod suites;
