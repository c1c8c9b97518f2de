//! What PHP is told about a request. Pure.
//!
//! Always: every parameter that says who and where (`REMOTE_ADDR`, `HTTPS`, `HTTP_X_FORWARDED_*`) is ours; a client's
//! own forwarding headers never arrive. A canonical request says nothing of the visitor who happened to cause it.

use std::net::IpAddr;
use std::path::Path;

use http::{HeaderMap, Method, header};

use crate::client::Scheme;
use crate::fastcgi::params::{Params, may_pass};

/// The facts of a request to PHP.
pub struct Facts<'a> {
    /// The folder of `index.php` as PHP sees it.
    pub root: &'a Path,
    /// The script, absolute below the root.
    pub script: &'a str,
    /// What follows it in the path.
    pub path_info: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Path and query, as the client sent it.
    pub uri: &'a str,
    /// The canonical host of the request, without port.
    pub host: &'a str,
    /// The `Host` header, with its port.
    pub authority: &'a str,
    /// Scheme as the visitor sees it.
    pub scheme: Scheme,
    /// The client.
    pub address: IpAddr,
    /// Protocol (`HTTP/1.1`).
    pub protocol: &'a str,
    /// The id in logs and on error pages.
    pub request_id: &'a str,
}

/// A client's request as it is.
pub fn direct(facts: &Facts<'_>, headers: &HeaderMap, length: Option<u64>) -> Params {
    let mut params = common(facts);
    params.set("REMOTE_ADDR", facts.address.to_string());
    params.set("HTTP_X_FORWARDED_FOR", facts.address.to_string());
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        params.set("CONTENT_TYPE", kind);
    }
    if let Some(length) = length {
        params.set("CONTENT_LENGTH", length.to_string());
    }
    pass_headers(&mut params, headers);
    params
}

fn pass_headers(params: &mut Params, headers: &HeaderMap) {
    for name in headers.keys().filter(|name| may_pass(name)) {
        let mut values = headers.get_all(name).iter();
        let (Some(first), second) = (values.next(), values.next()) else { continue };
        let Some(second) = second else {
            params.header(name.as_str(), first.as_bytes());
            continue;
        };
        let separator: &[u8] = if name == header::COOKIE { b"; " } else { b", " };
        let mut joined = first.as_bytes().to_vec();
        for value in std::iter::once(second).chain(values) {
            joined.extend_from_slice(separator);
            joined.extend_from_slice(value.as_bytes());
        }
        params.header(name.as_str(), &joined);
    }
}

/// The request that stands for all anonymous visitors of a page.
pub fn canonical(facts: &Facts<'_>, cookies: &str) -> Params {
    let mut params = common(facts);
    params.set("REMOTE_ADDR", "127.0.0.1");
    params.set("PRESSROOM_CANONICAL", "1");
    params.header("accept", b"*/*");
    params.header("user-agent", b"Pressroom");
    if !cookies.is_empty() {
        params.header("cookie", cookies.as_bytes());
    }
    params
}

/// The question whether PHP and the database work.
pub fn readiness(facts: &Facts<'_>) -> Params {
    let mut params = common(facts);
    params.set("REMOTE_ADDR", "127.0.0.1");
    params.set("PRESSROOM_READY", "1");
    params.header("user-agent", b"Pressroom");
    params
}

fn common(facts: &Facts<'_>) -> Params {
    let mut params = Params::new();
    let root = facts.root.to_string_lossy();
    let root = root.trim_end_matches('/');
    let query = facts.uri.split_once('?').map_or("", |(_, q)| q);
    let port = port(facts.authority, facts.scheme);
    params.set("GATEWAY_INTERFACE", "CGI/1.1");
    params.set("SERVER_SOFTWARE", "Pressroom");
    params.set("REDIRECT_STATUS", "200");
    params.set("DOCUMENT_ROOT", root);
    params.set("SCRIPT_FILENAME", format!("{root}{}", facts.script));
    params.set("SCRIPT_NAME", facts.script);
    params.set("DOCUMENT_URI", format!("{}{}", facts.script, facts.path_info));
    params.set("REQUEST_METHOD", facts.method.as_str());
    params.set("REQUEST_URI", facts.uri);
    params.set("QUERY_STRING", query);
    params.set("SERVER_PROTOCOL", facts.protocol);
    params.set("SERVER_NAME", facts.host);
    params.set("SERVER_ADDR", "127.0.0.1");
    params.set("SERVER_PORT", port);
    params.set("REQUEST_SCHEME", facts.scheme.as_str());
    params.set("REMOTE_PORT", "0");
    params.set("HTTP_HOST", facts.authority);
    params.set("HTTP_X_FORWARDED_HOST", facts.authority);
    params.set("HTTP_X_FORWARDED_PROTO", facts.scheme.as_str());
    params.set("HTTP_X_FORWARDED_PORT", port);
    params.set("PRESSROOM_REQUEST_ID", facts.request_id);
    if facts.scheme == Scheme::Https {
        params.set("HTTPS", "on");
    }
    if !facts.path_info.is_empty() {
        params.set("PATH_INFO", facts.path_info);
    }
    params
}

