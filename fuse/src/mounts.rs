//! What is mounted where, as the kernel says: `/proc/self/mountinfo`. Looking there never waits for a mount.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The type our mounts have.
pub const KIND: &str = "fuse.dfs";

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of this very mount.
    pub number: u64,
    /// "major:minor" of its device.
    pub device: String,
    /// Where.
    pub mountpoint: PathBuf,
    /// File system type.
    pub kind: String,
    /// What, as it was typed: for ours `host:port` or `dfs#host:port`.
    pub source: String,
}

impl Mount {
    /// True if it is a mount of dfs.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.kind == KIND
    }
}

/// The mount one sees at a path that is exactly a mountpoint: the last one made there.
///
/// # Errors
/// The system's.
pub fn at(path: &Path) -> io::Result<Option<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .rfind(|mount| mount.mountpoint == path))
}

/// An absolute path without symlinks. The last part is not looked at where that would fail or wait: a dead mount may
/// be there.
///
/// # Errors
/// The system's.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    // mountinfo has no dots and no links, but a path that is in it need not be followed.
    if at(&whole)?.is_some() {
        return Ok(whole);
    }
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => {
            let guess = std::fs::canonicalize(parent)?.join(name);
            match at(&guess)? {
                Some(_) => Ok(guess),
                None => std::fs::canonicalize(guess),
            }
        }
        _ => std::fs::canonicalize(whole),
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let number = text(words.next()?).parse().ok()?;
    let device = text(words.nth(1)?);
    let mountpoint = PathBuf::from(OsString::from_vec(unescaped(words.nth(1)?)));
    let mut rest = words.skip_while(|word| *word != b"-").skip(1);
    Some(Mount {
        number,
        device,
        mountpoint,
        kind: text(rest.next()?),
        source: text(&unescaped(rest.next()?)),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Spaces and the like are written as `\040`.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// A path as one word of a file name: for logs.
#[must_use]
pub fn as_file_name(path: &Path) -> String {
    let name = String::from_utf8_lossy(path.as_os_str().as_bytes())
        .trim_matches('/')
        .replace('/', "-");
    match name.is_empty() {
        true => "root".to_owned(),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = b"99 28 0:52 / /mnt/my\\040files rw,nosuid shared:7 master:1 - fuse.dfs dfs#127.0.0.1:7700 rw,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!(mount.mountpoint, Path::new("/mnt/my files"));
        assert_eq!(
            (mount.device.as_str(), mount.source.as_str()),
            ("0:52", "dfs#127.0.0.1:7700")
        );
        assert!(mount.is_ours() && mount.number == 99);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 2 3:4 / /x rw"), None);
    }

    #[test]
    fn the_root_is_a_mount_and_a_new_folder_is_none() {
        assert!(at(Path::new("/")).unwrap().is_some());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(at(folder.path()).unwrap(), None);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert_eq!(absolute(&link).unwrap(), Path::new("/"));
        assert!(absolute(&folder.path().join("nope")).is_err());
    }

    #[test]
    fn a_mountpoint_names_a_log() {
        assert_eq!(as_file_name(Path::new("/mnt/a b")), "mnt-a b");
        assert_eq!(as_file_name(Path::new("/")), "root");
    }
}
