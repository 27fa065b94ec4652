//! Lines of local files as records.

use super::local::at;
use super::{BLOCKS_AHEAD, Job};
use crate::exit::{About as _, Result};
use bytes::{Bytes, BytesMut};
use dfs_client::Handle;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Read at once, bytes: less if there is less, so that a line that was typed does not wait for the next.
const PIECE_BYTES: usize = 64 * 1024;

/// A producer and its next record.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// Of the file.
    pub(crate) handle: &'a Handle,
    /// Whose records.
    pub(crate) producer: u64,
    /// Of the next one.
    pub(crate) sequence: u64,
    /// The file's, for messages.
    pub(crate) path: &'a [u8],
}

impl Line<'_> {
    /// Appends each line of a local file (or stdin, `-`), with its end, as soon as it is read. A last line without an
    /// end is a record, too.
    ///
    /// # Errors
    /// Of either side; records before the one that failed are there.
    pub(crate) async fn append(&mut self, job: &Arc<Job>, local: &Path) -> Result<()> {
        let (sender, mut pieces) = mpsc::channel(BLOCKS_AHEAD);
        let (source, pool) = (local.to_owned(), job.pool.clone());
        let reading = tokio::spawn(async move { pool.run(move || read(&source, &sender)).await });
        let mut rest = BytesMut::new();
        while let Some(piece) = pieces.recv().await {
            rest.extend_from_slice(&piece);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line = rest.split_to(end + 1).freeze();
                self.one(job, line).await?;
            }
        }
        let read = reading.await.expect("a reader does not panic");
        read.map_err(at(local))?;
        if !rest.is_empty() {
            self.one(job, rest.freeze()).await?;
        }
        job.tally.finished();
        Ok(())
    }

    async fn one(&mut self, job: &Job, record: Bytes) -> Result<()> {
        let length = record.len();
        let appended = self.handle.append_record(self.producer, self.sequence, record);
        appended.await.about(self.path)?;
        self.sequence += 1;
        job.tally.moved(length);
        Ok(())
    }
}

/// Hands on what there is, as it comes; ends when nobody wants more.
fn read(source: &Path, pieces: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut file: Box<dyn Read> = match source.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(source)?),
    };
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let length = match file.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if length == 0
            || pieces
                .blocking_send(Bytes::copy_from_slice(&buffer[..length]))
                .is_err()
        {
            return Ok(());
        }
    }
}
