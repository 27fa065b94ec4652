//! Append turns (ADR 0004): which session may append to a file just now. One at a time, in the order they asked; a turn
//! is kept until another session asks, which has it recalled.
//!
//! Soft: after a restart of the master all turns are void, and none is given until sessions that may believe in an old
//! one have been heard of or have run out.

use dfs_proto::{ClientId, InodeId};
use dfs_stdx::clock::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Sessions that wait for one turn.
const QUEUE_MAX: usize = 1_024;

/// Turns by inode.
#[derive(Debug)]
pub struct Turns {
    /// Who asked and did not come back for so long has given up.
    patience: Duration,
    by_inode: BTreeMap<InodeId, Turn>,
}

#[derive(Debug)]
struct Turn {
    holder: ClientId,
    recalled: bool,
    /// With when each asked last.
    queue: VecDeque<(ClientId, Instant)>,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The asker has it.
    Yours,
    /// Another session has it and is not told yet that it should give it back.
    Recall(ClientId),
    /// Another session has it and was told.
    Wait,
}

impl Turns {
    pub(super) fn new(patience: Duration) -> Turns {
        Turns {
            patience,
            by_inode: BTreeMap::new(),
        }
    }

    /// A session asks for the turn, or again.
    pub fn ask(&mut self, inode: InodeId, client: ClientId, now: Instant) -> Asked {
        let turn = self.by_inode.entry(inode).or_insert_with(|| Turn {
            holder: client,
            recalled: false,
            queue: VecDeque::new(),
        });
        if turn.holder == client {
            return Asked::Yours;
        }
        let room = turn.queue.len() < QUEUE_MAX;
        match turn.queue.iter_mut().find(|(waits, _)| *waits == client) {
            Some((_, asked)) => *asked = now,
            None if room => turn.queue.push_back((client, now)),
            None => {}
        }
        if std::mem::replace(&mut turn.recalled, true) {
            Asked::Wait
        } else {
            Asked::Recall(turn.holder)
        }
    }

    /// The holder gives it back, or its session has ended: the next one that asked has it now. One that does not hold it
    /// gives up its place.
    pub fn done(&mut self, inode: InodeId, client: ClientId, now: Instant) {
        let patience = self.patience;
        let Some(turn) = self.by_inode.get_mut(&inode) else {
            return;
        };
        turn.queue
            .retain(|(waits, asked)| *waits != client && *asked + patience > now);
        if turn.holder != client {
            return;
        }
        match turn.queue.pop_front() {
            Some((next, _)) => {
                turn.holder = next;
                turn.recalled = false;
            }
            None => drop(self.by_inode.remove(&inode)),
        }
    }

    /// Turns of a session that others wait for: it may not have heard that they were recalled.
    #[must_use]
    pub fn recalled_from(&self, client: ClientId) -> Vec<InodeId> {
        let its = self
            .by_inode
            .iter()
            .filter(|(_, turn)| turn.recalled && turn.holder == client);
        its.map(|(inode, _)| *inode).collect()
    }

    /// The session has ended.
    pub fn end_client(&mut self, client: ClientId, now: Instant) {
        let inodes: Vec<InodeId> = self.by_inode.keys().copied().collect();
        inodes.into_iter().for_each(|inode| self.done(inode, client, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: InodeId = InodeId(9);
    const ANN: ClientId = ClientId(1);
    const BOB: ClientId = ClientId(2);
    const EVE: ClientId = ClientId(3);
    const PATIENCE: Duration = Duration::from_secs(2);

    #[test]
    fn a_turn_goes_round_in_the_order_it_was_asked_for() {
        let (mut turns, t) = (Turns::new(PATIENCE), Instant::now());
        assert_eq!(turns.ask(X, ANN, t), Asked::Yours);
        assert_eq!(turns.ask(X, ANN, t), Asked::Yours, "it is kept");
        assert_eq!(turns.ask(X, BOB, t), Asked::Recall(ANN));
        assert_eq!(turns.ask(X, EVE, t), Asked::Wait, "Ann was told");
        assert_eq!(
            (turns.recalled_from(ANN), turns.recalled_from(BOB)),
            (vec![X], vec![])
        );
        assert_eq!(turns.ask(X, BOB, t), Asked::Wait);
        turns.done(X, BOB, t);
        assert_eq!(turns.ask(X, BOB, t), Asked::Wait, "it is not Bob's to give");
        turns.done(X, ANN, t);
        assert_eq!(turns.ask(X, EVE, t), Asked::Yours, "Bob had given up his place");
        assert_eq!(turns.ask(X, BOB, t), Asked::Recall(EVE));
        turns.done(X, EVE, t);
        turns.done(X, BOB, t);
        assert_eq!(turns.ask(X, EVE, t), Asked::Yours);
    }

    #[test]
    fn a_session_that_ends_or_gives_up_has_no_turn() {
        let (mut turns, t) = (Turns::new(PATIENCE), Instant::now());
        turns.ask(X, ANN, t);
        turns.ask(X, BOB, t);
        turns.ask(X, EVE, t + PATIENCE);
        turns.end_client(ANN, t + PATIENCE);
        assert_eq!(
            turns.ask(X, EVE, t),
            Asked::Yours,
            "Bob has not asked for too long"
        );
        turns.end_client(EVE, t + PATIENCE);
        assert_eq!(turns.ask(X, BOB, t), Asked::Yours);
    }
}
