//! A MapReduce word count that embeds the client: one task for each split, lines read right across split edges,
//! results put together in a temporary directory that becomes the output by one rename.
//!
//! ```text
//! cargo run --release --package dfs-client --example wordcount -- 127.0.0.1:7700 /books /counts 64MiB
//! ```
//!
//! In a real cluster each map task would be run on one of its split's hosts; here they are tasks of one process.
//! The output directory appears whole or not at all: a job that dies leaves only `/counts.tmp-...` behind.

use bytes::Bytes;
use dfs_client::{Client, Code, Error, Result, Split};
use dfs_stdx::size::Size;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use std::collections::BTreeMap;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncSeekExt as _, BufReader};

/// Words and how often they came.
type Counts = BTreeMap<Vec<u8>, u64>;

/// Map tasks at the same time.
const MAPS_AT_ONCE: usize = 8;
/// Output files.
const REDUCERS: usize = 4;

/// Counts the words of a file, or of all files in a directory, into files below `output`, which must not exist.
///
/// # Errors
/// What reading, writing or renaming says; then there is no output.
pub(crate) async fn word_count(client: &Client, input: &str, output: &str, split_bytes: u64) -> Result<()> {
    if client.exists(output).await? {
        return Err(Error::new(Code::AlreadyExists, format!("{output} exists")));
    }
    let tasks = tasks(client, input, split_bytes).await?;
    let counted: Vec<Counts> = futures::stream::iter(tasks)
        .map(|(path, split)| tokio::spawn(map(client.clone(), path, split)))
        .buffer_unordered(MAPS_AT_ONCE)
        .map(|joined| joined.unwrap_or_else(|e| Err(Error::new(Code::Internal, e.to_string()))))
        .try_collect()
        .await?;
    let temporary = format!("{output}.tmp-{}", std::process::id());
    client.mkdir(&temporary).await?;
    for (number, part) in reduce(counted).into_iter().enumerate() {
        write(client, &format!("{temporary}/part-{number:05}"), &part).await?;
    }
    // The commit: readers see all of the output or none of it.
    client.rename(&temporary, output).await
}

/// One map task for each split of each file.
async fn tasks(client: &Client, input: &str, split_bytes: u64) -> Result<Vec<(Vec<u8>, Split)>> {
    let mut files = Vec::new();
    if client.stat(input).await?.is_dir() {
        for entry in client
            .list(input)
            .await?
            .into_iter()
            .filter(|e| e.metadata.is_file())
        {
            files.push([input.as_bytes(), b"/", &entry.name].concat());
        }
    } else {
        files.push(input.as_bytes().to_vec());
    }
    let mut tasks = Vec::new();
    for path in files {
        let splits = client.splits(&path, split_bytes).await?;
        tasks.extend(splits.into_iter().map(|split| (path.clone(), split)));
    }
    Ok(tasks)
}

async fn map(client: Client, path: Vec<u8>, split: Split) -> Result<Counts> {
    let mut file = client.open(&path).await?;
    // One byte early: whether a line begins exactly at the split, only the byte before it can tell.
    let from = split.offset.saturating_sub(1);
    file.seek(std::io::SeekFrom::Start(from)).await.map_err(failed)?;
    count_lines(BufReader::with_capacity(1 << 20, file), from, &split).await
}

/// Counts the words of all lines that *begin* in the split. The first line is left to the split before, unless it
/// begins here; the last one is read to its end, which may lie in the next split. So each line is counted once.
async fn count_lines(
    mut from: impl AsyncBufRead + Unpin,
    mut position: u64,
    split: &Split,
) -> Result<Counts> {
    let mut counts = Counts::new();
    let mut line = Vec::new();
    if position < split.offset {
        position += from.read_until(b'\n', &mut line).await.map_err(failed)? as u64;
    }
    while position < split.offset + split.length {
        line.clear();
        let length = from.read_until(b'\n', &mut line).await.map_err(failed)?;
        if length == 0 {
            break;
        }
        position += length as u64;
        let between = |b: &u8| b.is_ascii() && !b.is_ascii_alphanumeric();
        for word in line.split(between).filter(|w| !w.is_empty()) {
            *counts.entry(word.to_ascii_lowercase()).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Puts the counts together, each word in the part that its bytes name.
fn reduce(counted: Vec<Counts>) -> Vec<Counts> {
    let mut parts = vec![Counts::new(); REDUCERS];
    for (word, count) in counted.into_iter().flatten() {
        let digest = word.iter().fold(0usize, |sum, b| {
            sum.wrapping_mul(31).wrapping_add(usize::from(*b))
        });
        *parts[digest % REDUCERS].entry(word).or_default() += count;
    }
    parts
}

async fn write(client: &Client, path: &str, counts: &Counts) -> Result<()> {
    let mut text = Vec::new();
    for (word, count) in counts {
        text.extend_from_slice(word);
        text.extend_from_slice(format!("\t{count}\n").as_bytes());
    }
    let mut file = client.create(path).await?;
    file.write_bytes(Bytes::from(text)).await?;
    file.close().await
}

/// dfs's error out of tokio's traits.
fn failed(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(other) => Error::new(Code::Internal, other.to_string()),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [master, input, output, split] = &arguments[..] else {
        return Err(Error::new(
            Code::InvalidArgument,
            "usage: wordcount MASTER INPUT OUTPUT SPLIT_BYTES",
        ));
    };
    let size: Size = split
        .parse()
        .map_err(|_| Error::new(Code::InvalidArgument, "SPLIT_BYTES is a size"))?;
    word_count(&Client::connect(master).await?, input, output, size.bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts with the text cut at every multiple of `length`, as map tasks do.
    async fn counted(text: &[u8], length: usize) -> Counts {
        let mut all = Vec::new();
        for offset in (0..text.len()).step_by(length) {
            let split = Split {
                offset: offset as u64,
                length: length.min(text.len() - offset) as u64,
                hosts: Vec::new(),
            };
            let from = offset.saturating_sub(1);
            all.push(count_lines(&text[from..], from as u64, &split).await.unwrap());
        }
        let mut whole = Counts::new();
        for part in reduce(all) {
            whole.extend(part);
        }
        whole
    }

    #[tokio::test]
    async fn every_line_is_counted_once_wherever_the_splits_end() {
        let text = b"one two\n\nthree Three, three\nfour\ntwo one\nlast line without an end";
        let whole = counted(text, text.len()).await;
        assert_eq!(
            (whole[&b"three"[..]], whole[&b"one"[..]], whole[&b"end"[..]]),
            (3, 2, 1)
        );
        for length in 1..text.len() {
            assert_eq!(counted(text, length).await, whole, "splits of {length} bytes");
        }
    }

    #[tokio::test]
    async fn words_in_other_scripts_stay_whole() {
        let text = "wëîrd größe größe\n".as_bytes();
        assert_eq!(counted(text, 4).await["größe".as_bytes()], 2);
    }
}
