//! One file, symlink or node into dfs: under a temporary name, made durable, then renamed into place.

use super::local::{at, temporary_name, times};
use super::{BLOCK_BYTES, BLOCKS_AHEAD, Job};
use crate::exit::{About as _, Failure, Result};
use bytes::Bytes;
use dfs_client::{Code, Handle, InodeId, Kind, Make, OpenOptions, RenameMode, SetAttributes, Time};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A name in dfs that is to be.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) parent: InodeId,
    /// In it.
    pub(crate) name: Vec<u8>,
    /// The whole path, for messages.
    pub(crate) path: Vec<u8>,
}

/// Where the bytes come from.
enum Source {
    /// All of a small file.
    Whole(Bytes),
    /// The first block of a larger one, and the rest.
    Stream(Bytes, Box<dyn AsFd + Send>),
}

/// Copies a local regular file.
///
/// # Errors
/// Of either side; then nothing is left under the name.
pub(crate) async fn file(job: &Arc<Job>, local: &Path, place: &Place) -> Result<()> {
    let (path, buffers) = (local.to_owned(), job.buffers.clone());
    let opened = job.pool.run(move || -> io::Result<(Metadata, Source)> {
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok((metadata, first(&buffers, file)?))
    });
    let (metadata, source) = opened.await.map_err(at(local))?;
    job.tally.expect(metadata.len());
    copy(job, source, Some(&metadata), place)
        .await
        .map_err(|failure| match failure.subject {
            Some(_) => failure,
            None => failure.about(local.as_os_str().as_bytes()),
        })
}

/// Copies stdin to its end.
///
/// # Errors
/// Of either side; then nothing is left under the name.
pub(crate) async fn stdin(job: &Arc<Job>, place: &Place) -> Result<()> {
    let buffers = job.buffers.clone();
    let source = job
        .pool
        .run(move || first(&buffers, io::stdin()))
        .await
        .about("-")?;
    copy(job, source, None, place).await
}

/// Adds a local file (or stdin, `-`) at the offset `end` of an open file; returns the new end.
///
/// # Errors
/// Of either side; then a part of it may be there.
pub(crate) async fn append(
    job: &Arc<Job>,
    local: &Path,
    handle: &Handle,
    end: u64,
    path: &[u8],
) -> Result<u64> {
    let (source, buffers) = (local.to_owned(), job.buffers.clone());
    let opened = job.pool.run(move || match source.as_os_str() == "-" {
        true => first(&buffers, io::stdin()),
        false => first(&buffers, File::open(&source)?),
    });
    let source = opened.await.map_err(at(local))?;
    let end = send(job, source, handle, end, path).await?;
    job.tally.finished();
    Ok(end)
}

/// Reads the first block: most files have no more.
fn first(buffers: &super::buffers::Buffers, file: impl AsFd + Send + 'static) -> io::Result<Source> {
    let block = buffers.read(&file)?;
    Ok(match block.len() < BLOCK_BYTES {
        true => Source::Whole(block),
        false => Source::Stream(block, Box::new(file)),
    })
}

async fn copy(job: &Arc<Job>, source: Source, metadata: Option<&Metadata>, place: &Place) -> Result<()> {
    let inodes = job.client.inodes();
    if job.options.no_clobber && inodes.lookup(place.parent, &place.name).await.is_ok() {
        return Err(Failure::of(Code::AlreadyExists).about(&place.path));
    }
    let mode = job.mode(metadata.map_or(0o666, Metadata::mode));
    let temporary = temporary_name("put");
    job.unfinished.add_remote(place.parent, &temporary);
    let options = OpenOptions::new().write(true).create_new(true).mode(mode);
    let made = inodes.create(place.parent, temporary.as_bytes(), options).await;
    let done = match made {
        Ok((made, handle)) => {
            let written = write(job, source, &handle, place).await;
            match written {
                Ok(()) => settle(job, made.metadata.inode, metadata, &temporary, place).await,
                Err(failure) => Err(failure),
            }
        }
        Err(error) => Err(error).about(&place.path),
    };
    if done.is_err() {
        // What cannot be removed stays under its temporary name.
        let _ = inodes.unlink(place.parent, temporary.as_bytes(), false).await;
    }
    job.unfinished.remove_remote(place.parent, &temporary);
    done
}

/// Sends all bytes and waits until they are on stable storage of every member.
async fn write(job: &Arc<Job>, source: Source, handle: &Handle, place: &Place) -> Result<()> {
    send(job, source, handle, 0, &place.path).await?;
    handle.close().await.about(&place.path)
}

