//! Holds every key and value of a file against the table of keys, one by one.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Faults;
use super::key::{self, Absent, Kind};
use crate::unit::{ByteSize, Span};

/// Adds a fault for every key that is not known, of the wrong type, or has a bad value, and for every absent key that
/// must be there.
pub(super) fn check(document: &DeTable<'_>, faults: &mut Faults) {
    table(document, "", faults);
}

fn table(table: &DeTable<'_>, path: &str, faults: &mut Faults) {
    for (name, value) in table.iter() {
        let name_text = name.get_ref().as_ref();
        let full = join(path, name_text);
        match key::find(&full) {
            Some(known) => one(value, known, faults),
            None => unknown(path, name_text, name.span(), faults),
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn unknown(path: &str, name: &str, span: Range<usize>, faults: &mut Faults) {
    let place = match path {
        "" => String::new(),
        "site" => " in `[[site]]`".to_owned(),
        path => format!(" in `[{path}]`"),
    };
    let what = format!("unknown key `{name}`{place}");
    match key::nearest(path, name) {
        Some(known) => faults.add_with_hint(span, what, format!("did you mean `{known}`?")),
        None => {
            let known: Vec<_> = key::within(path).map(|name| format!("`{name}`")).collect();
            faults.add_with_hint(span, what, format!("known here: {}", known.join(", ")));
        }
    }
}

fn one(value: &Spanned<DeValue<'_>>, known: &'static key::Key, faults: &mut Faults) {
    let span = value.span();
    match (&known.kind, value.get_ref()) {
        (Kind::Table, DeValue::Table(inner)) => {
            table(inner, known.path, faults);
            absent(inner, known.path, span, faults);
        }
        (Kind::Tables, DeValue::Array(list)) => {
            for item in list.iter() {
                match item.get_ref() {
                    DeValue::Table(inner) => {
                        table(inner, known.path, faults);
                        absent(inner, known.path, item.span(), faults);
                    }
                    other => wrong_type(item.span(), known, other, faults),
                }
            }
        }
        (Kind::Tables, DeValue::Table(_)) => {
            let what = format!("`[{0}]` is a list of tables: write `[[{0}]]`", known.path);
            faults.add(span, what);
        }
        (Kind::Texts(_, check), DeValue::Array(list)) => {
            for item in list.iter() {
                match item.get_ref() {
                    DeValue::String(text) => text_value(item.span(), known, text, *check, faults),
                    other => wrong_type(item.span(), known, other, faults),
                }
            }
        }
        (Kind::Pairs, DeValue::Table(pairs)) => ini(pairs, faults),
        (_, value) => scalar(span, known, value, faults),
    }
}

fn scalar(span: Range<usize>, known: &'static key::Key, value: &DeValue<'_>, faults: &mut Faults) {
    match (&known.kind, value) {
        (Kind::Text(_, check), DeValue::String(text)) => {
            text_value(span, known, text, *check, faults);
        }
        (Kind::Flag, DeValue::Boolean(_)) => {}
        (Kind::Number(min, max), DeValue::Integer(number)) => {
            let is_good =
                number_of(number).is_some_and(|n| (i64::from(*min)..=i64::from(*max)).contains(&n));
            if !is_good {
                faults.add(
                    span,
                    format!("`{}` must be between {min} and {max}, not {number}", known.path),
                );
            }
        }
        (Kind::Size(least), DeValue::String(text)) => match text.parse::<ByteSize>() {
            Err(bad) => faults.add_with_hint(
                span,
                format!("`{}`: {bad}", known.path),
                "for example `256 MiB`",
            ),
            Ok(size) if size.get() < *least => {
                too_small(span, known, text, ByteSize::bytes(*least), faults);
            }
            Ok(_) => {}
        },
        (Kind::Span(least), DeValue::String(text)) => match text.parse::<Span>() {
            Err(bad) => {
                faults.add_with_hint(
                    span,
                    format!("`{}`: {bad}", known.path),
                    "for example `30 s`",
                );
            }
            Ok(time) if time.get().as_millis() < u128::from(*least) => {
                too_small(span, known, text, Span::millis(*least), faults);
            }
            Ok(_) => {}
        },
        (Kind::Choice(all), DeValue::String(text)) => {
            if !all.contains(&text.as_ref()) {
                let choices: Vec<_> = all.iter().map(|choice| format!("`{choice}`")).collect();
                let what = format!("`{}` cannot be `{text}`", known.path);
                faults.add_with_hint(span, what, format!("write {}", choices.join(" or ")));
            }
        }
        (Kind::Engine, value) => engine(span, known, value, faults),
        (_, value) => wrong_type(span, known, value, faults),
    }
}

fn too_small(
    span: Range<usize>,
    known: &key::Key,
    text: &str,
    least: impl std::fmt::Display,
    faults: &mut Faults,
) {
    faults.add(span, format!("`{}` must be at least {least}, not {text}", known.path));
}

fn text_value(
    span: Range<usize>,
    known: &key::Key,
    text: &str,
    check: key::Check,
    faults: &mut Faults,
) {
    if let Err(rule) = check(text) {
        faults.add_with_hint(span, format!("`{}` cannot be `{text}`", known.path), rule);
    }
}

fn engine(span: Range<usize>, known: &key::Key, value: &DeValue<'_>, faults: &mut Faults) {
    let is_external = match value {
        DeValue::String(text) if text == "managed" => return,
        DeValue::String(text) => text == "external",
        DeValue::Table(table) => table.iter().any(|(name, _)| name.get_ref() == "external"),
        _ => false,
    };
    let table = known.path.trim_end_matches(".engine");
    if is_external && table == "state" {
        let what = "an external `[state]` is not named here, because nodes have to know it before they can read this";
        let hint = "name your etcd when you found the cluster: `pressroom cluster init --etcd URL`";
        return faults.add_with_hint(span, what.to_owned(), hint.to_owned());
    }
    let what = if is_external {
        format!("an external `[{table}]` is not in this version, which runs its own")
    } else {
        format!("`{}` must be `\"managed\"`", known.path)
    };
    faults.add_with_hint(
        span,
        what,
        format!("write `engine = \"managed\"` in `[{table}]`, or leave it out"),
    );
}

fn ini(pairs: &DeTable<'_>, faults: &mut Faults) {
    for (name, value) in pairs.iter() {
        let text = name.get_ref().as_ref();
        let is_good = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if let Some(owner) = key::ini_owner(text) {
            faults.add_with_hint(
                name.span(),
                format!("`{text}` cannot be set in `[site.php.ini]`"),
                owner,
            );
        } else if !is_good {
            faults.add(name.span(), format!("`{text}` is not a name of a `php.ini` value"));
        }
        let is_one_line = match value.get_ref() {
            DeValue::String(text) => !text.chars().any(char::is_control),
            DeValue::Integer(_) | DeValue::Boolean(_) | DeValue::Float(_) => true,
            DeValue::Table(_) => {
                let what = format!("`{text}` is not a value");
                faults.add_with_hint(
                    name.span(),
                    what,
                    "quote names that have dots: `\"opcache.jit\" = \"off\"`",
                );
                continue;
            }
            _ => false,
        };
        if !is_one_line {
            faults.add(
                value.span(),
                format!("`{text}` must be one line of text, a number, or true or false"),
            );
        }
    }
}

/// Keys of the table at `path` that must be there and are not.
fn absent(inner: &DeTable<'_>, path: &str, span: Range<usize>, faults: &mut Faults) {
    let needed = key::KEYS.iter().filter(|key| matches!(key.default, Absent::Never));
    for key in needed {
        let Some((table, name)) = key.path.rsplit_once('.') else { continue };
        if table == path && !inner.iter().any(|(known, _)| known.get_ref() == name) {
            faults.add(span.clone(), format!("`{name}` is missing in `{path}`"));
        }
    }
}

fn wrong_type(span: Range<usize>, known: &key::Key, value: &DeValue<'_>, faults: &mut Faults) {
    let is = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let what = format!("`{}` must be {}, not {is}", known.path, known.kind.describe());
    match known.kind {
        Kind::Size(_) => {
            faults.add_with_hint(span, what, "with its unit and in quotes: `\"256 MiB\"`");
        }
        Kind::Span(_) => {
            faults.add_with_hint(span, what, "with its unit and in quotes: `\"30 s\"`");
        }
        Kind::Texts(..) if matches!(value, DeValue::String(_)) => {
            faults.add_with_hint(span, what, "put it in `[` and `]`");
        }
        _ => faults.add(span, what),
    }
}

pub(super) fn number_of(number: &toml::de::DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
}
