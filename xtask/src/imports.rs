//! Who may import whom: the table in ARCHITECTURE.md, against cargo's list of dependencies.

use crate::finding::Finding;
use crate::house::House;
use cargo_metadata::{DependencyKind, Package};

/// One package's row: members of the workspace and edge libraries it may depend on.
struct Row {
    package: &'static str,
    house: &'static [&'static str],
    edges: &'static [&'static str],
}

/// Libraries that talk to the world outside, or that belong to one layer. Others are free where they fit.
const EDGES: [&str; 16] = [
    "tonic",
    "tonic-prost",
    "prost",
    "hyper",
    "hyper-util",
    "tower",
    "http",
    "sled",
    "fuser",
    "clap",
    "clap_complete",
    "clap_mangen",
    "indicatif",
    "console",
    "anyhow",
    "turmoil",
];

const WIRE: &[&str] = &[
    "tonic",
    "tonic-prost",
    "prost",
    "hyper",
    "hyper-util",
    "tower",
    "http",
];

const TABLE: [Row; 9] = [
    Row {
        package: "dfs-stdx",
        house: &[],
        edges: &[],
    },
    Row {
        package: "dfs-proto",
        house: &["dfs-stdx"],
        edges: WIRE,
    },
    Row {
        package: "dfs-master",
        house: &["dfs-stdx", "dfs-proto"],
        edges: &["tonic", "prost", "http", "sled"],
    },
    Row {
        package: "dfs-chunkserver",
        house: &["dfs-stdx", "dfs-proto"],
        edges: &["tonic", "prost", "http"],
    },
    Row {
        package: "dfs-client",
        house: &["dfs-stdx", "dfs-proto"],
        edges: &["tonic", "prost", "http"],
    },
    Row {
        package: "dfs-fuse",
        house: &["dfs-stdx", "dfs-proto", "dfs-client"],
        edges: &["fuser"],
    },
    Row {
        package: "dfs-gateway",
        house: &["dfs-stdx", "dfs-proto", "dfs-client"],
        edges: WIRE,
    },
    Row {
        package: "dfs",
        house: &[
            "dfs-stdx",
            "dfs-proto",
            "dfs-master",
            "dfs-chunkserver",
            "dfs-client",
            "dfs-fuse",
            "dfs-gateway",
        ],
        edges: &[
            "clap",
            "clap_complete",
            "clap_mangen",
            "indicatif",
            "console",
            "anyhow",
        ],
    },
    Row {
        package: "dfs-xtask",
        house: &[],
        edges: &["anyhow"],
    },
];

/// Packages that may import everything: they test and measure all of it.
const FREE: [&str; 2] = ["dfs-tests", "dfs-benches"];

/// Dependencies that point the wrong way. Those of tests and build scripts are free.
pub(crate) fn check(house: &House) -> Vec<Finding> {
    let members = house.cargo.workspace_packages();
    let names: Vec<&str> = members.iter().map(|package| package.name.as_str()).collect();
    members
        .iter()
        .flat_map(|package| check_package(house, package, &names))
        .collect()
}

fn check_package(house: &House, package: &Package, members: &[&str]) -> Vec<Finding> {
    let manifest = package
        .manifest_path
        .strip_prefix(&house.root)
        .unwrap_or(&package.manifest_path);
    let wrong = |subject: &str, advice: &str| Finding::new(manifest.as_str(), 0, "imports", subject, advice);
    if FREE.contains(&package.name.as_str()) {
        return Vec::new();
    }
    let Some(row) = TABLE.iter().find(|row| row.package == package.name.as_str()) else {
        return vec![wrong(
            &package.name,
            "give the package its row in xtask/src/imports.rs and ARCHITECTURE.md",
        )];
    };
    let normal = package
        .dependencies
        .iter()
        .filter(|d| d.kind == DependencyKind::Normal);
    let name = |d: &cargo_metadata::Dependency| d.name.to_string();
    let refused = |d: &String| {
        (members.contains(&d.as_str()) && !row.house.contains(&d.as_str()))
            || (EDGES.contains(&d.as_str()) && !row.edges.contains(&d.as_str()))
    };
    normal
        .map(name)
        .filter(refused)
        .map(|d| {
            wrong(
                &d,
                "this layer may not import it: move the code that needs it, or turn the arrow round",
            )
        })
        .collect()
}
