//! Beginning, opening, reading and giving up a log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_proto::ids::ClusterId;
use dfs_stdx::disk::{self, File, Open};

use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::mark::Mark;
use super::scan::{Rest, Scanned, scan};
use super::{Entry, Error, Log, Place, Result};

/// Name of a segment that is being made.
const UNFINISHED: &str = "segment.tmp";
/// A tail is written anew in pieces of this many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// True if there is a log in the folder.
///
/// # Errors
/// If the disk fails.
pub fn exists(place: &Place) -> Result<bool> {
    Ok(place.disk.exists(&place.folder)? && !segments(place)?.is_empty())
}

impl Log {
    /// Begins a log whose first record will have the index `first` and a term above `previous_term`.
    ///
    /// # Errors
    /// If the disk fails, or there is a log.
    pub fn create(place: Place, cluster: ClusterId, first: u64, previous_term: u64) -> Result<Log> {
        place.disk.create_dir_all(&place.folder)?;
        make_segment(
            &place,
            SegmentHeader {
                cluster,
                first,
                previous_term,
            },
        )?;
        Log::open(place)
    }

    /// Opens the log: cuts what was torn, refuses what is damaged, writes what may not be durable anew.
    ///
    /// # Errors
    /// If the disk fails or the log is damaged.
    pub fn open(place: Place) -> Result<Log> {
        remove_unfinished(&place)?;
        let firsts = segments(&place)?;
        let Some((&last, earlier)) = firsts.split_last() else {
            let what = "there is no segment".to_owned();
            return Err(Error::Damaged {
                path: place.folder,
                offset: 0,
                what,
            });
        };
        let file = place.disk.open(&place.segment(last), Open::Existing)?;
        let bytes = read_all(&*file)?;
        let header = header(&place, last, &bytes, None)?;
        let mut lengths = BTreeMap::new();
        for first in earlier {
            lengths.insert(*first, checked_length(&place, *first, header.cluster)?);
        }
        let (mut mark, synced) = Mark::open(&*place.disk, &place.folder, header.cluster)?;
        let (scanned, unproven) = scan_last(&place, &header, &bytes, synced)?;
        if scanned.rest == Rest::Torn {
            let (segment, at) = (place.segment(last), scanned.good_bytes);
            let bytes = bytes.len() - at;
            tracing::info!(segment = %segment.display(), at, bytes, "cut an unfinished write off the log");
            file.set_length(at as u64)?;
        }
        write_anew(&*file, &bytes[..scanned.good_bytes], unproven)?;
        place.disk.sync_dir(&place.folder)?;
        mark.note(scanned.next - 1);
        lengths.insert(last, scanned.good_bytes as u64);
        Ok(Log {
            cluster: header.cluster,
            term: scanned.last_term + 1,
            written_bytes: lengths.values().sum(),
            segments: lengths,
            file,
            reserved: scanned.good_bytes as u64,
            next: scanned.next,
            mark,
            closed: None,
            buffer: Vec::new(),
            place,
        })
    }

    /// Shows all records from the index `from` on, in order.
    ///
    /// # Errors
    /// If the disk fails, a record is damaged or missing, or `each` fails.
    pub fn replay<E: From<Error>>(
        &self,
        from: u64,
        mut each: impl FnMut(Entry) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let firsts: Vec<u64> = self.segments.keys().copied().collect();
        for (position, first) in firsts.iter().enumerate() {
            let end = firsts.get(position + 1).copied().unwrap_or(self.next);
            if end <= from {
                continue;
            }
            let path = self.place.segment(*first);
            let bytes = read_path(&self.place, &path)?;
            let header = header(&self.place, *first, &bytes, Some(self.cluster))?;
            let scanned = scan(&bytes, &header, |record, _| {
                if record.index < from {
                    Ok(())
                } else {
                    each(Entry::of(&record))
                }
            })?;
            if scanned.rest != Rest::None || scanned.next != end {
                let what = format!("record {} should be there", scanned.next);
                return Err(Error::Damaged {
                    path,
                    offset: scanned.good_bytes as u64,
                    what,
                }
                .into());
            }
        }
        Ok(())
    }
}

/// Shows the records from `from` on of a log that may be damaged, up to the first that is missing.
/// Returns the greatest term seen and the cluster; `None` if no segment says which.
///
/// # Errors
/// If the disk fails, or `each` fails.
pub fn salvage<E: From<Error>>(
    place: &Place,
    from: u64,
    mut each: impl FnMut(Entry) -> std::result::Result<(), E>,
) -> std::result::Result<Option<(u64, ClusterId)>, E> {
    if !place.disk.exists(&place.folder).map_err(Error::from)? {
        return Ok(None);
    }
    let mut found: Option<(u64, ClusterId)> = None;
    let mut next = from;
    for first in segments(place)? {
        let bytes = read_path(place, &place.segment(first))?;
        let Ok(header) = header(place, first, &bytes, found.map(|(_, cluster)| cluster)) else {
            continue;
        };
        let scanned = scan(&bytes, &header, |record, _| {
            if record.index != next {
                return Ok(());
            }
            next += 1;
            each(Entry::of(&record))
        })?;
        let term = found.map_or(0, |(term, _)| term).max(scanned.last_term);
        found = Some((term, header.cluster));
    }
    Ok(found)
}

