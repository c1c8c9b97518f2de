//! Templates in the syntax of Go's `text/template`, so that files which were written for confd work as they are. Pure.
//!
//! - [`Template`] is parsed once, with the [`Functions`] that it may call, and filled with a [`Value`]
//! - [`value`] what a template computes with; [`function`] what it may call
//! - [`error`] where it went wrong: line, column, and the words there
//! - `lex`, `parse`, `node` from text to a tree; `run` from the tree to text
//! - `builtin` Go's own functions; `format` the verbs of its `printf`
//!
//! The meaning is that of <https://pkg.go.dev/text/template>, with these differences: values are those of [`Value`], since
//! there is no reflection; there are no function values (`call`), complex numbers and channels. Names of functions and
//! variables are checked when the template is parsed, whether that place is ever reached or not.
//!
//! Always: a template ends. Nesting, steps and the length of what comes out are limited by [`Limits`].

mod builtin;
pub mod error;
mod format;
pub mod function;
mod lex;
mod node;
mod parse;
mod run;
#[cfg(test)]
mod tests;
pub mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use error::Error;
pub use function::{Functions, Refused};
pub use value::Value;

/// A template that was parsed.
#[derive(Clone)]
pub struct Template {
    name: Arc<str>,
    source: Arc<str>,
    trees: Arc<BTreeMap<String, Vec<node::Node>>>,
    functions: Functions,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How much a template may do before it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Constructs inside of each other, those of called templates included.
    pub depth: usize,
    /// Constructs that are carried out.
    pub steps: u64,
    /// Bytes of the text that comes out, and of every value on the way.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 200, steps: 10_000_000, output: 16 * 1024 * 1024 }
    }
}

impl Template {
    /// Reads a template; `name` is said in errors, and `{{template}}` can call it by that.
    pub fn parse(name: &str, source: &str, functions: Functions) -> Result<Self, Error> {
        let trees = parse::parse(name, source, &functions)?;
        Ok(Self { name: name.into(), source: source.into(), trees: Arc::new(trees), functions })
    }

    /// The text that it makes of `data`, which is the first `.` and `$`.
    pub fn fill(&self, data: &Value, limits: Limits) -> Result<String, Error> {
        run::run(self, data, limits)
    }
}
