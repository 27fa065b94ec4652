//! Every package we build with has a license we may use.

use crate::finding::Finding;
use crate::house::House;
use crate::spdx;

/// SPDX names we may combine with Apache-2.0. The same list stands in deny.toml.
pub(crate) const ALLOWED: [&str; 16] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Packages whose license leaves us no allowed choice.
pub(crate) fn check(house: &House) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in &house.cargo.packages {
        let license = package.license.as_deref().unwrap_or("none");
        if !spdx::is_allowed(license, &ALLOWED) {
            let subject = format!("{} {}", package.name, package.version);
            let advice = format!("license {license}: choose another package");
            found.push(Finding::new("Cargo.lock", 0, "licenses", subject, advice));
        }
    }
    found
}
