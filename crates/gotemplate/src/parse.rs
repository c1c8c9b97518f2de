//! From tokens to trees: one for each template that is defined.

mod constant;

use std::collections::BTreeMap;

use crate::error::{Error, Kind};
use crate::function::Functions;
use crate::lex::{Token, lex};
use crate::node::{Binds, Branch, Command, List, Node, Pipe, Span, What, Word};
use crate::value::Value;
use crate::{builtin, format};

/// Blocks and parentheses inside of each other, at most.
const DEPTH: usize = 100;

/// Everything that is defined in `source`; the text outside of definitions is the template `name`.
pub(crate) fn parse(
    name: &str,
    source: &str,
    functions: &Functions,
) -> Result<BTreeMap<String, List>, Error> {
    let mut parser = Parser {
        name,
        source,
        tokens: lex(name, source)?,
        at: 0,
        functions,
        variables: vec!["$".to_owned()],
        trees: BTreeMap::new(),
        depth: 0,
        loops: 0,
    };
    let (list, _) = parser.list(None)?;
    parser.define(name.to_owned(), list, (0, 0))?;
    Ok(parser.trees)
}

/// How a list of nodes ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    End,
    Else,
    File,
}

struct Parser<'a> {
    name: &'a str,
    source: &'a str,
    tokens: Vec<(Token, Span)>,
    at: usize,
    functions: &'a Functions,
    /// Variables in scope.
    variables: Vec<String>,
    trees: BTreeMap<String, List>,
    depth: usize,
    /// Ranges that we are in.
    loops: usize,
}

impl<'a> Parser<'a> {
    fn fault<T>(&self, span: Span, what: impl Into<String>) -> Result<T, Error> {
        Err(Error::new(Kind::Syntax, self.name, self.source, span, what))
    }

    fn peek(&self) -> Option<(Token, Span)> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> Option<(Token, Span)> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn is_at(&self, token: Token) -> bool {
        self.peek().is_some_and(|(there, _)| there == token)
    }

    fn take(&mut self, token: Token) -> bool {
        let is_there = self.is_at(token);
        self.at += usize::from(is_there);
        is_there
    }

    fn skip_space(&mut self) {
        self.take(Token::Space);
    }

