//! A file beside a store that says: it failed while it was used, do not open it again.
//!
//! Some damage makes sled panic, and a panic ends the process. A hook writes the file when a panic passes through
//! a call into sled, so that the next start builds a new store in place of failing on the same page for ever.
//! At the opening, where nothing is lost by it, a panic stops only the thread that opens: the hook never returns.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Once};

thread_local! {
    /// The call into sled that this thread is in.
    static IN_CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// A call into sled.
#[derive(Clone)]
struct Call {
    suspect: Suspect,
    /// Where a panic is reported to; the process survives it then.
    trial: Option<SyncSender<String>>,
}

/// A store under suspicion, or not.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    store: Arc<Path>,
}

impl Suspect {
    pub(super) fn of(store: &Path) -> Suspect {
        Suspect { store: store.into() }
    }

    /// The store's folder.
    pub(super) fn store(&self) -> &Path {
        &self.store
    }

    fn file(&self) -> PathBuf {
        self.store.with_extension("suspect")
    }

    /// Why the store is suspect, if it is.
    pub(super) fn reason(&self) -> Option<String> {
        fs::read_to_string(self.file()).ok()
    }

    /// Marks the store. (If even that fails, the next start fails as this one did.)
    pub(super) fn note(&self, why: &str) {
        if let Err(error) = fs::write(self.file(), why) {
            tracing::error!(%error, why, "the store failed and cannot be marked as suspect");
        }
    }

    /// The suspect is gone.
    pub(super) fn clear(&self) {
        if let Err(error) = fs::remove_file(self.file())
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a store's suspicion cannot be removed; it will be built again");
        }
    }
}

/// Calls sled; a panic in it marks the store.
pub(super) fn watched<T>(suspect: &Suspect, call: impl FnOnce() -> T) -> T {
    in_call(
        Call {
            suspect: suspect.clone(),
            trial: None,
        },
        call,
    )
}

/// Calls sled where a panic is to be expected: on a thread that a panic stops for ever, in place of the process.
/// The error is the panic's text.
pub(super) fn tried<T: Send + 'static>(
    suspect: &Suspect,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (panicked, report) = sync_channel(1);
    let (returned, result) = sync_channel(1);
    let trial = Call {
        suspect: suspect.clone(),
        trial: Some(panicked),
    };
    let work = move || {
        // Nobody listens only if the panic was reported already, and then this is not reached.
        let _ = returned.send(in_call(trial, call));
    };
    let thread = std::thread::Builder::new().name("store-trial".into()).spawn(work);
    if let Err(error) = thread {
        return Err(format!("no thread to open it: {error}"));
    }
    // The reporting end is dropped with the call when it returns.
    match report.recv() {
        Ok(panic) => Err(panic),
        Err(_) => result
            .recv()
            .map_err(|_| "its opening ended without a result".into()),
    }
}

fn in_call<T>(call: Call, work: impl FnOnce() -> T) -> T {
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match current() {
            None => others(info),
            Some(Call { suspect, trial: None }) => {
                suspect.note(&info.to_string());
                others(info);
            }
            Some(Call {
                trial: Some(report), ..
            }) => {
                // A full or closed channel: reported before, or nobody waits.
                let _ = report.try_send(info.to_string());
                // Where a panic unwinds (in tests) it ends this thread and no more.
                while cfg!(panic = "abort") {
                    std::thread::park();
                }
            }
        }));
    });
    let outer = IN_CALL.with(|cell| cell.borrow_mut().replace(call));
    let result = work();
    IN_CALL.with(|cell| *cell.borrow_mut() = outer);
    result
}

fn current() -> Option<Call> {
    IN_CALL.with(|cell| cell.try_borrow_mut().ok().and_then(|mut cell| cell.take()))
}
