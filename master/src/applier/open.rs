//! The start: what is in the data directory, and how it becomes one state again.
//!
//! The log is the truth from its first record on, a dump all before that, and the store only saves time:
//! one that is missing, broken, or older than the log's first record is moved aside and built anew from dump and log.
//! A store or dump that is **ahead** of the log means that the log has lost acknowledged records: that is refused.

use std::path::PathBuf;
use std::sync::Arc;

use dfs_proto::ids::ClusterId;
use dfs_proto::{Code, Error as Refused};
use dfs_stdx::disk::{self, Disk, Lock};

use super::committer::{Broken, apply};
use super::{Options, ViewKind, settler};
use crate::log::{self, Entry, Log, Payload, Place};
use crate::store::dump::{self, Found, Reader};
use crate::store::{self, Batch, Behind, Ground, MemoryStore, Opened as Sled, SledStore, Store};

/// Records applied as one batch while the log is replayed.
const REPLAY_GROUP: usize = 256;
/// Entries of a dump are taken in pieces of so many bytes where nobody else waits.
const PIECE_BYTES: usize = 1 << 20;
/// How to go on without what is lost.
const HOW: &str = "Put back an intact copy of the data directory, or start once with --recover-from-dump: that keeps \
                   the log aside and goes on with all that can be read; what was acknowledged after it is then lost";

/// What the start found or made.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) ground: Ground,
    /// Newest first.
    pub(super) dumps: Vec<Found>,
    pub(super) lock: Box<dyn Lock>,
}

/// Why a master does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("another master runs in this data directory ({0})")]
    Locked(#[source] disk::Error),
    #[error("the data directory cannot be used: {0}")]
    Disk(#[from] disk::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Dump(#[from] dump::Error),
    #[error("the log in {} is gone, though there is a state that came from it. {HOW}", .0.display())]
    NoLog(PathBuf),
    #[error(
        "the log ends at record {last}, but {what} holds what record {applied} did: acknowledged commands are \
         missing. {HOW}"
    )]
    Behind { last: u64, what: String, applied: u64 },
    #[error("the log begins at record {first}, and no dump that can be read reaches so far. {HOW}")]
    NoDump { first: u64 },
    #[error("nothing in the data directory says which cluster it is of: there is nothing to recover")]
    Nothing,
}

impl From<log::Error> for Error {
    fn from(error: log::Error) -> Self {
        Error::Broken(error.into())
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Error::Broken(error.into())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let code = if matches!(error, Error::Locked(_)) {
            Code::Busy
        } else {
            Code::Unavailable
        };
        Refused::new(code, error.to_string())
    }
}

type Result<T> = std::result::Result<T, Error>;

/// The folder of dumps.
pub(super) fn dumps(options: &Options) -> PathBuf {
    options.data_dir.join("dumps")
}

fn view(options: &Options) -> PathBuf {
    options.data_dir.join("view")
}

/// Opens everything and brings the store up to the end of the log.
/// The log goes through a disk of its own, so that it can be measured.
pub(super) fn open(
    options: &Options,
    disk: &Arc<dyn Disk>,
    log_disk: Arc<dyn Disk>,
    born: ClusterId,
) -> Result<Opened> {
    disk.create_dir_all(&options.data_dir)?;
    let lock = lock(options, &**disk)?;
    let (folder, segment_bytes) = (options.data_dir.join("log"), options.segment_bytes);
    let place = Place {
        disk: log_disk,
        folder,
        segment_bytes,
    };
    if options.recover_from_dump {
        recover(options, &place)?;
    }
    let log = if log::exists(&place)? {
        Log::open(place)?
    } else {
        let is_left = !dump::list(&**disk, &dumps(options))?.is_empty() || disk.exists(&view(options))?;
        if is_left {
            return Err(Error::NoLog(place.folder));
        }
        Log::create(place, born, 1, 0)?
    };
    let (ground, dumps) = open_state(options, &**disk, &log)?;
    let from = ground.applied() + 1;
    let mut replay = Replay::onto(&ground);
    log.replay(from, |entry| replay.add(entry))?;
    replay.flush()?;
    if log.last() >= from {
        tracing::info!(from, to = log.last(), "replayed the log");
    }
    Ok(Opened {
        log,
        ground,
        dumps,
        lock,
    })
}

fn lock(options: &Options, disk: &dyn Disk) -> Result<Box<dyn Lock>> {
    let is_held = |error: &disk::Error| error.source.kind() == std::io::ErrorKind::WouldBlock;
    disk.lock(&options.data_dir.join("lock")).map_err(|error| {
        if is_held(&error) {
            Error::Locked(error)
        } else {
            Error::Disk(error)
        }
    })
}

/// The store, as it is or built from a dump, but not yet what the log has beyond it.
fn open_state(options: &Options, disk: &dyn Disk, log: &Log) -> Result<(Ground, Vec<Found>)> {
    let found = dump::list(disk, &dumps(options))?;
    let not_behind = |what: PathBuf, applied: u64| {
        let (last, what) = (log.last(), what.display().to_string());
        if applied > last {
            Err(Error::Behind { last, what, applied })
        } else {
            Ok(())
        }
    };
    if let Some(newest) = found.first() {
        not_behind(newest.path.clone(), newest.applied)?;
    }
    let why = match existing(options, log.cluster()) {
        Ok(store) => {
            not_behind(view(options), store.applied())?;
            if store.applied() + 1 >= log.first() {
                return Ok((Ground::new(store), found));
            }
            "it is older than the log's first record".into()
        }
        Err(why) => why,
    };
    if options.view != ViewKind::Memory && log.last() > 0 {
        tracing::warn!(
            why,
            "the store cannot be used; it is built anew from dump and log"
        );
    }
    let mut store = fresh(options, log.cluster())?;
    if !load_newest(disk, &found, log.first() - 1, &mut *store)? && log.first() > 1 {
        return Err(Error::NoDump { first: log.first() });
    }
    Ok((Ground::new(store), found))
}

