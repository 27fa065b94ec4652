//! The way out: dirty segments become flights, flights land.
//!
//! One sends at a time, so that bytes written later arrive later: whoever holds `sending`. A flush sends and waits
//! itself; when segments are full, have waited too long, or room is short, a task does, which ends when there is
//! nothing left (the *courier*). Flights land in the order in which they were sent, whoever waits for them.

use super::Content;
use super::clean::Class;
use super::dirty::Which;
use super::state::Flight;
use bytes::Bytes;
use dfs_client::{Delivery, Result};
use std::sync::Arc;
use tokio::sync::MutexGuard;

/// A file of at most so many bytes counts as small.
pub(super) const SMALL_FILE_BYTES: u64 = 128 * 1024;

/// The right to send.
pub(super) type Sending<'a> = MutexGuard<'a, ()>;

/// What the courier does next.
enum Next {
    Land(u64, Delivery),
    Send,
    End,
}

impl Content {
    /// Begins to send if something is due.
    pub(super) fn kick(self: &Arc<Self>) {
        let begins = {
            let mut state = self.state();
            let due = state.dirty.has_full() || state.has_urgent();
            due && !std::mem::replace(&mut state.courier, true)
        };
        if begins {
            tokio::spawn(self.clone().carry());
        } else {
            self.wake.notify_one();
        }
    }

    /// Room is short. Where bytes are on their way they will make some; half a packet is worth waiting for.
    pub(super) fn press(self: &Arc<Self>) {
        let waits = {
            let state = self.state();
            state.flying.is_empty() && !state.dirty.is_empty()
        };
        if waits {
            self.urge();
        }
    }

