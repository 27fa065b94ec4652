//! What `top` says: the cluster now, and how fast things go between two looks at it.

use super::Report;
use super::cluster::Status;
use dfs_client::{Activity, Glance, Node, Queues};
use dfs_stdx::clock::Instant;
use dfs_stdx::size::Size;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

/// Heartbeats are further apart, also in a cluster whose clocks run fast.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
/// Who was not heard of for so long does nothing that is known.
const SILENT: Duration = Duration::from_secs(10);

/// A chunkserver and how fast it goes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TopRow {
    node: u32,
    addr: String,
    state: String,
    heartbeat_age_ms: u64,
    chunks: u64,
    used_bytes: u64,
    free_bytes: u64,
    orders: u64,
    #[serde(flatten)]
    rates: Rates,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rates {
    reads_per_s: u64,
    read_bytes_per_s: u64,
    packets_per_s: u64,
    packet_bytes_per_s: u64,
    copied_bytes_per_s: u64,
    syncs_per_s: u64,
}

/// The cluster and all its chunkservers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Top {
    #[serde(flatten)]
    status: Status,
    queues: Queues,
    rates: Rates,
    servers: Vec<TopRow>,
}

/// Remembers what each server had done when, and makes rates of it.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    before: BTreeMap<u32, Seen>,
}

/// A server's last heartbeat, and how fast it went up to it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    activity: Activity,
    rates: Rates,
}

impl Meter {
    /// Takes a look; rates are those between each server's heartbeats known by now and by the look before.
    pub(crate) fn look(&mut self, glance: Glance, now: Instant) -> Top {
        let servers: Vec<TopRow> = glance.nodes.into_iter().map(|node| self.row(node, now)).collect();
        let rates = servers
            .iter()
            .fold(Rates::default(), |sum, row| sum.and(&row.rates));
        Top {
            status: glance.status.into(),
            queues: glance.queues,
            rates,
            servers,
        }
    }

    fn row(&mut self, node: Node, now: Instant) -> TopRow {
        let age = Duration::from_millis(node.heartbeat_age_ms);
        let at = now.checked_sub(age).unwrap_or(now);
        let first = Seen {
            at,
            activity: node.activity,
            rates: Rates::default(),
        };
        let seen = match self.before.get(&node.node.0) {
            None => first,
            Some(before) => match at.saturating_duration_since(before.at) {
                // The same heartbeat as before.
                passed if passed < HEARTBEAT_MIN => *before,
                passed => Seen {
                    rates: Rates::between(&before.activity, &node.activity, passed),
                    ..first
                },
            },
        };
        self.before.insert(node.node.0, seen);
        // Of a server that is silent nothing is known to go.
        let rates = if age < SILENT {
            seen.rates
        } else {
            Rates::default()
        };
        TopRow {
            node: node.node.0,
            addr: node.addr,
            state: node.state,
            heartbeat_age_ms: node.heartbeat_age_ms,
            chunks: node.chunks,
            used_bytes: node.used_bytes,
            free_bytes: node.free_bytes,
            orders: node.activity.orders,
            rates,
        }
    }
}

impl Rates {
    fn between(before: &Activity, after: &Activity, passed: Duration) -> Rates {
        let rate = |of: fn(&Activity) -> u64| {
            // A server that started anew counts from zero.
            let more = of(after).checked_sub(of(before)).unwrap_or(of(after));
            (more as f64 / passed.as_secs_f64()).round() as u64
        };
        Rates {
            reads_per_s: rate(|a| a.reads),
            read_bytes_per_s: rate(|a| a.read_bytes),
            packets_per_s: rate(|a| a.packets),
            packet_bytes_per_s: rate(|a| a.packet_bytes),
            copied_bytes_per_s: rate(|a| a.copied_bytes),
            syncs_per_s: rate(|a| a.syncs),
        }
    }

    fn and(self, more: &Rates) -> Rates {
        Rates {
            reads_per_s: self.reads_per_s + more.reads_per_s,
            read_bytes_per_s: self.read_bytes_per_s + more.read_bytes_per_s,
            packets_per_s: self.packets_per_s + more.packets_per_s,
            packet_bytes_per_s: self.packet_bytes_per_s + more.packet_bytes_per_s,
            copied_bytes_per_s: self.copied_bytes_per_s + more.copied_bytes_per_s,
            syncs_per_s: self.syncs_per_s + more.syncs_per_s,
        }
    }

    fn columns(&self) -> String {
        let bytes = |bytes: u64| Size(bytes).human();
        format!(
            "{:>7} {:>10} {:>7} {:>10} {:>6} {:>10}",
            self.reads_per_s,
            bytes(self.read_bytes_per_s),
            self.packets_per_s,
            bytes(self.packet_bytes_per_s),
            self.syncs_per_s,
            bytes(self.copied_bytes_per_s)
        )
    }
}

impl Report for Top {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.status.human(out)?;
        let q = &self.queues;
        writeln!(
            out,
            "repair   {} waiting, {} being copied, {} changing, {} with one copy left, {} orders waiting",
            q.copies, q.joining, q.changes, q.one_copy, q.orders
        )?;
        writeln!(
            out,
            "clients  {} sessions ({} mounts), {} chunks being written, {} commands waiting",
            q.sessions, q.mounts, q.writing, q.proposals
        )?;
        writeln!(out)?;
        writeln!(
            out,
            "NODE ADDRESS               STATE      CHUNKS       FREE  READ/s     READ/s  PACK/s    WRITE/s SYNC/s     COPY/s ORDERS"
        )?;
        for row in &self.servers {
            writeln!(
                out,
                "{:>4} {:21} {:8} {:>8} {:>10} {} {:>6}",
                row.node,
                row.addr,
                row.state,
                row.chunks,
                Size(row.free_bytes).human(),
                row.rates.columns(),
                row.orders
            )?;
        }
        writeln!(out, " all {:50} {}", "", self.rates.columns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glance(read_bytes: u64, heartbeat_age_ms: u64) -> Glance {
        let activity = Activity {
            read_bytes,
            ..Activity::default()
        };
        let node = |number| Node {
            node: dfs_client::NodeId(number),
            activity,
            heartbeat_age_ms,
            ..Node::default()
        };
        Glance {
            nodes: vec![node(1), node(2)],
            ..Glance::default()
        }
    }

    #[test]
    fn rates_are_those_between_two_heartbeats() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let rate = |top: &Top| top.rates.read_bytes_per_s;
        assert_eq!(rate(&meter.look(glance(1_000, 100), after(100))), 0);
        // One second after the first, told half a second later.
        assert_eq!(rate(&meter.look(glance(5_000, 500), after(1_500))), 8_000);
        // The same heartbeat says the same.
        assert_eq!(rate(&meter.look(glance(5_000, 900), after(1_900))), 8_000);
        // Started anew.
        assert_eq!(rate(&meter.look(glance(500, 0), after(2_000))), 1_000);
        assert_eq!(rate(&meter.look(glance(500, 60_000), after(62_000))), 0);
    }

    #[test]
    fn people_see_the_sum_in_the_last_line() {
        let mut meter = Meter::default();
        let top = meter.look(glance(0, 0), Instant::now());
        let mut text = Vec::new();
        top.human(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("repair   0 waiting"), "{text}");
        let last: Vec<&str> = text.lines().rev().take(2).collect();
        assert!(last[0].starts_with(" all"), "{text}");
        assert_eq!(last[0].len() + " ORDERS".len(), last[1].len(), "{text}");
    }
}
