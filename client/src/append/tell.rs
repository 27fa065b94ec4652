//! What an appender tells the master: lengths. At once where others wait for it, else now and then, and at the end.

use super::place::{Place, Places};
use super::{Appender, Shared};
use crate::convert::{self, Commit, data};
use bytes::Bytes;
use dfs_proto::{Code, Error, Result, WriterId};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

impl Appender {
    /// All members have the chunk up to here. Until the master knows of a first length, nobody else may write to it.
    pub(super) async fn acknowledged(&self, place: &Arc<Place>, length: u64, by: Instant) -> Result<()> {
        place.grown(length);
        let is_due = {
            let mut unsynced = self.shared.unsynced.lock().expect("no panic while held");
            unsynced.since.get_or_insert(place.version());
            !std::mem::replace(&mut unsynced.due, true)
        };
        if place.recorded() == 0 {
            // Told, or another version is active that has told it.
            match self.shared.commit(place, false, false, by).await {
                Err(error) if !is_told_otherwise(error.code) => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        if is_due {
            let (shared, places) = (self.shared.clone(), self.places.clone());
            tokio::spawn(async move { shared.commit_later(&places).await });
        }
        Ok(())
    }

    /// Returns when all records that were acknowledged before are on stable storage of every member, length included.
    ///
    /// # Errors
    /// `Lost`, once, if acknowledged records went with a power cut of all replicas; `TimedOut`.
    pub(crate) async fn sync(&self) -> Result<()> {
        let deadline = self.shared.core.master.deadline();
        let mut backoff = self.shared.core.backoff(deadline);
        loop {
            self.shared.report()?;
            let since = self.shared.unsynced.lock().expect("no panic while held").since;
            let current = self.places.lock().await.current.clone();
            // The chunks before the last one are sealed, and with that synced.
            let (Some(place), Some(_)) = (current, since) else {
                return Ok(());
            };
            let error = match self.sync_chunk(&place, deadline).await {
                Ok(()) => {
                    self.shared.unsynced.lock().expect("no panic while held").since = None;
                    return self.shared.report();
                }
                Err(error) => error,
            };
            backoff.wait().await.map_err(|_| super::gave_up(&place, &error))?;
            self.newer(&place, error, &mut backoff).await?;
        }
    }

    /// A packet without bytes: its acknowledgement means that all before it is on stable storage.
    async fn sync_chunk(&self, place: &Arc<Place>, deadline: Instant) -> Result<()> {
        let core = &self.shared.core;
        let by = deadline.min(Instant::now() + core.master.timings().ack_deadline * 5 / 4);
        let syncing = async {
            let mut stream = core.servers.fresh_stream(place.head()).await?;
            let writer = WriterId::of_stream(core.rng.u64());
            let open = data::write_open(stream.number, &place.grant.token, writer);
            stream.send(&open, Bytes::new(), by).await?;
            let header = data::PacketHeader {
                sequence: 1,
                offset: 0,
                checksums: Vec::new(),
                sync: true,
                more: false,
            };
            stream.send(&data::packet(header), Bytes::new(), by).await?;
            loop {
                match data::heard(stream.receive().await?)? {
                    data::Heard::Acked(acked) if acked.sequence >= 1 => return Ok(acked.length),
                    data::Heard::Opened(_) | data::Heard::Acked(_) => {}
                    data::Heard::Closed => return Err(place.broken(&"it ended the stream")),
                }
            }
        };
        let late = |_| Error::new(Code::TimedOut, "the sync was not acknowledged in time");
        let synced: Result<u64> = timeout_at(by, syncing).await.map_err(late).and_then(|r| r);
        place.grown(synced.map_err(|e| place.blame(e))?);
        self.shared.commit(place, true, false, deadline).await
    }

    /// Ends appending: lengths told, durable if asked for, grants given back.
    pub(crate) async fn close(&self, sync: bool) -> Result<()> {
        let synced = if sync {
            self.sync().await
        } else {
            self.shared.report()
        };
        self.producers.lock().expect("no panic while held").clear();
        let mut places = self.places.lock().await;
        let by = self.shared.core.master.deadline();
        let mut told = Ok(());
        for place in places.all() {
            match self.shared.commit(&place, false, true, by).await {
                // A newer version tells the length itself; a chunk that has gone has none.
                Err(error) if error.code != Code::Stale && error.code != Code::NotFound => told = Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        places.forget();
        synced.and(told)
    }
}

/// A newer version is active, is to come, or another session of this client had the chunk made: the master learns the
/// length from the replicas.
fn is_told_otherwise(code: Code) -> bool {
    matches!(code, Code::Stale | Code::Busy | Code::PermissionDenied)
}

impl Shared {
    async fn commit_later(self: Arc<Shared>, places: &Mutex<Places>) {
        sleep(self.core.master.timings().commit_every).await;
        self.unsynced.lock().expect("no panic while held").due = false;
        let all = places.lock().await.all();
        for place in all.iter().filter(|p| p.length() > p.recorded()) {
            let by = self.core.master.deadline();
            if let Err(error) = self.commit(place, false, false, by).await {
                // The next acknowledgement, the end, or the master itself tells it.
                tracing::debug!(chunk = %place.chunk(), %error, "the master did not take a length");
            }
        }
    }

    /// Tells the master a length.
    async fn commit(&self, place: &Place, durable: bool, close: bool, by: Instant) -> Result<()> {
        let length = place.length();
        let commit = Commit {
            inode: self.inode,
            chunk: place.chunk(),
            version: place.version(),
            length,
            durable,
            mtime_ns: (length > place.recorded()).then(|| self.core.mtime_ns()),
            close,
        };
        let change = convert::commit_length(commit);
        self.core.master.change_by(&self.caller, change, by).await?;
        place.note_recorded(length);
        Ok(())
    }

    /// The loss that nobody was told of.
    fn report(&self) -> Result<()> {
        let mut unsynced = self.unsynced.lock().expect("no panic while held");
        match std::mem::take(&mut unsynced.lost) {
            false => Ok(()),
            true => Err(Error::new(
                Code::Lost,
                "all replicas lost power before acknowledged records were synced",
            )),
        }
    }
}
