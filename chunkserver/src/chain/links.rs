//! Connections to the next members: a stream that was closed in order leaves its connection for the next one.
//!
//! A kept connection may have been closed over there meanwhile. That is seen before it is used again, or at the first
//! try (see [`super::forward`]), and one that has been idle for long is not trusted at all.

use crate::peers::chain::Up;
use dfs_proto::frame::{FrameReader, FrameWriter};
use dfs_proto::net::{BoxStream, Dial};
use dfs_stdx::clock::Instant;
use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};

/// Idle connections kept for a member: as many small files as are written at once.
const IDLE_PER_MEMBER_MAX: usize = 32;
/// An idle connection older than this is not trusted to be still there.
const IDLE_AGE_MAX: Duration = Duration::from_secs(3);

/// Idle connections by address.
#[derive(Debug, Default)]
pub(super) struct Links {
    idle: Mutex<BTreeMap<String, Vec<(Wire, Instant)>>>,
}

/// A connection to a member, in both directions.
pub(super) struct Wire {
    pub(super) reader: FrameReader<ReadHalf<BoxStream>>,
    pub(super) writer: FrameWriter<WriteHalf<BoxStream>>,
    /// Counts the streams it has carried: what comes of an earlier one does not count.
    pub(super) number: u64,
    /// It carried a stream before.
    pub(super) reused: bool,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire(reused: {})", self.reused)
    }
}

/// The next word of stream `number`. Cancel-safe.
pub(super) async fn hear(
    reader: &mut FrameReader<ReadHalf<BoxStream>>,
    number: u64,
) -> io::Result<Option<Up>> {
    loop {
        match reader.next::<Up>().await? {
            Some((reply, _)) if reply.id == number => return Ok(Some(reply)),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

impl Wire {
    /// A new connection.
    pub(super) async fn open(dial: &dyn Dial, addr: &str) -> io::Result<Wire> {
        let (reader, writer) = tokio::io::split(dial.dial(addr).await?);
        let mut writer = FrameWriter::new(writer);
        writer.send_preamble().await?;
        Ok(Wire {
            reader: FrameReader::new(reader),
            writer,
            number: 1,
            reused: false,
        })
    }
}

impl Links {
    /// An idle connection, if there is one that is still good as far as can be seen.
    pub(super) fn take(&self, addr: &str, now: Instant) -> Option<Wire> {
        let mut idle = self.idle.lock().expect("no panic while held");
        let kept = idle.get_mut(addr)?;
        kept.retain(|(_, since)| *since + IDLE_AGE_MAX > now);
        while let Some((mut wire, _)) = kept.pop() {
            if wire.reader.is_quiet() {
                return Some(wire);
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle
            .lock()
            .expect("no panic while held")
            .values()
            .map(Vec::len)
            .sum()
    }

    /// Takes back a connection whose stream was closed in order.
    pub(super) fn keep(&self, addr: &str, wire: Wire, now: Instant) {
        let mut idle = self.idle.lock().expect("no panic while held");
        let kept = idle.entry(addr.to_owned()).or_default();
        if kept.len() < IDLE_PER_MEMBER_MAX {
            let wire = Wire {
                number: wire.number + 1,
                reused: true,
                ..wire
            };
            kept.push((wire, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::net::{Listen as _, Tcp};

    #[tokio::test]
    async fn a_connection_that_was_closed_over_there_is_not_used_again() {
        let mut listener = Tcp.listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr();
        let (links, now) = (Links::default(), Instant::now());
        let wire = Wire::open(&Tcp, &addr).await.unwrap();
        let (there, _) = listener.accept().await.unwrap();
        links.keep(&addr, wire, now);
        assert!(links.take(&addr, now + IDLE_AGE_MAX).is_none(), "too old");
        let wire = Wire::open(&Tcp, &addr).await.unwrap();
        let (here, _) = listener.accept().await.unwrap();
        links.keep(&addr, wire, now);
        let mut wire = links.take(&addr, now).expect("it is alive");
        assert!(wire.reused);
        drop((there, here));
        // An end or a reset: what matters is that it has come.
        let _ = wire.reader.next::<dfs_proto::pb::FromServer>().await;
        links.keep(&addr, wire, now);
        assert!(links.take(&addr, now).is_none());
    }
}
