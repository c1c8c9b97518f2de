//! The configuration as written: `pressroom.toml`.
//!
//! Three steps, all pure: [`toml`] reads the text and goes on after a fault; `check` holds every key and value against
//! the one table in [`key`]; `meaning` fills in defaults (from the same table) and looks at what keys say together. What
//! the machine is like comes in as [`Facts`]; what is wrong goes out as [`Fault`]s, all of them at once, in the order of
//! the file.
//!
//! Always: a [`Config`] that comes out of here is complete and consistent. The reference is printed from the table, so
//! it cannot differ from what is read. Editing files is not here: commands do that, and keep comments.

mod check;
pub mod domain;
pub mod key;
mod meaning;
mod reader;
mod reference;
mod show;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::config::Config;

pub use reference::reference;
pub use show::show;

/// What defaults depend on. Whoever may touch the machine finds it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The machine's host name: the default name of the node.
    pub hostname: String,
    /// Whether Pressroom runs as root: decides the default ports.
    pub is_root: bool,
    /// Processors: two PHP workers an instance for each, by default.
    pub cores: u16,
    /// The PHP version of the distribution (`8.2`).
    pub php_version: String,
    /// Where Pressroom's data is, unless the file says otherwise.
    pub data: PathBuf,
    /// The folder of the file, which relative paths in it start from.
    pub folder: PathBuf,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, with the value.
    pub what: String,
    /// What to write instead, where that can be said.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Reads a file: the configuration that it means, or everything that is wrong with it.
pub fn parse(text: &str, facts: &Facts) -> Result<Config, Vec<Fault>> {
    let mut faults = Faults::default();
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    let mut broken_lines = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        broken_lines.push(position(text, span.start).0);
        faults.add(span, error.message().to_owned());
    }
    let syntax = faults.list.len();
    check::check(document.get_ref(), &mut faults);
    let config = meaning::read(document.get_ref(), facts, &mut faults, syntax > 0);
    faults.forget_lines(text, syntax, &broken_lines);
    if faults.list.is_empty() { Ok(config) } else { Err(faults.in_order(text)) }
}

/// Faults found so far, with the place of each in the text.
#[derive(Debug, Default)]
struct Faults {
    list: Vec<(Range<usize>, String, Option<String>)>,
}

impl Faults {
    fn add(&mut self, span: Range<usize>, what: impl Into<String>) {
        self.list.push((span, what.into(), None));
    }

    fn add_with_hint(
        &mut self,
        span: Range<usize>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.list.push((span, what.into(), Some(hint.into())));
    }

    /// What seems wrong with a line that could not be read follows from that, and is not worth saying.
    fn forget_lines(&mut self, text: &str, keep: usize, broken: &[usize]) {
        let (kept, rest) = self.list.split_at(keep.min(self.list.len()));
        let rest = rest.iter().filter(|(span, ..)| !broken.contains(&position(text, span.start).0));
        self.list = kept.iter().chain(rest).cloned().collect();
    }

    fn in_order(mut self, text: &str) -> Vec<Fault> {
        self.list.sort_by_key(|(span, ..)| span.start);
        let fault = |(span, what, hint): (Range<usize>, String, Option<String>)| {
            let (line, column) = position(text, span.start);
            Fault { line, column, what, hint }
        };
        self.list.into_iter().map(fault).collect()
    }
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before: String =
        text.char_indices().take_while(|(at, _)| *at < offset).map(|(_, c)| c).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}
