//! Claims about keys: what is one page, what are two, and who has none.

use super::*;
use crate::cache::names::Names;

fn rules() -> Rules {
    Rules {
        enabled: true,
        ttl_max: 1000,
        stale_while_revalidate: 1000,
        stale_if_error: 1000,
        ignored_parameters: Names::new(["utm_*", "fbclid"]),
        bypass_cookies: Names::new(["wordpress_logged_in_*", "cart"]),
        vary_cookies: Names::new(["currency", "lang"]),
    }
}

fn request(path: &str, query: Option<&str>, headers: &[(&str, &str)]) -> Result<Key, Bypass> {
    ask(&Method::GET, path, query, headers, &Learned::default())
}

fn ask(
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &[(&str, &str)],
    learned: &Learned,
) -> Result<Key, Bypass> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().expect("a name");
        map.append(name, http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    let asked =
        Asked { method, scheme: "https", authority: "Blog.test:8443", path, query, headers: &map };
    Key::of(&asked, "blog", &rules(), learned)
}

fn canonical(path: &str, query: Option<&str>) -> String {
    request(path, query, &[]).expect("a key").path_and_query().to_owned()
}

#[test]
fn ignored_parameters_leave_the_key_and_the_others_keep_their_order() {
    for (query, wanted) in [
        (None, "/"),
        (Some(""), "/"),
        (Some("utm_source=x"), "/"),
        (Some("b=2&utm_source=x&a=1&fbclid=y"), "/?b=2&a=1"),
        (Some("a=1&&b=2&"), "/?a=1&b=2"),
        (Some("utm%5Fsource=x&p=1"), "/?p=1"),
        (Some("p=1?utm_source=x"), "/?p=1?utm_source=x"),
        (Some("fbclid"), "/"),
        (Some("a"), "/?a"),
    ] {
        assert_eq!(canonical("/", query), wanted, "{query:?}");
    }
}

#[test]
fn equivalent_spellings_are_one_key_and_others_are_not() {
    assert_eq!(canonical("/%7Euser/%e6%97%A5/", None), "/~user/%e6%97%a5/");
    assert_eq!(canonical("/日/", None), "/%e6%97%a5/");
    assert_eq!(canonical("/a%2Fb", None), "/a%2fb");
    assert_eq!(canonical("/a%2e%2e/b", None), "/a%2e%2e/b");
    assert_eq!(canonical("/a%zz%4", None), "/a%zz%4");
    assert_eq!(canonical("/", Some("q=a%2Bb")), "/?q=a%2bb");
    assert_ne!(canonical("/A/", None), canonical("/a/", None));
    assert_ne!(canonical("/a", None), canonical("/a/", None));
}

#[test]
fn a_key_can_be_taken_apart_and_read_back() {
    let key = request("/shop/", Some("page=2"), &[("cookie", "lang=de; _ga=1; currency=EUR")])
        .expect("a key");
    assert_eq!((key.authority(), key.host()), ("blog.test:8443", "blog.test"));
    assert_eq!(key.path(), "/shop/");
    assert_eq!(key.query(), Some("page=2"));
    assert_eq!(key.path_and_query(), "/shop/?page=2");
    assert_eq!(key.cookies(), "currency=EUR; lang=de");
    assert_eq!(Key::from_text(key.text()), Some(key));
    let plain = request("/", None, &[]).expect("a key");
    assert_eq!((plain.query(), plain.cookies()), (None, ""));
    assert_eq!(Key::from_text(plain.text()), Some(plain));
    assert_eq!(Key::from_text("nonsense"), None);
}

