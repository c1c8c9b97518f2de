//! Carries a tree out.

use std::sync::Arc;

use crate::error::{Error, Kind};
use crate::function::{Answer, Refused};
use crate::node::{Binds, Branch, Command, Node, Pipe, Span, What, Word};
use crate::value::Value;
use crate::{Limits, Template, builtin};

/// What `template` makes of `data`.
pub(crate) fn run(template: &Template, data: &Value, limits: Limits) -> Result<String, Error> {
    let mut run = Run {
        template,
        limits,
        out: String::new(),
        variables: vec![("$", data.clone())],
        depth: 0,
        steps: 0,
    };
    let name: &str = &template.name;
    if let Some(list) = template.trees.get(name) {
        run.list(data, list)?;
    }
    Ok(run.out)
}

/// How a list ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'t> {
    template: &'t Template,
    limits: Limits,
    out: String,
    variables: Vec<(&'t str, Value)>,
    depth: usize,
    steps: u64,
}

type Done<T> = Result<T, Error>;

impl<'t> Run<'t> {
    fn error(&self, kind: Kind, span: Span, what: impl Into<String>) -> Error {
        Error::new(kind, &self.template.name, &self.template.source, span, what)
    }

    fn fault<T>(&self, span: Span, what: impl Into<String>) -> Done<T> {
        Err(self.error(Kind::Execution, span, what))
    }

    /// One construct more, and one level deeper while `inside` is carried out.
    fn deeper<T>(&mut self, span: Span, inside: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        if self.depth >= self.limits.depth {
            let what = format!("more than {} things inside of each other", self.limits.depth);
            return Err(self.error(Kind::Limit, span, what));
        }
        self.steps += 1;
        if self.steps > self.limits.steps {
            let what = format!("more than {} steps", self.limits.steps);
            return Err(self.error(Kind::Limit, span, what));
        }
        self.depth += 1;
        let done = inside(self);
        self.depth -= 1;
        done
    }