    fn words(&self, span: Span) -> &'a str {
        &self.source[span.0..span.1]
    }

    /// The place of what comes next, or of the end.
    fn here(&self) -> Span {
        self.peek().map_or((self.source.len(), self.source.len()), |(_, span)| span)
    }

    fn close(&mut self, context: &str) -> Result<(), Error> {
        self.skip_space();
        if self.take(Token::Close) {
            return Ok(());
        }
        let here = self.here();
        self.fault(here, format!("unexpected `{}` in {context}", self.words(here)))
    }

    /// One level deeper, where that is not too deep.
    fn deeper<T>(
        &mut self,
        span: Span,
        inside: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.depth >= DEPTH {
            return self.fault(span, format!("more than {DEPTH} things inside of each other"));
        }
        self.depth += 1;
        let done = inside(self);
        self.depth -= 1;
        done
    }

    /// Nodes up to `{{end}}` or `{{else`, or up to the end of the file when nothing is open.
    fn list(&mut self, open: Option<(&str, Span)>) -> Result<(List, Stop), Error> {
        let mut nodes = Vec::new();
        loop {
            let Some((token, span)) = self.next() else {
                return match open {
                    None => Ok((nodes, Stop::File)),
                    Some((what, span)) => {
                        self.fault(span, format!("`{what}` without its `{{{{end}}}}`"))
                    }
                };
            };
            if token == Token::Text {
                nodes.push(Node::Text(self.words(span).into()));
                continue;
            }
            self.skip_space();
            let keyword = match self.peek() {
                Some((Token::Word, span)) => self.words(span),
                _ => "",
            };
            let end = match keyword {
                "end" => Stop::End,
                "else" => Stop::Else,
                _ => {
                    nodes.extend(self.deeper(span, |parser| parser.action(keyword))?);
                    continue;
                }
            };
            if open.is_none() {
                let here = self.here();
                return self.fault(here, format!("unexpected {{{{{keyword}}}}}"));
            }
            self.at += 1;
            if end == Stop::End {
                self.close("end")?;
            }
            return Ok((nodes, end));
        }
    }

    /// One action, behind its `{{`; definitions leave nothing here.
    fn action(&mut self, keyword: &str) -> Result<Option<Node>, Error> {
        let span = self.here();
        if matches!(
            keyword,
            "if" | "with" | "range" | "template" | "define" | "block" | "break" | "continue"
        ) {
            self.at += 1;
        }
        Ok(Some(match keyword {
            "if" => Node::If(self.branch("if", span)?),
            "with" => Node::With(self.branch("with", span)?),
            "range" => Node::Range(self.branch("range", span)?),
            "template" => self.template(span)?,
            "block" => self.block(span)?,
            "define" => {
                self.definition(span)?;
                return Ok(None);
            }
            "break" | "continue" => {
                self.close(keyword)?;
                if self.loops == 0 {
                    return self.fault(span, format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                }
                if keyword == "break" { Node::Break } else { Node::Continue }
            }
            _ => {
                let pipe = self.pipe("command", 1)?;
                self.close("command")?;
                Node::Action(pipe)
            }
        }))
    }

    /// `if`, `with` or `range`, behind the word.
    fn branch(&mut self, what: &'static str, span: Span) -> Result<Branch, Error> {
        let scope = self.variables.len();
        let pipe = self.pipe(what, if what == "range" { 2 } else { 1 })?;
        self.close(what)?;
        let is_loop = usize::from(what == "range");
        self.loops += is_loop;
        let body = self.list(Some((what, span)));
        self.loops -= is_loop;
        let (list, end) = body?;
        let otherwise = if end == Stop::Else { self.otherwise(what, span)? } else { Vec::new() };
        self.variables.truncate(scope);
        Ok(Branch { pipe, list, otherwise })
    }

    /// Behind `{{else`: that list, or one more `if` (`with`) which shares our `{{end}}`.
    fn otherwise(&mut self, what: &'static str, span: Span) -> Result<List, Error> {
        self.skip_space();
        let again = self.here();
        if what != "range" && self.is_at(Token::Word) && self.words(again) == what {
            self.at += 1;
            let branch = self.deeper(again, |parser| parser.branch(what, again))?;
            return Ok(vec![if what == "if" { Node::If(branch) } else { Node::With(branch) }]);
        }
        self.close("else")?;
        match self.list(Some((what, span)))? {
            (list, Stop::End) => Ok(list),
            _ => self.fault(span, format!("two {{{{else}}}} of one `{what}`")),
        }
    }

    fn template_name(&mut self, context: &str) -> Result<String, Error> {
        self.skip_space();
        let span = self.here();
        match self.next() {
            Some((Token::Quoted, _)) => {
                constant::unquoted(self.words(span)).or_else(|what| self.fault(span, what))
            }
            Some((Token::Raw, _)) => Ok(constant::raw(self.words(span))),
            _ => self.fault(span, format!("{context} needs a name in quotes")),
        }
    }

    fn template(&mut self, span: Span) -> Result<Node, Error> {
        let name = self.template_name("template clause")?;
        self.skip_space();
        let pipe =
            if self.is_at(Token::Close) { None } else { Some(self.pipe("template clause", 0)?) };
        self.close("template clause")?;
        Ok(Node::Template { span, name, pipe })
    }

    fn block(&mut self, span: Span) -> Result<Node, Error> {
        let name = self.template_name("block clause")?;
        self.skip_space();
        let pipe = Some(self.pipe("block clause", 0)?);
        self.close("block clause")?;
        self.body("block", span, name.clone())?;
        Ok(Node::Template { span, name, pipe })
    }

    fn definition(&mut self, span: Span) -> Result<(), Error> {
        if self.depth > 1 {
            return self.fault(span, "unexpected {{define}}: it stands outside of everything else");
        }
        let name = self.template_name("define clause")?;
        self.close("define clause")?;
        self.body("define", span, name)
    }

    /// What is defined, with variables of its own.
    fn body(&mut self, what: &'static str, span: Span, name: String) -> Result<(), Error> {
        let outside = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let (list, end) = self.list(Some((what, span)))?;
        (self.variables, self.loops) = (outside, loops);
        if end == Stop::Else {
            return self.fault(span, format!("unexpected {{{{else}}}} in {what} clause"));
        }
        self.define(name, list, span)
    }

    fn define(&mut self, name: String, list: List, span: Span) -> Result<(), Error> {
        let is_empty = |list: &List| {
            list.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.trees.get(&name) {
            Some(there) if !is_empty(there) && is_empty(&list) => return Ok(()),
            Some(there) if !is_empty(there) => {
                return self.fault(span, format!("multiple definition of template `{name}`"));
            }
            _ => {}
        }
        self.trees.insert(name, list);
        Ok(())
    }

    /// A pipeline with at most `most` variables in front.
    fn pipe(&mut self, context: &str, most: usize) -> Result<Pipe, Error> {
        self.skip_space();
        let start = self.here().0;
        let (variables, binds) = self.binding(context, most)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            let here = self.here();
            match self.peek() {
                Some((Token::Close | Token::Right | Token::Pipe, _)) | None => {
                    let what = if commands.is_empty() { context } else { "command behind `|`" };
                    return self.fault(here, format!("missing value for {what}"));
                }
                _ => {}
            }
            let command = self.command(context)?;
            if !commands.is_empty() {
                self.must_take_a_value(&command)?;
            }
            commands.push(command);
            self.skip_space();
            if !self.take(Token::Pipe) {
                break;
            }
        }
        let end = self.tokens[self.at - 1].1.1;
        if binds == Binds::Declares {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipe { span: (start, end), variables, binds, commands })
    }

    /// `$a :=`, `$a =`, `$a, $b :=`, or nothing.
    fn binding(&mut self, context: &str, most: usize) -> Result<(Vec<String>, Binds), Error> {
        let begin = self.at;
        let mut variables = Vec::new();
        while let Some((Token::Variable, span)) = self.peek() {
            variables.push((self.words(span).to_owned(), span));
            self.at += 1;
            self.skip_space();
            match self.peek() {
                Some((Token::Comma, _)) if context == "range" => {
                    self.at += 1;
                    self.skip_space();
                }
                Some((token @ (Token::Declare | Token::Assign), _)) => {
                    self.at += 1;
                    let binds =
                        if token == Token::Declare { Binds::Declares } else { Binds::Assigns };
                    return self.bound(variables, binds, context, most);
                }
                _ => break,
            }
        }
        if variables.len() > 1 {
            let here = self.here();
            return self.fault(here, "range can only initialize variables");
        }
        self.at = begin;
        Ok((Vec::new(), Binds::Declares))
    }

    fn bound(
        &self,
        variables: Vec<(String, Span)>,
        binds: Binds,
        context: &str,
        most: usize,
    ) -> Result<(Vec<String>, Binds), Error> {
        if let Some((_, span)) = variables.get(most) {
            return self.fault(*span, format!("too many declarations in {context}"));
        }
        for (name, span) in &variables {
            if binds == Binds::Assigns && !self.variables.contains(name) {
                return self.fault(*span, format!("undefined variable `{name}`"));
            }
        }
        Ok((variables.into_iter().map(|(name, _)| name).collect(), binds))
    }

    /// What stands behind `|` must be something that takes an argument.
    fn must_take_a_value(&self, command: &Command) -> Result<(), Error> {
        match command.words[0].what {
            What::Constant(_) | What::Dot | What::Nil => {
                self.fault(command.span, "non executable command behind `|`")
            }
            _ => Ok(()),
        }
    }

    fn command(&mut self, context: &str) -> Result<Command, Error> {
        let start = self.here().0;
        let mut words = Vec::new();
        let mut end = start;
        loop {
            self.skip_space();
            if matches!(self.peek(), None | Some((Token::Close | Token::Right | Token::Pipe, _))) {
                break;
            }
            let word = self.word(context)?;
            end = word.span.1;
            words.push(word);
            if !matches!(
                self.peek(),
                None | Some((Token::Close | Token::Right | Token::Pipe | Token::Space, _))
            ) {
                let here = self.here();
                return self.fault(here, format!("unexpected `{}` in operand", self.words(here)));
            }
        }
        Ok(Command { span: (start, end), words })
    }

    /// One operand, with the fields behind it.
    fn word(&mut self, context: &str) -> Result<Word, Error> {
        let (start, _) = self.here();
        let mut what = self.term(context)?;
        let mut end = self.tokens[self.at - 1].1.1;
        let mut fields = Vec::new();
        while let Some((Token::Field, span)) = self.peek() {
            fields.push(self.words(span)[1..].to_owned());
            end = span.1;
            self.at += 1;
        }
        let inner = (start, end);
        if !fields.is_empty() {
            what = match what {
                What::Field(mut path) => {
                    path.append(&mut fields);
                    What::Field(path)
                }
                What::Variable(name, _) => What::Variable(name, fields),
                What::Constant(_) | What::Nil | What::Dot => {
                    return self.fault(inner, "unexpected field behind a constant");
                }
                what => What::Chain(Box::new(Word { span: inner, what }), fields),
            };
        }
        Ok(Word { span: inner, what })
    }

    fn term(&mut self, context: &str) -> Result<What, Error> {
        let span = self.here();
        let words = self.words(span);
        let constant = |found: Result<Value, String>| match found {
            Ok(value) => Ok(What::Constant(value)),
            Err(what) => self.fault(span, what),
        };
        let what = match self.peek().map(|(token, _)| token) {
            Some(Token::Word) => self.named(words, span)?,
            Some(Token::Dot) => What::Dot,
            Some(Token::Field) => What::Field(vec![words[1..].to_owned()]),
            Some(Token::Variable) if self.variables.iter().any(|known| known == words) => {
                What::Variable(words.to_owned(), Vec::new())
            }
            Some(Token::Variable) => {
                return self.fault(span, format!("undefined variable `{words}`"));
            }
            Some(Token::Number) => constant(constant::number(words))?,
            Some(Token::Character) => constant(constant::character(words))?,
            Some(Token::Quoted) => constant(constant::unquoted(words).map(Value::from))?,
            Some(Token::Raw) => What::Constant(Value::from(constant::raw(words))),
            Some(Token::Left) => {
                self.at += 1;
                let pipe = self.deeper(span, |parser| parser.pipe("parenthesized pipeline", 1))?;
                self.skip_space();
                if !self.is_at(Token::Right) {
                    return self.fault(span, "unclosed left paren");
                }
                What::Pipe(pipe)
            }
            _ => return self.fault(span, format!("unexpected `{words}` in {context}")),
        };
        self.at += 1;
        Ok(what)
    }

    fn named(&self, word: &str, span: Span) -> Result<What, Error> {
        match word {
            "true" | "false" => Ok(What::Constant(Value::Bool(word == "true"))),
            "nil" => Ok(What::Nil),
            _ if self.functions.get(word).is_some() || builtin::is_one(word) => {
                Ok(What::Function(word.to_owned()))
            }
            _ => self.fault(span, format!("function {} not defined", format::quoted(word))),
        }
    }
}
