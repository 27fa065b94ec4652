//! The mount's counters for Prometheus: its text format over HTTP.

use crate::stats::{BUCKETS, Operation, Stats};
use dfs_proto::net::{BoxStream, Listen as _, Listener, Tcp};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A scraper sends its request and takes its answer within it.
const DEADLINE: Duration = Duration::from_secs(5);
/// A request's head is shorter.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Counters that can be shown.
#[derive(Clone, Debug)]
pub struct Metrics {
    stats: Arc<Stats>,
}

impl Metrics {
    pub(crate) fn new(stats: Arc<Stats>) -> Metrics {
        Metrics { stats }
    }

    /// Serves them on "host:port" for ever; returns once it listens, with the address.
    ///
    /// # Errors
    /// It cannot listen there.
    pub async fn serve(self, addr: &str) -> io::Result<String> {
        let listener = Tcp.listen(addr).await?;
        let local = listener.local_addr();
        tokio::spawn(self.accept(listener));
        Ok(local)
    }

    async fn accept(self, mut listener: Box<dyn Listener>) {
        loop {
            match listener.accept().await {
                // One after the other: a scrape is short, and nobody gains by many.
                Ok((stream, from)) => match tokio::time::timeout(DEADLINE, self.answer(stream)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, from, "a scrape failed"),
                    Err(_) => tracing::debug!(from, "a scrape took too long"),
                },
                Err(error) => {
                    tracing::warn!(%error, "metrics cannot be asked for");
                    tokio::time::sleep(DEADLINE).await;
                }
            }
        }
    }

    async fn answer(&self, mut stream: BoxStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
            if stream.read_buf(&mut head).await? == 0 {
                break;
            }
        }
        let (status, body) = match head.starts_with(b"GET /metrics ") || head.starts_with(b"GET /metrics?") {
            true => ("200 OK", self.text()),
            false => ("404 Not Found", "GET /metrics\n".to_owned()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }

    /// In Prometheus's text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, kind, help, value) in self.plain() {
            head(&mut text, name, kind, help);
            line(
                &mut text,
                format_args!("dfs_mount_{name} {}", value.load(Ordering::Relaxed)),
            );
        }
        let name = "request_errors_total";
        head(&mut text, name, "counter", "Requests answered with an error.");
        for (operation, counter) in self.asked() {
            let errors = counter.errors.load(Ordering::Relaxed);
            line(
                &mut text,
                format_args!("dfs_mount_{name}{{operation=\"{operation}\"}} {errors}"),
            );
        }
        let name = "request_duration_seconds";
        head(
            &mut text,
            name,
            "histogram",
            "From the kernel's request to the answer.",
        );
        for (operation, counter) in self.asked() {
            histogram(
                &mut text,
                operation,
                &counter.buckets,
                counter.nanoseconds.load(Ordering::Relaxed),
            );
        }
        text
    }

    /// What is one number each: name, kind, what it is, where it is counted.
    fn plain(&self) -> [(&'static str, &'static str, &'static str, &AtomicU64); 6] {
        let s = &self.stats;
        [
            (
                "read_bytes_total",
                "counter",
                "Bytes answered to reads.",
                &s.read_bytes,
            ),
            (
                "written_bytes_total",
                "counter",
                "Bytes taken from writes.",
                &s.written_bytes,
            ),
            (
                "interrupted_requests_total",
                "counter",
                "Requests whose program stopped waiting.",
                &s.interrupted,
            ),
            (
                "timed_out_requests_total",
                "counter",
                "Requests given up at their deadline.",
                &s.timed_out,
            ),
            (
                "invalidations_total",
                "counter",
                "What the kernel was told to forget.",
                &s.invalidations,
            ),
            (
                "waiting_requests",
                "gauge",
                "Requests that could not be answered at once.",
                &s.waiting,
            ),
        ]
    }

    fn asked(&self) -> impl Iterator<Item = (&'static str, &crate::stats::Counter)> {
        let all = Operation::ALL
            .iter()
            .map(|operation| (operation.name(), self.stats.of(*operation)));
        all.filter(|(_, counter)| counter.count() > 0)
    }
}

fn histogram(text: &mut String, operation: &str, buckets: &[AtomicU64; BUCKETS], nanoseconds: u64) {
    const NAME: &str = "dfs_mount_request_duration_seconds";
    let mut count = 0;
    for (exponent, bucket) in buckets.iter().enumerate() {
        count += bucket.load(Ordering::Relaxed);
        if exponent + 1 < BUCKETS {
            let bound = seconds(1_000 << exponent);
            line(
                text,
                format_args!("{NAME}_bucket{{operation=\"{operation}\",le=\"{bound}\"}} {count}"),
            );
        }
    }
    line(
        text,
        format_args!("{NAME}_bucket{{operation=\"{operation}\",le=\"+Inf\"}} {count}"),
    );
    line(
        text,
        format_args!("{NAME}_sum{{operation=\"{operation}\"}} {}", seconds(nanoseconds)),
    );
    line(
        text,
        format_args!("{NAME}_count{{operation=\"{operation}\"}} {count}"),
    );
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP dfs_mount_{name} {help}"));
    line(text, format_args!("# TYPE dfs_mount_{name} {kind}"));
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(text, "{what}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::net::Dial as _;
    use dfs_stdx::Clock;

    fn metrics() -> Metrics {
        let stats = Stats::new("m:1", "/mnt", &Clock::system());
        stats.answered(Operation::Getattr, Duration::from_micros(3), false);
        stats.answered(Operation::Getattr, Duration::from_micros(300), true);
        Metrics::new(Arc::new(stats))
    }

    #[tokio::test]
    async fn a_histogram_counts_upwards() {
        let text = metrics().text();
        let bucket = |bound: &str| {
            let start =
                format!("dfs_mount_request_duration_seconds_bucket{{operation=\"getattr\",le=\"{bound}\"}} ");
            text.lines()
                .find_map(|line| line.strip_prefix(&start))
                .map(str::to_owned)
        };
        assert_eq!(bucket("0.000002").as_deref(), Some("0"), "{text}");
        assert_eq!(bucket("0.000004").as_deref(), Some("1"), "{text}");
        assert_eq!(bucket("+Inf").as_deref(), Some("2"), "{text}");
        assert!(
            text.contains("dfs_mount_request_errors_total{operation=\"getattr\"} 1\n"),
            "{text}"
        );
        assert!(!text.contains("\"lookup\""), "what was never asked is not shown");
    }

    #[tokio::test]
    async fn they_are_served_at_their_path_only() {
        let addr = metrics().serve("127.0.0.1:0").await.unwrap();
        for (path, status) in [("/metrics", "HTTP/1.1 200 OK"), ("/", "HTTP/1.1 404 Not Found")] {
            let mut stream = Tcp.dial(&addr).await.unwrap();
            stream
                .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(status), "{answer}");
        }
    }
}
