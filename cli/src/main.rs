//! dfs.
fn main() {}
