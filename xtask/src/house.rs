//! The workspace as the rules see it: its text files and its packages.

use crate::source::Source;
use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use walkdir::{DirEntry, WalkDir};

/// Folders that hold nothing we wrote.
const SKIPPED: [&str; 3] = ["target", ".git", "dfs-data"];

/// What is read as text.
const TEXT_EXTENSIONS: [&str; 9] = ["rs", "toml", "md", "proto", "sh", "yml", "json", "txt", "py"];
const TEXT_NAMES: [&str; 2] = ["justfile", "run"];

/// A text file that is not Rust.
pub(crate) struct Text {
    /// Path from the root.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

/// Everything there is to check.
pub(crate) struct House {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// Rust files.
    pub(crate) sources: Vec<Source>,
    /// The other text files.
    pub(crate) texts: Vec<Text>,
    /// What cargo knows: packages, dependencies, licenses.
    pub(crate) cargo: Metadata,
}

impl House {
    /// Reads it all.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let mut house = House {
            root: root.to_owned(),
            sources: Vec::new(),
            texts: Vec::new(),
            cargo: metadata(root)?,
        };
        let ours = |entry: &DirEntry| {
            !entry
                .file_name()
                .to_str()
                .is_some_and(|name| SKIPPED.contains(&name))
        };
        for entry in WalkDir::new(root)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(ours)
        {
            let entry = entry?;
            if entry.file_type().is_file() && is_text(entry.path()) {
                house.add(entry.path())?;
            }
        }
        Ok(house)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(&self.root)?.to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "rs") {
            self.sources.push(Source::new(name, text));
        } else {
            self.texts.push(Text { path: name, text });
        }
        Ok(())
    }

    /// True if the root holds this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

fn is_text(path: &Path) -> bool {
    let is = |part: Option<&std::ffi::OsStr>, known: &[&str]| {
        part.and_then(|part| part.to_str())
            .is_some_and(|part| known.contains(&part))
    };
    is(path.extension(), &TEXT_EXTENSIONS) || is(path.file_name(), &TEXT_NAMES)
}

/// Only this machine's dependencies: those of other systems may not even be downloaded.
fn metadata(root: &Path) -> Result<Metadata> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let told = Command::new(rustc).arg("-vV").output().context("rustc -vV")?;
    let told = String::from_utf8(told.stdout)?;
    let host = told
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc names its host")?;
    let platform = vec!["--filter-platform".to_owned(), host.to_owned()];
    Ok(MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(platform)
        .exec()?)
}
