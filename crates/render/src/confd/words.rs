//! What computes with text, lists and numbers.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pressroom_gotemplate::function::{ANY, Answer};
use pressroom_gotemplate::{Functions, Refused, Value};

/// The text that is the argument `at`.
pub(super) fn text(arguments: &[Value], at: usize) -> Result<&str, Refused> {
    match arguments.get(at) {
        Some(Value::String(text)) => Ok(text),
        other => Err(wrong("string", other)),
    }
}

fn number(arguments: &[Value], at: usize) -> Result<i64, Refused> {
    match arguments.get(at) {
        Some(Value::Int(number)) => Ok(*number),
        // A constant such as `1e3`, or a number of JSON's, that is whole.
        Some(Value::Float(number)) if number.fract() == 0.0 && number.abs() < 9e15 =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "it is whole, and far below 2^63")]
            Ok(*number as i64)
        }
        other => Err(wrong("int", other)),
    }
}

fn list(arguments: &[Value], at: usize) -> Result<&Arc<[Value]>, Refused> {
    match arguments.get(at) {
        Some(Value::List(list)) => Ok(list),
        other => Err(wrong("list", other)),
    }
}

fn wrong(wanted: &str, found: Option<&Value>) -> Refused {
    let found = found.map_or("nothing", Value::type_name);
    Refused(format!("wrong type for value; expected {wanted}; got {found}"))
}

pub(super) fn add(functions: &mut Functions) {
    functions.add("base", 1..=1, |a| Ok(base(text(a, 0)?).into()));
    functions.add("dir", 1..=1, |a| Ok(dir(text(a, 0)?).into()));
    functions.add("toUpper", 1..=1, |a| Ok(text(a, 0)?.to_uppercase().into()));
    functions.add("toLower", 1..=1, |a| Ok(text(a, 0)?.to_lowercase().into()));
    functions.add("contains", 2..=2, |a| Ok(text(a, 0)?.contains(text(a, 1)?).into()));
    functions.add("trimSuffix", 2..=2, |a| {
        let whole = text(a, 0)?;
        Ok(whole.strip_suffix(text(a, 1)?).unwrap_or(whole).into())
    });
    functions.add("split", 2..=2, |a| Ok(split(text(a, 0)?, text(a, 1)?)));
    functions.add("join", 2..=2, |a| {
        let parts: Result<Vec<&str>, _> =
            (0..list(a, 0)?.len()).map(|at| text(list(a, 0)?, at)).collect();
        Ok(parts?.join(text(a, 1)?).into())
    });
    functions.add("replace", 4..=4, |a| {
        let (whole, old, new) = (text(a, 0)?, text(a, 1)?, text(a, 2)?);
        Ok(match usize::try_from(number(a, 3)?) {
            Ok(times) => whole.replacen(old, new, times).into(),
            Err(_) => whole.replace(old, new).into(),
        })
    });
    functions.add("parseBool", 1..=1, |a| match text(a, 0)? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true.into()),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false.into()),
        other => Err(Refused(format!("`{other}` is no truth value"))),
    });
    functions.add("atoi", 1..=1, |a| {
        let digits = text(a, 0)?;
        digits.parse().map(Value::Int).map_err(|_| Refused(format!("`{digits}` is no number")))
    });
    functions.add("base64Encode", 1..=1, |a| Ok(STANDARD.encode(text(a, 0)?).into()));
    functions.add("base64Decode", 1..=1, |a| {
        let bad = |what: &dyn std::fmt::Display| Refused(format!("no text in base64: {what}"));
        let bytes = STANDARD.decode(text(a, 0)?).map_err(|error| bad(&error))?;
        Ok(String::from_utf8(bytes).map_err(|error| bad(&error))?.into())
    });
    functions.add("map", 0..=ANY, map);
    lists(functions);
    numbers(functions);
}

fn lists(functions: &mut Functions) {
    functions.add("reverse", 1..=1, |a| match &a[0] {
        Value::List(list) => Ok(Value::list(list.iter().rev().cloned())),
        other => Ok(other.clone()),
    });
    functions.add("sortByLength", 1..=1, |a| {
        let mut sorted = list(a, 0)?.to_vec();
        sorted.sort_by_key(|value| value.shown().len());
        Ok(Value::list(sorted))
    });
    functions.add("sortKVByLength", 1..=1, |a| {
        let key = |pair: &Value| match pair {
            Value::Object(pair) => match pair.get("Key", &[]) {
                Some(Ok(key)) => key.shown().len(),
                _ => 0,
            },
            _ => 0,
        };
        let mut sorted = list(a, 0)?.to_vec();
        sorted.sort_by_key(key);
        Ok(Value::list(sorted))
    });
}

/// The most numbers that `seq` makes.
const MOST: i64 = 1_000_000;

type Compute = fn(i64, i64) -> Option<i64>;

fn numbers(functions: &mut Functions) {
    let all: [(&str, Compute); 5] = [
        ("add", i64::checked_add),
        ("sub", i64::checked_sub),
        ("mul", i64::checked_mul),
        ("div", i64::checked_div),
        ("mod", i64::checked_rem),
    ];
    for (name, compute) in all {
        functions.add(name, 2..=2, move |a| {
            let (left, right) = (number(a, 0)?, number(a, 1)?);
            let refused = || Refused(format!("{name} of {left} and {right} is no number"));
            compute(left, right).map(Value::Int).ok_or_else(refused)
        });
    }
    functions.add("seq", 2..=2, |a| {
        let (first, last) = (number(a, 0)?, number(a, 1)?);
        if last.saturating_sub(first) > MOST {
            return Err(Refused(format!("more than {MOST} numbers")));
        }
        Ok(Value::list((first..=last).map(Value::Int)))
    });
}

fn map(arguments: &[Value]) -> Answer {
    if !arguments.len().is_multiple_of(2) {
        return Err(Refused("a map needs a value for each key".to_owned()));
    }
    let mut pairs = Vec::new();
    for pair in arguments.chunks_exact(2) {
        match &pair[0] {
            Value::String(key) => pairs.push((key.to_string(), pair[1].clone())),
            _ => return Err(Refused("map keys must be strings".to_owned())),
        }
    }
    Ok(Value::map(pairs))
}

/// By every separator; without one, into characters.
fn split(whole: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return Value::list(whole.chars().map(|c| Value::from(c.to_string())));
    }
    Value::list(whole.split(separator).map(Value::from))
}

/// The last part of a path, as Go's `path.Base`.
fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Everything before it, tidied, as Go's `path.Dir`.
fn dir(path: &str) -> String {
    let before = path.rfind('/').map_or("", |at| &path[..at]);
    let mut parts: Vec<&str> = Vec::new();
    for part in before.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    match (path.starts_with('/'), parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}
