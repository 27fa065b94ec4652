//! The harness of dfs, and the suites every implementation of a seam passes.

pub mod suites;
