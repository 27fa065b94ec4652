//! Record append: each record exactly once, whole, at an offset that the chunk's head chooses (protocol section 6).
//!
//! A record goes to the file's last chunk and stays with it: whatever happens, it is sent there again, with the same
//! sequence, until that chunk says where it is, or that it is full and the record is not in it. Only then it goes to
//! the next chunk. A producer that was not heard of yet is looked for in the tables of the earlier chunks first.
//!
//! Each producer has one record under way at a time, on a stream of its own; many producers run at the same time.

mod line;
mod place;
mod scan;
mod tell;

use crate::cache::Locations;
use crate::convert::Grant;
use crate::engine::Core;
use crate::file::Opened;
use crate::meter::Meter;
use crate::types::Caller;
use bytes::Bytes;
use dfs_proto::{Code, Error, InodeId, Result, Version, WriterId};
use line::{Line, Put};
use place::{Place, Places};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::time::{Instant, timeout_at};

/// Producers a handle remembers.
const PRODUCERS_MAX: usize = 65_536;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it begins in the file, bytes. `None`: it was appended before, and the producer has gone on since; of older
    /// records only that they are there is kept.
    pub offset: Option<u64>,
}

/// What all producers of a handle share.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Arc<Core>,
    inode: InodeId,
    caller: Caller,
    meter: Arc<Meter>,
    locations: Arc<Locations>,
    unsynced: Mutex<Unsynced>,
}

/// Records that are acknowledged and not on stable storage.
#[derive(Debug, Default)]
struct Unsynced {
    /// The version of the oldest one.
    since: Option<Version>,
    /// Some went with a power cut of all replicas, and nobody was told.
    lost: bool,
    /// The master is to be told of the length soon.
    due: bool,
}

/// The appending side of an open file.
#[derive(Debug)]
pub(crate) struct Appender {
    shared: Arc<Shared>,
    places: Arc<tokio::sync::Mutex<Places>>,
    producers: Mutex<BTreeMap<u64, Arc<tokio::sync::Mutex<Producer>>>>,
}

/// One producer.
#[derive(Debug, Default)]
struct Producer {
    /// Earlier chunks do not have it, or `last` says what they have.
    known: bool,
    /// Its newest record that is in the file, and where.
    last: Option<(u64, Option<u64>)>,
    /// Where its record under way was sent: it stays there until that chunk has answered.
    place: Option<Arc<Place>>,
    line: Option<Line>,
}

impl Appender {
    pub(crate) fn new(file: &Opened, locations: Arc<Locations>) -> Appender {
        let shared = Shared {
            core: file.core.clone(),
            inode: file.inode,
            caller: file.caller.clone(),
            meter: file.meter.clone(),
            locations,
            unsynced: Mutex::default(),
        };
        Appender {
            shared: Arc::new(shared),
            places: Arc::default(),
            producers: Mutex::default(),
        }
    }

    /// See [`Handle::append_record`](crate::Handle::append_record).
    pub(crate) async fn append(&self, producer: u64, sequence: u64, record: Bytes) -> Result<Appended> {
        self.check(producer, sequence, &record)?;
        let one = self.producer(producer)?;
        let late = |_| {
            Error::new(
                Code::TimedOut,
                "the record was not acknowledged before the deadline",
            )
        };
        let by = self.shared.core.master.deadline();
        let appending = async {
            let mut one = one.lock().await;
            self.append_in_turn(producer, &mut one, (sequence, &record)).await
        };
        timeout_at(by, appending).await.map_err(late)?
    }

    async fn append_in_turn(
        &self,
        producer: u64,
        one: &mut Producer,
        (sequence, record): (u64, &Bytes),
    ) -> Result<Appended> {
        if !one.known {
            self.look_for(producer, one).await?;
        }
        if let Some((last, offset)) = one.last.filter(|(last, _)| *last >= sequence) {
            let offset = offset.filter(|_| last == sequence);
            return Ok(Appended { offset });
        }
        let begun = Instant::now();
        let offset = self.append_new(producer, one, (sequence, record)).await?;
        self.shared.meter.stalled(begun.elapsed());
        Ok(Appended { offset })
    }

    fn check(&self, producer: u64, sequence: u64, record: &Bytes) -> Result<()> {
        let refuse = |why: String| Err(Error::new(Code::InvalidArgument, why));
        if WriterId::of_producer(producer).is_none() || sequence == 0 {
            return refuse("producers have numbers from 1 to 2^63 - 2, and sequences begin with 1".into());
        }
        if record.is_empty() {
            return refuse("a record has at least one byte".into());
        }
        let most = self.shared.core.master.record_bytes_max();
        if record.len() as u64 > most {
            return Err(Error::new(
                Code::TooLarge,
                format!("a record has at most {most} bytes here"),
            ));
        }
        Ok(())
    }