/// Moves everything of the log into a new folder beside it, for a person to look at. Returns that folder.
///
/// # Errors
/// If the disk fails; called again, it moves the rest.
pub fn set_aside(place: &Place) -> Result<PathBuf> {
    let disk = &place.disk;
    let mut aside = place.folder.with_extension("damaged-1");
    for number in 2.. {
        if !disk.exists(&aside)? {
            break;
        }
        aside = place.folder.with_extension(format!("damaged-{number}"));
    }
    disk.create_dir_all(&aside)?;
    for name in disk.list(&place.folder)? {
        disk.rename(&place.folder.join(&name), &aside.join(&name))?;
    }
    disk.sync_dir(&aside)?;
    disk.sync_dir(&place.folder)?;
    Ok(aside)
}

/// Makes an empty segment, whole and durable before it has its name. [`Error::Full`]: it has not got it.
pub(super) fn make_segment(place: &Place, header: SegmentHeader) -> Result<Arc<dyn File>> {
    let unfinished = place.folder.join(UNFINISHED);
    let prepare = || {
        let file = place.disk.open(&unfinished, Open::Always)?;
        file.set_length(0)?;
        file.write_at(&header.encode(), 0)?;
        file.sync_data()?;
        place.disk.rename(&unfinished, &place.segment(header.first))?;
        Ok(file)
    };
    let file = prepare().map_err(|error: disk::Error| match error.is_full() {
        true => Error::Full(error),
        false => Error::Disk(error),
    })?;
    place.disk.sync_dir(&place.folder)?;
    Ok(file)
}

/// Indices of the first records of the segments in the folder, in order.
fn segments(place: &Place) -> Result<Vec<u64>> {
    let names = place.disk.list(&place.folder)?;
    Ok(names
        .iter()
        .filter_map(|name| name.strip_suffix(".log")?.parse().ok())
        .collect())
}

fn remove_unfinished(place: &Place) -> Result<()> {
    let unfinished = place.folder.join(UNFINISHED);
    if place.disk.exists(&unfinished)? {
        place.disk.remove(&unfinished)?;
    }
    Ok(())
}

pub(super) fn read_path(place: &Place, path: &Path) -> Result<Vec<u8>> {
    read_all(&*place.disk.open(path, Open::ReadOnly)?)
}

fn read_all(file: &dyn File) -> Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).expect("a segment fits in memory");
    let mut bytes = vec![0; length];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The header at the front of a segment's bytes, if it is the one of this segment (and cluster).
fn header(place: &Place, first: u64, bytes: &[u8], cluster: Option<ClusterId>) -> Result<SegmentHeader> {
    let damaged = |what: String| Error::Damaged {
        path: place.segment(first),
        offset: 0,
        what,
    };
    let header = SegmentHeader::decode(bytes).map_err(|what| damaged(what.to_owned()))?;
    if header.first != first {
        return Err(damaged(format!(
            "it says that it begins at record {}",
            header.first
        )));
    }
    if cluster.is_some_and(|cluster| cluster != header.cluster) {
        return Err(damaged(format!(
            "it belongs to another cluster, {}",
            header.cluster
        )));
    }
    Ok(header)
}

/// The length of an earlier segment whose header is right. Its records are checked by whoever reads them.
fn checked_length(place: &Place, first: u64, cluster: ClusterId) -> Result<u64> {
    let file = place.disk.open(&place.segment(first), Open::ReadOnly)?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let count = file.read_at(&mut bytes, 0)?;
    header(place, first, &bytes[..count], Some(cluster))?;
    Ok(file.length()?)
}

/// Scans the last segment. Also returns from which offset on its records are not known to be synced.
fn scan_last(place: &Place, header: &SegmentHeader, bytes: &[u8], synced: u64) -> Result<(Scanned, usize)> {
    let mut unproven = SEGMENT_HEADER_BYTES;
    let scanned = scan(bytes, header, |record, at| {
        if record.index <= synced {
            unproven = at + record.bytes();
        }
        Ok::<_, Error>(())
    })?;
    let damaged = |what: String| {
        let path = place.segment(header.first);
        Err(Error::Damaged {
            path,
            offset: scanned.good_bytes as u64,
            what,
        })
    };
    if let Rest::Damage(what) = scanned.rest {
        return damaged(format!("record {} should be there, and {what}", scanned.next));
    }
    if synced >= scanned.next {
        return damaged(format!(
            "record {} should be there: records up to {synced} were synced",
            scanned.next
        ));
    }
    Ok((scanned, unproven))
}

/// Writes the end of the log again and syncs it: a sync that failed in an earlier life may have left pages that look
/// written and are not. The same bytes at the same place do no harm, whenever power goes.
fn write_anew(file: &dyn File, good: &[u8], from: usize) -> Result<()> {
    for (piece, at) in good[from..]
        .chunks(PIECE_BYTES)
        .zip((from..).step_by(PIECE_BYTES))
    {
        file.write_at(piece, at as u64)?;
    }
    Ok(file.sync_data()?)
}
