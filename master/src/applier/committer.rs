//! The one task that changes anything: gather, log, apply, commit, answer.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dfs_proto::{ClientId, Code, Error, InodeId, Result};
use dfs_stdx::blocking::{Habit, Pool};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Failure, settler};
use crate::command::{Attributes, Change, Command, Outcome, Reply};
use crate::live::watch::{Note, Watch};
use crate::log::{self, Log, Payload};
use crate::state;
use crate::store::{self, Ground, Txn};

/// Version of the records' payload: [`Command::to_bytes`].
pub(super) const COMMAND_VERSION: u8 = 1;
/// Most proposals in a group: the batch stays in the caches and readers do not wait long for it.
const GROUP_MAX: usize = 256;
/// A group that takes longer is not committed by a worker of the runtime: on most disks a sync is longer.
const IN_PLACE_MAX: Duration = Duration::from_millis(2);
/// Most bytes of a group, but for its last command.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// What the task is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// To make a command take effect.
    Propose {
        payload: Payload,
        takes_space: bool,
        reply: Waiter,
    },
    /// To remove log segments up to this index, all of whose records are in checkpoints.
    Cut(u64),
}

/// How far the task has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Index of the last command applied.
    pub(super) applied: u64,
    /// The log's term.
    pub(super) term: u64,
    /// Bytes of log: those that were there at the start, and what was appended since.
    pub(super) logged_bytes: u64,
}

impl Progress {
    pub(super) fn of(log: &Log, applied: u64) -> Progress {
        Progress {
            applied,
            term: log.term(),
            logged_bytes: log.written_bytes(),
        }
    }
}

/// What the task works with, moved to the pool for each group.
#[derive(Debug)]
pub(super) struct Committer {
    pub(super) log: Log,
    pub(super) ground: Arc<Ground>,
    /// Set before the first call is served.
    pub(super) watch: Arc<OnceLock<Arc<Watch>>>,
    pub(super) low_space_bytes: u64,
}

/// Why a command cannot be made to count: the process ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("record {index} of the log cannot be read by this program: {why}")]
    Unreadable { index: u64, why: String },
}

type Waiter = oneshot::Sender<Result<(u64, Outcome)>>;

/// Proposals without their waiters, and what else is asked.
#[derive(Debug, Default)]
struct Group {
    payloads: Vec<Payload>,
    take_space: Vec<bool>,
    cut: Option<u64>,
}

/// Runs until it is stopped, everybody is gone, or something breaks.
pub(super) async fn run(
    mut committer: Committer,
    pool: Pool,
    (mut queue, progress): (mpsc::Receiver<Request>, watch::Sender<Progress>),
    failure: Failure,
) {
    let mut habit = Habit::within(IN_PLACE_MAX);
    loop {
        let first = tokio::select! {
            biased;
            () = failure.stop.cancelled() => break,
            request = queue.recv() => request,
        };
        let Some(first) = first else { break };
        let (group, waiters) = gather(first, &mut queue);
        let work = move || {
            let answers = committer.serve(group);
            (committer, answers)
        };
        let answers;
        (committer, answers) = pool.run_by_habit(&mut habit, work).await;
        match answers {
            Ok(answers) => {
                progress.send_replace(Progress::of(&committer.log, committer.ground.applied()));
                for (waiter, answer) in waiters.into_iter().zip(answers) {
                    // A caller that went away wants no answer.
                    let _ = waiter.send(answer);
                }
            }
            // The waiters hear that nobody knows.
            Err(broken) => return failure.fail(broken.to_string()),
        }
    }
}

/// The first request and what else is there already.
fn gather(first: Request, queue: &mut mpsc::Receiver<Request>) -> (Group, Vec<Waiter>) {
    let (mut group, mut waiters) = (Group::default(), Vec::new());
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(request) = next {
        match request {
            Request::Propose {
                payload,
                takes_space,
                reply,
            } => {
                bytes += payload.bytes.len();
                group.payloads.push(payload);
                group.take_space.push(takes_space);
                waiters.push(reply);
            }
            Request::Cut(index) => group.cut = Some(index),
        }
        let is_full = waiters.len() >= GROUP_MAX || bytes >= GROUP_BYTES_MAX;
        next = if is_full { None } else { queue.try_recv().ok() };
    }
    (group, waiters)
}

