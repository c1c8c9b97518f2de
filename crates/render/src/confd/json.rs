//! `json` and `jsonArray`: values as others wrote them.

use pressroom_gotemplate::{Functions, Refused, Value};

use super::words::text;

pub(super) fn add(functions: &mut Functions) {
    functions.add("json", 1..=1, |a| match read(text(a, 0)?)? {
        found @ (Value::Map(_) | Value::Nil) => Ok(found),
        other => Err(Refused(format!("no JSON object, but {}", other.type_name()))),
    });
    functions.add("jsonArray", 1..=1, |a| match read(text(a, 0)?)? {
        found @ (Value::List(_) | Value::Nil) => Ok(found),
        other => Err(Refused(format!("no JSON array, but {}", other.type_name()))),
    });
}

fn read(text: &str) -> Result<Value, Refused> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| Refused(format!("no JSON: {error}")))?;
    Ok(meant(value))
}

/// Numbers are those of JSON, as in Go: `80` and `80.0` are one.
fn meant(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(it) => it.into(),
        serde_json::Value::Number(it) => Value::Float(it.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(it) => it.into(),
        serde_json::Value::Array(list) => Value::list(list.into_iter().map(meant)),
        serde_json::Value::Object(map) => {
            Value::map(map.into_iter().map(|(key, value)| (key, meant(value))))
        }
    }
}
