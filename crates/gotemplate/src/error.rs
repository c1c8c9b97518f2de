//! Where a template went wrong.

use std::sync::Arc;

/// A fault of a template, or of what it was filled with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{template}:{line}:{column}: {what}{}", place(.at))]
pub struct Error {
    /// Whether it cannot be read or could not be carried out.
    pub kind: Kind,
    /// The template's name.
    pub template: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// The words there; may be empty.
    pub at: String,
}

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is no template.
    Syntax,
    /// It could not be carried out with these values.
    Execution,
    /// It did more than it may.
    Limit,
}

const MOST_WORDS: usize = 60;

impl Error {
    /// A fault in `source` at these bytes of it.
    pub(crate) fn new(
        kind: Kind,
        template: &str,
        source: &str,
        (start, end): (usize, usize),
        what: impl Into<String>,
    ) -> Self {
        let before = source.get(..start).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let words = source.get(start..end).unwrap_or_default().trim();
        let mut at: String = words.chars().take(MOST_WORDS).collect();
        if at.len() < words.len() {
            at.push('…');
        }
        Self { kind, template: template.into(), line, column, what: what.into(), at }
    }
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!(", at <{at}>") }
}
