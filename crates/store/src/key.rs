//! Names of values: paths such as `intent/config` or `observed/site/blog`.
//!
//! Segments are letters, digits, `.`, `_`, `-`, `:` and `@`; there are no empty segments. A [`Prefix`] is a whole
//! number of segments: `intent` holds `intent` and `intent/config`, not `intentions`.

use std::fmt;
use std::str::FromStr;

/// A key that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a key: use segments of printable characters without spaces, with `/` between, at most 512 bytes"
)]
pub struct BadKey(pub String);

/// The name of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// The front of names: some whole segments, or nothing, which means everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(String);

impl Key {
    /// A key written in the source.
    ///
    /// # Panics
    /// When it is not a key, which a test would have seen.
    pub fn literal(key: &'static str) -> Self {
        key.parse().expect("a literal key is a good key")
    }

    /// This key with one more segment.
    pub fn join(&self, segment: &str) -> Result<Self, BadKey> {
        format!("{}/{segment}", self.0).parse()
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Whether it is `prefix` or below it.
    pub fn is_under(&self, prefix: &Prefix) -> bool {
        match self.0.strip_prefix(&prefix.0) {
            Some(rest) => prefix.0.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

impl Prefix {
    /// Everything.
    pub fn all() -> Self {
        Self(String::new())
    }

    /// The prefix as text; empty means everything.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Key> for Prefix {
    fn from(key: Key) -> Self {
        Self(key.0)
    }
}

impl FromStr for Key {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let is_good = |segment: &str| {
            !segment.is_empty() && !segment.contains(|c: char| c.is_control() || c.is_whitespace())
        };
        if text.len() <= 512 && text.split('/').all(is_good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadKey(text.to_owned()))
        }
    }
}

impl FromStr for Prefix {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        if text.is_empty() { Ok(Self::all()) } else { text.parse().map(Key::into) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain_paths() {
        for good in
            ["a", "intent/config", "observed/instance/blog-1", "x/10.0.0.1:80", "skydns/*/ä"]
        {
            assert!(good.parse::<Key>().is_ok(), "{good}");
        }
        for bad in ["", "/", "/a", "a/", "a//b", "a b", "a\0"] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        let check = |key: &str, prefix: &str| {
            key.parse::<Key>().expect("key").is_under(&prefix.parse::<Prefix>().expect("prefix"))
        };
        assert!(
            check("intent/config", "intent") && check("intent", "intent") && check("intent", "")
        );
        assert!(!check("intentions", "intent") && !check("a", "intent"));
    }
}
