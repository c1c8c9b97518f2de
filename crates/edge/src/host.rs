//! Which site a `Host` means. Pure.
//!
//! A host is compared in lower case, without port and without a trailing dot. A wildcard stands for exactly one
//! label, and an exact name always wins over it. There is no default: a host that nobody declared has no site.

use std::borrow::Cow;
use std::collections::HashMap;

/// The host of a `Host` header or authority, in the form in which names are compared; `None`: it cannot be one.
pub fn canonical(raw: &str) -> Option<Cow<'_, str>> {
    let host = without_port(raw)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > 255 {
        return None;
    }
    let mut upper = false;
    for b in host.bytes() {
        match b {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'[' | b']' | b':' => {}
            b'A'..=b'Z' => upper = true,
            _ => return None,
        }
    }
    Some(if upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) })
}

fn without_port(raw: &str) -> Option<&str> {
    if raw.starts_with('[') {
        let end = raw.find(']')? + 1;
        let rest = &raw[end..];
        return (rest.is_empty() || is_port(rest)).then_some(&raw[..end]);
    }
    match raw.find(':') {
        None => Some(raw),
        Some(colon) if is_port(&raw[colon..]) => Some(&raw[..colon]),
        Some(_) => None,
    }
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|p| p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Values by host name.
#[derive(Debug, Clone)]
pub struct Hosts<T> {
    exact: HashMap<Box<str>, T>,
    wildcard: HashMap<Box<str>, T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> Hosts<T> {
    /// Adds a name; the first owner of a name keeps it.
    pub fn add(&mut self, name: &str, value: T) {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(suffix) => self.wildcard.entry(suffix.into()).or_insert(value),
            None => self.exact.entry(name.into_boxed_str()).or_insert(value),
        };
    }

    /// The value of a canonical host.
    pub fn find(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| {
            if self.wildcard.is_empty() {
                return None;
            }
            let (label, suffix) = host.split_once('.')?;
            (!label.is_empty()).then(|| self.wildcard.get(suffix))?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_without_case_port_and_trailing_dot() {
        for (raw, wanted) in [
            ("example.com", Some("example.com")),
            ("Example.COM:8443", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("example.com.:80", Some("example.com")),
            ("[::1]:8080", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("example.com:", Some("example.com")),
            ("", None),
            (".", None),
            ("exa mple.com", None),
            ("example.com:80:80", None),
            ("example.com:http", None),
            ("example.com/evil", None),
            ("user@example.com", None),
            ("[::1", None),
            ("[::1]x", None),
        ] {
            assert_eq!(canonical(raw).as_deref(), wanted, "{raw}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label_and_an_exact_name_wins() {
        let mut hosts = Hosts::default();
        hosts.add("*.example.com", 1);
        hosts.add("www.example.com", 2);
        hosts.add("www.example.com", 3);
        for (host, wanted) in [
            ("www.example.com", Some(2)),
            ("shop.example.com", Some(1)),
            ("a.b.example.com", None),
            ("example.com", None),
            (".example.com", None),
            ("example.org", None),
        ] {
            assert_eq!(hosts.find(host).copied(), wanted, "{host}");
        }
    }
}
