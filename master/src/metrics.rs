//! What the master counts, and how it shows that and the cluster's state.

use crate::desk::Desk;
use crate::live::servers::State;
use crate::state;
use crate::steward::{Counts, Steward};
use dfs_proto::{Error, Result};
use dfs_stdx::metrics::{Counter, Kind, Page, Source, Timed};
use std::sync::Arc;
use std::time::Duration;

macro_rules! calls {
    ($($name:ident $text:literal,)*) => {
        /// A kind of call that clients make.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Call {
            $(
                #[doc = $text]
                $name,
            )*
        }

        impl Call {
            /// All of them, in order.
            pub const ALL: &[Call] = &[$(Call::$name),*];

            /// Its name on the page.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Call::$name => $text,)*
                }
            }
        }
    };
}

calls! {
    Make "make",
    Link "link",
    Unlink "unlink",
    RemoveDirectory "remove_directory",
    Rename "rename",
    SetAttributes "set_attributes",
    SetXattr "set_xattr",
    RemoveXattr "remove_xattr",
    Grant "grant",
    CommitLength "commit_length",
    Reconfigure "reconfigure",
    Release "release",
    Lock "lock",
    PunchHole "punch_hole",
    NextChunk "next_chunk",
    Lookup "lookup",
    GetAttributes "get_attributes",
    ReadDirectory "read_directory",
    ReadLink "read_link",
    GetXattr "get_xattr",
    ListXattr "list_xattr",
    Access "access",
    Locate "locate",
    Resolve "resolve",
    StatFs "stat_fs",
    TestLock "test_lock",
    AppendTurn "append_turn",
    AppendDone "append_done",
    Other "other",
}

/// Counted where it happens.
#[derive(Debug)]
pub struct Meters {
    calls: Vec<Timed>,
    /// Chunkservers that wanted to register and must not: foreign ones, clones.
    pub refused_servers: Counter,
}

impl Default for Meters {
    fn default() -> Meters {
        Meters {
            calls: Call::ALL.iter().map(|_| Timed::default()).collect(),
            refused_servers: Counter::default(),
        }
    }
}

impl Meters {
    /// A call was answered.
    pub fn answered<T>(&self, call: Call, took: Duration, answer: &Result<T>) {
        self.calls[call as usize].answered(took, answer.as_ref().is_err_and(is_fault));
    }
}

fn is_fault(error: &Error) -> bool {
    error.code.is_fault()
}

/// A master that can be watched.
#[derive(Clone, Debug)]
pub struct Metrics {
    desk: Arc<Desk>,
    steward: Arc<Steward>,
}

impl Source for Metrics {
    fn page(&self) -> String {
        let mut page = Page::new("dfs_master");
        let desk = &self.desk;
        page.family(
            "info",
            Kind::Gauge,
            "1, with the cluster and the program's version.",
        )
        .sample(
            &[
                ("cluster", &desk.cluster.to_string()),
                ("version", env!("CARGO_PKG_VERSION")),
            ],
            1,
        );
        let uptime = desk.now().saturating_duration_since(desk.started);
        page.gauge("uptime_seconds", "Since it began to serve.", uptime.as_secs_f64());
        self.show_calls(&mut page);
        self.show_log(&mut page);
        show_chunks(&mut page, &self.steward.counts());
        self.show_servers(&mut page);
        self.show_sessions(&mut page);
        self.show_queues(&mut page);
        page.into_text()
    }

    /// A master whose log or store has failed ends: one that answers serves.
    fn health(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}

impl Metrics {
    pub(crate) fn new(desk: Arc<Desk>, steward: Arc<Steward>) -> Metrics {
        Metrics { desk, steward }
    }

    fn show_calls(&self, page: &mut Page) {
        let meters = &self.desk.meters;
        let calls = Call::ALL.iter().zip(&meters.calls);
        page.calls("call", "call", calls.map(|(call, timed)| (call.name(), timed)));
    }

    fn show_log(&self, page: &mut Page) {
        let ground = &self.desk.ground;
        ground.log_meter().show(page, "log");
        page.gauge(
            "applied_index",
            "The newest command that took effect.",
            ground.applied(),
        );
        let help = "Counts the starts of this master's log.";
        page.gauge("term", help, ground.term());
        // A store that cannot be read ends the master: there is nothing to count then.
        let counters = ground.read(|view| state::counters(view)).unwrap_or_default();
        page.gauge("files", "Names that are no directories.", counters.files);
        page.gauge("directories", "Directories.", counters.directories);
    }

