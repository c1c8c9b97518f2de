//! The tree of a template.

use std::sync::Arc;

use crate::value::Value;

/// First byte, and the one after the last.
pub(crate) type Span = (usize, usize);

/// What is carried out, in order.
pub(crate) type List = Vec<Node>;

#[derive(Debug)]
pub(crate) enum Node {
    Text(Arc<str>),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { span: Span, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// A pipeline, what is done when it is true (or for each), and what is done otherwise.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) pipe: Pipe,
    pub(crate) list: List,
    pub(crate) otherwise: List,
}

#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) span: Span,
    pub(crate) variables: Vec<String>,
    pub(crate) binds: Binds,
    pub(crate) commands: Vec<Command>,
}

/// What becomes of a pipeline's variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binds {
    Declares,
    Assigns,
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) span: Span,
    /// Never empty.
    pub(crate) words: Vec<Word>,
}

#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) span: Span,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Dot,
    Nil,
    Constant(Value),
    Function(String),
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`
    Variable(String, Vec<String>),
    /// `(…)`
    Pipe(Pipe),
    /// `(…).A.B`
    Chain(Box<Word>, Vec<String>),
}