/// The store that is there, or why there is none to use.
fn existing(options: &Options, cluster: ClusterId) -> std::result::Result<Box<dyn Store>, String> {
    let ViewKind::Sled { cache_bytes } = options.view else {
        return Err("it was in memory".into());
    };
    match SledStore::open(&view(options), cluster, cache_bytes) {
        Sled::Good(store) => Ok(Box::new(Behind::new(store))),
        Sled::Missing => Err("it is missing".into()),
        Sled::Unusable(why) => Err(why),
    }
}

/// An empty store; what was in its place is moved aside.
fn fresh(options: &Options, cluster: ClusterId) -> Result<Box<dyn Store>> {
    let ViewKind::Sled { cache_bytes } = options.view else {
        return Ok(Box::new(MemoryStore::new()));
    };
    let path = view(options);
    SledStore::set_aside(&path)?;
    let store = SledStore::create(&path, cluster, cache_bytes)?;
    Ok(Box::new(Behind::new(store)))
}

/// Loads the newest dump that can be read and holds what record `least` did. False if there is none.
fn load_newest(disk: &dyn Disk, found: &[Found], least: u64, store: &mut dyn Store) -> Result<bool> {
    for dump in found.iter().filter(|dump| dump.applied >= least) {
        // Read to its end before anything of it is believed.
        let checked = Reader::open(disk, &dump.path).and_then(|mut reader| {
            while reader.next_block()?.is_some() {}
            Ok(())
        });
        if let Err(error) = checked {
            tracing::warn!(%error, "a dump cannot be used");
            continue;
        }
        let mut reader = Reader::open(disk, &dump.path)?;
        while let Some(entries) = reader.next_block()? {
            let mut batch = Batch::default();
            entries.into_iter().for_each(|(key, value)| batch.put(key, value));
            // With no index, so that a store that is loaded in part is not taken for a whole one.
            store.commit(&batch, 0)?;
        }
        store.commit(&Batch::default(), reader.header().applied)?;
        return Ok(true);
    }
    Ok(false)
}

/// Applies records in groups.
struct Replay<'a> {
    ground: &'a Ground,
    payloads: Vec<Payload>,
}

impl<'a> Replay<'a> {
    fn onto(ground: &'a Ground) -> Self {
        Replay {
            ground,
            payloads: Vec::new(),
        }
    }

    fn add(&mut self, entry: Entry) -> std::result::Result<(), Broken> {
        self.payloads.push(entry.payload);
        if self.payloads.len() >= REPLAY_GROUP {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> std::result::Result<(), Broken> {
        let payloads = std::mem::take(&mut self.payloads);
        if !payloads.is_empty() {
            apply(self.ground, self.ground.applied() + 1, &payloads, None)?;
            settler::settle_if_due(self.ground)?;
        }
        Ok(())
    }
}

/// Makes a dump of all that can still be read, moves the log aside, and begins a new one behind it.
fn recover(options: &Options, place: &Place) -> Result<()> {
    let disk = &place.disk;
    let found = dump::list(&**disk, &dumps(options))?;
    let readers = found
        .iter()
        .filter_map(|dump| Reader::open(&**disk, &dump.path).ok());
    let dumped = readers.map(|reader| reader.header()).next();
    let logged = log::salvage(place, u64::MAX, |_| Ok::<_, log::Error>(()))?;
    let clusters = logged
        .map(|(_, cluster)| cluster)
        .or(dumped.map(|header| header.cluster));
    let cluster = clusters.ok_or(Error::Nothing)?;
    let term = logged
        .map_or(0, |(term, _)| term)
        .max(dumped.map_or(0, |header| header.term));
    let store = match existing(options, cluster) {
        Ok(store) => store,
        Err(_) => {
            let mut store = fresh(options, cluster)?;
            load_newest(&**disk, &found, 0, &mut *store)?;
            store
        }
    };
    let ground = Ground::new(store);
    let mut replay = Replay::onto(&ground);
    log::salvage(place, ground.applied() + 1, |entry| replay.add(entry))?;
    replay.flush()?;
    let header = dump::Header {
        cluster,
        applied: ground.pin(),
        term,
    };
    let mut writer = dump::Writer::begin(disk.clone(), &dumps(options), header)?;
    while let Some(entries) = ground.take(PIECE_BYTES)? {
        entries
            .iter()
            .try_for_each(|(key, value)| writer.add(key, value))?;
    }
    writer.finish()?;
    ground.checkpointer().checkpoint()?;
    let aside = log::set_aside(place)?;
    tracing::warn!(to = header.applied, log = %aside.display(), "recovered; the old log was moved aside");
    Log::create(place.clone(), cluster, header.applied + 1, term)?;
    Ok(())
}
