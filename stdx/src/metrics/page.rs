//! Prometheus's text format, version 0.0.4: families of samples, each with its help and its type above.

use super::{Counter, Histogram, Timed};
use std::fmt::{Display, Write as _};
use std::time::Duration;

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It is as it is now.
    Gauge,
    /// Counts by duration, in seconds.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A page being written. All names on it begin with the same word.
#[derive(Debug)]
pub struct Page {
    prefix: &'static str,
    text: String,
}

/// Samples under one name.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Page {
    /// An empty page of `prefix` (such as `dfs_master`).
    #[must_use]
    pub fn new(prefix: &'static str) -> Page {
        Page {
            prefix,
            text: String::with_capacity(16 * 1024),
        }
    }

    /// What was written.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    /// Samples of `name`, which have labels; each name once a page.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let name = format!("{}_{name}", self.prefix);
        line(&mut self.text, format_args!("# HELP {name} {help}"));
        line(&mut self.text, format_args!("# TYPE {name} {}", kind.name()));
        Family {
            text: &mut self.text,
            name,
        }
    }

    /// A number that only grows; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.family(name, Kind::Counter, help).sample(&[], counter.get());
    }

    /// A number as it is now.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// Durations of one kind of thing; its name ends in `_seconds`.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, Kind::Histogram, help).histogram(&[], histogram);
    }

    /// Calls by their kind, told apart by a label: their durations (`<call>_duration_seconds`) and their errors
    /// (`<call>_errors_total`). Kinds that never came are not shown.
    pub fn calls<'t>(
        &mut self,
        call: &str,
        label: &str,
        calls: impl Iterator<Item = (&'t str, &'t Timed)> + Clone,
    ) {
        let made = calls.filter(|(_, timed)| timed.took.count() > 0);
        let name = format!("{call}_duration_seconds");
        let mut family = self.family(&name, Kind::Histogram, "From its arrival to the answer.");
        for (kind, timed) in made.clone() {
            family.histogram(&[(label, kind)], &timed.took);
        }
        let name = format!("{call}_errors_total");
        let mut family = self.family(&name, Kind::Counter, "Answered with an error.");
        for (kind, timed) in made {
            family.sample(&[(label, kind)], timed.errors.get());
        }
    }
}

impl Family<'_> {
    /// One number.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        sample(self.text, (&self.name, ""), labels, value);
    }

    /// One histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0;
        for (bound, observations) in histogram.buckets() {
            count += observations;
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |b| seconds(b).to_string());
            let labels = [labels, &[("le", bound.as_str())]].concat();
            sample(self.text, (&self.name, "_bucket"), &labels, count);
        }
        sample(self.text, (&self.name, "_sum"), labels, seconds(histogram.sum()));
        sample(self.text, (&self.name, "_count"), labels, count);
    }
}

fn sample(text: &mut String, (name, suffix): (&str, &str), labels: &[(&str, &str)], value: impl Display) {
    let mut shown = String::new();
    for (label, value) in labels {
        let comma = if shown.is_empty() { "" } else { "," };
        write!(shown, "{comma}{label}=\"{}\"", escaped(value)).expect("a string takes everything");
    }
    if !shown.is_empty() {
        shown = format!("{{{shown}}}");
    }
    line(text, format_args!("{name}{suffix}{shown} {value}"));
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(text, "{what}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_help_type_and_samples() {
        let mut page = Page::new("dfs_test");
        page.counter("bytes_total", "Bytes.", &Counter::default());
        let mut family = page.family("disks", Kind::Gauge, "Disks.");
        family.sample(&[("path", "/a\"b\\c\n"), ("state", "ok")], 1);
        assert_eq!(
            page.into_text(),
            "# HELP dfs_test_bytes_total Bytes.\n# TYPE dfs_test_bytes_total counter\ndfs_test_bytes_total 0\n\
             # HELP dfs_test_disks Disks.\n# TYPE dfs_test_disks gauge\n\
             dfs_test_disks{path=\"/a\\\"b\\\\c\\n\",state=\"ok\"} 1\n"
        );
    }

    #[test]
    fn a_histogram_counts_upwards() {
        let calls = [("get", Timed::default()), ("never", Timed::default())];
        calls[0].1.answered(Duration::from_micros(3), false);
        calls[0].1.answered(Duration::from_micros(300), true);
        let mut page = Page::new("dfs_test");
        page.calls("call", "kind", calls.iter().map(|(kind, timed)| (*kind, timed)));
        let text = page.into_text();
        let bucket = |bound: &str| {
            let start = format!("dfs_test_call_duration_seconds_bucket{{kind=\"get\",le=\"{bound}\"}} ");
            text.lines()
                .find_map(|line| line.strip_prefix(&start))
                .map(str::to_owned)
        };
        assert_eq!(bucket("0.000002").as_deref(), Some("0"), "{text}");
        assert_eq!(bucket("0.000004").as_deref(), Some("1"), "{text}");
        assert_eq!(bucket("+Inf").as_deref(), Some("2"), "{text}");
        assert!(text.contains("dfs_test_call_duration_seconds_count{kind=\"get\"} 2\n"));
        assert!(text.contains("dfs_test_call_errors_total{kind=\"get\"} 1\n"));
        assert!(!text.contains("never"), "what never came is not shown");
    }
}
