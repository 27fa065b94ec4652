//! Records at the head: each gets its place, and the checksums of its pieces there.

use super::super::write::Record;
use super::feeders::heading;
use super::{Actor, Life};
use crate::store::Packet;
use bytes::Bytes;
use dfs_proto::checksum::moved;
use dfs_proto::{Code, Error, WriterId};
use dfs_stdx::clock::Instant;

impl Actor {
    pub(super) fn on_record(&mut self, record: Packet, sync: bool, now: Instant) -> Life {
        if !self.clients.contains_key(&record.writer) {
            return Life::On;
        }
        let chunk_bytes = self.ground.fence.parameters().chunk_bytes;
        match self.write.take_record(heading(&record, sync), chunk_bytes, now) {
            Record::Taken { number, offset, data } => {
                let checksums = match data {
                    true => moved(offset, &record.data, &record.checksums),
                    false => Some(Vec::new()),
                };
                // The bytes were verified when they came in: only this machine's memory can have changed them.
                let checksums = checksums.expect("bytes that verified verify again");
                let packet = Packet {
                    offset,
                    checksums,
                    ..record
                };
                self.take(number, packet, sync, data)
            }
            Record::Seals { number, length } => {
                let seal = Packet {
                    writer: WriterId::SEAL,
                    sequence: 1,
                    offset: length,
                    data: Bytes::new(),
                    checksums: Vec::new(),
                };
                self.take(number, seal, true, false)
            }
            Record::Known(effect) => {
                self.effects.push(effect);
                self.act()
            }
            Record::Awaited => Life::On,
            Record::Full => {
                let (writer, length) = (record.writer, self.write.committed_length());
                let last = (
                    self.write.committed_sequence(writer),
                    self.write.committed_offset(writer),
                );
                if let Some(producer) = self.clients.get(&writer) {
                    producer.tell(last, length, true);
                }
                Life::On
            }
        }
    }

    /// All members have the seal: whoever waits for a record that is not acknowledged by now hears that it is not here.
    pub(super) fn tell_sealed(&self, length: u64) {
        for (writer, client) in &self.clients {
            let last = (
                self.write.committed_sequence(*writer),
                self.write.committed_offset(*writer),
            );
            client.tell(last, length, true);
        }
    }

    pub(super) fn refuse_beyond_the_seal(&mut self, writer: WriterId) {
        let why = Error::new(
            Code::TooLarge,
            "the chunk was closed by record append: it does not grow any more",
        );
        if let Some(client) = self.clients.remove(&writer) {
            client.end(&why.on_chunk(self.chunk(), self.version()));
        }
    }
}
