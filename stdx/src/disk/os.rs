//! The real disk.
//!
//! Files are opened close-on-exec, read and written at offsets; no file position is ever used.
//! Every error names the operation and the path. Nothing is retried but an interrupted call.

use super::{Boot, Disk, Error, File, Lock, Open, Result, Space};
use rustix::fs::{Advice, AtFlags, CWD, FallocateFlags, FlockOperation, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The mount id that no later mount gets again (statx(2), Linux 6.8); rustix has no name for it yet.
const STATX_MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Magic number of tmpfs (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Where the kernel shows its boot id.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The machine's file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    path: PathBuf,
    /// The file lives in memory, so that reading it never waits for a disk.
    in_memory: bool,
}

#[derive(Debug)]
struct OsLock {
    /// The lock is this open file's: the kernel releases it when the file is closed.
    _file: fs::File,
}

impl Lock for OsLock {}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn errno(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    move |source| Error {
        operation,
        path: path.to_owned(),
        source: source.into(),
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(how != Open::ReadOnly);
        match how {
            Open::Existing | Open::ReadOnly => {}
            Open::New => {
                options.create_new(true);
            }
            Open::Always => {
                options.create(true);
            }
        }
        let file = options.open(path).map_err(failed("open", path))?;
        let in_memory = u64::try_from(rustix::fs::fstatfs(&file).map_err(errno("open", path))?.f_type)
            .is_ok_and(|magic| magic == TMPFS_MAGIC);
        Ok(Arc::new(OsFile {
            file,
            path: path.to_owned(),
            in_memory,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|a| !here(a).exists()).collect();
        fs::create_dir_all(path).map_err(failed("create_dir_all", path))?;
        for created in missing {
            if let Some(parent) = created.parent() {
                sync_folder(here(parent)).map_err(failed("create_dir_all", path))?;
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(failed("rename", from))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(failed("remove", path))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        sync_folder(path).map_err(failed("sync_dir", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(failed("list", path))? {
            let name = entry.map_err(failed("list", path))?.file_name();
            // A name that is not UTF-8 is not ours: shown lossily, it matches nothing we look for.
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        path.try_exists().map_err(failed("exists", path))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let all = rustix::fs::statvfs(path).map_err(errno("space", path))?;
        Ok(Space {
            capacity_bytes: all.f_blocks.saturating_mul(all.f_frsize),
            free_bytes: all.f_bavail.saturating_mul(all.f_frsize),
        })
    }

    fn boot(&self, path: &Path) -> Result<Boot> {
        let text = fs::read_to_string(BOOT_ID).map_err(failed("boot", Path::new(BOOT_ID)))?;
        let id = uuid_bytes(text.trim()).map_err(failed("boot", Path::new(BOOT_ID)))?;
        let mut boot = [0; 24];
        boot[..16].copy_from_slice(&id);
        boot[16..].copy_from_slice(&mount_id(path).map_err(failed("boot", path))?.to_le_bytes());
        Ok(Boot(boot))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("lock", path))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(errno("lock", path))?;
        Ok(Box::new(OsLock { _file: file }))
    }
}

/// The folder itself, also where the path's last ancestor is the empty path.
fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn mount_id(path: &Path) -> io::Result<u64> {
    let asked = STATX_MNT_ID_UNIQUE | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), asked)?;
    if found.stx_mask & asked.bits() == 0 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel tells no mount id (Linux 5.8 does)",
        ));
    }
    Ok(found.stx_mnt_id)
}

/// The 16 bytes of `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
fn uuid_bytes(text: &str) -> io::Result<[u8; 16]> {
    let digits = text.replace('-', "");
    let number = u128::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| digits.len() == 32);
    number
        .map(u128::to_be_bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not a UUID: {text:?}")))
}

impl OsFile {
    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        failed(operation, &self.path)
    }
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed("read_at")(e)),
            }
        }
        Ok(filled)
    }

    fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> Result<Option<usize>> {
        if self.in_memory {
            return self.read_at(buffer, offset).map(Some);
        }
        let wanted = buffer.len();
        let into = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, into, offset, ReadWriteFlags::NOWAIT) {
            Ok(n) if n == wanted => Ok(Some(n)),
            // Short: the end of the file, or the end of what is in memory.
            Ok(n) => Ok((offset + n as u64 >= self.length()?).then_some(n)),
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(e) => Err(self.failed("try_read_at")(e.into())),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(self.failed("write_at"))
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(self.failed("sync_data"))
    }

    fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    fn length(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(self.failed("length"))?.len())
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(self.failed("set_length"))
    }

    fn reserve(&self, offset: u64, length: u64) -> Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(e) => Err(self.failed("reserve")(e.into())),
        }
    }

    fn start_writeback(&self, offset: u64, length: u64) -> Result<()> {
        let Some(length) = NonZeroU64::new(length) else {
            return Ok(());
        };
        // sync_file_range(2) has no safe wrapper. This too starts writeback of the range and does not wait; of
        // what it then drops from memory, pages just written are no part, since they are being written back.
        let done = rustix::fs::fadvise(&self.file, offset, Some(length), Advice::DontNeed);
        done.map_err(errno("start_writeback", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_operation_and_the_path() {
        let error = OsDisk
            .open(Path::new("/nowhere/at/all"), Open::Existing)
            .unwrap_err();
        assert!(error.is_not_found());
        assert!(error.to_string().starts_with("open /nowhere/at/all: "), "{error}");
    }

    #[test]
    fn a_boot_id_is_a_uuid_or_nothing() {
        assert_eq!(
            uuid_bytes("00000000-0000-0000-0000-0000000000ff").unwrap()[15],
            255
        );
        assert!(uuid_bytes("ff").is_err());
        assert!(uuid_bytes("zz000000-0000-0000-0000-0000000000ff").is_err());
    }

    #[test]
    fn the_boot_stays_while_the_mount_does() {
        let folder = tempfile::tempdir().unwrap();
        let boot = OsDisk.boot(folder.path()).unwrap();
        assert_eq!(boot, OsDisk.boot(folder.path()).unwrap());
        assert_ne!(boot.0[..16], [0; 16]);
        assert_ne!(boot.0[16..], [0; 8]);
    }

    #[test]
    fn relative_folders_are_created_and_synced_too() {
        assert_eq!(here(Path::new("")), Path::new("."));
    }
}
