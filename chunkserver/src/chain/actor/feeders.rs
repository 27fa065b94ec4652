//! What feeds the stream: clients at the head, the member above elsewhere; and the link below that is fed by it.

use super::super::forward::{Link, Onward, Target};
use super::super::write::{Effect, Heading};
use super::super::{Control, Incoming, Progress};
use super::{Actor, Feeder, Job, Life, Tell, Upstream};
use crate::store::Packet;
use dfs_proto::{Code, Error, Result, Version};
use tokio::sync::{mpsc, watch};

impl Actor {
    pub(super) async fn on_control(&mut self, control: Control) -> Life {
        self.active_at = self.ground.world.clock.now();
        match control {
            Control::WriteOpen { writer, tell, reply } => {
                let (progress, seen) = watch::channel(Progress {
                    upto: self.write.committed_sequence(writer),
                    offset: self.write.committed_offset(writer),
                    length: self.write.committed_length(),
                    sealed: self.write.is_sealed(),
                    end: None,
                });
                let answer = if self.is_head() {
                    self.clients.insert(writer, Feeder { progress, tell });
                    Ok(seen)
                } else {
                    Err(Error::new(Code::InvalidArgument, "writes go to the head").on_node(self.mine()))
                };
                // If the asker has gone, its connection's end says so soon.
                let _ = reply.send(answer);
                self.show();
                Life::On
            }
            Control::WriterGone { writer } => {
                // The same writer may be back on another connection: then this end is not its.
                if self.clients.get(&writer).is_some_and(|c| c.progress.is_closed()) {
                    self.clients.remove(&writer);
                    self.show();
                }
                if self.clients.is_empty() && self.write.is_quiet() {
                    // Its connection is for the next chunk.
                    self.link = None;
                }
                Life::On
            }
            Control::ChainOpen {
                incarnation,
                first,
                fresh,
                tell,
                reply,
            } => {
                let accepted = self.accept_upstream(first, fresh);
                let _ = reply.send(accepted.map(|()| self.feed_from(incarnation, tell)));
                Life::On
            }
            Control::UpstreamGone { incarnation } => self.on_upstream_end(incarnation).await,
            Control::Drain { why, done } => {
                self.end_feeders(&why);
                self.settle().await;
                self.gate.leave(why);
                let _ = done.send(());
                Life::Over
            }
        }
    }

    fn accept_upstream(&mut self, first: u64, fresh: bool) -> Result<()> {
        // Who opens a stream in the middle has everything before committed: its word may have stayed behind.
        self.write
            .committed_above(first.saturating_sub(1), &mut self.effects);
        self.act();
        let absent = self.replica.is_none();
        let refused = |code: Code, why: &str| {
            let error = Error::new(code, why).on_chunk(self.chunk(), self.version());
            Err(error.on_node(self.mine()))
        };
        if self.is_head() {
            return refused(Code::InvalidArgument, "a head has nobody above it");
        }
        if !self.write.is_quiet() {
            return refused(Code::Unavailable, "the last stream left bytes uncommitted");
        }
        let born = first == 1 && self.version() == Version::FIRST;
        if absent != fresh || fresh && !born || first == 0 {
            return refused(
                Code::Unavailable,
                "there is no replica to go on with, or one where there must be none",
            );
        }
        self.write.restart(first);
        self.fresh = fresh;
        self.link = None;
        Ok(())
    }

    fn feed_from(&mut self, incarnation: u64, tell: Tell) -> watch::Receiver<Progress> {
        let (progress, seen) = watch::channel(Progress::default());
        self.upstream = Some(Upstream {
            incarnation,
            feeder: Feeder { progress, tell },
        });
        seen
    }

    fn is_upstream(&self, incarnation: u64) -> bool {
        self.upstream
            .as_ref()
            .is_some_and(|u| u.incarnation == incarnation)
    }

