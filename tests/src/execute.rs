//! The operations of [`crate::model`], carried out by the client library.

use crate::model::{Operation, Outcome, bytes_of};
use bytes::Bytes;
use dfs_client::{Client, File, Kind, OpenOptions, SetAttributes};
use dfs_proto::{Error, Result};

/// Carries the operation out. A refusal is an outcome; what may pass by itself (a time-out, say) is an error.
///
/// # Errors
/// A failure that the reference cannot have.
pub async fn execute(client: &Client, operation: &Operation) -> Result<Outcome> {
    match attempt(client, operation).await {
        Ok(outcome) => Ok(outcome),
        Err(error) if is_refusal(&error) => Ok(Outcome::Refused(error.code)),
        Err(error) => Err(error),
    }
}

fn is_refusal(error: &Error) -> bool {
    use dfs_proto::Code::{
        AlreadyExists, InvalidArgument, IsADirectory, NotADirectory, NotEmpty, NotFound, NotPermitted,
        TooManyLinks,
    };
    let refusals = [
        NotFound,
        AlreadyExists,
        NotEmpty,
        NotADirectory,
        IsADirectory,
        InvalidArgument,
        NotPermitted,
        TooManyLinks,
    ];
    refusals.contains(&error.code)
}

async fn attempt(client: &Client, operation: &Operation) -> Result<Outcome> {
    match operation {
        Operation::Create(path) => {
            client
                .open_with(path, OpenOptions::new().write(true).create_new(true))
                .await?
                .close()
                .await?;
        }
        Operation::Write {
            path,
            offset,
            length,
            seed,
            sync,
        } => {
            let file = writable(client, path, *sync).await?;
            file.handle()
                .write_at(*offset, Bytes::from(bytes_of(*seed, *length)))
                .await?;
            file.close().await?;
        }
        Operation::Append { path, length, seed } => {
            let file = client.open_with(path, OpenOptions::new().append(true)).await?;
            file.handle()
                .append(Bytes::from(bytes_of(*seed, *length)))
                .await?;
            file.close().await?;
        }
        Operation::Read { path, offset, length } => {
            let length = usize::try_from(*length).expect("small");
            return Ok(Outcome::Bytes(
                client.open(path).await?.read_at(*offset, length).await?.to_vec(),
            ));
        }
        Operation::Truncate { path, size } => {
            let mut file = writable(client, path, true).await?;
            file.set_len(*size).await?;
            file.close().await?;
        }
        Operation::Rename { from, to } => client.rename(from, to).await?,
        Operation::Remove(path) => client.remove(path).await?,
        Operation::Mkdir(path) => {
            client.mkdir(path).await?;
        }
        Operation::RemoveDir(path) => client.remove_dir(path).await?,
        Operation::Link { existing, path } => {
            client.link(existing, path).await?;
        }
        Operation::Symlink { target, path } => {
            client.symlink(target, path).await?;
        }
        Operation::Chmod { path, mode } => {
            let set = SetAttributes {
                mode: Some(*mode),
                ..SetAttributes::default()
            };
            client.set_attributes(path, set).await?;
        }
        Operation::List(path) => return names(client, path).await,
        Operation::Stat(path) => return stat(client, path).await,
    }
    Ok(Outcome::Done)
}

async fn writable(client: &Client, path: &str, sync: bool) -> Result<File> {
    client
        .open_with(path, OpenOptions::new().write(true).sync_on_close(sync))
        .await
}

async fn names(client: &Client, path: &str) -> Result<Outcome> {
    let name = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the operations use plain names");
    Ok(Outcome::Names(
        client
            .list(path)
            .await?
            .into_iter()
            .map(|e| name(e.name))
            .collect(),
    ))
}

async fn stat(client: &Client, path: &str) -> Result<Outcome> {
    let m = client.symlink_stat(path).await?;
    let (kind, size) = match m.kind {
        Kind::File => ('f', m.size),
        Kind::Directory => ('d', 0),
        Kind::Symlink => ('l', m.size),
        Kind::Fifo | Kind::Socket | Kind::CharacterDevice | Kind::BlockDevice => ('?', m.size),
    };
    Ok(Outcome::Stat(kind, size, m.nlink, m.mode))
}
