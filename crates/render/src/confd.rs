//! Operators' own templates, filled from keys with values: what confd does, with confd's functions.
//!
//! A template whose name ends in `.j2` is in the syntax of Jinja, every other one in that of Go. Both have the same functions
//! (<https://github.com/kelseyhightower/confd/blob/master/docs/templates.md>). What is not in the pairs (environment, addresses,
//! clock) is asked of [`Surroundings`], so that this stays pure.
//!
//! - `keys` what finds pairs; `words` what computes with text and numbers; `moment` the clock; `json` values of others
//! - `jinja` the same functions for the other syntax
//!
//! Deliberately missing: reading encrypted values (`cget` and its kin say so where they are called).

mod jinja;
mod json;
mod keys;
mod moment;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use pressroom_gotemplate::{Functions, Limits, Template, Value};

/// Values by key; keys begin with `/`.
pub type Pairs = BTreeMap<String, String>;

/// A service as DNS knows it (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The host, with the dot at its end.
    pub target: String,
    /// Its port.
    pub port: u16,
    /// Lower ones first.
    pub priority: u16,
    /// Its share among those of one priority.
    pub weight: u16,
}

/// What templates may ask beyond the pairs. What cannot be found out is absent, as confd has it.
pub trait Surroundings: Send + Sync {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// Whether there is such a file or folder.
    fn has_file(&self, path: &str) -> bool;
    /// The addresses of a host.
    fn addresses(&self, host: &str) -> Vec<String>;
    /// The services of `_service._proto.name`.
    fn services(&self, service: &str, proto: &str, name: &str) -> Vec<Service>;
}

/// Why a template could not be filled: where, and what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// In Go's syntax.
    #[error("{0}")]
    Go(#[from] pressroom_gotemplate::Error),
    /// In Jinja's.
    #[error("{template}:{line}: {what}")]
    Jinja {
        /// The template's name.
        template: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

/// The text that the template `name` makes of `pairs`.
pub fn fill(
    name: &str,
    source: &str,
    pairs: &Arc<Pairs>,
    around: &Arc<dyn Surroundings>,
) -> Result<String, FillError> {
    let functions = functions(pairs, around);
    if name.ends_with(".j2") {
        return jinja::fill(name, source, functions);
    }
    Ok(Template::parse(name, source, functions)?.fill(&Value::Nil, Limits::default())?)
}

/// A check or reload command with `{{.src}}` and `{{.dest}}` filled in.
pub fn command(command: &str, src: &str, dest: &str) -> Result<String, FillError> {
    let paths = Value::map([("src", Value::from(src)), ("dest", Value::from(dest))]);
    let template = Template::parse("command", command, Functions::default())?;
    Ok(template.fill(&paths, Limits::default())?)
}

/// confd's functions.
fn functions(pairs: &Arc<Pairs>, around: &Arc<dyn Surroundings>) -> Functions {
    let mut functions = Functions::default();
    keys::add(&mut functions, pairs);
    words::add(&mut functions);
    json::add(&mut functions);
    moment::add(&mut functions, around);
    surroundings(&mut functions, around);
    functions
}

type IsWanted = fn(&str) -> bool;

fn surroundings(functions: &mut Functions, around: &Arc<dyn Surroundings>) {
    let it = Arc::clone(around);
    functions.add("getenv", 1..=2, move |a| {
        let found = it.variable(words::text(a, 0)?).filter(|value| !value.is_empty());
        let otherwise = if a.len() > 1 { words::text(a, 1)? } else { "" };
        Ok(found.unwrap_or_else(|| otherwise.to_owned()).into())
    });
    let it = Arc::clone(around);
    functions.add("fileExists", 1..=1, move |a| Ok(it.has_file(words::text(a, 0)?).into()));
    let families: [(&str, IsWanted); 3] = [
        ("lookupIP", |_| true),
        ("lookupIPV4", |address| address.contains('.')),
        ("lookupIPV6", |address| address.contains(':')),
    ];
    for (name, is_wanted) in families {
        let it = Arc::clone(around);
        functions.add(name, 1..=1, move |a| {
            let mut found = it.addresses(words::text(a, 0)?);
            found.retain(|address| is_wanted(address));
            found.sort();
            found.dedup();
            Ok(Value::list(found.into_iter().map(Value::from)))
        });
    }
    let it = Arc::clone(around);
    functions.add("lookupSRV", 3..=3, move |a| {
        let mut found = it.services(words::text(a, 0)?, words::text(a, 1)?, words::text(a, 2)?);
        found.sort();
        Ok(Value::list(found.into_iter().map(service)))
    });
}

fn service(found: Service) -> Value {
    let number = |it: u16| Value::Int(i64::from(it));
    Value::record(
        "SRV",
        vec![
            ("Target", found.target.into()),
            ("Port", number(found.port)),
            ("Priority", number(found.priority)),
            ("Weight", number(found.weight)),
        ],
    )
}
