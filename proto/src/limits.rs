//! Bounds and durations everyone shares. Each has its unit and its reason.

use crate::pb;
use std::time::Duration;

/// Unit of checksums, bytes.
pub const BLOCK_BYTES: u64 = 64 * 1024;
/// Largest chunk, bytes (GFS, section 2.5).
pub const CHUNK_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest payload of one packet or read, bytes: amortises wake-ups, fits the processor's cache.
pub const PACKET_BYTES_MAX: usize = 1024 * 1024;
/// Packets a client stream or a chain link may have unacknowledged: more only fills caches.
pub const WINDOW_PACKETS: usize = 8;
/// Writers a chunk remembers. The least recently used one is forgotten, but never while a call of its could be retried.
pub const WRITERS_MAX: usize = 64;
/// Producers of records a chunk takes: it never forgets one, and plain writers need room beside them.
pub const PRODUCERS_MAX: usize = 52;
/// Largest record, bytes; in clusters of small chunks a quarter of a chunk (see [`Parameters::record_bytes_max`]).
pub const RECORD_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most replicas of a chunk.
pub const GOAL_MAX: u32 = 8;
/// Largest message of the control plane, bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest extended attribute value, bytes: records in the key-value store stay small.
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Largest sum of one inode's attribute names and values, bytes.
pub const XATTR_TOTAL_BYTES_MAX: usize = 128 * 1024;
/// Most hard links of a file.
pub const LINKS_MAX: u32 = 65_000;
/// Largest file, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 50;
/// Requests of one client session that may be unanswered at once.
pub const REQUESTS_OUTSTANDING_MAX: u64 = 1_024;

/// What a cluster is born with and keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Largest chunk of this cluster, bytes; a multiple of [`BLOCK_BYTES`].
    pub chunk_bytes: u64,
    /// Replicas of a chunk unless its file says otherwise.
    pub goal: u32,
    /// Every duration below is divided by it: 1, in the test profile 10.
    pub time_divisor: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            chunk_bytes: CHUNK_BYTES_MAX,
            goal: 3,
            time_divisor: 1,
        }
    }
}

impl Parameters {
    /// True if a cluster can live with them.
    #[must_use]
    pub fn are_valid(&self) -> bool {
        (BLOCK_BYTES..=CHUNK_BYTES_MAX).contains(&self.chunk_bytes)
            && self.chunk_bytes.is_multiple_of(BLOCK_BYTES)
            && (1..=GOAL_MAX).contains(&self.goal)
            && (1..=100).contains(&self.time_divisor)
    }

    /// Largest record that can be appended, bytes: little of a chunk is left over when it does not fit.
    #[must_use]
    pub fn record_bytes_max(&self) -> u64 {
        RECORD_BYTES_MAX.min(self.chunk_bytes / 4)
    }

    /// The cluster's durations.
    #[must_use]
    pub fn timings(&self) -> Timings {
        let of = |ms: u64| Duration::from_millis(ms) / self.time_divisor;
        Timings {
            call_deadline: Duration::from_secs(30),
            ack_deadline: of(3_000),
            heartbeat_every: of(1_000),
            session_self: of(4_000),
            session_master: of(5_000),
            suspect_after: of(5_000),
            dead_after: of(30_000),
            repair_after: of(60_000),
            grant_lease: of(60_000),
            read_token: of(3_600_000),
            client_lease: of(30_000),
            commit_every: of(1_000),
            location_cache: of(5_000),
            background_fsync: of(30_000),
            idle_before_close: of(5_000),
            collect_grace: of(300_000),
            trash_keep: of(259_200_000),
            key_rotation: of(43_200_000),
        }
    }
}

impl From<Parameters> for pb::Parameters {
    fn from(p: Parameters) -> Self {
        pb::Parameters {
            cluster: Default::default(),
            chunk_bytes: p.chunk_bytes,
            goal: p.goal,
            time_divisor: p.time_divisor,
        }
    }
}

impl From<&pb::Parameters> for Parameters {
    fn from(p: &pb::Parameters) -> Self {
        Parameters {
            chunk_bytes: p.chunk_bytes,
            goal: p.goal,
            time_divisor: p.time_divisor,
        }
    }
}

/// Durations of a cluster, already divided by its `time_divisor` (but for the deadline of a call).
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Contract C6: every call ends within it.
    pub call_deadline: Duration,
    /// A packet without an acknowledgement for so long means a failed link.
    pub ack_deadline: Duration,
    /// A chunkserver's heartbeat.
    pub heartbeat_every: Duration,
    /// A chunkserver's own view of its session, from the sending of the last answered heartbeat.
    pub session_self: Duration,
    /// The master's view of it, from its last answer. Longer than `session_self`: clocks may differ by a fifth in rate.
    pub session_master: Duration,
    /// No new chunks, last choice for reads.
    pub suspect_after: Duration,
    /// Its replicas do not count any more.
    pub dead_after: Duration,
    /// A chunk under goal waits so long for a server to come back, unless one member is left.
    pub repair_after: Duration,
    /// A grant without renewal.
    pub grant_lease: Duration,
    /// A read token; renewed at half its life.
    pub read_token: Duration,
    /// A client session without a call.
    pub client_lease: Duration,
    /// A writer commits its length at least so often.
    pub commit_every: Duration,
    /// Locations of a file that is being written are asked again after it.
    pub location_cache: Duration,
    /// An open replica is fsynced in the background so often.
    pub background_fsync: Duration,
    /// A replica without writes for so long is fsynced and loses its open mark.
    pub idle_before_close: Duration,
    /// An unreferenced chunk is kept so long.
    pub collect_grace: Duration,
    /// The trash keeps what is removed for so long, where no directory says otherwise.
    pub trash_keep: Duration,
    /// Capability keys are replaced so often.
    pub key_rotation: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_profile_divides_durations_but_not_deadlines() {
        let t = Parameters {
            time_divisor: 10,
            ..Parameters::default()
        }
        .timings();
        assert_eq!(t.session_self, Duration::from_millis(400));
        assert_eq!(t.call_deadline, Duration::from_secs(30));
        assert!(t.session_self < t.session_master);
    }

    #[test]
    fn a_chunk_is_whole_blocks() {
        assert!(Parameters::default().are_valid());
        assert!(
            !Parameters {
                chunk_bytes: BLOCK_BYTES + 1,
                ..Parameters::default()
            }
            .are_valid()
        );
        assert!(
            !Parameters {
                goal: 0,
                ..Parameters::default()
            }
            .are_valid()
        );
    }
}
