//! Paths in dfs: absolute, any bytes. Only the arithmetic on their text; what they name is the master's to say.

use clap::builder::{TypedValueParser, ValueParserFactory};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// An absolute path in dfs, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemotePath(pub Vec<u8>);

impl AsRef<[u8]> for RemotePath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl ValueParserFactory for RemotePath {
    type Parser = RemotePathParser;

    fn value_parser() -> RemotePathParser {
        RemotePathParser
    }
}

/// Accepts what begins with a slash.
#[derive(Clone, Debug)]
pub(crate) struct RemotePathParser;

impl TypedValueParser for RemotePathParser {
    type Value = RemotePath;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<RemotePath, clap::Error> {
        if value.as_bytes().first() == Some(&b'/') {
            return Ok(RemotePath(value.as_bytes().to_vec()));
        }
        let message = format!(
            "{}: a path in dfs is absolute: it begins with /\n",
            value.to_string_lossy()
        );
        Err(clap::Error::raw(clap::error::ErrorKind::ValueValidation, message).with_cmd(command))
    }
}

/// The path without slashes at its end (the root keeps its one).
#[must_use]
pub(crate) fn trimmed(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&b| b != b'/').map_or(1, |last| last + 1);
    path.get(..end).unwrap_or(path)
}

/// The directory's path and the last name, or `None` for the root.
#[must_use]
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = trimmed(path);
    let slash = path.iter().rposition(|&b| b == b'/')?;
    let name = path.get(slash + 1..).filter(|name| !name.is_empty())?;
    let parent = path.get(..slash).filter(|parent| !parent.is_empty());
    Some((parent.unwrap_or(b"/"), name))
}

/// The last name; `/` for the root.
#[must_use]
pub(crate) fn name(path: &[u8]) -> &[u8] {
    split(path).map_or(b"/", |(_, name)| name)
}

/// A name below a directory.
#[must_use]
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_splits_into_directory_and_name() {
        assert_eq!(split(b"/a/b"), Some((&b"/a"[..], &b"b"[..])));
        assert_eq!(split(b"/a//"), Some((&b"/"[..], &b"a"[..])));
        assert_eq!(split(b"/"), None);
        assert_eq!(split(b"//"), None);
    }

    #[test]
    fn slashes_at_the_end_do_not_count() {
        assert_eq!(trimmed(b"/a//"), b"/a");
        assert_eq!(trimmed(b"///"), b"/");
        assert_eq!((name(b"/a/b/"), name(b"/")), (&b"b"[..], &b"/"[..]));
    }

    #[test]
    fn a_name_is_joined_with_one_slash() {
        assert_eq!(join(b"/", b"a"), b"/a");
        assert_eq!(join(b"/a", b"b"), b"/a/b");
    }
}
