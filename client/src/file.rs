//! An open file by offset: what a mount or a gateway calls, and what [`File`](crate::File) stands on.

use crate::append::{Appended, Appender};
use crate::cache::Locations;
use crate::convert::{self, Grant, Located};
use crate::engine::Core;
use crate::meter::Meter;
use crate::read::{Follow, Reader};
use crate::settings::OpenOptions;
use crate::types::{Caller, Metadata, SetAttributes, Stats};
use crate::write::Writer;
use bytes::Bytes;
use dfs_proto::{Code, Error, InodeId, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open file without a position; clones share it, and its calls may run at the same time.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    opened: Opened,
    reader: Reader,
    /// `None`: opened for reading only.
    writer: Option<Writer>,
    appender: Option<Appender>,
    closed: AtomicBool,
    chunk_bytes: u64,
}

/// What was opened, by whom and how.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) core: Arc<Core>,
    pub(crate) inode: InodeId,
    pub(crate) caller: Caller,
    pub(crate) options: OpenOptions,
    pub(crate) sync_on_close: bool,
    pub(crate) meter: Arc<Meter>,
}

/// What came with the answer to opening.
#[derive(Debug, Default)]
pub(crate) struct Gift {
    pub(crate) located: Option<Located>,
    pub(crate) grant: Option<Grant>,
}

impl Handle {
    pub(crate) fn new(
        core: &Arc<Core>,
        metadata: &Metadata,
        caller: Caller,
        options: OpenOptions,
        gift: Gift,
    ) -> Handle {
        let chunk_bytes = match metadata.chunk_bytes {
            0 => core.master.chunk_bytes(),
            given => given,
        };
        let opened = Opened {
            core: core.clone(),
            inode: metadata.inode,
            caller,
            sync_on_close: options.sync_on_close.unwrap_or(core.settings.sync_on_close),
            options,
            meter: Meter::part_of(&core.meter),
        };
        let locations = Arc::new(Locations::new(&opened, chunk_bytes));
        if let Some(located) = gift.located {
            locations.learn(located);
        }
        let reader = Reader::new(core.clone(), locations.clone(), opened.meter.clone());
        let writes = opened.options.write || opened.options.append;
        let appender = writes.then(|| Appender::new(&opened, locations.clone()));
        let writer = writes.then(|| Writer::new(&opened, chunk_bytes, gift.grant, locations));
        let closed = AtomicBool::new(false);
        Handle {
            inner: Arc::new(Inner {
                opened,
                reader,
                writer,
                appender,
                closed,
                chunk_bytes,
            }),
        }
    }

    /// Which file.
    #[must_use]
    pub fn inode(&self) -> InodeId {
        self.inner.opened.inode
    }

