//! Who waits for us and has a signal pending.
//!
//! fuser answers the kernel's FUSE_INTERRUPT with ENOSYS, after which a waiting program would ignore even SIGKILL.
//! So: a request that has waited for [`PATIENCE`] registers the thread that asked, and every [`EVERY`] one task looks
//! at the signals of all registered threads in `/proc/TID/status`. Nobody waits long: nothing is looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// A request that is answered within it is not registered.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
/// How often the signals are looked at.
const EVERY: Duration = Duration::from_millis(80);

/// Signals that do nothing or stop the process, unless it has a handler: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH.
const HARMLESS: u64 = mask(17) | mask(18) | mask(19) | mask(20) | mask(21) | mask(22) | mask(23) | mask(28);
const KILL: u64 = mask(9);

const fn mask(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// What a waiting thread would do if it were not waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pending {
    /// Nothing.
    Nothing,
    /// Run a handler.
    Caught,
    /// End.
    Fatal,
}

/// Reads a thread's pending signals from its `/proc/TID/status`.
#[must_use]
fn pending(status: &str) -> Pending {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    let arrived = field("SigPnd:") | field("ShdPnd:");
    if arrived & KILL != 0 {
        return Pending::Fatal;
    }
    let open = arrived & !field("SigBlk:") & !field("SigIgn:");
    let caught = field("SigCgt:");
    if open & !caught & !HARMLESS != 0 {
        return Pending::Fatal;
    }
    match open & caught {
        0 => Pending::Nothing,
        _ => Pending::Caught,
    }
}

#[derive(Debug)]
struct Waiting {
    thread: u32,
    /// Less than this does not end the wait.
    least: Pending,
    tell: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By registration.
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    wake: Notify,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests that wait long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupts {
    shared: Arc<Shared>,
}

/// One of them; it is forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    shared: Arc<Shared>,
    number: u64,
    told: oneshot::Receiver<()>,
}

impl Interrupts {
    /// Watches a thread: the registration resolves when a signal of at least this weight is pending.
    #[must_use]
    pub(crate) fn register(&self, thread: u32, least: Pending) -> Registration {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.shared.lock();
        let number = waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        waiting.insert(
            number,
            Waiting {
                thread,
                least,
                tell: Some(tell),
            },
        );
        drop(waiting);
        self.shared.wake.notify_one();
        Registration {
            shared: self.shared.clone(),
            number,
            told,
        }
    }

    /// Looks at the signals for ever.
    pub(crate) async fn watch(self) {
        loop {
            while self.shared.lock().is_empty() {
                self.shared.wake.notified().await;
            }
            self.look(|thread| std::fs::read_to_string(format!("/proc/{thread}/status")).ok());
            tokio::time::sleep(EVERY).await;
        }
    }

    /// One look at everybody. The file is made in memory while it is read: it never waits for a disk.
    fn look(&self, status: impl Fn(u32) -> Option<String>) {
        let mut seen: BTreeMap<u32, Pending> = BTreeMap::new();
        for waiting in self.shared.lock().values_mut() {
            // The kernel asks for itself as thread 0.
            if waiting.thread == 0 || waiting.tell.is_none() {
                continue;
            }
            let signals = *seen
                .entry(waiting.thread)
                .or_insert_with(|| status(waiting.thread).map_or(Pending::Nothing, |text| pending(&text)));
            if signals != Pending::Nothing && signals >= waiting.least {
                // It may have been answered just now.
                let _ = waiting.tell.take().map(|tell| tell.send(()));
            }
        }
    }
}

impl Registration {
    /// Returns when the thread has to go on.
    pub(crate) async fn signalled(&mut self) {
        if (&mut self.told).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(thread: u64, process: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tcat\nSigQ:\t0/1\nSigPnd:\t{thread:016x}\nShdPnd:\t{process:016x}\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn a_signal_counts_unless_it_is_blocked_or_ignored() {
        let term = mask(15);
        assert_eq!(pending(&status(0, 0, 0, 0, 0)), Pending::Nothing);
        assert_eq!(pending(&status(0, term, 0, 0, 0)), Pending::Fatal);
        assert_eq!(pending(&status(term, 0, 0, 0, term)), Pending::Caught);
        assert_eq!(pending(&status(0, term, term, 0, term)), Pending::Nothing);
        assert_eq!(pending(&status(0, term, 0, term, 0)), Pending::Nothing);
    }

    #[test]
    fn nothing_keeps_a_kill_back() {
        assert_eq!(pending(&status(KILL, 0, !0, !0, 0)), Pending::Fatal);
    }

    #[test]
    fn a_child_that_ended_or_a_stop_is_no_reason_to_fail() {
        for signal in [17, 18, 19, 20, 23, 28] {
            assert_eq!(
                pending(&status(0, mask(signal), 0, 0, 0)),
                Pending::Nothing,
                "{signal}"
            );
        }
        assert_eq!(pending(&status(0, mask(17), 0, 0, mask(17))), Pending::Caught);
    }

    #[tokio::test]
    async fn a_waiting_request_hears_of_its_own_thread_only() {
        let interrupts = Interrupts::default();
        let mut mine = interrupts.register(7, Pending::Caught);
        let mut patient = interrupts.register(7, Pending::Fatal);
        let mut other = interrupts.register(8, Pending::Caught);
        interrupts.look(|thread| (thread == 7).then(|| status(0, mask(10), 0, 0, mask(10))));
        mine.signalled().await;
        assert!(patient.told.try_recv().is_err());
        assert!(other.told.try_recv().is_err());
        interrupts.look(|_| Some(status(KILL, 0, 0, 0, 0)));
        patient.signalled().await;
        other.signalled().await;
        drop((mine, patient, other));
        assert!(interrupts.shared.lock().is_empty());
    }
}
