//! What a chunkserver counts, and how it shows that.

use crate::report::DiskReport;
use crate::server::Server;
use dfs_proto::Result;
use dfs_stdx::disk::DiskMeter;
use dfs_stdx::metrics::{Counter, Gauge, Histogram, Kind, Page, Source, Timed};
use std::sync::Arc;
use std::time::Duration;

/// A request that is answered by itself; packets of a stream are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Read,
    Probe,
    Table,
    Pull,
    Promised,
}

impl Request {
    const ALL: [Request; 5] = [
        Request::Read,
        Request::Probe,
        Request::Table,
        Request::Pull,
        Request::Promised,
    ];

    fn name(self) -> &'static str {
        match self {
            Request::Read => "read",
            Request::Probe => "probe",
            Request::Table => "table",
            Request::Pull => "pull",
            Request::Promised => "promised",
        }
    }
}

/// Counted where it happens.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    requests: [Timed; Request::ALL.len()],
    /// Bytes answered to clients' reads.
    pub(crate) read_bytes: Counter,
    /// Packets taken from clients and from members above.
    pub(crate) packets: Counter,
    /// Bytes of them.
    pub(crate) packet_bytes: Counter,
    /// Batches of packets, from the decision to apply them until that is done.
    pub(crate) applies: Histogram,
    /// Bytes pulled for background copies.
    pub(crate) copied_bytes: Counter,
    /// Bytes pulled to be ready for a version.
    pub(crate) synced_bytes: Counter,
    /// Blocks that failed their checksum, and replicas whose file failed.
    pub(crate) bad_blocks: Counter,
    /// Chunks with orders that are being carried out or wait.
    pub(crate) orders: Gauge,
    /// All disks together.
    pub(crate) disk: Arc<DiskMeter>,
}

impl Meters {
    /// A packet was taken.
    pub(crate) fn packet(&self, bytes: usize) {
        self.packets.add(1);
        self.packet_bytes.add(bytes as u64);
    }

    /// A request was answered.
    pub(crate) fn answered<T>(&self, request: Request, took: Duration, answer: &Result<T>) {
        let failed = answer.as_ref().is_err_and(|error| error.code.is_fault());
        self.of(request).answered(took, failed);
    }

    /// The counter of a kind of request.
    pub(crate) fn of(&self, request: Request) -> &Timed {
        &self.requests[request as usize]
    }
}

/// What of it goes to the master with each heartbeat: counted since this process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) packets: u64,
    pub(crate) packet_bytes: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) syncs: u64,
    /// Chunks with orders that are being carried out or wait, now.
    pub(crate) orders: u64,
}

impl Server {
    /// As of now.
    pub(crate) fn activity(&self) -> Activity {
        let meters = &self.ground.meters;
        Activity {
            reads: meters.of(Request::Read).took.count(),
            read_bytes: meters.read_bytes.get(),
            packets: meters.packets.get(),
            packet_bytes: meters.packet_bytes.get(),
            copied_bytes: meters.copied_bytes.get() + meters.synced_bytes.get(),
            syncs: meters.disk.syncs.count(),
            orders: meters.orders.get(),
        }
    }
}

/// A chunkserver that can be watched.
#[derive(Clone, Debug)]
pub struct Metrics(pub(crate) Arc<Server>);

impl Source for Metrics {
    fn page(&self) -> String {
        let (mut page, server) = (Page::new("dfs_chunkserver"), &self.0);
        let node = server.node().to_string();
        page.family("info", Kind::Gauge, "1, with the node's number and version.")
            .sample(&[("node", &node), ("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge(
            "session_live",
            "1 while the master counts on it.",
            u8::from(server.is_live()),
        );
        self.show_requests(&mut page);
        self.show_data(&mut page);
        self.show_disks(&mut page);
        page.into_text()
    }

    fn health(&self) -> std::result::Result<(), String> {
        match self.0.is_live() {
            true => Ok(()),
            false => Err("no session with the master".to_owned()),
        }
    }
}

impl Metrics {
    fn show_requests(&self, page: &mut Page) {
        let meters = &self.0.ground.meters;
        page.calls(
            "request",
            "request",
            Request::ALL
                .iter()
                .map(|request| (request.name(), meters.of(*request))),
        );
        let help = "Batches of packets, from the decision to apply them until that is done.";
        page.histogram("apply_duration_seconds", help, &meters.applies);
        let help = "Packets taken from clients and from the member above.";
        page.counter("packets_total", help, &meters.packets);
        page.counter(
            "packet_bytes_total",
            "Bytes of packets taken.",
            &meters.packet_bytes,
        );
        page.counter("read_bytes_total", "Bytes answered to reads.", &meters.read_bytes);
    }

    fn show_data(&self, page: &mut Page) {
        let (ground, meters) = (&self.0.ground, &self.0.ground.meters);
        let help = "Bytes pulled for new replicas in the background.";
        page.counter("copied_bytes_total", help, &meters.copied_bytes);
        let help = "Bytes pulled to be ready for a chunk's next version.";
        page.counter("synced_bytes_total", help, &meters.synced_bytes);
        let help = "Blocks and files that were found bad.";
        page.counter("bad_blocks_total", help, &meters.bad_blocks);
        page.gauge("replicas", "Replicas it holds.", ground.store.count());
        page.gauge(
            "broken_replicas",
            "Replicas whose file is unreadable.",
            ground.store.broken().len(),
        );
        page.gauge(
            "open_chunks",
            "Chunks being written, or left so.",
            ground.chains.open_chunks().len(),
        );
        let help = "Chunks with orders that are being carried out or wait.";
        page.gauge("waiting_orders", help, meters.orders.get());
        let help = "Work on disks that is being done or waits for a thread.";
        page.gauge("waiting_disk_jobs", help, ground.world.pool.waiting());
    }

    fn show_disks(&self, page: &mut Page) {
        self.0.ground.meters.disk.show(page, "disk");
        let disks = self.0.disks();
        let each = |page: &mut Page, name: &str, help: &str, value: fn(&DiskReport) -> u64| {
            let mut family = page.family(name, Kind::Gauge, help);
            for disk in &disks {
                family.sample(&[("path", disk.path.as_str())], value(disk));
            }
        };
        let help = "1 if nothing is written to it any more.";
        each(page, "disk_failed", help, |disk| u64::from(disk.failed));
        each(page, "disk_capacity_bytes", "Size of its file system.", |disk| {
            disk.capacity_bytes
        });
        let help = "What may still be written, above the reserve.";
        each(page, "disk_free_bytes", help, |disk| disk.free_bytes);
    }
}