    /// Everything written so far is to be sent now.
    pub(super) fn urge(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.urged = state.writes;
        }
        self.kick();
    }

    /// The courier's life.
    async fn carry(self: Arc<Self>) {
        let mut done = 0;
        loop {
            let urged = self.state().urged;
            self.send(Which::Full).await;
            if urged > done {
                self.send(Which::UpTo(urged)).await;
                done = urged;
            }
            match self.next_step() {
                Next::Send => {}
                Next::End => return,
                Next::Land(id, delivery) => tokio::select! {
                    biased;
                    arrived = delivery.arrived() => self.landed(id, arrived),
                    () = self.wake.notified() => {}
                },
            }
        }
    }

    fn next_step(&self) -> Next {
        let mut state = self.state();
        match state.flying.front() {
            Some(Flight {
                id,
                delivery: Some(delivery),
                ..
            }) => Next::Land(*id, delivery.clone()),
            Some(_) => Next::Send,
            None if state.dirty.has_full() || state.has_urgent() => Next::Send,
            None => {
                state.courier = false;
                Next::End
            }
        }
    }

    /// Sends what is wanted, behind what was sent before.
    pub(super) async fn send(&self, which: Which) {
        let sending = self.sending.lock().await;
        self.send_holding(&sending, which).await;
    }

    pub(super) async fn send_holding(&self, sending: &Sending<'_>, which: Which) {
        self.send_out(sending, which, false).await;
    }

    /// As [`Content::send`]; what is sent last is made durable with it, if it is known to be the last.
    pub(super) async fn send_synced(&self, upto: u64) {
        let sending = self.sending.lock().await;
        self.send_out(&sending, Which::UpTo(upto), true).await;
    }

    async fn send_out(&self, _sending: &Sending<'_>, which: Which, sync: bool) {
        let mut from = 0;
        loop {
            if self.is_doubtful()
                && let Err(error) = self.handle.rest().await
            {
                self.state().errors.record(error);
            }
            let Some((offset, bytes, last)) = self.next_out(which, from) else {
                if from == 0 {
                    return;
                }
                // A write may have brought something behind us forward.
                from = 0;
                continue;
            };
            from = offset + bytes.len() as u64;
            let sent = match sync && last {
                true => self.handle.send_last_at(offset, bytes).await,
                false => self.handle.send_at(offset, bytes).await,
            };
            match sent {
                Ok(delivery) => {
                    let mut state = self.state();
                    let last = state.flying.back_mut().expect("nobody else sends or lands it");
                    last.delivery = Some(delivery);
                }
                Err(error) => {
                    let id = self
                        .state()
                        .flying
                        .back()
                        .expect("nobody else sends or lands it")
                        .id;
                    self.landed_last(id, error);
                }
            }
        }
    }

    /// True, once, if something is to be sent and the grants must be asked for anew before.
    fn is_doubtful(&self) -> bool {
        let mut state = self.state();
        let sends = !state.dirty.is_empty() || state.flying.back().is_some_and(|f| f.delivery.is_none());
        sends && std::mem::take(&mut state.doubtful)
    }

    /// The next bytes to send: of a sender who was cancelled, or the next segment, which becomes a flight. True: nothing
    /// is left behind it.
    fn next_out(&self, which: Which, from: u64) -> Option<(u64, Bytes, bool)> {
        let mut state = self.state();
        if let Some(left) = state.flying.back().filter(|f| f.delivery.is_none()) {
            return Some((left.offset, left.bytes.clone(), false));
        }
        let taken = state.dirty.take(which, from)?;
        if let Some(written_ns) = state.uncommitted.written_ns {
            self.handle.written_at(written_ns);
        }
        let id = state.next_id();
        state.flying.push_back(Flight {
            id,
            offset: taken.offset,
            bytes: taken.bytes.clone(),
            delivery: None,
            keep: true,
        });
        Some((taken.offset, taken.bytes, state.dirty.is_empty()))
    }

    /// Waits until all that was sent up to now has landed.
    pub(super) async fn land(&self) {
        let last = self.state().last_id();
        loop {
            let front = {
                let state = self.state();
                let front = state.flying.front().filter(|f| f.id <= last);
                front.map(|f| (f.id, f.delivery.clone()))
            };
            match front {
                None => return,
                Some((id, Some(delivery))) => {
                    let arrived = delivery.arrived().await;
                    self.landed(id, arrived);
                }
                Some((_, None)) => self.send(Which::UpTo(0)).await,
            }
        }
    }

    /// As [`Content::land`], for who holds the right to send: nothing is on its way when it returns.
    pub(super) async fn land_holding(&self, sending: &Sending<'_>) {
        self.send_holding(sending, Which::UpTo(0)).await;
        self.land().await;
    }

    /// A flight has arrived, or failed; only the first one in the air can.
    fn landed(&self, id: u64, arrived: Result<()>) {
        let mut state = self.state();
        if state.flying.front().is_none_or(|f| f.id != id) {
            return;
        }
        let flight = state.flying.pop_front().expect("just seen");
        self.settle_flight(&mut state, flight, arrived);
    }

    /// The last one could not be sent.
    fn landed_last(&self, id: u64, error: dfs_client::Error) {
        let mut state = self.state();
        let flight = state.flying.pop_back().expect("it was not sent");
        assert_eq!(flight.id, id, "nobody else sends");
        // What else is dirty in the same chunk would fail as well, each after its own deadline.
        let chunk = flight.offset / self.handle.chunk_bytes() * self.handle.chunk_bytes();
        let before = state.dirty.bytes();
        state
            .dirty
            .remove(chunk..chunk + self.handle.chunk_bytes(), &self.shared.pool);
        self.shared.budget.give(before - state.dirty.bytes());
        self.settle_flight(&mut state, flight, Err(error));
    }

    fn settle_flight(&self, state: &mut super::State, flight: Flight, arrived: Result<()>) {
        let range = flight.range();
        self.shared.budget.give(range.end - range.start);
        state.spoil(range.clone());
        match arrived {
            Ok(()) if flight.keep => {
                let class = class_of(state.size);
                let (inode, bytes) = (self.inode().0, flight.bytes);
                self.shared.clean().insert(inode, flight.offset, bytes, class);
            }
            Ok(()) => self.shared.clean().remove(self.inode().0, range),
            Err(error) => {
                self.shared.clean().remove(self.inode().0, range);
                state.errors.record(error);
                // It is the same one, and is reported from here.
                drop(self.handle.take_problem());
            }
        }
    }
}

/// How dear the bytes of a file of this size are.
pub(super) fn class_of(size: u64) -> Class {
    if size <= SMALL_FILE_BYTES {
        Class::Small
    } else {
        Class::Large
    }
}
