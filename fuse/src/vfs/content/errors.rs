//! Which write errors which handle was told of, as Linux' errseq does it: each failure is reported once by every handle
//! that was open when it happened.

use dfs_client::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// The failures of one file.
#[derive(Debug, Default)]
pub(super) struct Errors {
    count: u64,
    last: Option<Error>,
}

/// Up to where one handle was told.
#[derive(Debug)]
pub(super) struct Cursor(AtomicU64);

impl Errors {
    pub(super) fn record(&mut self, error: Error) {
        self.count += 1;
        self.last = Some(error);
    }

    /// A handle that is opened now.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor(AtomicU64::new(self.count))
    }

    /// What this handle was not told of yet.
    pub(super) fn report(&self, to: &Cursor) -> Result<()> {
        if to.0.swap(self.count, Ordering::Relaxed) == self.count {
            return Ok(());
        }
        Err(self.last.clone().expect("there was a failure"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_client::Code;

    #[test]
    fn every_handle_that_was_open_is_told_once() {
        let mut errors = Errors::default();
        let (a, b) = (errors.cursor(), errors.cursor());
        assert!(errors.report(&a).is_ok());
        errors.record(Code::NoSpace.into());
        let late = errors.cursor();
        assert_eq!(errors.report(&a).unwrap_err().code, Code::NoSpace);
        assert!(errors.report(&a).is_ok());
        assert_eq!(errors.report(&b).unwrap_err().code, Code::NoSpace);
        assert!(errors.report(&late).is_ok());
    }
}