impl Committer {
    /// An answer for each proposal, in order.
    fn serve(&mut self, group: Group) -> std::result::Result<Vec<Result<(u64, Outcome)>>, Broken> {
        if let Some(index) = group.cut {
            self.log.cut(index)?;
        }
        settler::settle_if_due(&self.ground)?;
        let is_low = self.log.free_bytes()? < self.low_space_bytes;
        let refused: Vec<bool> = group.take_space.iter().map(|takes| is_low && *takes).collect();
        let asked = group.payloads.into_iter().zip(&refused);
        let payloads: Vec<Payload> = asked
            .filter(|(_, refused)| !**refused)
            .map(|(payload, _)| payload)
            .collect();
        let mut outcomes = match self.commit(&payloads) {
            Ok(outcomes) => outcomes.into_iter(),
            Err(Broken::Log(log::Error::Full(error))) => {
                tracing::warn!(%error, "commands were refused");
                Vec::new().into_iter()
            }
            Err(broken) => return Err(broken),
        };
        let no_space = || Error::new(Code::NoSpace, "the master's disk is full");
        let answers = refused
            .into_iter()
            .map(|refused| if refused { None } else { outcomes.next() });
        Ok(answers.map(|answer| answer.ok_or_else(no_space)).collect())
    }

    /// Log, state, store.
    fn commit(&mut self, payloads: &[Payload]) -> std::result::Result<Vec<(u64, Outcome)>, Broken> {
        if payloads.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.log.append(payloads)?;
        let outcomes = apply(&self.ground, first, payloads, self.watch.get())?;
        Ok((first..).zip(outcomes).collect())
    }
}

/// Applies durable commands that follow each other, as one transaction and one batch. Whoever watches hears of it.
pub(super) fn apply(
    ground: &Ground,
    first: u64,
    payloads: &[Payload],
    watch: Option<&Arc<Watch>>,
) -> std::result::Result<Vec<Outcome>, Broken> {
    let numbered = (first..).zip(payloads);
    let commands = numbered.map(|(index, payload)| Ok((index, decode(index, payload)?)));
    let commands: Vec<(u64, Command)> = commands.collect::<std::result::Result<_, Broken>>()?;
    assert_eq!(
        ground.applied() + 1,
        first,
        "every command is applied once and in order"
    );
    let watched = watch.map(|watch| (watch, watch.group()));
    let gather = watched.filter(|(_, group)| group.used).map(|(watch, _)| watch);
    let mut notes = Vec::new();
    let (batch, outcomes) = ground.read(|view| {
        let mut txn = Txn::new(view);
        let apply = |(index, command): &(u64, Command)| match gather {
            None => state::apply(&mut txn, *index, command),
            Some(watch) => {
                let (outcome, note) = noted(&mut txn, *index, command, watch);
                notes.push(note);
                outcome
            }
        };
        let outcomes: Vec<Outcome> = commands.iter().map(apply).collect();
        (txn.into_batch(), outcomes)
    })?;
    ground.commit(&batch, first + payloads.len() as u64 - 1)?;
    if let Some((watch, group)) = watched {
        watch.publish(group, notes);
    }
    Ok(outcomes)
}

/// Applies a command and gathers what others may see of it.
fn noted(txn: &mut Txn<'_>, index: u64, command: &Command, watch: &Watch) -> (Outcome, Note) {
    let by = command.request.map(|request| ClientId(request.client));
    let mut effects = watch.has_others(by).then(Vec::new);
    let outcome = state::apply_seen(txn, index, command, &mut |before, writes| {
        if let Some(effects) = &mut effects {
            *effects = state::effects(before, writes);
        }
    });
    let told = match &outcome {
        Ok(Reply::Made(made)) => told(Some(&made.attributes), &made.touched),
        Ok(Reply::Changed(changed)) => told(Some(&changed.attributes), &changed.touched),
        Ok(Reply::Done(done)) => told(None, &done.touched),
        Ok(_) | Err(_) => Vec::new(),
    };
    let note = Note {
        index,
        by,
        told,
        effects,
    };
    (outcome, note)
}

/// Inodes that a reply speaks of, but those that are gone.
fn told(about: Option<&Attributes>, touched: &[Attributes]) -> Vec<InodeId> {
    let all = about.into_iter().chain(touched);
    all.filter(|a| a.nlink > 0).map(|a| InodeId(a.inode)).collect()
}

fn decode(index: u64, payload: &Payload) -> std::result::Result<Command, Broken> {
    let unreadable = |why: String| Broken::Unreadable { index, why };
    if payload.version != COMMAND_VERSION {
        return Err(unreadable(format!("it is of version {}", payload.version)));
    }
    Command::from_bytes(&payload.bytes).map_err(|error| unreadable(error.to_string()))
}

/// True for what is refused when the disk is nearly full: it makes the state larger and users can do without.
pub(super) fn takes_space(command: &Command) -> bool {
    matches!(
        command.change,
        Some(
            Change::Make(_)
                | Change::Link(_)
                | Change::SetXattr(_)
                | Change::Allocate(_)
                | Change::NextChunk(_)
        )
    )
}