#[test]
fn another_scheme_or_port_is_another_page() {
    let headers = HeaderMap::new();
    let key = |scheme, authority| {
        let asked = Asked {
            method: &Method::GET,
            scheme,
            authority,
            path: "/",
            query: None,
            headers: &headers,
        };
        Key::of(&asked, "blog", &rules(), &Learned::default()).expect("a key")
    };
    assert_eq!(key("https", "blog.test"), key("https", "BLOG.test"));
    assert_ne!(key("https", "blog.test"), key("https", "blog.test:6666"));
    assert_ne!(key("https", "blog.test"), key("http", "blog.test"));
    for (authority, host) in
        [("a.test:80", "a.test"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a", "a")]
    {
        assert_eq!(key("https", authority).host(), host, "{authority}");
    }
}

#[test]
fn declared_variants_are_apart_whatever_their_order() {
    let one = request("/", None, &[("cookie", "lang=de; currency=EUR")]).expect("a key");
    let same = request("/", None, &[("cookie", "currency=EUR"), ("cookie", "x=1; lang=de")])
        .expect("a key");
    let other = request("/", None, &[("cookie", "lang=fr; currency=EUR")]).expect("a key");
    assert_eq!(one, same);
    assert_ne!(one, other);
    let long = format!("lang={}", "x".repeat(200));
    assert_eq!(request("/", None, &[("cookie", &long)]), Err(Bypass::Variant("lang".into())));
}

#[test]
fn personal_requests_have_no_key() {
    let cookie = |value| request("/", None, &[("cookie", value)]);
    assert_eq!(request("/", None, &[("authorization", "Basic x")]), Err(Bypass::Authorization));
    assert_eq!(request("/", None, &[("origin", "https://evil.test")]), Err(Bypass::Origin));
    assert_eq!(
        cookie("wordpress_logged_in_abc=1"),
        Err(Bypass::Cookie("wordpress_logged_in_abc".into()))
    );
    assert_eq!(cookie("a=1;cart=2"), Err(Bypass::Cookie("cart".into())));
    assert_eq!(cookie("cart"), Err(Bypass::Cookie("cart".into())));
    assert!(cookie("_ga=GA1.2; theme=\u{fc}").is_ok());
    let none = Learned::default();
    for method in [Method::POST, Method::PUT, Method::OPTIONS, Method::DELETE] {
        assert_eq!(ask(&method, "/", None, &[], &none), Err(Bypass::Method), "{method}");
    }
    assert!(ask(&Method::HEAD, "/", None, &[], &none).is_ok());
}

#[test]
fn preview_and_nonce_parameters_have_no_key() {
    for query in [
        "preview=true",
        "p=1&preview_id=3",
        "_wpnonce=abc",
        "%5Fwpnonce=abc",
        "my_nonce=1",
        "customize_changeset_uuid=1",
        "wc-ajax=get_refreshed_fragments",
        "add-to-cart=7",
        "preview[]=1",
        ".wpnonce=1",
        "unapproved=4&moderation-hash=abc",
    ] {
        assert!(matches!(request("/", Some(query), &[]), Err(Bypass::Parameter(_))), "{query}");
    }
    for query in ["p=1", "s=preview", "announce=1", "paged=2", "q=_wpnonce"] {
        assert!(request("/", Some(query), &[]).is_ok(), "{query}");
    }
}

#[test]
fn doors_of_wordpress_have_no_key() {
    for path in [
        "/wp-admin",
        "/wp-admin/",
        "/wp-admin/admin-ajax.php",
        "/sub/wp-admin/index.php",
        "/wp-login.php",
        "/%77p-login.php",
        "/sub/wp-cron.php",
        "/xmlrpc.php",
        "/wp-login.php/extra",
        "//wp-admin//x",
    ] {
        assert!(matches!(request(path, None, &[]), Err(Bypass::Path(_))), "{path}");
    }
    for path in ["/", "/wp-admin-guide/", "/about-wp-login.php.html", "/wp-json/wp/v2/posts"] {
        assert!(request(path, None, &[]).is_ok(), "{path}");
    }
}

#[test]
fn a_cookie_that_the_site_ever_set_has_no_key() {
    let learned = Learned::default();
    assert!(learned.learn("session_4711"));
    assert!(ask(&Method::GET, "/", None, &[("cookie", "_ga=1")], &learned).is_ok());
    let refused = ask(&Method::GET, "/", None, &[("cookie", "session_4712=x")], &learned);
    assert_eq!(refused, Err(Bypass::Cookie("session_4712".into())));
}