fn port(authority: &str, scheme: Scheme) -> &str {
    let after_brackets = authority.rsplit(']').next().unwrap_or(authority);
    match after_brackets.rsplit_once(':') {
        Some((_, port)) if !port.is_empty() => port,
        _ if scheme == Scheme::Https => "443",
        _ => "80",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fastcgi::params::read;

    fn facts() -> Facts<'static> {
        Facts {
            root: Path::new("/srv/site"),
            script: "/index.php",
            path_info: "/2020/post",
            method: &Method::GET,
            uri: "/index.php/2020/post?a=b",
            host: "example.com",
            authority: "example.com:8443",
            scheme: Scheme::Https,
            address: IpAddr::from([192, 0, 2, 7]),
            protocol: "HTTP/1.1",
            request_id: "0123",
        }
    }

    fn check(params: &Params, wanted: &[(&str, Option<&str>)]) {
        let all = read(params.as_bytes());
        for (name, value) in wanted {
            let found: Vec<_> =
                all.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
            assert_eq!(found, value.iter().copied().collect::<Vec<_>>(), "{name}");
        }
    }

    #[test]
    fn php_learns_the_truth_and_no_forwarding_headers_of_strangers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "gopher"),
            ("forwarded", "for=6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("remote_addr", "6.6.6.6"),
            ("proxy", "http://evil"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("accept", "text/html"),
            ("accept", "*/*"),
            ("content-type", "text/plain"),
        ] {
            headers.append(http::HeaderName::from_static(name), value.parse().expect(value));
        }
        check(
            &direct(&facts(), &headers, Some(3)),
            &[
                ("REMOTE_ADDR", Some("192.0.2.7")),
                ("HTTP_X_FORWARDED_FOR", Some("192.0.2.7")),
                ("HTTP_X_FORWARDED_PROTO", Some("https")),
                ("HTTP_FORWARDED", None),
                ("HTTP_REMOTE_ADDR", None),
                ("HTTP_PROXY", None),
                ("HTTPS", Some("on")),
                ("SERVER_PORT", Some("8443")),
                ("HTTP_HOST", Some("example.com:8443")),
                ("SERVER_NAME", Some("example.com")),
                ("HTTP_COOKIE", Some("a=1; b=2")),
                ("HTTP_ACCEPT", Some("text/html, */*")),
                ("CONTENT_TYPE", Some("text/plain")),
                ("CONTENT_LENGTH", Some("3")),
                ("HTTP_CONTENT_TYPE", None),
                ("SCRIPT_FILENAME", Some("/srv/site/index.php")),
                ("PATH_INFO", Some("/2020/post")),
                ("QUERY_STRING", Some("a=b")),
                ("PRESSROOM_CANONICAL", None),
            ],
        );
    }

    #[test]
    fn a_canonical_request_says_nothing_of_a_visitor() {
        check(
            &canonical(&facts(), "lang=de"),
            &[
                ("REMOTE_ADDR", Some("127.0.0.1")),
                ("HTTP_X_FORWARDED_FOR", None),
                ("HTTP_USER_AGENT", Some("Pressroom")),
                ("HTTP_COOKIE", Some("lang=de")),
                ("HTTP_ACCEPT_LANGUAGE", None),
                ("PRESSROOM_CANONICAL", Some("1")),
            ],
        );
    }
}
