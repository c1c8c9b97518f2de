//! The key of a page: site, scheme and authority, path, query without ignored parameters (order kept), declared variants.
//!
//! WordPress answers to the scheme, host and port that it is told (it redirects those that are not its own), so a
//! stranger's port must not be in anybody else's page.
//! What differs in the key is rendered apart; what does not is not given to PHP ([`Key::query`] and [`Key::cookies`] are
//! the query and the cookies of the canonical request), so two requests with one key cannot have two answers.
//! Percent-encoding is normalised only where RFC 3986 calls it equivalent: unreserved characters are decoded (but not
//! `.`, which would make dot segments), the other digits are lower case, as WordPress writes them in its links.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::{HeaderMap, Method};

use super::bypass::{self, Bypass};
use super::learned::Learned;
use super::rules::Rules;

/// Keys are hashed with a seed of this process, so nobody can make two collide.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Longest value of a cookie that is a declared variant.
const LONGEST_VARIANT: usize = 128;

/// What a page is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    hash: u64,
    text: String,
    path: u32,
    path_end: u32,
    cookies: u32,
}

/// The parts of a request that decide about the cache.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The scheme as the visitor sees it.
    pub scheme: &'a str,
    /// Host and port as the visitor wrote them.
    pub authority: &'a str,
    /// The path as it came.
    pub path: &'a str,
    /// The query as it came, without `?`.
    pub query: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
}

impl Key {
    /// The key of a request, or why it has none.
    pub fn of(
        asked: &Asked<'_>,
        site: &str,
        rules: &Rules,
        learned: &Learned,
    ) -> Result<Self, Bypass> {
        if !rules.enabled {
            return Err(Bypass::Off);
        }
        if *asked.method != Method::GET && *asked.method != Method::HEAD {
            return Err(Bypass::Method);
        }
        if asked.headers.contains_key(AUTHORIZATION) {
            return Err(Bypass::Authorization);
        }
        if asked.headers.contains_key(ORIGIN) {
            return Err(Bypass::Origin);
        }
        let mut text =
            String::with_capacity(site.len() + asked.authority.len() + asked.path.len() + 56);
        text.push_str(site);
        text.push('\n');
        text.push_str(asked.scheme);
        text.push_str("://");
        let authority = text.len();
        text.push_str(asked.authority);
        text[authority..].make_ascii_lowercase();
        text.push('\n');
        let path = text.len();
        normalise(asked.path, &mut text);
        bypass::path(&text[path..])?;
        let path_end = text.len();
        if let Some(query) = asked.query {
            push_query(query, rules, &mut text)?;
        }
        text.push('\n');
        let cookies = text.len();
        push_cookies(asked.headers, rules, learned, &mut text)?;
        Ok(Self::sealed(text, path, path_end, cookies))
    }

    /// A key read back from disk.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut ends = memchr::memchr_iter(b'\n', text.as_bytes());
        let (_, host, query) = (ends.next()?, ends.next()?, ends.next()?);
        let path_end =
            memchr::memchr(b'?', &text.as_bytes()[host..query]).map_or(query, |at| host + at);
        Some(Self::sealed(text.to_owned(), host + 1, path_end, query + 1))
    }

    fn sealed(text: String, path: usize, path_end: usize, cookies: usize) -> Self {
        let hash = SEED.hash_one(text.as_bytes());
        Self { hash, text, path: path as u32, path_end: path_end as u32, cookies: cookies as u32 }
    }

    /// The hash in this process.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// All of it, as stored; the same at every edge.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The host and port that PHP is told, lower case.
    pub fn authority(&self) -> &str {
        let bytes = &self.text.as_bytes()[..self.path as usize - 1];
        let start = memchr::memmem::find(bytes, b"://").map_or(0, |at| at + 3);
        &self.text[start..self.path as usize - 1]
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        without_port(self.authority())
    }

    /// The normalised path.
    pub fn path(&self) -> &str {
        &self.text[self.path as usize..self.path_end as usize]
    }

    /// The query of the canonical request, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.text[self.path_end as usize..self.cookies as usize - 1].strip_prefix('?')
    }

    /// Path and query of the canonical request.
    pub fn path_and_query(&self) -> &str {
        &self.text[self.path as usize..self.cookies as usize - 1]
    }

    /// The `Cookie` header of the canonical request: declared variants only; empty: none.
    pub fn cookies(&self) -> &str {
        &self.text[self.cookies as usize..]
    }
}

/// The host of an authority.
pub(super) fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Appends a path or query in its normal form.
pub(super) fn normalise(text: &str, into: &mut String) {
    let bytes = text.as_bytes();
    if text.is_ascii() && memchr::memchr(b'%', bytes).is_none() {
        into.push_str(text);
        return;
    }
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match (byte, bytes.get(at + 1).and_then(hex), bytes.get(at + 2).and_then(hex)) {
            (b'%', Some(high), Some(low)) => {
                push_coded(high * 16 + low, into);
                at += 3;
            }
            (0x80.., ..) => {
                push_escape(byte, into);
                at += 1;
            }
            _ => {
                into.push(char::from(byte));
                at += 1;
            }
        }
    }
}

fn hex(digit: &u8) -> Option<u8> {
    char::from(*digit).to_digit(16).map(|value| value as u8)
}

fn push_coded(byte: u8, into: &mut String) {
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
        into.push(char::from(byte));
    } else {
        push_escape(byte, into);
    }
}

fn push_escape(byte: u8, into: &mut String) {
    into.push('%');
    for digit in [byte >> 4, byte & 15] {
        into.push(char::from_digit(u32::from(digit), 16).expect("four bits are one digit"));
    }
}

/// Appends `?query` without ignored parameters; nothing when none is left.
fn push_query(query: &str, rules: &Rules, text: &mut String) -> Result<(), Bypass> {
    let mut separator = '?';
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let before = text.len();
        text.push(separator);
        normalise(parameter, text);
        let name = text[before + 1..].split('=').next().unwrap_or_default();
        if rules.ignored_parameters.contains(name) {
            text.truncate(before);
            continue;
        }
        bypass::parameter(name)?;
        separator = '&';
    }
    Ok(())
}

/// Appends the declared variants, sorted by name; refuses what makes the request personal.
fn push_cookies(
    headers: &HeaderMap,
    rules: &Rules,
    learned: &Learned,
    text: &mut String,
) -> Result<(), Bypass> {
    let mut variants: Vec<(&str, &str)> = Vec::new();
    for header in headers.get_all(COOKIE) {
        for pair in header.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            if pair.is_empty() {
                continue;
            }
            let Ok(pair) = std::str::from_utf8(pair) else {
                bypass::cookie(&String::from_utf8_lossy(pair), rules, learned)?;
                continue;
            };
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !rules.vary_cookies.contains(name) {
                bypass::cookie(name, rules, learned)?;
            } else if value.len() > LONGEST_VARIANT
                || !value.is_ascii()
                || name.len() > LONGEST_VARIANT
            {
                return Err(Bypass::Variant(bypass::shown(name)));
            } else {
                variants.push((name, value));
            }
        }
    }
    variants.sort_unstable();
    for (at, (name, value)) in variants.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "; " });
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
