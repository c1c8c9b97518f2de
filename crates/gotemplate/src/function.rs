//! What a template may call.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::value::Value;

/// Why a function did not do it: said to the template's author, behind the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// A function's answer.
pub type Answer = Result<Value, Refused>;

type Body = Arc<dyn Fn(&[Value]) -> Answer + Send + Sync>;

/// A function with the number of arguments that it takes.
#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) arguments: RangeInclusive<usize>,
    pub(crate) body: Body,
}

/// Functions by name, beside Go's own, which they may replace.
#[derive(Clone, Default)]
pub struct Functions(BTreeMap<String, Function>);

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// A function that takes any number of arguments takes this many.
pub const ANY: usize = usize::MAX;

impl Functions {
    /// Adds a function that takes as many arguments as `arguments` says.
    pub fn add(
        &mut self,
        name: &str,
        arguments: RangeInclusive<usize>,
        body: impl Fn(&[Value]) -> Answer + Send + Sync + 'static,
    ) {
        self.0.insert(name.to_owned(), Function { arguments, body: Arc::new(body) });
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Calls a function by name, as a template would; `None`: there is none.
    pub fn call(&self, name: &str, arguments: &[Value]) -> Option<Answer> {
        Some(self.get(name)?.call(name, arguments))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Function> {
        self.0.get(name)
    }
}

impl Function {
    pub(crate) fn call(&self, name: &str, arguments: &[Value]) -> Answer {
        let (given, wanted) = (arguments.len(), &self.arguments);
        if wanted.contains(&given) {
            return (self.body)(arguments);
        }
        let (least, most) = (wanted.start(), wanted.end());
        let wanted = match (least, most) {
            (least, most) if least == most => format!("{least}"),
            (least, &ANY) => format!("at least {least}"),
            (least, most) => format!("{least} to {most}"),
        };
        Err(Refused(format!("wrong number of args for {name}: want {wanted} got {given}")))
    }
}
