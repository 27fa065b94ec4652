//! Failures a test asks for: which operation, where, after how many, how often.

use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// An operation that is to fail. Built from [`Fault::io`] or [`Fault::full`], handed to `MemDisk::fault`.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: &'static str,
    under: PathBuf,
    after: u64,
    times: u64,
    errno: Errno,
}

impl Fault {
    /// The operation (a method's name in the `Disk` or `File` trait) fails with EIO, from now on, everywhere.
    #[must_use]
    pub fn io(operation: &'static str) -> Self {
        Fault {
            operation,
            under: PathBuf::new(),
            after: 0,
            times: u64::MAX,
            errno: Errno::IO,
        }
    }

    /// The operation fails with ENOSPC, from now on, everywhere.
    #[must_use]
    pub fn full(operation: &'static str) -> Self {
        Fault {
            errno: Errno::NOSPC,
            ..Fault::io(operation)
        }
    }

    /// Only for this file, or the files in this folder and below.
    #[must_use]
    pub fn under(self, path: impl Into<PathBuf>) -> Self {
        Fault {
            under: path.into(),
            ..self
        }
    }

    /// The first `count` matching operations go well.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        Fault { after: count, ..self }
    }

    /// At most so many failures.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Fault { times: count, ..self }
    }
}

/// The faults in force and how many have struck.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Fault>,
    pub(super) struck: u64,
}

impl Faults {
    pub(super) fn plan(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    /// The failure due for this operation, if one is.
    pub(super) fn due(&mut self, operation: &'static str, path: &Path) -> Option<io::Error> {
        let mut due = None;
        for fault in &mut self.planned {
            if fault.operation != operation || !path.starts_with(&fault.under) || fault.times == 0 {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if due.is_none() {
                fault.times -= 1;
                due = Some(fault.errno.into());
            }
        }
        self.struck += u64::from(due.is_some());
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_where_and_when_it_was_asked_for() {
        let mut faults = Faults::default();
        faults.plan(Fault::full("write_at").under("/d1").after(1).times(1));
        assert!(faults.due("read_at", Path::new("/d1/a")).is_none());
        assert!(faults.due("write_at", Path::new("/d2/a")).is_none());
        assert!(faults.due("write_at", Path::new("/d1/a")).is_none());
        assert_eq!(
            faults.due("write_at", Path::new("/d1/a")).unwrap().kind(),
            io::ErrorKind::StorageFull
        );
        assert!(faults.due("write_at", Path::new("/d1/a")).is_none());
        assert_eq!(faults.struck, 1);
    }
}
