//! A disk that counts what passes through it, and times what makes it durable.

use super::{Boot, Disk, File, Lock, Open, Result, Space};
use crate::clock::Clock;
use crate::metrics::{Counter, Histogram, Page};
use std::path::Path;
use std::sync::Arc;

/// What was done to the files of a disk.
#[derive(Debug, Default)]
pub struct DiskMeter {
    /// Bytes read, from the disk or from the page cache.
    pub read_bytes: Counter,
    /// Bytes written to the page cache.
    pub written_bytes: Counter,
    /// fdatasync(2) of files.
    pub syncs: Histogram,
    /// Operations on open files that failed, but for want of room.
    pub errors: Counter,
}

impl DiskMeter {
    /// Shows it, under names that begin with `what`.
    pub fn show(&self, page: &mut Page, what: &str) {
        let name = |rest: &str| format!("{what}_{rest}");
        let help = "Bytes read from files.";
        page.counter(&name("read_bytes_total"), help, &self.read_bytes);
        let help = "Bytes written to files.";
        page.counter(&name("written_bytes_total"), help, &self.written_bytes);
        let help = "Operations on files that failed.";
        page.counter(&name("errors_total"), help, &self.errors);
        let help = "Duration of each fdatasync.";
        page.histogram(&name("sync_duration_seconds"), help, &self.syncs);
    }
}

/// Another disk, with a meter.
#[derive(Debug)]
pub struct MeteredDisk {
    disk: Arc<dyn Disk>,
    meter: Arc<DiskMeter>,
    clock: Clock,
}

impl MeteredDisk {
    /// `disk`, as seen by `meter`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, meter: Arc<DiskMeter>, clock: Clock) -> MeteredDisk {
        MeteredDisk { disk, meter, clock }
    }
}

#[derive(Debug)]
struct MeteredFile {
    file: Arc<dyn File>,
    meter: Arc<DiskMeter>,
    clock: Clock,
}

impl MeteredFile {
    fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|error| {
            if !error.is_full() {
                self.meter.errors.add(1);
            }
        })
    }
}

impl Disk for MeteredDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        Ok(Arc::new(MeteredFile {
            file: self.disk.open(path, how)?,
            meter: self.meter.clone(),
            clock: self.clock.clone(),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.disk.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.disk.exists(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.disk.space(path)
    }

    fn boot(&self, path: &Path) -> Result<Boot> {
        self.disk.boot(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>> {
        self.disk.lock(path)
    }
}

impl File for MeteredFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let read = self.noted(self.file.read_at(buffer, offset))?;
        self.meter.read_bytes.add(read as u64);
        Ok(read)
    }

    fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> Result<Option<usize>> {
        let read = self.noted(self.file.try_read_at(buffer, offset))?;
        self.meter.read_bytes.add(read.unwrap_or_default() as u64);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.noted(self.file.write_at(bytes, offset))?;
        self.meter.written_bytes.add(bytes.len() as u64);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let begun = self.clock.now();
        self.noted(self.file.sync_data())?;
        self.meter.syncs.observe(begun.elapsed());
        Ok(())
    }

    fn is_in_memory(&self) -> bool {
        self.file.is_in_memory()
    }

    fn length(&self) -> Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.noted(self.file.set_length(length))
    }

    fn reserve(&self, offset: u64, length: u64) -> Result<()> {
        self.noted(self.file.reserve(offset, length))
    }

    fn start_writeback(&self, offset: u64, length: u64) -> Result<()> {
        self.noted(self.file.start_writeback(offset, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn bytes_and_syncs_are_counted_and_errors_too() {
        let folder = tempfile::tempdir().unwrap();
        let meter = Arc::new(DiskMeter::default());
        let disk = MeteredDisk::new(Arc::new(OsDisk), meter.clone(), Clock::system());
        let path = folder.path().join("file");
        let file = disk.open(&path, Open::New).unwrap();
        file.write_at(b"twelve bytes", 0).unwrap();
        file.sync_data().unwrap();
        let mut read = [0; 5];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), 5);
        assert_eq!(
            (
                meter.written_bytes.get(),
                meter.read_bytes.get(),
                meter.syncs.count()
            ),
            (12, 5, 1)
        );
        let shut = disk.open(&path, Open::ReadOnly).unwrap();
        assert!(shut.write_at(b"x", 0).is_err());
        assert_eq!((meter.written_bytes.get(), meter.errors.get()), (12, 1));
    }
}