    async fn on_upstream_end(&mut self, incarnation: u64) -> Life {
        if !self.is_upstream(incarnation) {
            return Life::On;
        }
        self.upstream = None;
        if self.write.is_quiet() {
            self.link = None;
            return Life::On;
        }
        let above = self.opening.capability.members[self.opening.place - 1].node;
        self.leave(Error::new(Code::Unavailable, "the link from above broke").on_node(above))
            .await
    }

    /// Takes in what has come, forwards it, and leaves it to be applied as one batch.
    pub(super) async fn on_burst(&mut self, first: Incoming, more: &mut mpsc::Receiver<Incoming>) -> Life {
        let mut next = Some(first);
        while let Some(incoming) = next {
            if let Life::Over = self.on_incoming(incoming).await {
                return Life::Over;
            }
            next = if self.write.has_room() {
                more.try_recv().ok()
            } else {
                None
            };
        }
        if let Some(link) = &mut self.link {
            link.push();
        }
        Life::On
    }

    async fn on_incoming(&mut self, incoming: Incoming) -> Life {
        let now = self.ground.world.clock.now();
        self.active_at = now;
        match incoming {
            Incoming::Client { packet, sync } => {
                if !self.clients.contains_key(&packet.writer) {
                    return Life::On;
                }
                let heading = heading(&packet, sync);
                if self.write.is_beyond_the_seal(&heading) {
                    self.refuse_beyond_the_seal(packet.writer);
                    return Life::On;
                }
                match self.write.take_from_client(heading, now) {
                    Some(Effect::Take { number, data }) => self.take(number, packet, sync, data),
                    other => {
                        self.effects.extend(other);
                        self.act()
                    }
                }
            }
            Incoming::Record { record, sync } => self.on_record(record, sync, now),
            Incoming::Chain {
                incarnation,
                number,
                packet,
                sync,
                committed,
            } => {
                if !self.is_upstream(incarnation) {
                    return Life::On;
                }
                self.write.committed_above(committed, &mut self.effects);
                self.act();
                match self.write.take_from_above(number, heading(&packet, sync), now) {
                    Effect::Take { number, data } => self.take(number, packet, sync, data),
                    Effect::Gap | Effect::Ack { .. } | Effect::AckUp(_) | Effect::Committed(_) => {
                        let why = format!("packet {number} is not the next one");
                        self.leave(Error::new(Code::Unavailable, why).on_node(self.mine()))
                            .await
                    }
                }
            }
            Incoming::Committed { incarnation, number } => {
                if self.is_upstream(incarnation) {
                    self.write.committed_above(number, &mut self.effects);
                }
                self.act()
            }
            Incoming::Closed { incarnation } => self.on_upstream_end(incarnation).await,
        }
    }

    /// Forwards the packet and queues it for the disk, at the same time.
    pub(super) fn take(&mut self, number: u64, mut packet: Packet, sync: bool, data: bool) -> Life {
        if !data {
            packet.data = bytes::Bytes::new();
            packet.checksums = Vec::new();
        }
        if self.opening.place + 1 < self.opening.capability.members.len() {
            let mut link = self.link.take().unwrap_or_else(|| self.open_link(number));
            link.give(Onward {
                number,
                packet: packet.clone(),
                sync,
            });
            self.link = Some(link);
        }
        self.queue.push_back(Job { number, packet, sync });
        self.show();
        Life::On
    }

    fn open_link(&self, first: u64) -> Link {
        let target = Target {
            member: self.opening.capability.members[self.opening.place + 1].clone(),
            pass: self.opening.pass.clone(),
            // One a link, so that the end of an old link is never taken for that of a new one.
            incarnation: self.ground.world.rng.u64(),
            first,
            fresh: self.fresh && first == 1,
        };
        Link::open(&self.ground, target)
    }

    pub(super) async fn on_broken_link(&mut self, error: Error) -> Life {
        self.link = None;
        if self.write.is_quiet() {
            return Life::On;
        }
        self.leave(error).await
    }
}

pub(super) fn heading(packet: &Packet, sync: bool) -> Heading {
    Heading {
        writer: packet.writer,
        sequence: packet.sequence,
        offset: packet.offset,
        length: packet.data.len() as u64,
        sync,
    }
}
