//! Going through trees in dfs.

use crate::exit::{About as _, Result};
use crate::output::Entry;
use crate::path;
use dfs_client::{Client, DirEntry, Metadata};

/// What `path` names, with what it says if it is a symlink.
///
/// # Errors
/// The client's.
pub(crate) async fn entry(client: &Client, path: &[u8], metadata: Metadata) -> Result<Entry> {
    let target = match metadata.is_symlink() {
        true => Some(client.read_link(path).await.about(path)?),
        false => None,
    };
    Ok(Entry::new(path, metadata, target))
}

/// A tree, depth first, each directory before what is in it, names in byte order.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    client: &'a Client,
    /// What comes next, last first, with its depth below the first.
    waiting: Vec<(Vec<u8>, Metadata, usize)>,
    hidden: bool,
    levels: usize,
}

/// The next path, and why a directory's contents could not be listed if so.
pub(crate) type Step = (Vec<u8>, Metadata, Result<()>);

impl<'a> Walk<'a> {
    /// Begins with `path` itself.
    ///
    /// # Errors
    /// The client's.
    pub(crate) async fn new(client: &'a Client, path: &[u8]) -> Result<Walk<'a>> {
        let metadata = client.symlink_stat(path).await.about(path)?;
        Ok(Walk {
            client,
            waiting: vec![(path.to_vec(), metadata, 0)],
            hidden: true,
            levels: usize::MAX,
        })
    }

    /// Leaves out names that begin with a dot.
    pub(crate) fn skip_hidden(&mut self) {
        self.hidden = false;
    }

    /// Goes only so many levels below the first.
    pub(crate) fn stop_below(&mut self, levels: usize) {
        self.levels = levels;
    }

    /// The next one. What was removed since its directory was listed is left out by whoever meets that.
    pub(crate) async fn next(&mut self) -> Option<Step> {
        let (path, metadata, depth) = self.waiting.pop()?;
        let mut listed = Ok(());
        if metadata.is_dir() && depth < self.levels {
            match self.client.list(&path).await.about(&path) {
                Ok(entries) => {
                    let shown = entries
                        .into_iter()
                        .rev()
                        .filter(|e| self.hidden || !e.name.starts_with(b"."));
                    let below = shown.map(|DirEntry { name, metadata, .. }| {
                        (path::join(&path, &name), metadata, depth + 1)
                    });
                    self.waiting.extend(below);
                }
                Err(failure) => listed = Err(failure),
            }
        }
        Some((path, metadata, listed))
    }
}
