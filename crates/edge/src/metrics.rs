//! What the edge counts: each core on its own line of memory, summed up when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub enum Count {
    /// Connections accepted.
    Connections = 0,
    /// TLS handshakes that failed.
    BadHandshakes = 1,
    /// Connections closed because of slowness.
    Slow = 2,
    /// Requests answered.
    Requests = 3,
    /// Of these 2xx.
    Success = 4,
    /// 3xx.
    Redirect = 5,
    /// 4xx.
    ClientError = 6,
    /// 5xx.
    ServerError = 7,
    /// Files served.
    Files = 8,
    /// Requests given to PHP.
    Php = 9,
    /// Milliseconds that PHP took to the end of its headers.
    PhpMillis = 10,
    /// Requests that no worker was found for.
    Refused = 11,
    /// Requests that PHP did not answer.
    PhpFailed = 12,
    /// Bytes of bodies sent.
    Bytes = 13,
}

const NAMES: [(&str, &str); 14] = [
    ("pressroom_connections_total", "Connections accepted."),
    ("pressroom_tls_handshake_failures_total", "TLS handshakes that failed."),
    (
        "pressroom_slow_connections_closed_total",
        "Connections closed because their client was too slow.",
    ),
    ("pressroom_requests_total", "Requests answered."),
    ("pressroom_responses_2xx_total", "Answers of 200 to 299."),
    ("pressroom_responses_3xx_total", "Answers of 300 to 399."),
    ("pressroom_responses_4xx_total", "Answers of 400 to 499."),
    ("pressroom_responses_5xx_total", "Answers of 500 and above."),
    ("pressroom_files_total", "Static files served."),
    ("pressroom_php_requests_total", "Requests answered by PHP."),
    ("pressroom_php_milliseconds_total", "Milliseconds PHP took to the end of its headers."),
    ("pressroom_php_refused_total", "Requests for which no worker became free."),
    ("pressroom_php_failures_total", "Requests that PHP did not answer."),
    ("pressroom_body_bytes_total", "Bytes of bodies sent."),
];

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; NAMES.len()]);

/// The counters of all cores.
#[derive(Debug)]
pub struct Metrics(Vec<Line>);

impl Metrics {
    /// For so many cores.
    pub fn new(cores: usize) -> Self {
        Self((0..cores.max(1)).map(|_| Line::default()).collect())
    }

    /// Counts `n` on a core. Only that core writes there, so no locked instruction is needed.
    pub fn add(&self, core: usize, count: Count, n: u64) {
        let cell = &self.0[core % self.0.len()].0[count as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The sum over the cores.
    pub fn sum(&self, count: Count) -> u64 {
        self.at(count as usize)
    }

    fn at(&self, at: usize) -> u64 {
        self.0.iter().map(|line| line.0[at].load(Ordering::Relaxed)).sum()
    }

    /// Prometheus' text form.
    pub fn render(&self, out: &mut String) {
        use std::fmt::Write as _;
        for (at, (name, help)) in NAMES.iter().enumerate() {
            let _ = writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}",
                self.at(at)
            );
        }
    }
}
