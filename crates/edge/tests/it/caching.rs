//! The page cache as visitors meet it.

use std::sync::Barrier;

use crate::harness::{Edge, Fpm, Place, until};

fn renders(place: &Place) -> u32 {
    std::fs::read_to_string(place.path("scratch/renders"))
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_page_is_rendered_once_for_all_and_refreshed_after_a_purge() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    let first =
        edge.get_with("/?do=page&utm_source=x", "User-Agent: Mine\r\nCookie: unknown=1\r\n");
    assert_eq!((first.status, first.header("x-cache")), (200, Some("miss")), "{}", first.head);
    assert!(first.text().starts_with("<p>render 1 for Pressroom </p>"), "{}", first.text());
    let second = edge.get_with("/?do=page", "Accept-Encoding: gzip\r\n");
    assert_eq!(second.header("x-cache"), Some("hit"), "{}", second.head);
    assert!(second.header("cache-status").is_some_and(|s| s.starts_with("pressroom; hit; ttl=")));
    let logged_in = edge.get_with("/?do=page", "Cookie: wordpress_logged_in_1=x\r\n");
    assert_eq!(logged_in.header("x-cache"), Some("bypass"));
    assert!(logged_in.header("server-timing").is_some_and(|t| t.contains("php;dur=")));
    assert_eq!(renders(&place), 2);

    let receipt = edge.control("POST", "/purge", r#"{"site":"blog","purge":{"tags":["front"]}}"#);
    assert_eq!(
        (receipt.json()["ok"].as_bool(), receipt.json()["pages"].as_u64()),
        (Some(true), Some(1))
    );
    assert_eq!(edge.get("/?do=page").header("x-cache"), Some("stale"));
    until("it is refreshed", || edge.get("/?do=page").header("x-cache") == Some("hit"));
    assert_eq!(renders(&place), 3);

    let why = edge.control("POST", "/why", r#"{"url":"http://blog.test/?do=page"}"#).json();
    assert_eq!(
        (why["site"].as_str(), why["decision"].as_str()),
        (Some("blog"), Some("hit")),
        "{why}"
    );
    let why = edge.control(
        "POST",
        "/why",
        r#"{"url":"http://blog.test/?do=page","headers":{"authorization":"x"},"execute":true}"#,
    );
    assert_eq!(why.json()["decision"], "bypass");
    let why = edge
        .control("POST", "/why", r#"{"url":"http://blog.test/?do=page&x=1","execute":true}"#)
        .json();
    assert_eq!(why["executed"]["status"], 200, "{why}");
}

#[test]
fn many_askers_of_an_absent_page_cause_one_render() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 4);
    let edge = Edge::start(&place, &[(&fpm, 4)], |_| {});
    let barrier = Barrier::new(20);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                barrier.wait();
                let answer = edge.get("/?do=page&ms=200");
                assert_eq!(answer.status, 200);
                assert!(answer.text().starts_with("<p>render 1 "), "{}", answer.text());
            });
        }
    });
    assert_eq!(renders(&place), 1);
}

#[test]
fn the_render_goes_on_when_its_asker_leaves() {
    use std::io::Write as _;
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    let mut stream = edge.connect();
    stream.write_all(b"GET /?do=page&ms=300 HTTP/1.1\r\nHost: blog.test\r\n\r\n").expect("sent");
    until("it renders", || renders(&place) == 1);
    drop(stream);
    until("it is stored", || edge.status()["cache_pages"] == 1);
    assert_eq!(edge.get("/?do=page&ms=300").header("x-cache"), Some("hit"));
}

#[test]
fn unaffirmed_and_broken_answers_are_not_stored_and_stale_pages_stand_in() {
    let place = Place::new();
    let mut fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |s| {
        s.sites[0].limits.queue_time = pressroom_model::unit::Span::millis(300);
        s.sites[0].cache.stale_while_revalidate = pressroom_model::unit::Span::seconds(0);
    });
    for path in ["/?do=exit", "/?do=server", "/?do=cookie"] {
        assert_eq!(edge.get(path).header("x-cache"), Some("miss"), "{path}");
        assert_eq!(edge.get(path).header("x-cache"), Some("miss"), "{path}");
    }
    assert_eq!(edge.get("/?do=page").header("x-cache"), Some("miss"));
    edge.control("POST", "/purge", r#"{"site":"blog","purge":{"all":true}}"#);
    place.write("scratch/broken", "");
    let answer = edge.get("/?do=page");
    assert_eq!((answer.status, answer.header("x-cache")), (200, Some("stale")), "{}", answer.head);
    fpm.stop("-TERM");
    let answer = edge.get("/?do=page");
    assert_eq!((answer.status, answer.header("x-cache")), (200, Some("stale")), "{}", answer.head);
    assert_eq!(edge.get("/?do=other").status, 503);
}
