//! One file, symlink or node out of dfs: under a temporary name, synced, then renamed into place.

use super::local::{Attributes, Draft, Special, make_special};
use super::{BLOCKS_AHEAD, Job};
use crate::exit::{About as _, Failure, Result};
use bytes::Bytes;
use dfs_client::{Code, Kind, Metadata};
use rustix::fs::FileType;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Copies a regular file.
///
/// # Errors
/// Of either side; then nothing is left under the name.
pub(crate) async fn file(job: &Arc<Job>, remote: &[u8], metadata: &Metadata, local: &Path) -> Result<()> {
    if job.options.no_clobber && std::fs::symlink_metadata(local).is_ok() {
        return Err(Failure::of(Code::AlreadyExists).about(local.as_os_str().as_bytes()));
    }
    job.tally.expect(metadata.size);
    let mut file = job.client.open(remote).await.about(remote)?;
    let first = file.next_bytes().await.about(remote)?.unwrap_or_default();
    // Not by the size: the name may mean another file by now.
    let second = file.next_bytes().await.about(remote)?;
    let attributes = attributes(job, metadata);
    job.tally.moved(first.len());
    let Some(second) = second else {
        // Most files end here, and one job of a thread does the rest.
        let (job, local) = (job.clone(), local.to_owned());
        let thread = job.pool.clone();
        return thread.run(move || small(&job, &local, &first, attributes)).await;
    };
    job.tally.moved(second.len());
    let (blocks, behind) = mpsc::channel(BLOCKS_AHEAD);
    let receiving = async move {
        let mut next = Some(second);
        // There is room for the first one: the channel is new.
        let _ = blocks.send(Ok(first)).await;
        while let Some(block) = next {
            if blocks.send(Ok(block)).await.is_err() {
                // The writer failed, and says why.
                return Ok(());
            }
            next = match file.next_bytes().await.about(remote) {
                Ok(next) => next,
                Err(failure) => {
                    // The writer gives its file up; the failure is told here.
                    let _ = blocks.send(Err(())).await;
                    return Err(failure);
                }
            };
            job.tally.moved(next.as_ref().map_or(0, Bytes::len));
        }
        Ok(())
    };
    let (job, local) = (job.clone(), local.to_owned());
    let thread = job.pool.clone();
    let writing = thread.run(move || large(&job, &local, behind, attributes));
    let (received, written) = futures::join!(receiving, writing);
    received.and(written)
}

/// Copies a file to stdout; its reader going away is a quiet end.
///
/// # Errors
/// Of either side.
pub(crate) async fn stdout(job: &Arc<Job>, remote: &[u8]) -> Result<()> {
    let mut file = job.client.open(remote).await.about(remote)?;
    let (blocks, mut behind): (mpsc::Sender<Bytes>, _) = mpsc::channel(BLOCKS_AHEAD);
    let receiving = async move {
        while let Some(block) = file.next_bytes().await.about(remote)? {
            job.tally.moved(block.len());
            if blocks.send(block).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let writing = job.pool.run(move || -> io::Result<()> {
        // Not through std's line buffer, which would look for line ends in every byte.
        let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        while let Some(block) = behind.blocking_recv() {
            out.write_all(&block)?;
        }
        Ok(())
    });
    let writing = async { writing.await.map_err(Failure::from) };
    futures::try_join!(writing, receiving)?;
    job.tally.finished();
    Ok(())
}

/// Copies a symlink or special file.
///
/// # Errors
/// Of either side.
pub(crate) async fn special(job: &Arc<Job>, remote: &[u8], metadata: &Metadata, local: &Path) -> Result<()> {
    let node = |kind| Special::Node(kind, metadata.rdev);
    let what = match metadata.kind {
        Kind::Symlink => Special::Symlink(job.client.read_link(remote).await.about(remote)?),
        Kind::Fifo => node(FileType::Fifo),
        Kind::Socket => node(FileType::Socket),
        Kind::CharacterDevice => node(FileType::CharacterDevice),
        Kind::BlockDevice => node(FileType::BlockDevice),
        Kind::File | Kind::Directory => return Err(Failure::of(Code::InvalidArgument).about(remote)),
    };
    let (attributes, no_clobber) = (attributes(job, metadata), job.options.no_clobber);
    let path = local.to_owned();
    job.pool
        .run(move || make_special(&path, &what, attributes, no_clobber))
        .await?;
    job.tally.finished();
    Ok(())
}

/// What a local copy gets.
#[must_use]
pub(crate) fn attributes(job: &Job, metadata: &Metadata) -> Attributes {
    let root = rustix::process::geteuid().is_root();
    Attributes {
        mode: job.mode(metadata.mode),
        times: job
            .options
            .preserve
            .then_some((metadata.atime_ns, metadata.mtime_ns)),
        owner: (job.options.preserve && root).then_some((metadata.uid, metadata.gid)),
    }
}

fn small(job: &Job, local: &Path, content: &[u8], attributes: Attributes) -> Result<()> {
    let mut draft = Draft::create(local, &job.unfinished)?;
    if let Err(error) = draft.file.write_all(content) {
        draft.abandon(&job.unfinished);
        return Err(super::local::at(local)(error));
    }
    draft.finish(attributes, job.options.no_clobber, &job.unfinished)?;
    job.tally.finished();
    Ok(())
}

fn large(
    job: &Job,
    local: &Path,
    mut blocks: mpsc::Receiver<std::result::Result<Bytes, ()>>,
    attributes: Attributes,
) -> Result<()> {
    let mut draft = Draft::create(local, &job.unfinished)?;
    while let Some(block) = blocks.blocking_recv() {
        let Ok(block) = block else {
            draft.abandon(&job.unfinished);
            return Ok(());
        };
        if let Err(error) = draft.file.write_all(&block) {
            draft.abandon(&job.unfinished);
            return Err(super::local::at(local)(error));
        }
    }
    draft.finish(attributes, job.options.no_clobber, &job.unfinished)?;
    job.tally.finished();
    Ok(())
}