    fn show_servers(&self, page: &mut Page) {
        let now = self.desk.now();
        let live = self.desk.live.lock();
        let servers = || live.servers.iter().filter(|(_, server)| !server.removed);
        let states = [
            (State::Alive, "alive"),
            (State::Suspect, "suspect"),
            (State::Dead, "dead"),
        ];
        let mut family = page.family("servers", Kind::Gauge, "Chunkservers by how they are heard of.");
        for (state, name) in states {
            let count = servers().filter(|(node, _)| live.servers.state(*node, now) == state);
            family.sample(&[("state", name)], count.count());
        }
        let help = "Chunkservers that must not register: foreign ones, clones.";
        page.counter("refused_servers_total", help, &self.desk.meters.refused_servers);
        let failed = servers()
            .flat_map(|(_, server)| &server.disks)
            .filter(|disk| disk.failed);
        page.gauge(
            "failed_disks",
            "Disks of chunkservers that failed.",
            failed.count(),
        );
        let space = |(capacity, free), (c, f)| (capacity + c, free + f);
        let (capacity, free) = servers().map(|(_, server)| server.space()).fold((0, 0), space);
        let help = "Room of all good disks, for replicas.";
        page.gauge("capacity_bytes", help, capacity);
        page.gauge("free_bytes", "What of it is free.", free);
        let help = "Since a chunkserver's last heartbeat.";
        let mut family = page.family("server_silence_seconds", Kind::Gauge, help);
        for (node, _) in servers() {
            let silence = live.servers.silent_for(node, now).as_secs_f64();
            family.sample(&[("node", &node.to_string())], silence);
        }
        let mut family = page.family("server_free_bytes", Kind::Gauge, "Free on a chunkserver.");
        for (node, server) in servers() {
            family.sample(&[("node", &node.to_string())], server.space().1);
        }
    }

    fn show_sessions(&self, page: &mut Page) {
        let live = &self.desk.live;
        let (clients, writing) = {
            let tables = live.lock();
            (tables.clients.count(), tables.grants.count())
        };
        let mounts = live.watch.mounts().min(clients);
        let mut family = page.family("sessions", Kind::Gauge, "Client sessions.");
        family.sample(&[("kind", "mount")], mounts);
        family.sample(&[("kind", "other")], clients - mounts);
        page.gauge("writing_chunks", "Chunks that somebody may write.", writing);
    }

    fn show_queues(&self, page: &mut Page) {
        let (ground, queues) = (&self.desk.ground, self.steward.queues());
        page.gauge(
            "waiting_proposals",
            "Commands that wait for the log.",
            ground.waiting(),
        );
        let help = "Keys that are committed and not yet in the key-value store.";
        page.gauge("unsettled_keys", help, ground.unsettled());
        let help = "Chunks whose next configuration is being brought about.";
        page.gauge("changing_chunks", help, queues.changes);
        let help = "Chunks that wait for a new member.";
        page.gauge("waiting_copies", help, queues.copies);
        let help = "Chunks that get a new member.";
        page.gauge("joining_chunks", help, queues.joining);
        let help = "Replicas with a bad block that are not healed yet.";
        page.gauge("ailing_replicas", help, queues.ailing);
        let help = "Orders to chunkservers that are not answered yet.";
        page.gauge("waiting_orders", help, self.desk.orders_waiting());
    }
}

fn show_chunks(page: &mut Page, counts: &Counts) {
    let chunks = [
        ("ok", counts.ok),
        ("under_goal", counts.under_goal),
        ("over_goal", counts.over_goal),
        ("missing", counts.missing),
        ("corrupt", counts.corrupt),
    ];
    let help = "Chunks of files, each by its worst trouble.";
    let mut family = page.family("chunks", Kind::Gauge, help);
    for (health, count) in chunks {
        family.sample(&[("health", health)], count);
    }
    let help = "Chunks that nothing refers to any more.";
    page.gauge("collecting_chunks", help, counts.collecting);
    let replicas = [
        ("stale", counts.stale),
        ("misplaced", counts.misplaced),
        ("orphan", counts.orphan),
    ];
    let help = "Replicas that are not where, or what, they should be.";
    let mut family = page.family("odd_replicas", Kind::Gauge, help);
    for (kind, count) in replicas {
        family.sample(&[("kind", kind)], count);
    }
    let help = "Chunks of files by the copies they should have and the good ones they have.";
    let mut family = page.family("chunk_copies", Kind::Gauge, help);
    for ((goal, copies), count) in &counts.copies {
        let (goal, copies) = (goal.to_string(), copies.to_string());
        family.sample(&[("goal", &goal), ("copies", &copies)], *count);
    }
    let help = "Chunks with one good copy left of more that are wanted.";
    page.gauge("one_copy_chunks", help, counts.one_copy());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_where_their_number_says() {
        for (index, call) in Call::ALL.iter().enumerate() {
            assert_eq!(*call as usize, index, "{}", call.name());
        }
    }

    #[test]
    fn a_chunk_is_in_danger_with_one_copy_of_more() {
        let mut counts = Counts::default();
        counts
            .copies
            .extend([((3, 3), 5), ((3, 1), 2), ((1, 1), 7), ((2, 1), 1)]);
        assert_eq!(counts.one_copy(), 3);
        let mut page = Page::new("dfs_master");
        show_chunks(&mut page, &counts);
        let text = page.into_text();
        for line in [
            "dfs_master_chunk_copies{goal=\"3\",copies=\"1\"} 2\n",
            "dfs_master_one_copy_chunks 3\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
