//! Static files.

use std::time::{Duration, SystemTime};

use crate::harness::{Edge, Fpm, Place, until};

#[test]
fn files_are_served_whole_in_part_and_not_at_all() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    place.write("uploads/2026/big.jpg", &big);
    place.write("uploads/evil.php", "<?php echo 'run';");
    place.write("root/style.css", "body { color: red } ".repeat(100));
    place.write("root/.env", "secret");
    place.write("root/wp-config.php", "<?php // secret");
    std::os::unix::fs::symlink("/etc/hostname", place.path("uploads/link.txt")).expect("linked");
    let edge = Edge::start(&place, &[(&fpm, 1)], |_| {});

    for _ in 0..2 {
        let css = edge.get("/style.css?ver=6.1");
        assert_eq!((css.status, css.body.len()), (200, 2000));
        assert_eq!(css.header("content-type"), Some("text/css; charset=utf-8"));
        assert_eq!(css.header("cache-control"), Some("public, max-age=31536000, immutable"));
        let etag = css.header("etag").expect("an ETag");
        assert_eq!(edge.get_with("/style.css", &format!("If-None-Match: {etag}\r\n")).status, 304);
        let modified = css.header("last-modified").expect("a date");
        assert_eq!(
            edge.get_with("/style.css", &format!("If-Modified-Since: {modified}\r\n")).status,
            304
        );
    }
    let path = "/wp-content/uploads/2026/big.jpg";
    let whole = edge.get(path);
    assert!(whole.body == big && whole.header("accept-ranges") == Some("bytes"));
    let part = edge.get_with(path, "Range: bytes=1000000-1999999\r\n");
    assert_eq!(
        (part.status, part.header("content-range")),
        (206, Some("bytes 1000000-1999999/3000000"))
    );
    assert!(part.body == big[1_000_000..2_000_000]);
    let tail = edge.get_with(path, "Range: bytes=-10\r\n");
    assert!(tail.body == big[2_999_990..]);
    assert_eq!(edge.get_with(path, "Range: bytes=3000000-\r\n").status, 416);
    assert_eq!(edge.get_with(path, "Range: bytes=0-1,5-6\r\n").status, 200);
    let head =
        edge.raw(&format!("HEAD {path} HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n\r\n"));
    assert_eq!((head.header("content-length"), head.body.len()), (Some("3000000"), 0));
    let post = edge.raw(&format!(
        "POST {path} HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(post.status, 405);

    for denied in [
        "/.env",
        "/wp-config.php",
        "/wp-content/uploads/evil.php",
        "/wp-content/uploads/evil.php/x",
    ] {
        let answer = edge.get(denied);
        assert_eq!(answer.status, 404, "{denied}");
        assert!(!answer.text().contains("secret") && !answer.text().contains("echo"), "{denied}");
    }
    for escape in ["/../../etc/hostname", "/wp-content/uploads/%2e%2e/%2e%2e/%2e%2e/etc/hostname"] {
        assert_eq!(edge.get(escape).status, 400, "{escape}");
    }
    let link = edge.get("/wp-content/uploads/link.txt").text();
    assert!(link.starts_with("index "), "a link out of the folder is no file: {link}");
}

#[test]
fn text_is_coded_once_and_a_change_is_seen_within_a_second() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    place.write("root/app.js", "console.log('first');".repeat(200));
    let edge = Edge::start(&place, &[(&fpm, 1)], |_| {});
    let mut coded = 0;
    until("it is coded", || {
        let answer = edge.get_with("/app.js", "Accept-Encoding: gzip\r\n");
        coded = answer.body.len();
        answer.header("content-encoding") == Some("gzip")
    });
    assert!(coded < 1000);
    assert_eq!(edge.get("/app.js").header("vary"), Some("accept-encoding"));
    place.write("root/app.js", "second");
    let file = std::fs::File::options().write(true).open(place.path("root/app.js")).expect("open");
    file.set_modified(SystemTime::now() + Duration::from_secs(1)).expect("set");
    let begun = std::time::Instant::now();
    until("the change is seen", || edge.get("/app.js").text() == "second");
    assert!(begun.elapsed() < Duration::from_millis(1500));
}

#[test]
fn hosts_redirects_and_broken_requests() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    place.write("root/wp-admin/index.php", "<?php echo 'admin';");
    let mut edge = Edge::start(&place, &[(&fpm, 1)], |_| {});
    let ask = |edge: &Edge, host: &str, path: &str| {
        edge.raw(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(ask(&edge, "BLOG.test.:80", "/?do=server").status, 200);
    assert_eq!(ask(&edge, "shop.blog.test", "/?do=server").status, 200);
    for unknown in ["other.test", "a.b.blog.test", "127.0.0.1"] {
        assert_eq!(ask(&edge, unknown, "/").status, 421, "{unknown}");
    }
    assert_eq!(ask(&edge, "other.test", "/heartbeat.html").status, 200);
    let answer = ask(&edge, "blog.test", "/wp-admin?x=1");
    assert_eq!((answer.status, answer.header("location")), (301, Some("/wp-admin/?x=1")));
    assert_eq!(ask(&edge, "blog.test", "/wp-admin/").text(), "admin");
    for broken in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: blog.test\r\nHost: other.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: blog.test/evil\r\nConnection: close\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: blog.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: blog.test\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: blog.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : blog.test\r\n\r\n",
    ] {
        assert_eq!(edge.raw(broken).status, 400, "{broken}");
    }
    edge.publish(|s| s.sites[0].redirect_to_https = true);
    let answer = ask(&edge, "blog.test", "/a/?b=c");
    assert_eq!(
        (answer.status, answer.header("location")),
        (308, Some("https://blog.test:8443/a/?b=c"))
    );
    assert_eq!(ask(&edge, "blog.test", "/.pressroom/ready").status, 200);
    assert_eq!(ask(&edge, "blog.test", "/heartbeat.html").status, 200);
    assert_ne!(ask(&edge, "blog.test", "/.well-known/acme-challenge/x").status, 308);
}