    /// Up to `length` bytes from `offset`; fewer only at the end of the file. Sees all this handle has written.
    ///
    /// # Errors
    /// `InvalidArgument` if the file was not opened for reading; `Unavailable` or `Corrupt`, with the chunk and the
    /// replicas that were tried, if none could be read before the deadline.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let begun = self.inner.opened.core.clock.now();
        let bytes = self.read_quietly(offset, length).await;
        self.inner.opened.meter.stalled(begun.elapsed());
        bytes
    }

    /// As [`Handle::read_at`], for a reader ahead, whom nobody waits for.
    pub(crate) async fn read_quietly(&self, offset: u64, length: usize) -> Result<Bytes> {
        if !self.inner.opened.options.read {
            return Err(Error::new(
                Code::InvalidArgument,
                "the file was not opened for reading",
            ));
        }
        self.settle().await?;
        self.inner.reader.read(offset, length).await
    }

    /// Writes the bytes at `offset` and returns when every member has them: from then on every reader sees them.
    ///
    /// # Errors
    /// `InvalidArgument` if the file was not opened for writing; `Lost` if all replicas lost power before they
    /// answered; `TimedOut` if no members could be found before the deadline; the master's refusal (`NoSpace`, ...).
    pub async fn write_at(&self, offset: u64, data: Bytes) -> Result<()> {
        self.writer()?.write(offset, data).await
    }

    /// Sends the bytes on their way to `offset` and returns when there is room for more: see [`Handle::flush`].
    ///
    /// # Errors
    /// As [`Handle::write_at`]; what fails later is reported by the next `flush`, `sync_all` or `close`.
    pub async fn queue_at(&self, offset: u64, data: Bytes) -> Result<()> {
        self.writer()?.queue(offset, data).await
    }

    /// As [`Handle::queue_at`], with the checksums of the pieces.
    pub(crate) async fn queue_packet(&self, offset: u64, data: Bytes, checksums: Vec<u32>) -> Result<()> {
        self.writer()?.queue_packet(offset, data, checksums).await
    }

    /// Writes at the end of the file; returns the offset. The handle must be the only writer of the file.
    ///
    /// # Errors
    /// As [`Handle::write_at`].
    pub async fn append(&self, data: Bytes) -> Result<u64> {
        let writer = self.writer()?;
        let end = if writer.end().await == 0 {
            self.inner.reader.size().await?
        } else {
            0
        };
        writer.append(end, data).await
    }

    /// Appends a record whole, exactly once, at an offset that the file chooses, and returns when every member has it.
    ///
    /// `producer` is a number of the caller's own (1 to 2^63 - 2), one for each source of records; it numbers its
    /// records with rising sequences from 1. The same sequence again, from this process or a later one, changes
    /// nothing and is answered with the first one's place. Records of a producer are in the file in their order. A
    /// producer has one record under way at a time; producers run side by side.
    ///
    /// A record is on stable storage after [`Handle::sync_all`] or [`Handle::close`].
    ///
    /// # Errors
    /// `InvalidArgument` if the file was not opened for writing, or the record is empty; `TooLarge` for a record over
    /// 16 MiB or a quarter of a chunk; `NotSupported` if the file ends in a hole; `TimedOut` if nobody could say before
    /// the deadline that the record is in: it may be, and the same call again tells.
    pub async fn append_record(&self, producer: u64, sequence: u64, record: Bytes) -> Result<Appended> {
        self.writer()?;
        let appender = self.inner.appender.as_ref().expect("who writes can append");
        appender.append(producer, sequence, record).await
    }

    /// Follows the file from `offset` on: its bytes as soon as they are committed, whoever appends them.
    ///
    /// # Errors
    /// `InvalidArgument` if the file was not opened for reading.
    pub fn follow(&self, offset: u64) -> Result<Follow> {
        if !self.inner.opened.options.read {
            let why = "the file was not opened for reading";
            return Err(Error::new(Code::InvalidArgument, why));
        }
        Ok(Follow::new(self.clone(), offset))
    }

    /// Returns when every member has all that was written before.
    ///
    /// # Errors
    /// The first failure since the last report.
    pub async fn flush(&self) -> Result<()> {
        match &self.inner.writer {
            Some(writer) => writer.flush().await,
            None => Ok(()),
        }
    }

    /// Returns when all that was written before is on stable storage of every member, length included (fsync).
    ///
    /// # Errors
    /// The first failure since the last report; `Lost`, once, if acknowledged bytes went with a power cut of all
    /// replicas before they were synced.
    pub async fn sync_all(&self) -> Result<()> {
        if let Some(appender) = &self.inner.appender {
            appender.sync().await?;
        }
        match &self.inner.writer {
            Some(writer) => writer.sync().await,
            None => Ok(()),
        }
    }

    /// Attributes, with this handle's own writes in the size.
    ///
    /// # Errors
    /// The master's.
    pub async fn stat(&self) -> Result<Metadata> {
        self.settle().await?;
        let Opened {
            core, caller, inode, ..
        } = &self.inner.opened;
        convert::attributes(core.master.query(caller, convert::get_attributes(*inode)).await?)
    }

    /// Bytes, with this handle's own writes and what others are writing now.
    ///
    /// # Errors
    /// The master's.
    pub async fn len(&self) -> Result<u64> {
        self.settle().await?;
        self.inner.reader.size().await
    }

    /// Cuts or extends the file (with zeros).
    ///
    /// # Errors
    /// As [`Handle::write_at`].
    pub async fn set_len(&self, size: u64) -> Result<()> {
        let writer = self.writer()?;
        writer.pause().await?;
        let Opened {
            core, caller, inode, ..
        } = &self.inner.opened;
        let set = SetAttributes {
            size: Some(size),
            ..SetAttributes::default()
        };
        core.master
            .change(caller, convert::set_attributes(*inode, &set, true))
            .await?;
        writer.cut(size).await;
        self.inner.reader.locations.forget();
        Ok(())
    }

    /// Changes attributes after all that was written before has arrived.
    ///
    /// # Errors
    /// The master's.
    pub async fn set_attributes(&self, set: SetAttributes) -> Result<Metadata> {
        if let Some(size) = set.size {
            self.set_len(size).await?;
        }
        self.settle().await?;
        let Opened {
            core, caller, inode, ..
        } = &self.inner.opened;
        let set = SetAttributes { size: None, ..set };
        convert::attributes_changed(
            core.master
                .change(caller, convert::set_attributes(*inode, &set, true))
                .await?,
        )
    }

    /// Ends writing: everything acknowledged, durable unless the options say otherwise, the length committed.
    /// A handle that is dropped instead ends in the background, and its errors are lost.
    ///
    /// # Errors
    /// The first failure since the last report. A handle that was closed once is closed.
    pub async fn close(&self) -> Result<()> {
        match &self.inner.writer {
            Some(writer) if !self.inner.closed.swap(true, Ordering::Relaxed) => {
                let sync = self.inner.opened.sync_on_close;
                let appended = match &self.inner.appender {
                    Some(appender) => appender.close(sync).await,
                    None => Ok(()),
                };
                writer.close(sync).await.and(appended)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What failures have cost this file.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.opened.meter.stats()
    }

    /// Bytes of a full chunk of this file.
    #[must_use]
    pub fn chunk_bytes(&self) -> u64 {
        self.inner.chunk_bytes
    }

    /// The size as it was last heard of.
    pub(crate) fn known_size(&self) -> u64 {
        self.inner.reader.locations.known_size()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn opened(&self) -> &Opened {
        &self.inner.opened
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.inner.reader
    }

    pub(crate) fn maybe_writer(&self) -> Option<&Writer> {
        self.inner.writer.as_ref()
    }

    pub(crate) fn writer(&self) -> Result<&Writer> {
        let writer = self.inner.writer.as_ref().filter(|_| !self.is_closed());
        writer.ok_or_else(|| Error::new(Code::InvalidArgument, "the file is not open for writing"))
    }

    /// What this handle has written is where its own reads look for it.
    async fn settle(&self) -> Result<()> {
        if let Some(writer) = &self.inner.writer
            && writer.settle().await?
        {
            self.inner.reader.locations.forget();
        }
        Ok(())
    }
}