    fn producer(&self, producer: u64) -> Result<Arc<tokio::sync::Mutex<Producer>>> {
        let mut all = self.producers.lock().expect("no panic while held");
        if all.len() >= PRODUCERS_MAX && !all.contains_key(&producer) {
            return Err(Error::new(Code::Busy, "too many producers on one handle"));
        }
        Ok(all.entry(producer).or_default().clone())
    }

    /// The producer's own record, not known to be in the file.
    async fn append_new(
        &self,
        producer: u64,
        one: &mut Producer,
        (sequence, record): (u64, &Bytes),
    ) -> Result<Option<u64>> {
        let deadline = self.shared.core.master.deadline();
        let mut backoff = self.shared.core.backoff(deadline);
        let mut failures = 0;
        loop {
            let place = match &one.place {
                Some(place) => place.clone(),
                None => self.places.lock().await.current(&self.shared, deadline).await?,
            };
            // From here on the record may be in this chunk.
            one.place = Some(place.clone());
            let error = match self.put(producer, one, &place, (sequence, record)).await {
                Ok(Put::In { offset, length }) => {
                    let offset = offset.map(|o| place.grant.file_offset + o);
                    (one.last, one.place) = (Some((sequence, offset)), None);
                    self.acknowledged(&place, length, deadline).await?;
                    return Ok(offset);
                }
                Ok(Put::Full { length }) => {
                    let mut places = self.places.lock().await;
                    match places.behind(&self.shared, &place, length, deadline).await {
                        Ok(next) => {
                            one.place = Some(next);
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if failures > 0 {
                backoff.wait().await.map_err(|_| gave_up(&place, &error))?;
            }
            failures += 1;
            self.shared.meter.failover();
            tracing::debug!(inode = %self.shared.inode, chunk = %place.chunk(), producer, sequence, %error, "a record is sent again");
            one.place = Some(self.newer(&place, error, &mut backoff).await?);
        }
    }

    /// A newer place after a failure, until the deadline.
    async fn newer(
        &self,
        failed: &Place,
        mut error: Error,
        backoff: &mut dfs_stdx::backoff::Backoff,
    ) -> Result<Arc<Place>> {
        loop {
            let by = backoff.deadline();
            let newer = self
                .places
                .lock()
                .await
                .again(&self.shared, failed, &error, by)
                .await;
            match newer {
                Ok(place) => return Ok(place),
                Err(refusal) if refusal.retry() == dfs_proto::Retry::Never => return Err(refusal),
                Err(other) => {
                    backoff.wait().await.map_err(|_| gave_up(failed, &other))?;
                    error = Error {
                        node: other.node.or(error.node),
                        ..error
                    };
                }
            }
        }
    }

    async fn put(
        &self,
        producer: u64,
        one: &mut Producer,
        place: &Place,
        (sequence, record): (u64, &Bytes),
    ) -> Result<Put> {
        let mut line = match one.line.take().filter(|l| l.leads_to(place)) {
            Some(line) => line,
            None => Line::open(&self.shared.core, place, producer).await?,
        };
        // The chain's members have the deadline to find out which of them hangs; only then is it the client's turn.
        let patience = self.shared.core.master.timings().ack_deadline * 5 / 4;
        let put = line.put(place, sequence, record, patience).await?;
        one.line = Some(line);
        Ok(put)
    }

    /// What producers of this number have put into the chunks before the last one.
    async fn look_for(&self, producer: u64, one: &mut Producer) -> Result<()> {
        let deadline = self.shared.core.master.deadline();
        loop {
            let (found, last) = scan::last_record(&self.shared, producer, deadline).await?;
            let mut places = self.places.lock().await;
            let current = places.current(&self.shared, deadline).await?;
            if last.is_none_or(|last| last == current.chunk()) {
                one.last = found.map(|(sequence, offset)| (sequence, Some(offset)));
                (one.known, one.place) = (true, Some(current));
                return Ok(());
            }
            // A chunk that was opened meanwhile has another one before it that nobody has looked into; or what was
            // known here as the last one is it no more.
            places.current = None;
        }
    }
}

impl Shared {
    /// A grant says how far a loss reached: what was acknowledged before and not synced is gone with it.
    fn note_loss(&self, grant: &Grant) {
        let mut unsynced = self.unsynced.lock().expect("no panic while held");
        if unsynced.since.is_some_and(|since| grant.capability.loss > since) {
            (unsynced.since, unsynced.lost) = (None, true);
        }
    }

    /// A sealed chunk is on stable storage.
    fn sealed(&self, _full: &Place) {
        self.unsynced.lock().expect("no panic while held").since = None;
        self.locations.forget();
    }
}

fn gave_up(place: &Place, last: &Error) -> Error {
    let (chunk, version) = place.is();
    let message = format!("chunk {chunk} version {version} took no record before the deadline: {last}");
    Error::new(Code::TimedOut, message).on_chunk(chunk, version)
}
