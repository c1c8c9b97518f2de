//! Go's own functions.

use std::cmp::Ordering;
use std::fmt::Write as _;

use crate::format;
use crate::function::{ANY, Answer, Function, Refused};
use crate::value::Value;

const NAMES: [&str; 19] = [
    "and", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or", "print",
    "printf", "println", "slice", "urlquery", "call",
];

/// Whether Go has a function of this name.
pub(crate) fn is_one(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls one that [`is_one`]; `and` and `or`, which do not look at all arguments, are not here.
pub(crate) fn call(name: &str, arguments: &[Value]) -> Answer {
    let (wanted, body): (_, fn(&[Value]) -> Answer) = match name {
        "eq" => (1..=ANY, eq),
        "ne" => (2..=2, |a| Ok(Value::Bool(!is_equal(&a[0], &a[1])?))),
        "lt" => (2..=2, |a| Ok(Value::Bool(order(&a[0], &a[1])? == Some(Ordering::Less)))),
        "gt" => (2..=2, |a| Ok(Value::Bool(order(&a[0], &a[1])? == Some(Ordering::Greater)))),
        "le" => (2..=2, |a| Ok(Value::Bool(order(&a[0], &a[1])?.is_some_and(Ordering::is_le)))),
        "ge" => (2..=2, |a| Ok(Value::Bool(order(&a[0], &a[1])?.is_some_and(Ordering::is_ge)))),
        "not" => (1..=1, |a| Ok(Value::Bool(!a[0].is_true()))),
        "len" => (1..=1, |a| length(&a[0])),
        "index" => (1..=ANY, index),
        "slice" => (1..=4, slice),
        "print" => (0..=ANY, |a| Ok(Value::from(format::print(a)))),
        "println" => (0..=ANY, |a| Ok(Value::from(format::println(a)))),
        "printf" => (1..=ANY, printf),
        "html" => (0..=ANY, |a| Ok(Value::from(html(&joined(a))))),
        "js" => (0..=ANY, |a| Ok(Value::from(js(&joined(a))))),
        "urlquery" => (0..=ANY, |a| Ok(Value::from(urlquery(&joined(a))))),
        _ => return refuse(format!("{name} is not supported: there are no function values")),
    };
    Function { arguments: wanted, body: std::sync::Arc::new(body) }.call(name, arguments)
}

fn refuse<T>(what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(what.into()))
}

fn printf(arguments: &[Value]) -> Answer {
    match arguments {
        [Value::String(verbs), values @ ..] => Ok(Value::from(format::printf(verbs, values))),
        _ => refuse("wrong type for value; expected string"),
    }
}

/// What the escaping functions escape: one string as it is, everything else as `print` has it.
fn joined(arguments: &[Value]) -> String {
    match arguments {
        [Value::String(text)] => text.to_string(),
        others => format::print(others),
    }
}

/// Whether the first is equal to one of the others.
fn eq(arguments: &[Value]) -> Answer {
    let [first, others @ ..] = arguments else { return refuse("missing argument for comparison") };
    if others.is_empty() {
        return refuse("missing argument for comparison");
    }
    for other in others {
        if is_equal(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn is_equal(left: &Value, right: &Value) -> Result<bool, Refused> {
    for value in [left, right] {
        if matches!(value, Value::List(_) | Value::Map(_)) {
            return refuse(format!("non-comparable type {}: {}", value.shown(), value.type_name()));
        }
    }
    match (left, right) {
        (Value::Nil | Value::Absent, Value::Nil | Value::Absent) => Ok(true),
        (Value::Nil | Value::Absent, _) | (_, Value::Nil | Value::Absent) => Ok(false),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Int(a), Value::Int(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::String(a), Value::String(b)) => Ok(a == b),
        (Value::Object(a), Value::Object(b)) if a.type_name() == b.type_name() => {
            Ok(a.text() == b.text())
        }
        (a, b) => refuse(format!(
            "incompatible types for comparison: {} and {}",
            a.type_name(),
            b.type_name()
        )),
    }
}

/// `None`: neither is before the other, since one is no number.
fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, Refused> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b)),
        (Value::String(a), Value::String(b)) => Ok(Some(a.cmp(b))),
        (Value::Int(_) | Value::Float(_) | Value::String(_), b) => refuse(format!(
            "incompatible types for comparison: {} and {}",
            left.type_name(),
            b.type_name()
        )),
        (a, _) => refuse(format!("invalid type for comparison: {}", a.type_name())),
    }
}

fn length(value: &Value) -> Answer {
    let length = match value {
        Value::String(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        other => return refuse(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// An index into something of this length; one behind the last is fine for slices.
fn within(index: &Value, most: usize) -> Result<usize, Refused> {
    match index {
        Value::Int(at) => match usize::try_from(*at) {
            Ok(at) if at <= most => Ok(at),
            _ => refuse(format!("index out of range: {at}")),
        },
        Value::Nil => refuse("cannot index slice/array with nil"),
        other => refuse(format!("cannot index slice/array with type {}", other.type_name())),
    }
}

fn index(arguments: &[Value]) -> Answer {
    let mut value = arguments[0].clone();
    for key in &arguments[1..] {
        value = match (&value, key) {
            (Value::List(list), key) => {
                let at = within(key, list.len())?;
                match list.get(at) {
                    Some(value) => value.clone(),
                    None => return refuse(format!("index out of range: {at}")),
                }
            }
            (Value::String(text), key) => {
                let at = within(key, text.len())?;
                match text.as_bytes().get(at) {
                    Some(byte) => Value::Int(i64::from(*byte)),
                    None => return refuse(format!("index out of range: {at}")),
                }
            }
            (Value::Map(map), Value::String(key)) => {
                map.get(key.as_ref()).cloned().unwrap_or_default()
            }
            (Value::Map(_), key) => {
                return refuse(format!("value has type {}; should be string", key.type_name()));
            }
            (Value::Nil | Value::Absent, _) => return refuse("index of untyped nil"),
            (other, _) => {
                return refuse(format!("can't index item of type {}", other.type_name()));
            }
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Answer {
    let (item, indexes) = (&arguments[0], &arguments[1..]);
    let length = match item {
        Value::List(list) => list.len(),
        Value::String(_) if indexes.len() == 3 => return refuse("cannot 3-index slice a string"),
        Value::String(text) => text.len(),
        Value::Nil | Value::Absent => return refuse("slice of untyped nil"),
        other => return refuse(format!("can't slice item of type {}", other.type_name())),
    };
    let at = |which: usize, otherwise: usize| match indexes.get(which) {
        Some(index) => within(index, length),
        None => Ok(otherwise),
    };
    let (start, end, most) = (at(0, 0)?, at(1, length)?, at(2, length)?);
    if start > end || end > most {
        return refuse(format!("invalid slice index: {start} > {end}"));
    }
    match item {
        Value::List(list) => Ok(Value::list(list[start..end].iter().cloned())),
        Value::String(text) => match text.get(start..end) {
            Some(part) => Ok(Value::text(part)),
            None => refuse("the slice cuts a character into pieces"),
        },
        _ => Ok(Value::Absent),
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\u{2028}' | '\u{2029}' | '\0'..=' ' if c != ' ' => {
                let _infallible = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => {
                let _infallible = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}
