//! What finds pairs: `get`, `gets`, `getv`, `getvs`, `exists`, `ls`, `lsdir`.

use std::collections::BTreeSet;
use std::sync::Arc;

use pressroom_gotemplate::{Functions, Refused, Value};

use super::Pairs;
use super::words::text;

pub(super) fn add(functions: &mut Functions, pairs: &Arc<Pairs>) {
    let it = Arc::clone(pairs);
    functions.add("exists", 1..=1, move |a| Ok(it.contains_key(text(a, 0)?).into()));
    let it = Arc::clone(pairs);
    functions.add("get", 1..=1, move |a| {
        let key = text(a, 0)?;
        Ok(pair(key, it.get(key).ok_or_else(|| absent(key))?))
    });
    let it = Arc::clone(pairs);
    functions.add("getv", 1..=2, move |a| {
        let key = text(a, 0)?;
        match it.get(key) {
            Some(value) => Ok(value.as_str().into()),
            None if a.len() > 1 => Ok(text(a, 1)?.into()),
            None => Err(absent(key)),
        }
    });
    let it = Arc::clone(pairs);
    functions.add("gets", 1..=1, move |a| {
        let found = matching(&it, text(a, 0)?)?;
        Ok(Value::list(found.into_iter().map(|(key, value)| pair(key, value))))
    });
    let it = Arc::clone(pairs);
    functions.add("getvs", 1..=1, move |a| {
        let found = matching(&it, text(a, 0)?)?;
        let mut values: Vec<&str> = found.into_iter().map(|(_, value)| value).collect();
        values.sort_unstable();
        Ok(Value::list(values.into_iter().map(Value::from)))
    });
    let it = Arc::clone(pairs);
    functions.add("ls", 1..=1, move |a| Ok(list(below(&it, text(a, 0)?))));
    let it = Arc::clone(pairs);
    functions.add("lsdir", 1..=1, move |a| Ok(list(folders(&it, text(a, 0)?))));
    for name in ["cget", "cgets", "cgetv", "cgetvs"] {
        functions.add(name, 1..=1, |_| {
            Err(Refused("encrypted values cannot be read here: keep such values out of templates, or give them to the program by a file of its own".to_owned()))
        });
    }
}

fn pair(key: &str, value: &str) -> Value {
    Value::record("KVPair", vec![("Key", key.into()), ("Value", value.into())])
}

fn absent(key: &str) -> Refused {
    Refused(format!("key does not exist: {key}"))
}

fn list(names: BTreeSet<&str>) -> Value {
    Value::list(names.into_iter().map(Value::from))
}

/// Pairs whose key is as the pattern says, in the order of keys.
fn matching<'a>(pairs: &'a Pairs, pattern: &str) -> Result<Vec<(&'a str, &'a str)>, Refused> {
    let parts = parts(pattern)?;
    let found = pairs.iter().filter(|(key, _)| is_match(&parts, key));
    Ok(found.map(|(key, value)| (key.as_str(), value.as_str())).collect())
}

/// What is left of a key below a folder, which may be written with a slash at its end.
fn rest<'a>(key: &'a str, folder: &str) -> Option<&'a str> {
    let folder = folder.trim_end_matches('/');
    key.strip_prefix(folder)?.strip_prefix('/')
}

/// The names right below a folder; of a key that is no folder, its own.
fn below<'a>(pairs: &'a Pairs, folder: &str) -> BTreeSet<&'a str> {
    pairs
        .keys()
        .filter_map(|key| {
            if key == folder {
                return key.rsplit('/').next();
            }
            rest(key, folder)?.split('/').next()
        })
        .collect()
}

/// The names right below a folder that have something below them.
fn folders<'a>(pairs: &'a Pairs, folder: &str) -> BTreeSet<&'a str> {
    let first = |key: &'a String| rest(key, folder)?.split_once('/').map(|(first, _)| first);
    pairs.keys().filter_map(first).collect()
}

/// One part of a pattern.
enum Part {
    One(char),
    /// `?`
    Any,
    /// `*`
    Many,
    /// `[a-z]`, `[^a-z]`
    Class {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern as Go's `path.Match` reads it.
fn parts(pattern: &str) -> Result<Vec<Part>, Refused> {
    let bad = || Refused(format!("syntax error in pattern `{pattern}`"));
    let mut rest = pattern.chars().peekable();
    let mut parts = Vec::new();
    while let Some(c) = rest.next() {
        parts.push(match c {
            '*' => Part::Many,
            '?' => Part::Any,
            '\\' => Part::One(rest.next().ok_or_else(bad)?),
            '[' => {
                let is_negated = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
                        break;
                    }
                    let mut one = || match rest.next() {
                        Some('\\') => rest.next().ok_or_else(bad),
                        None | Some('-' | ']') => Err(bad()),
                        Some(c) => Ok(c),
                    };
                    let first = one()?;
                    let last = if rest.next_if_eq(&'-').is_some() {
                        match rest.next() {
                            Some('\\') => rest.next().ok_or_else(bad)?,
                            None | Some('-' | ']') => return Err(bad()),
                            Some(c) => c,
                        }
                    } else {
                        first
                    };
                    ranges.push((first, last));
                }
                Part::Class { is_negated, ranges }
            }
            c => Part::One(c),
        });
    }
    Ok(parts)
}

/// Goes back to the last `*` alone, so the time is bounded by the product of both lengths.
fn is_match(parts: &[Part], key: &str) -> bool {
    let key: Vec<char> = key.chars().collect();
    let (mut part, mut at) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    loop {
        let is_fit = match (parts.get(part), key.get(at)) {
            (None, None) => return true,
            (Some(Part::Many), _) => {
                again = Some((part, at));
                part += 1;
                continue;
            }
            (Some(Part::One(wanted)), Some(c)) => wanted == c,
            (Some(Part::Any), Some(c)) => *c != '/',
            (Some(Part::Class { is_negated, ranges }), Some(c)) => {
                *c != '/' && ranges.iter().any(|(a, b)| a <= c && c <= b) != *is_negated
            }
            _ => false,
        };
        if is_fit {
            (part, at) = (part + 1, at + 1);
            continue;
        }
        match again {
            Some((star, from)) if key.get(from).is_some_and(|c| *c != '/') => {
                again = Some((star, from + 1));
                (part, at) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}
