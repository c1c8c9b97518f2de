//! Structured logs on stderr.
//!
//! On a terminal a line is for people; elsewhere it is one JSON object: `time`, `level`, `process`, `target`,
//! `message` and the event's fields. `PRESSROOM_LOG` sets the level (`debug`, or `info,pressroom_edge=trace`).
//! Spans are deliberately not shown: an event carries what is needed to understand it.

use std::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// The variable that sets the level.
pub const VARIABLE: &str = "PRESSROOM_LOG";

/// Installs the logs of this process. A second call changes nothing.
pub fn init(process: &'static str) {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let filter = EnvFilter::try_new(if asked.is_empty() { "info" } else { &asked });
    let is_bad = filter.is_err();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info")))
        // It would be said on the same stderr, by a macro that panics when that cannot be written: on a full disk.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let installed = if std::io::stderr().is_terminal() {
        builder.compact().with_target(false).try_init()
    } else {
        builder.event_format(Lines { process }).try_init()
    };
    if is_bad && installed.is_ok() {
        tracing::warn!(variable = VARIABLE, value = asked, "not a log level; using `info`");
    }
}

/// One JSON object per event.
struct Lines {
    process: &'static str,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let mut line = Map::new();
        line.insert("time".into(), clock::rfc3339(clock::wall_ms()).into());
        line.insert("level".into(), meta.level().as_str().to_ascii_lowercase().into());
        line.insert("process".into(), self.process.into());
        line.insert("target".into(), meta.target().into());
        for (name, value) in fields.0 {
            line.entry(name).or_insert(value);
        }
        writeln!(out, "{}", Value::Object(line))
    }
}

#[derive(Default)]
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name().to_owned(), value.into()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.add(
            field,
            u64::try_from(value).map_or_else(|_| Value::from(value.to_string()), Value::from),
        );
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_json_line_whatever_its_fields_hold() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Lines { process: "test" })
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pid = 42_u64, text = "two\n\"lines\"", level = "forged", "it broke");
        });
        let text = String::from_utf8(kept.0.lock().clone()).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), 1);
        let line: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["message"], "it broke");
        assert_eq!(line["level"], "warn");
        assert_eq!(line["process"], "test");
        assert_eq!(line["pid"], 42);
        assert_eq!(line["text"], "two\n\"lines\"");
    }

    /// Run as a process of its own by the test below, with a stderr that takes nothing.
    #[test]
    fn child_logs_to_a_full_disk() {
        if std::env::var_os("PRESSROOM_TEST_CHILD").is_some() {
            init("test");
            tracing::error!("nobody will read this");
        }
    }

    #[test]
    fn a_full_disk_does_not_end_a_process_that_logs() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let status = std::process::Command::new(std::env::current_exe().expect("our own program"))
            .args(["--exact", "--nocapture", "logs::tests::child_logs_to_a_full_disk"])
            .env("PRESSROOM_TEST_CHILD", "1")
            .stdout(std::process::Stdio::null())
            .stderr(full)
            .status();
        assert!(status.expect("it was started").success());
    }
}
