//! The mount's counters for Prometheus.

use crate::stats::{Operation, Stats};
use dfs_stdx::metrics::{Kind, Page, Source};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Counters that can be shown.
#[derive(Clone, Debug)]
pub struct Metrics {
    stats: Arc<Stats>,
}

impl Metrics {
    pub(crate) fn new(stats: Arc<Stats>) -> Metrics {
        Metrics { stats }
    }
}

impl Source for Metrics {
    fn page(&self) -> String {
        let (mut page, s) = (Page::new("dfs_mount"), &self.stats);
        page.family("info", Kind::Gauge, "1, with the program's version.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge(
            "uptime_seconds",
            "Since it was mounted.",
            s.uptime().as_secs_f64(),
        );
        let counted = [
            ("read_bytes_total", "Bytes answered to reads.", &s.read_bytes),
            (
                "written_bytes_total",
                "Bytes taken from writes.",
                &s.written_bytes,
            ),
            (
                "interrupted_requests_total",
                "Requests whose program stopped waiting.",
                &s.interrupted,
            ),
            (
                "timed_out_requests_total",
                "Requests given up at their deadline.",
                &s.timed_out,
            ),
            (
                "invalidations_total",
                "What the kernel was told to forget.",
                &s.invalidations,
            ),
        ];
        for (name, help, counter) in counted {
            page.counter(name, help, counter);
        }
        let help = "Requests that could not be answered at once.";
        page.gauge("waiting_requests", help, s.waiting.load(Ordering::Relaxed));
        page.calls(
            "request",
            "operation",
            Operation::ALL
                .iter()
                .map(|operation| (operation.name(), s.of(*operation))),
        );
        page.into_text()
    }

    /// A mount that answers at all does what it can; the cluster has an answer of its own.
    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_stdx::Clock;
    use std::time::Duration;

    #[tokio::test]
    async fn requests_that_were_made_are_shown_by_kind() {
        let stats = Stats::new("m:1", "/mnt", &Clock::system());
        stats.answered(Operation::Getattr, Duration::from_micros(3), false);
        stats.answered(Operation::Getattr, Duration::from_micros(300), true);
        let text = Metrics::new(Arc::new(stats)).page();
        for line in [
            "dfs_mount_request_duration_seconds_count{operation=\"getattr\"} 2\n",
            "dfs_mount_request_errors_total{operation=\"getattr\"} 1\n",
            "dfs_mount_read_bytes_total 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("\"lookup\""), "what was never asked is not shown");
    }

    #[tokio::test]
    async fn what_alerts_dashboard_and_documents_speak_of_is_on_the_page() {
        let stats = Stats::new("m:1", "/mnt", &Clock::system());
        let page = Metrics::new(Arc::new(stats)).page();
        for text in [
            include_str!("../../ops/prometheus/dfs.rules.yml"),
            include_str!("../../ops/grafana/dfs.json"),
            include_str!("../../docs/operations.md"),
        ] {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<&str> = words.filter(|word| word.starts_with("dfs_mount_")).collect();
            assert!(!names.is_empty());
            for name in names {
                let plain = ["_bucket", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end));
                let line = format!("# TYPE {} ", plain.unwrap_or(name));
                assert!(page.contains(&line), "there is no {name}");
            }
        }
    }
}