/// Sends all bytes on their way, from `offset` on; returns where they end.
async fn send(job: &Arc<Job>, source: Source, handle: &Handle, mut offset: u64, path: &[u8]) -> Result<u64> {
    match source {
        Source::Whole(block) if block.is_empty() => {}
        Source::Whole(block) => {
            let bytes = block.len();
            handle.queue_at(offset, block).await.about(path)?;
            job.tally.moved(bytes);
            offset += bytes as u64;
        }
        Source::Stream(block, file) => {
            let (blocks, mut ahead) = mpsc::channel(BLOCKS_AHEAD);
            let (pool, buffers) = (job.pool.clone(), job.buffers.clone());
            let reading = async {
                let read = pool
                    .run(move || read_ahead(&buffers, file.as_fd(), &blocks))
                    .await;
                read.map_err(Failure::from)
            };
            let sending = async move {
                let mut next = Some(block);
                while let Some(block) = next {
                    let bytes = block.len();
                    handle.queue_at(offset, block).await.about(path)?;
                    job.tally.moved(bytes);
                    offset += bytes as u64;
                    next = ahead.recv().await;
                }
                Ok(offset)
            };
            // The first failure ends it: a reader left behind finds nobody to give its next block to.
            (offset, ()) = futures::try_join!(sending, reading)?;
        }
    }
    Ok(offset)
}

fn read_ahead(
    buffers: &super::buffers::Buffers,
    file: std::os::fd::BorrowedFd<'_>,
    blocks: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    loop {
        let block = buffers.read(file)?;
        let last = block.len() < BLOCK_BYTES;
        if block.is_empty() || blocks.blocking_send(block).is_err() || last {
            return Ok(());
        }
    }
}

/// Gives a whole file its attributes and its name.
async fn settle(
    job: &Job,
    inode: InodeId,
    metadata: Option<&Metadata>,
    temporary: &str,
    place: &Place,
) -> Result<()> {
    let inodes = job.client.inodes();
    if let (true, Some(metadata)) = (job.options.preserve, metadata) {
        preserve(job, inode, metadata, place).await?;
    }
    let from = (place.parent, temporary.as_bytes());
    let to = (place.parent, place.name.as_slice());
    inodes
        .rename(from, to, rename_mode(job), false)
        .await
        .about(&place.path)?;
    job.tally.finished();
    Ok(())
}

/// Times, and the owner if we may.
///
/// # Errors
/// The client's.
pub(crate) async fn preserve(job: &Job, inode: InodeId, metadata: &Metadata, place: &Place) -> Result<()> {
    let (atime, mtime) = times(metadata);
    let root = rustix::process::geteuid().is_root();
    let set = SetAttributes {
        atime: Some(Time::At(atime)),
        mtime: Some(Time::At(mtime)),
        uid: root.then(|| metadata.uid()),
        gid: root.then(|| metadata.gid()),
        // Giving a file away takes its set-id bits: they come back with the mode.
        mode: (root && !metadata.is_symlink()).then(|| metadata.mode() & 0o7777),
        ..SetAttributes::default()
    };
    job.client
        .inodes()
        .set_attributes(inode, set)
        .await
        .about(&place.path)?;
    Ok(())
}

/// Copies a symlink or special file.
///
/// # Errors
/// Of either side.
pub(crate) async fn special(job: &Job, local: &Path, metadata: &Metadata, place: &Place) -> Result<()> {
    let kind = metadata.file_type();
    let mut make = Make {
        kind: Kind::Symlink,
        mode: metadata.mode() & 0o7777,
        rdev: 0,
        target: Vec::new(),
    };
    if kind.is_symlink() {
        let target = std::fs::read_link(local).map_err(at(local))?;
        make.target = target.into_os_string().as_bytes().to_vec();
    } else if kind.is_fifo() {
        make.kind = Kind::Fifo;
    } else if kind.is_socket() {
        make.kind = Kind::Socket;
    } else {
        make.rdev = metadata.rdev();
        make.kind = match kind.is_block_device() {
            true => Kind::BlockDevice,
            false => Kind::CharacterDevice,
        };
    }
    let inodes = job.client.inodes();
    match inodes.make(place.parent, &place.name, make.clone()).await {
        Ok(made) => {
            if job.options.preserve {
                preserve(job, made.metadata.inode, metadata, place).await?;
            }
            job.tally.finished();
            return Ok(());
        }
        Err(error) if error.code == Code::AlreadyExists && !job.options.no_clobber => {}
        Err(error) => return Err(error).about(&place.path),
    }
    let temporary = temporary_name("put");
    let made = inodes
        .make(place.parent, temporary.as_bytes(), make)
        .await
        .about(&place.path)?;
    let done = settle(job, made.metadata.inode, Some(metadata), &temporary, place).await;
    if done.is_err() {
        let _ = inodes.unlink(place.parent, temporary.as_bytes(), false).await;
    }
    done
}

fn rename_mode(job: &Job) -> RenameMode {
    match job.options.no_clobber {
        true => RenameMode::NoReplace,
        false => RenameMode::Replace,
    }
}
