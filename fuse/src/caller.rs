//! In whose name a request is made: what the kernel says, what the mount's options make of it, and the supplementary
//! groups, which the kernel does not say.

use crate::options::Options;
use crate::vfs::Caller;
use dfs_stdx::clock::{Clock, Instant};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a thread's groups are believed.
const GROUPS_AGE_MAX: Duration = Duration::from_secs(1);
/// Threads whose groups are remembered.
const THREADS_MAX: usize = 1_024;
/// Who root is where it is squashed: nobody, nogroup.
const NOBODY: u32 = 65_534;

/// How callers appear to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// As themselves.
    Own,
    /// Root has no more rights than nobody.
    RootSquashed,
    /// All files are shown as one user's, so the kernel has decided already.
    Shown,
}

impl Names {
    /// What the options ask for.
    #[must_use]
    pub(crate) fn of(options: &Options) -> Names {
        match (options.root_squash, options.uid.is_some()) {
            (true, _) => Names::RootSquashed,
            (false, true) => Names::Shown,
            (false, false) => Names::Own,
        }
    }

    /// The caller of a request.
    #[must_use]
    pub(crate) fn caller(self, request: &fuser::Request) -> Caller {
        let (uid, gid, pid) = match self {
            // Without the process: root's groups are not nobody's.
            Names::RootSquashed if request.uid() == 0 => (NOBODY, NOBODY, 0),
            Names::Own | Names::RootSquashed => (request.uid(), request.gid(), request.pid()),
            Names::Shown => (0, 0, 0),
        };
        Caller { uid, gid, pid }
    }
}

/// Supplementary groups, from `/proc/TID/status`.
#[derive(Debug)]
pub(crate) struct Groups {
    clock: Clock,
    /// By thread: for whom, when, what.
    known: Mutex<BTreeMap<u32, Known>>,
}

#[derive(Debug)]
struct Known {
    uid: u32,
    at: Instant,
    groups: Vec<u32>,
}

impl Groups {
    /// Nothing is known yet.
    #[must_use]
    pub(crate) fn new(clock: Clock) -> Groups {
        Groups {
            clock,
            known: Mutex::default(),
        }
    }

    /// A caller's groups; at most a second old.
    #[must_use]
    pub(crate) fn of(&self, caller: Caller) -> Vec<u32> {
        // Root passes anyway, and who has no process has no groups.
        if caller.uid == 0 || caller.pid == 0 {
            return Vec::new();
        }
        let now = self.clock.now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(k) = known.get(&caller.pid)
            && k.uid == caller.uid
            && now.duration_since(k.at) < GROUPS_AGE_MAX
        {
            return k.groups.clone();
        }
        if known.len() >= THREADS_MAX {
            known.clear();
        }
        let groups = std::fs::read_to_string(format!("/proc/{}/status", caller.pid))
            .map(|status| groups(&status))
            .unwrap_or_default();
        known.insert(
            caller.pid,
            Known {
                uid: caller.uid,
                at: now,
                groups: groups.clone(),
            },
        );
        groups
    }
}

fn groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    line.unwrap_or_default()
        .split_whitespace()
        .filter_map(|group| group.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_the_status() {
        assert_eq!(
            groups("Name:\tx\nGroups:\t4 24 1000 \nNStgid:\t1\n"),
            [4, 24, 1_000]
        );
        assert_eq!(groups("Groups:\t \n"), [0_u32; 0]);
    }

    #[test]
    fn a_process_that_is_gone_has_no_groups() {
        let known = Groups::new(Clock::system());
        let caller = Caller {
            uid: 1_000,
            gid: 1_000,
            pid: u32::MAX,
        };
        assert_eq!(known.of(caller), [0_u32; 0]);
    }
}
