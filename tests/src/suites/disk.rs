//! What every `Disk` does.

use dfs_stdx::disk::{Disk, File, Open};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk and an existing, empty folder on it.
pub type Made = (Arc<dyn Disk>, PathBuf);

/// Runs the suite, each part on a fresh disk.
pub fn conformance(make: impl Fn() -> Made) {
    let parts: [fn(&dyn Disk, &Path); 12] = [
        opening_does_what_it_says,
        a_file_reads_what_was_written,
        a_gap_reads_as_zeros,
        a_read_ends_with_the_file,
        a_length_can_be_cut_and_extended,
        reserving_changes_no_length,
        a_read_only_file_takes_no_write,
        folders_hold_names_in_order,
        a_rename_replaces_its_target,
        a_removed_file_stays_readable_where_it_is_open,
        a_lock_has_one_holder,
        space_and_boot_are_told,
    ];
    for part in parts {
        let (disk, folder) = make();
        part(&*disk, &folder);
    }
}

/// All bytes of an open file.
fn all(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0xff; usize::try_from(file.length().unwrap()).unwrap() + 1];
    let count = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(count);
    bytes
}

fn written(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(path, Open::New).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn opening_does_what_it_says(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    for how in [Open::Existing, Open::ReadOnly] {
        let error = disk.open(&path, how).unwrap_err();
        assert!(error.is_not_found());
        assert_eq!((error.operation, &error.path), ("open", &path));
    }
    assert!(
        disk.open(&folder.join("no/file"), Open::New)
            .unwrap_err()
            .is_not_found()
    );
    written(disk, &path, b"kept");
    assert_eq!(
        disk.open(&path, Open::New).unwrap_err().source.kind(),
        ErrorKind::AlreadyExists
    );
    for how in [Open::Existing, Open::Always, Open::ReadOnly] {
        assert_eq!(all(&*disk.open(&path, how).unwrap()), b"kept");
    }
    assert!(all(&*disk.open(&folder.join("other"), Open::Always).unwrap()).is_empty());
    assert!(disk.open(folder, Open::Existing).is_err());
}

fn a_file_reads_what_was_written(disk: &dyn Disk, folder: &Path) {
    let file = written(disk, &folder.join("file"), &[1; 10_000]);
    file.write_at(&[2; 5_000], 3_000).unwrap();
    file.write_at(&[3; 3_000], 9_000).unwrap();
    file.write_at(&[], 50_000).unwrap();
    file.start_writeback(0, 12_000).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(folder).unwrap();
    let expected: Vec<u8> = [(1, 3_000), (2, 5_000), (1, 1_000), (3, 3_000)]
        .iter()
        .flat_map(|(b, n)| vec![*b; *n])
        .collect();
    assert_eq!(all(&*file), expected);
    assert_eq!(
        all(&*disk.open(&folder.join("file"), Open::ReadOnly).unwrap()),
        expected
    );
}

fn a_gap_reads_as_zeros(disk: &dyn Disk, folder: &Path) {
    let file = disk.open(&folder.join("file"), Open::New).unwrap();
    file.write_at(b"end", 20_000).unwrap();
    let bytes = all(&*file);
    assert_eq!(bytes.len(), 20_003);
    assert!(bytes[..20_000].iter().all(|b| *b == 0));
    assert_eq!(&bytes[20_000..], b"end");
}

fn a_read_ends_with_the_file(disk: &dyn Disk, folder: &Path) {
    let file = written(disk, &folder.join("file"), b"0123456789");
    let mut buffer = [0xff; 8];
    assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 4);
    assert_eq!(&buffer[..4], b"6789");
    assert_eq!(file.read_at(&mut buffer, 10).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
    for (offset, expected) in [(0, 8), (6, 4), (10, 0)] {
        if let Some(count) = file.try_read_at(&mut buffer, offset).unwrap() {
            assert_eq!(count, expected, "a try is whole or nothing");
        }
    }
}

fn a_length_can_be_cut_and_extended(disk: &dyn Disk, folder: &Path) {
    let file = written(disk, &folder.join("file"), &[7; 5_000]);
    file.set_length(10).unwrap();
    assert_eq!(file.length().unwrap(), 10);
    file.set_length(9_000).unwrap();
    let mut expected = vec![7; 10];
    expected.resize(9_000, 0);
    assert_eq!(all(&*file), expected);
}

fn reserving_changes_no_length(disk: &dyn Disk, folder: &Path) {
    let file = written(disk, &folder.join("file"), b"abc");
    file.reserve(0, 1 << 20).unwrap();
    assert_eq!(all(&*file), b"abc");
}

fn a_read_only_file_takes_no_write(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    written(disk, &path, b"abc");
    let file = disk.open(&path, Open::ReadOnly).unwrap();
    assert_eq!(file.write_at(b"x", 0).unwrap_err().operation, "write_at");
    assert!(file.set_length(0).is_err());
    assert_eq!(all(&*file), b"abc");
}

fn folders_hold_names_in_order(disk: &dyn Disk, folder: &Path) {
    let deep = folder.join("b/c/d");
    disk.create_dir_all(&deep).unwrap();
    disk.create_dir_all(&deep).unwrap();
    written(disk, &folder.join("c"), b"");
    written(disk, &folder.join("a"), b"");
    written(disk, &deep.join("e"), b"");
    assert_eq!(disk.list(folder).unwrap(), ["a", "b", "c"]);
    assert_eq!(disk.list(&deep).unwrap(), ["e"]);
    assert!(disk.exists(&deep).unwrap());
    assert!(disk.exists(&deep.join("e")).unwrap());
    assert!(!disk.exists(&deep.join("f")).unwrap());
    assert!(disk.list(&folder.join("nothing")).unwrap_err().is_not_found());
    assert!(disk.sync_dir(&folder.join("nothing")).unwrap_err().is_not_found());
    assert!(
        disk.create_dir_all(&folder.join("a/b")).is_err(),
        "a file is no folder"
    );
    assert!(disk.remove(&folder.join("b")).is_err(), "remove is for files");
}

fn a_rename_replaces_its_target(disk: &dyn Disk, folder: &Path) {
    let (from, to) = (folder.join("from"), folder.join("to"));
    assert!(disk.rename(&from, &to).unwrap_err().is_not_found());
    written(disk, &to, b"old");
    let file = written(disk, &from, b"new");
    disk.rename(&from, &to).unwrap();
    file.write_at(b"!", 3).unwrap();
    assert_eq!(disk.list(folder).unwrap(), ["to"]);
    assert_eq!(all(&*disk.open(&to, Open::ReadOnly).unwrap()), b"new!");
    disk.rename(&to, &to).unwrap();
    assert!(disk.exists(&to).unwrap());
}

fn a_removed_file_stays_readable_where_it_is_open(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    let file = written(disk, &path, b"abc");
    disk.remove(&path).unwrap();
    assert!(disk.remove(&path).unwrap_err().is_not_found());
    assert_eq!(all(&*file), b"abc");
    assert!(all(&*written(disk, &path, b"")).is_empty());
}

fn a_lock_has_one_holder(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("lock");
    let held = disk.lock(&path).unwrap();
    assert_eq!(disk.lock(&path).unwrap_err().source.kind(), ErrorKind::WouldBlock);
    drop(held);
    drop(disk.lock(&path).unwrap());
    assert!(disk.exists(&path).unwrap());
}

fn space_and_boot_are_told(disk: &dyn Disk, folder: &Path) {
    let space = disk.space(folder).unwrap();
    assert!(space.free_bytes <= space.capacity_bytes && space.capacity_bytes > 0);
    assert_eq!(disk.boot(folder).unwrap(), disk.boot(folder).unwrap());
}
