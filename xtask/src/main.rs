//! `cargo xtask tidy`: the rules of the house, checked. `cargo test` runs the same.
//!
//! Each rule is a module that takes the [`house::House`] and returns findings. A finding says file, line, rule
//! and what to do. What cannot be put right yet stands in `xtask/exceptions.toml`, which may only shrink.

mod docs;
mod exceptions;
mod finding;
mod house;
mod imports;
mod licenses;
mod sizes;
mod source;
mod spdx;
mod words;

use anyhow::{Result, bail};
use finding::Finding;
use house::House;
use std::path::Path;
use std::process::ExitCode;

/// Every rule, in the order of the report.
fn findings(root: &Path) -> Result<Vec<Finding>> {
    let house = House::open(root)?;
    let mut found = Vec::new();
    found.extend(imports::check(&house));
    found.extend(words::check(&house));
    found.extend(sizes::check(&house));
    found.extend(docs::check(&house));
    found.extend(licenses::check(&house));
    exceptions::settle(&house, found)
}

/// The folder that holds the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

#[expect(clippy::print_stdout, reason = "the report is what this program is for")]
fn main() -> Result<ExitCode> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if asked != ["tidy"] {
        bail!("usage: cargo xtask tidy");
    }
    let found = findings(root())?;
    for finding in &found {
        println!("{finding}");
    }
    println!(
        "the house is {}: {} findings",
        if found.is_empty() { "tidy" } else { "not tidy" },
        found.len()
    );
    Ok(if found.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let found = findings(root()).unwrap();
        let report: Vec<String> = found.iter().map(Finding::to_string).collect();
        assert!(
            report.is_empty(),
            "{} findings:\n{}",
            report.len(),
            report.join("\n")
        );
    }
}
