//! Counters and histograms in Prometheus' text form.
//!
//! Values are sharded over cache lines, because the edge counts on every core for every request. A metric is a plain
//! value that its owner holds and writes out with a [`Text`]; there is no global registry.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const SHARDS: usize = 16;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = const { Cell::new(usize::MAX) });
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed) % SHARDS);
        }
        mine.get()
    })
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter([Shard; SHARDS]);

impl Counter {
    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.0[shard()].0.fetch_add(n, Relaxed);
    }

    /// The sum so far.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Relaxed)).sum()
    }
}

/// Upper bounds of a [`Histogram`]'s buckets, in microseconds: a factor of about 2.5 apart, 100 µs to 10 s.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// How long something took, in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len()],
    count: Counter,
    sum_us: Counter,
}

impl Histogram {
    /// Notes one duration.
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = BOUNDS.iter().position(|bound| us <= *bound) {
            self.buckets[bucket].one();
        }
        self.count.one();
        self.sum_us.add(us);
    }
}

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what the samples that follow are. `kind` is `counter`, `gauge` or `histogram`.
    pub fn describe(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        self.labels(labels, None);
        let _infallible = writeln!(self.0, " {value}");
    }

    /// A histogram's samples, in seconds.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], of: &Histogram) {
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&of.buckets) {
            below += bucket.sum();
            self.bucket(name, labels, &seconds(*bound), below);
        }
        let count = of.count.sum();
        self.bucket(name, labels, "+Inf", count.max(below));
        self.sample(&format!("{name}_sum"), labels, seconds(of.sum_us.sum()));
        self.sample(&format!("{name}_count"), labels, count.max(below));
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }

    fn bucket(&mut self, name: &str, labels: &[(&str, &str)], bound: &str, value: u64) {
        let _infallible = write!(self.0, "{name}_bucket");
        self.labels(labels, Some(("le", bound)));
        let _infallible = writeln!(self.0, " {value}");
    }

    fn labels(&mut self, labels: &[(&str, &str)], last: Option<(&str, &str)>) {
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _infallible = write!(self.0, "{open}{name}=\"{value}\"");
            open = ',';
        }
        if open == ',' {
            self.0.push('}');
        }
    }
}

fn seconds(us: u64) -> String {
    format!("{}", Duration::from_micros(us).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_together() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counter.one()));
            }
        });
        assert_eq!(counter.sum(), 4000);
    }

    #[test]
    fn the_text_form_is_what_prometheus_reads() {
        let histogram = Histogram::default();
        histogram.note(Duration::from_micros(90));
        histogram.note(Duration::from_secs(11));
        let mut text = Text::new();
        text.describe("x_seconds", "histogram", "How long x took.");
        text.histogram("x_seconds", &[("site", "a\"b")], &histogram);
        let text = text.finish();
        assert!(
            text.starts_with("# HELP x_seconds How long x took.\n# TYPE x_seconds histogram\n")
        );
        assert!(text.contains("x_seconds_bucket{site=\"a\\\"b\",le=\"0.0001\"} 1\n"), "{text}");
        assert!(text.contains("x_seconds_bucket{site=\"a\\\"b\",le=\"10\"} 1\n"), "{text}");
        assert!(text.contains("x_seconds_bucket{site=\"a\\\"b\",le=\"+Inf\"} 2\n"), "{text}");
        assert!(text.contains("x_seconds_count{site=\"a\\\"b\"} 2\n"), "{text}");
    }
}