    fn print(&mut self, span: Span, text: &str) -> Done<()> {
        if self.out.len() + text.len() > self.limits.output {
            return Err(self.too_long(span));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn too_long(&self, span: Span) -> Error {
        self.error(Kind::Limit, span, format!("more than {} bytes", self.limits.output))
    }

    fn list(&mut self, dot: &Value, list: &'t [Node]) -> Done<Flow> {
        for node in list {
            match self.node(dot, node)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value, node: &'t Node) -> Done<Flow> {
        match node {
            Node::Text(text) => self.print((0, 0), text)?,
            Node::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.variables.is_empty() {
                    self.print(pipe.span, &value.printed())?;
                }
            }
            Node::If(branch) => return self.branch(dot, branch, false),
            Node::With(branch) => return self.branch(dot, branch, true),
            Node::Range(branch) => return self.range(dot, branch),
            Node::Template { span, name, pipe } => self.called(dot, *span, name, pipe.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(&mut self, dot: &Value, branch: &'t Branch, is_with: bool) -> Done<Flow> {
        let scope = self.variables.len();
        let done = self.deeper(branch.pipe.span, |run| {
            let value = run.pipe(dot, &branch.pipe)?;
            if value.is_true() {
                run.list(if is_with { &value } else { dot }, &branch.list)
            } else {
                run.list(dot, &branch.otherwise)
            }
        });
        self.variables.truncate(scope);
        done
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Done<Flow> {
        let scope = self.variables.len();
        let done = self.deeper(branch.pipe.span, |run| {
            let over = run.commands(dot, &branch.pipe)?;
            run.each(dot, branch, &over)
        });
        self.variables.truncate(scope);
        done
    }

    fn each(&mut self, dot: &Value, branch: &'t Branch, over: &Value) -> Done<Flow> {
        let mut is_empty = true;
        let mut turn = |run: &mut Self, key: Value, value: &Value| {
            is_empty = false;
            run.turn(branch, key, value)
        };
        match over {
            Value::List(list) => {
                for (at, value) in list.iter().enumerate() {
                    let key = Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
                    if turn(self, key, value)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (key, value) in map.iter() {
                    if turn(self, Value::text(key), value)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Int(_) if branch.pipe.variables.len() > 1 => {
                return self.fault(branch.pipe.span, "a number has one range variable at most");
            }
            Value::Int(end) => {
                for at in 0..*end {
                    if turn(self, Value::Int(at), &Value::Int(at))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Absent | Value::Nil => {}
            other => {
                let what =
                    format!("range can't iterate over {} ({})", other.shown(), other.type_name());
                return self.fault(branch.pipe.span, what);
            }
        }
        if is_empty { self.list(dot, &branch.otherwise) } else { Ok(Flow::Next) }
    }

    /// One turn of a range.
    fn turn(&mut self, branch: &'t Branch, key: Value, value: &Value) -> Done<Flow> {
        let scope = self.variables.len();
        let done = self.deeper(branch.pipe.span, |run| {
            match branch.pipe.variables.as_slice() {
                [] => {}
                [one] => run.bind(branch.pipe.binds, one, value.clone()),
                [first, second, ..] => {
                    run.bind(branch.pipe.binds, first, key);
                    run.bind(branch.pipe.binds, second, value.clone());
                }
            }
            run.list(value, &branch.list)
        });
        self.variables.truncate(scope);
        done
    }

    fn bind(&mut self, binds: Binds, name: &'t str, value: Value) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        match (binds, known) {
            (Binds::Assigns, Some((_, place))) => *place = value,
            _ => self.variables.push((name, value)),
        }
    }

    fn called(&mut self, dot: &Value, span: Span, name: &str, pipe: Option<&'t Pipe>) -> Done<()> {
        let Some(list) = self.template.trees.get(name) else {
            return self.fault(span, format!("template `{name}` not defined"));
        };
        let data = match pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Nil,
        };
        let outside = std::mem::replace(&mut self.variables, vec![("$", data.clone())]);
        let done = self.deeper(span, |run| run.list(&data, list));
        self.variables = outside;
        done.map(|_| ())
    }

    /// A pipeline's value; its variables have it as well.
    fn pipe(&mut self, dot: &Value, pipe: &'t Pipe) -> Done<Value> {
        let value = self.commands(dot, pipe)?;
        for name in &pipe.variables {
            self.bind(pipe.binds, name, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, dot: &Value, pipe: &'t Pipe) -> Done<Value> {
        self.deeper(pipe.span, |run| {
            let mut value = None;
            for command in &pipe.commands {
                value = Some(run.command(dot, command, value)?);
            }
            Ok(value.unwrap_or_default())
        })
    }

    /// A command with its own arguments, and with the value of the one before it as the last.
    fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Done<Value> {
        let [first, rest @ ..] = command.words.as_slice() else { return Ok(Value::Absent) };
        match &first.what {
            What::Function(name) => self.function(dot, name, command.span, rest, last),
            What::Field(path) => {
                let arguments = self.arguments(dot, rest, last)?;
                self.fields(dot.clone(), path, command.span, &arguments)
            }
            What::Variable(_, path) if !path.is_empty() => {
                let arguments = self.arguments(dot, rest, last)?;
                let value = self.variable(first);
                self.fields(value, path, command.span, &arguments)
            }
            What::Chain(inner, path) => {
                let arguments = self.arguments(dot, rest, last)?;
                let value = self.word(dot, inner)?;
                self.fields(value, path, command.span, &arguments)
            }
            _ if rest.is_empty() && last.is_none() => match first.what {
                What::Nil => self.fault(first.span, "nil is not a command"),
                _ => self.word(dot, first),
            },
            _ => self.fault(first.span, "can't give argument to what is no function"),
        }
    }

    fn arguments(
        &mut self,
        dot: &Value,
        words: &'t [Word],
        last: Option<Value>,
    ) -> Done<Vec<Value>> {
        let mut values = Vec::with_capacity(words.len() + 1);
        for word in words {
            values.push(self.word(dot, word)?);
        }
        values.extend(last);
        Ok(values)
    }

    /// The value of an operand.
    fn word(&mut self, dot: &Value, word: &'t Word) -> Done<Value> {
        match &word.what {
            What::Dot => Ok(dot.clone()),
            What::Nil => Ok(Value::Nil),
            What::Constant(value) => Ok(value.clone()),
            What::Function(name) => self.function(dot, name, word.span, &[], None),
            What::Field(path) => self.fields(dot.clone(), path, word.span, &[]),
            What::Variable(_, path) => {
                let value = self.variable(word);
                self.fields(value, path, word.span, &[])
            }
            What::Pipe(pipe) => self.pipe(dot, pipe),
            What::Chain(inner, path) => {
                let value = self.word(dot, inner)?;
                self.fields(value, path, word.span, &[])
            }
        }
    }

    /// A variable's value; that it is there was seen when the template was parsed.
    fn variable(&self, word: &Word) -> Value {
        let What::Variable(name, _) = &word.what else { return Value::Absent };
        let known = self.variables.iter().rev().find(|(known, _)| known == name);
        known.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// A field of a field …; the arguments are for the last one.
    fn fields(
        &mut self,
        mut value: Value,
        path: &[String],
        span: Span,
        arguments: &[Value],
    ) -> Done<Value> {
        for (at, name) in path.iter().enumerate() {
            let arguments = if at + 1 == path.len() { arguments } else { &[] };
            value = match field(&value, name, arguments) {
                Ok(value) => value,
                Err(Refused(what)) => return self.fault(span, what),
            };
        }
        self.fits(span, value)
    }

    fn function(
        &mut self,
        dot: &Value,
        name: &'t str,
        span: Span,
        words: &'t [Word],
        last: Option<Value>,
    ) -> Done<Value> {
        if matches!(name, "and" | "or") && self.template.functions.get(name).is_none() {
            return self.either(dot, name, span, words, last);
        }
        let mut arguments = self.arguments(dot, words, last)?;
        for argument in &mut arguments {
            if matches!(argument, Value::Absent) {
                *argument = Value::Nil;
            }
        }
        let answer = match self.template.functions.get(name) {
            Some(function) => function.call(name, &arguments),
            None => builtin::call(name, &arguments),
        };
        match answer {
            Ok(value) => self.fits(span, value),
            Err(Refused(what)) => self.fault(span, format!("error calling {name}: {what}")),
        }
    }

    /// `and` and `or` look at their arguments until one decides.
    fn either(
        &mut self,
        dot: &Value,
        name: &str,
        span: Span,
        words: &'t [Word],
        last: Option<Value>,
    ) -> Done<Value> {
        let mut value = None;
        for word in words {
            let found = self.word(dot, word)?;
            if found.is_true() == (name == "or") {
                return Ok(found);
            }
            value = Some(found);
        }
        match last.or(value) {
            Some(value) => Ok(value),
            None => {
                self.fault(span, format!("wrong number of args for {name}: want at least 1 got 0"))
            }
        }
    }

    /// Refuses a value that is longer than what may come out.
    fn fits(&self, span: Span, value: Value) -> Done<Value> {
        let length = match &value {
            Value::String(text) => text.len(),
            Value::List(list) => list.len() * size_of::<Value>(),
            _ => 0,
        };
        if length > self.limits.output { Err(self.too_long(span)) } else { Ok(value) }
    }
}

/// One field of a value, or what a method of it answers.
fn field(value: &Value, name: &str, arguments: &[Value]) -> Answer {
    let refused = |what: String| Err(Refused(what));
    match value {
        Value::Map(map) => match (map.get(name), arguments) {
            (_, [_, ..]) => refused(format!("{name} is not a method but has arguments")),
            (found, []) => Ok(found.cloned().unwrap_or_default()),
        },
        Value::Object(object) => match Arc::clone(object).get(name, arguments) {
            Some(answer) => answer,
            None => refused(format!("can't evaluate field {name} in type {}", object.type_name())),
        },
        Value::Absent => Ok(Value::Absent),
        Value::Nil => refused(format!("nil pointer evaluating interface {{}}.{name}")),
        other => refused(format!("can't evaluate field {name} in type {}", other.type_name())),
    }
}
