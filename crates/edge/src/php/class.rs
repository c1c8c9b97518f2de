//! Who goes first when workers are few. Pure.

use http::{HeaderMap, Method, header};

use crate::pool::Class;

/// Words that the User-Agents of machines have and those of browsers do not.
const MACHINES: [&str; 12] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "curl/",
    "wget/",
    "python-",
    "go-http-client",
    "scrapy",
    "headless",
    "facebookexternal",
    "archiver",
];

/// The class of a request.
pub fn class(method: &Method, path: &str, headers: &HeaderMap) -> Class {
    if !matches!(*method, Method::GET | Method::HEAD) || is_logged_in(headers) || is_checkout(path)
    {
        return Class::Person;
    }
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let agent = agent.to_ascii_lowercase();
    if agent.is_empty() || MACHINES.iter().any(|word| agent.contains(word)) {
        Class::Crawler
    } else {
        Class::Visitor
    }
}

/// Whether the request carries a cookie of a WordPress login. Only WordPress can say whether that login is good.
pub fn is_logged_in(headers: &HeaderMap) -> bool {
    let of = |v: &http::HeaderValue| {
        memchr::memmem::find(v.as_bytes(), b"wordpress_logged_in_").is_some()
    };
    headers.get_all(header::COOKIE).iter().any(of)
}

fn is_checkout(path: &str) -> bool {
    ["/checkout", "/cart", "/my-account", "/wp-login.php", "/wp-admin"]
        .iter()
        .any(|p| path.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_come_before_visitors_and_those_before_machines() {
        let firefox = (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        );
        let google = (
            "user-agent",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        );
        let login = ("cookie", "a=b; wordpress_logged_in_0123=x");
        for (method, path, headers, wanted) in [
            (Method::GET, "/", vec![firefox], Class::Visitor),
            (Method::GET, "/", vec![google], Class::Crawler),
            (Method::GET, "/", vec![], Class::Crawler),
            (Method::GET, "/", vec![google, login], Class::Person),
            (Method::POST, "/", vec![google], Class::Person),
            (Method::GET, "/checkout/", vec![firefox], Class::Person),
        ] {
            let headers: HeaderMap = headers
                .into_iter()
                .map(|(n, v)| (n.parse().expect(n), v.parse().expect(v)))
                .collect();
            assert_eq!(class(&method, path, &headers), wanted, "{path} {headers:?}");
        }
    }
}
