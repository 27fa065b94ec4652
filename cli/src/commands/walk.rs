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
    /// What comes next, last first.
    waiting: Vec<(Vec<u8>, Metadata)>,
}

impl<'a> Walk<'a> {
    /// Begins with `path` itself.
    ///
    /// # Errors
    /// The client's.
    pub(crate) async fn new(client: &'a Client, path: &[u8]) -> Result<Walk<'a>> {
        let metadata = client.symlink_stat(path).await.about(path)?;
        Ok(Walk {
            client,
            waiting: vec![(path.to_vec(), metadata)],
        })
    }

    /// The next path, and why a directory's contents could not be listed if so.
    pub(crate) async fn next(&mut self) -> Option<(Vec<u8>, Metadata, Result<()>)> {
        let (path, metadata) = self.waiting.pop()?;
        let mut listed = Ok(());
        if metadata.is_dir() {
            match self.client.list(&path).await.about(&path) {
                Ok(entries) => {
                    let below = entries.into_iter().rev();
                    self.waiting.extend(
                        below.map(|DirEntry { name, metadata, .. }| (path::join(&path, &name), metadata)),
                    );
                }
                Err(failure) => listed = Err(failure),
            }
        }
        Some((path, metadata, listed))
    }
}
