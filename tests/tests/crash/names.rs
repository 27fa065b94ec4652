//! A worker on the names of one directory: creates, directories, links, renames, removals.

use super::load::{Act, Pulse, Worker, is_refusal};
use anyhow::{Context as _, bail, ensure};
use dfs_client::{Client, OpenOptions, Result};
use dfs_stdx::Rng;
use dfs_tests::manifest::{Leads, Names};
use std::collections::BTreeMap;

/// Alone in its directory, so that every outcome but success is a broken promise.
pub(crate) struct NameWorker {
    client: Client,
    folder: String,
    names: Names,
    folders: Vec<String>,
    rng: Rng,
    next: u64,
}

impl NameWorker {
    /// Makes the directory.
    pub(crate) async fn new(client: Client, folder: &str, rng: Rng) -> anyhow::Result<NameWorker> {
        client.mkdir(folder).await?;
        let folder = folder.to_owned();
        Ok(NameWorker {
            client,
            folder,
            names: Names::default(),
            folders: Vec::new(),
            rng,
            next: 0,
        })
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("n{}", self.next)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// A name that leads to a file.
    fn some(&self) -> Option<(String, u64)> {
        let files: Vec<_> = self
            .names
            .certain()
            .iter()
            .filter(|(name, _)| !self.folders.contains(name))
            .collect();
        let at = usize::try_from(self.rng.below(files.len() as u64)).expect("few");
        files.get(at).map(|(name, inode)| ((*name).clone(), **inode))
    }

    fn note(&mut self, act: Act, ended: Result<()>, changes: &[(String, Leads)]) -> anyhow::Result<()> {
        match ended {
            Ok(()) => self.names.acknowledged(changes),
            Err(error) if is_refusal(&error) => bail!("{act:?} {changes:?} in {}: {error}", self.folder),
            Err(error) => {
                println!("{act:?} {changes:?} in {}: {error}", self.folder);
                self.names.doubtful(changes);
            }
        }
        Ok(())
    }

    async fn create(&mut self, pulse: &Pulse) -> anyhow::Result<()> {
        let name = self.fresh();
        let (client, path) = (self.client.clone(), self.path(&name));
        let made = pulse.during(Act::Create, async move {
            let options = OpenOptions::new()
                .write(true)
                .create_new(true)
                .sync_on_close(false);
            let file = client.open_with(&path, options).await?;
            let inode = file.handle().inode().0;
            file.close().await?;
            Ok(inode)
        });
        let made = made.await;
        let leads = Some(*made.as_ref().unwrap_or(&0));
        self.note(Act::Create, made.map(drop), &[(name, leads)])
    }

    async fn mkdir(&mut self, pulse: &Pulse) -> anyhow::Result<()> {
        let name = self.fresh();
        let made = pulse
            .during(Act::Mkdir, self.client.mkdir(self.path(&name)))
            .await;
        let leads = Some(made.as_ref().map_or(0, |made| made.inode.0));
        self.folders.push(name.clone());
        self.note(Act::Mkdir, made.map(drop), &[(name, leads)])
    }

    async fn link(&mut self, pulse: &Pulse) -> anyhow::Result<()> {
        let Some((old, inode)) = self.some() else {
            return Ok(());
        };
        let new = self.fresh();
        let linked = pulse
            .during(Act::Link, self.client.link(self.path(&old), self.path(&new)))
            .await;
        self.note(Act::Link, linked.map(drop), &[(new, Some(inode))])
    }

    async fn rename(&mut self, pulse: &Pulse) -> anyhow::Result<()> {
        let Some((from, inode)) = self.some() else {
            return Ok(());
        };
        let to = match (self.rng.below(3), self.some()) {
            (0, Some((other, replaced))) if replaced != inode => other,
            _ => self.fresh(),
        };
        let renamed = pulse
            .during(Act::Rename, self.client.rename(self.path(&from), self.path(&to)))
            .await;
        self.note(Act::Rename, renamed, &[(from, None), (to, Some(inode))])
    }

    async fn remove(&mut self, pulse: &Pulse) -> anyhow::Result<()> {
        let Some((name, _)) = self.some() else {
            return Ok(());
        };
        let removed = pulse
            .during(Act::Remove, self.client.remove(self.path(&name)))
            .await;
        self.note(Act::Remove, removed, &[(name, None)])
    }

    /// Compares the directory, seen by `client`, with what was acknowledged.
    pub(crate) async fn check(&self, client: &Client) -> anyhow::Result<()> {
        let listed = client
            .list(&self.folder)
            .await
            .with_context(|| format!("list {}", self.folder))?;
        let mut found = BTreeMap::new();
        let mut links = BTreeMap::<u64, u32>::new();
        for entry in &listed {
            let name = String::from_utf8(entry.name.clone())?;
            ensure!(
                found.insert(name, entry.metadata.inode.0).is_none(),
                "a name is listed twice: {entry:?}"
            );
            *links.entry(entry.metadata.inode.0).or_default() += 1;
        }
        self.names.check(&found).with_context(|| self.folder.clone())?;
        for entry in listed.iter().filter(|entry| entry.metadata.is_file()) {
            let metadata = &entry.metadata;
            ensure!(
                metadata.nlink == links[&metadata.inode.0],
                "link count: {entry:?} has {links:?}"
            );
        }
        Ok(())
    }
}

impl Worker for NameWorker {
    async fn step(&mut self, pulse: &Pulse) -> anyhow::Result<()> {
        match self.rng.below(20) {
            0..=8 => self.create(pulse).await,
            9 => self.mkdir(pulse).await,
            10..=11 => self.link(pulse).await,
            12..=16 => self.rename(pulse).await,
            _ => self.remove(pulse).await,
        }
    }
}
