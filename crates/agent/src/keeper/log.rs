//! The keeper's log: one JSON object a line on standard error (`logs/keeper.log` when detached).
//!
//! Written with plain `write` calls whose failure is ignored: a full disk must not end the parent of everything.

use pressroom_runtime::clock;
use serde_json::{Map, Value};

/// Something that happened as it should.
pub(super) fn info(message: &str, fields: Value) {
    write("info", message, fields);
}

/// Something that somebody should look at.
pub(super) fn warn(message: &str, fields: Value) {
    write("warn", message, fields);
}

/// Something that is broken.
pub(super) fn error(message: &str, fields: Value) {
    write("error", message, fields);
}

fn write(level: &str, message: &str, fields: Value) {
    let mut text = line(clock::wall_ms(), level, message, fields).into_bytes();
    text.push(b'\n');
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(std::io::stderr(), rest) {
            Ok(0) => return,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn line(ms: u64, level: &str, message: &str, fields: Value) -> String {
    let mut all = Map::new();
    all.insert("time".into(), clock::rfc3339(ms).into());
    all.insert("level".into(), level.into());
    all.insert("target".into(), "keeper".into());
    all.insert("message".into(), message.into());
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    Value::Object(all).to_string()
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_break_in_a_field_stays_inside_the_line() {
        let text = line(0, "warn", "x", serde_json::json!({"because": "a\nb"}));
        assert!(!text.contains('\n'), "{text}");
        assert!(text.contains("1970-01-01T00:00:00.000Z"), "{text}");
    }
}
