//! What must be written down is, and what is linked to exists.

use crate::finding::Finding;
use crate::house::{House, Text};

/// Files the project promises.
const REQUIRED: [&str; 14] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE",
    "docs/glossary.md",
    "docs/semantics.md",
    "docs/failure-model.md",
    "docs/formats.md",
    "docs/flows.md",
    "docs/testing.md",
    "docs/adr",
    ".ci/run",
];

/// Missing documents, dead links, files without a header.
pub(crate) fn check(house: &House) -> Vec<Finding> {
    let missing = REQUIRED.iter().filter(|path| !house.has(path));
    let mut found: Vec<Finding> = missing
        .map(|path| Finding::new(path, 0, "docs", "missing", "write it"))
        .collect();
    for source in &house.sources {
        if !source.text.trim_start().starts_with("//!") && !source.path.ends_with("/tests.rs") {
            let advice =
                "begin with `//!`: what the file is, in what order things happen, what it does not do";
            found.push(Finding::new(&source.path, 1, "docs", "no header", advice));
        }
    }
    for text in house.texts.iter().filter(|text| text.path.ends_with(".md")) {
        found.extend(dead_links(house, text));
    }
    found
}

fn dead_links(house: &House, text: &Text) -> Vec<Finding> {
    let folder = text.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    for (i, line) in text.text.lines().enumerate() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains(':') || path.contains(' ');
            if !elsewhere && !house.has(format!("{folder}/{path}").trim_start_matches('/')) {
                found.push(Finding::new(
                    &text.path,
                    i + 1,
                    "docs",
                    target,
                    "the link leads nowhere",
                ));
            }
        }
    }
    found
}
