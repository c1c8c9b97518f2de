//! From text to tokens. White space beside `{{- ` and ` -}}` is gone after this.

use crate::error::{Error, Kind};
use crate::node::Span;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// Outside of actions.
    Text,
    /// `{{`
    Open,
    /// `}}`
    Close,
    Space,
    /// A name: of a function, a keyword, `true`, `nil`.
    Word,
    /// `.Name`
    Field,
    /// `$` or `$name`
    Variable,
    Dot,
    Number,
    /// `'a'`
    Character,
    /// `"…"`
    Quoted,
    /// Between back quotes.
    Raw,
    /// `|`
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `,`
    Comma,
    /// `(`
    Left,
    /// `)`
    Right,
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// All tokens of a template, each with its place.
pub(crate) fn lex(name: &str, source: &str) -> Result<Vec<(Token, Span)>, Error> {
    let mut lexer = Lexer { name, source, at: 0, tokens: Vec::new(), parens: Vec::new() };
    while lexer.at < source.len() {
        lexer.text()?;
    }
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    name: &'a str,
    source: &'a str,
    at: usize,
    tokens: Vec<(Token, Span)>,
    /// Where those parentheses are that are open.
    parens: Vec<usize>,
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fault<T>(&self, span: Span, what: impl Into<String>) -> Result<T, Error> {
        Err(Error::new(Kind::Syntax, self.name, self.source, span, what))
    }

    fn push(&mut self, token: Token, start: usize) {
        self.tokens.push((token, (start, self.at)));
    }

    /// Text up to the next action, and that action.
    fn text(&mut self) -> Result<(), Error> {
        let start = self.at;
        let Some(open) = self.rest().find(OPEN).map(|found| start + found) else {
            self.at = self.source.len();
            self.push(Token::Text, start);
            return Ok(());
        };
        let inside = &self.source[open + OPEN.len()..];
        let is_trimming = inside.starts_with('-') && inside[1..].starts_with(is_space);
        let text = &self.source[start..open];
        self.at =
            start + if is_trimming { text.trim_end_matches(is_space).len() } else { text.len() };
        if self.at > start {
            self.push(Token::Text, start);
        }
        self.at = open + OPEN.len() + if is_trimming { 2 } else { 0 };
        if self.rest().trim_start_matches(is_space).starts_with("/*")
            && (is_trimming || self.rest().starts_with("/*"))
        {
            return self.comment(open);
        }
        self.tokens.push((Token::Open, (open, self.at)));
        self.action(open)
    }

    fn comment(&mut self, open: usize) -> Result<(), Error> {
        let Some(end) = self.rest().find("*/") else {
            return self.fault((open, self.at), "unclosed comment");
        };
        self.at += end + 2;
        if self.close() {
            return Ok(());
        }
        self.fault((open, self.at), "comment ends before closing delimiter")
    }

    /// Goes over `}}` or ` -}}` if one is here.
    fn close(&mut self) -> bool {
        if self.rest().starts_with(CLOSE) {
            self.at += CLOSE.len();
            return true;
        }
        let mut rest = self.rest().chars();
        if rest.next().is_some_and(is_space)
            && rest.as_str().strip_prefix('-').is_some_and(|rest| rest.starts_with(CLOSE))
        {
            self.at += 2 + CLOSE.len();
            self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
            return true;
        }
        false
    }

    /// Tokens up to the end of the action that begins at `open`.
    fn action(&mut self, open: usize) -> Result<(), Error> {
        loop {
            let start = self.at;
            if self.close() {
                if let Some(paren) = self.parens.pop() {
                    return self.fault((paren, paren + 1), "unclosed left paren");
                }
                self.push(Token::Close, start);
                return Ok(());
            }
            let Some(c) = self.peek() else {
                return self.fault((open, open + OPEN.len()), "unclosed action");
            };
            let token = self.token(c)?;
            self.push(token, start);
        }
    }

    fn token(&mut self, c: char) -> Result<Token, Error> {
        let start = self.at;
        self.at += c.len_utf8();
        let one = match c {
            c if is_space(c) => return Ok(self.space()),
            '|' => Token::Pipe,
            '=' => Token::Assign,
            ',' => Token::Comma,
            '(' => {
                self.parens.push(start);
                Token::Left
            }
            ')' => {
                if self.parens.pop().is_none() {
                    return self.fault((start, self.at), "unexpected right paren");
                }
                Token::Right
            }
            ':' if self.peek() == Some('=') => {
                self.at += 1;
                Token::Declare
            }
            ':' => return self.fault((start, self.at), "expected :="),
            '"' => return self.quoted(start, '"', Token::Quoted),
            '\'' => return self.quoted(start, '\'', Token::Character),
            '`' => return self.raw(start),
            '$' => return self.name(start, Token::Variable),
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                let has_name = self.peek().is_some_and(is_name);
                return self.name(start, if has_name { Token::Field } else { Token::Dot });
            }
            '.' | '+' | '-' | '0'..='9' => return self.number(start),
            c if is_name(c) => return self.name(start, Token::Word),
            c => return self.fault((start, self.at), format!("unexpected character `{c}`")),
        };
        Ok(one)
    }

    /// White space, but for the one character that belongs to ` -}}`.
    fn space(&mut self) -> Token {
        self.at -= 1;
        while self.peek().is_some_and(is_space) {
            let rest = &self.rest()[1..];
            if rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(CLOSE)) {
                break;
            }
            self.at += 1;
        }
        Token::Space
    }

    fn name(&mut self, start: usize, token: Token) -> Result<Token, Error> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_name).len();
        let ends_well = self
            .peek()
            .is_none_or(|c| is_space(c) || matches!(c, '.' | ',' | '|' | ':' | '=' | ')' | '('))
            || self.rest().starts_with(CLOSE);
        if ends_well {
            return Ok(token);
        }
        let bad = self.peek().unwrap_or_default();
        self.fault((start, self.at), format!("bad character `{bad}` behind it"))
    }

    fn number(&mut self, start: usize) -> Result<Token, Error> {
        let is_hexadecimal = self.source[start..].trim_start_matches(['+', '-']).starts_with("0x")
            || self.source[start..].trim_start_matches(['+', '-']).starts_with("0X");
        let mut before = self.source[start..self.at].chars().next().unwrap_or_default();
        while let Some(c) = self.peek() {
            let is_sign = matches!(c, '+' | '-')
                && if is_hexadecimal {
                    matches!(before, 'p' | 'P')
                } else {
                    matches!(before, 'e' | 'E')
                };
            if !(is_name(c) || c == '.' || is_sign) {
                break;
            }
            before = c;
            self.at += c.len_utf8();
        }
        Ok(Token::Number)
    }

    fn quoted(&mut self, start: usize, quote: char, token: Token) -> Result<Token, Error> {
        let what = if quote == '"' {
            "unterminated quoted string"
        } else {
            "unterminated character constant"
        };
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '\n' => break,
                '\\' => self.at += self.peek().filter(|c| *c != '\n').map_or(0, char::len_utf8),
                c if c == quote => return Ok(token),
                _ => {}
            }
        }
        self.fault((start, self.at), what)
    }

    fn raw(&mut self, start: usize) -> Result<Token, Error> {
        match self.rest().find('`') {
            Some(end) => self.at += end + 1,
            None => return self.fault((start, start + 1), "unterminated raw quoted string"),
        }
        Ok(Token::Raw)
    }
}
