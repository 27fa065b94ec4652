//! Reading a settings file: TOML, with an error that says which file and where in it.
//!
//! Unknown keys are the type's affair: give it `#[serde(deny_unknown_fields)]`.

use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Why a settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It does not say what it may say.
    #[error("{}: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        source: Box<toml::de::Error>,
    },
}

/// Reads a TOML file.
///
/// # Errors
/// It cannot be read, is not TOML, or does not fit the type.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| Error::Invalid {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        listen: String,
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dfs.toml");
        std::fs::write(&path, "listen = 'a:1'").unwrap();
        assert_eq!(read::<Settings>(&path).unwrap().listen, "a:1");
        std::fs::write(&path, "listen = 'a:1'\nlisen = 'a:1'").unwrap();
        let message = read::<Settings>(&path).unwrap_err().to_string();
        assert!(
            message.contains("dfs.toml") && message.contains("line 2"),
            "{message}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read::<Settings>(Path::new("/nowhere.toml")).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere.toml: "));
    }
}
