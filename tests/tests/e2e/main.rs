//! The `dfs` binary as a user would use it: real processes, small sizes.

#![expect(clippy::unwrap_used, reason = "all of this target is a test")]

mod answers;
mod errors;
mod explain;
mod failures;
mod files;
mod metrics;
mod tools;
mod trash;
mod trees;
mod up;

use dfs_tests::process::{Cluster, Options};

/// The binary under test, freshly built.
const DFS: &str = env!("CARGO_BIN_EXE_dfs");

/// A small cluster of its own for one test.
fn cluster(chunkservers: u32) -> Cluster {
    let options = Options {
        chunkservers,
        ..Options::default()
    };
    Cluster::start(DFS, &options).unwrap()
}

/// A path as an argument.
fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}
