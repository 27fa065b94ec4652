//! Names and paths: parsed once at the edge, trusted afterwards.

use crate::code::{Code, Error, Result};

/// Longest name of a directory entry, bytes (NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest path and symlink target, bytes (PATH_MAX less the NUL).
pub const PATH_BYTES_MAX: usize = 4_095;

/// A directory entry's name: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`. Any other bytes, UTF-8 or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Checks the bytes.
    ///
    /// # Errors
    /// `NameTooLong`, or `InvalidArgument`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Name> {
        let bytes = bytes.into();
        if bytes.len() > NAME_BYTES_MAX {
            return Err(Code::NameTooLong.into());
        }
        if bytes.is_empty() || bytes.iter().any(|b| matches!(b, b'/' | 0)) || bytes == b"." || bytes == b".."
        {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("{:?} is not a file name", String::from_utf8_lossy(&bytes)),
            ));
        }
        Ok(Name(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, owned.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_bytes_but_slash_nul_and_the_dots() {
        for good in [&b"a"[..], b"...", b"\xff\xfe", b" "] {
            assert!(Name::new(good).is_ok());
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert_eq!(Name::new(bad).unwrap_err().code, Code::InvalidArgument);
        }
        assert!(Name::new(vec![b'x'; 255]).is_ok());
        assert_eq!(Name::new(vec![b'x'; 256]).unwrap_err().code, Code::NameTooLong);
    }
}
