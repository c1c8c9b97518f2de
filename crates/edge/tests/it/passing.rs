//! What passes between a client, the edge and PHP.

use std::io::{Read as _, Write as _};

use crate::harness::{Answer, Edge, Fpm, Place, until};
use pressroom_model::snapshot::Guard;
use pressroom_model::unit::{ByteSize, Span};

#[test]
fn php_sees_the_request_and_the_truth_about_its_client() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    let lies = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 6.6.6.6\r\n\
                Proxy: evil\r\nAuthorization: Basic dTpw\r\nCookie: a=1\r\nX-Real-IP: 6.6.6.6\r\n";
    let answer = edge.get_with("/index.php/2020/post/?do=server&x=%20y", lies);
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("x-cache"), Some("bypass"));
    assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 16));
    assert!(!answer.text().contains("6.6.6.6"), "{}", answer.text());
    let seen = &answer.json()["server"];
    for (name, wanted) in [
        ("REMOTE_ADDR", "127.0.0.1"),
        ("HTTP_HOST", "blog.test"),
        ("REQUEST_URI", "/index.php/2020/post/?do=server&x=%20y"),
        ("SCRIPT_NAME", "/index.php"),
        ("PATH_INFO", "/2020/post/"),
        ("REQUEST_SCHEME", "http"),
        ("SERVER_PORT", "80"),
        ("HTTP_COOKIE", "a=1"),
        ("PHP_AUTH_USER", "u"),
        ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
    ] {
        assert_eq!(seen[name], wanted, "{name}");
    }
    assert!(seen["HTTPS"].is_null() && seen["HTTP_PROXY"].is_null());
    assert_eq!(seen["PRESSROOM_TOKEN"].as_str().map(str::len), Some(32));
}

#[test]
fn answers_pass_as_php_made_them() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    let answer = edge.get_with("/?do=cookie", "Authorization: x\r\n");
    assert_eq!(answer.head.matches("set-cookie:").count(), 2, "{}", answer.head);
    let answer = edge.get("/?do=exit");
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.header("x-thing")),
        (200, "before", Some("there"))
    );
    let answer = edge.get("/?do=stderr");
    assert_eq!(answer.text(), "said");
    let answer = edge.get("/?do=big&mb=40");
    assert!(answer.whole && answer.body.len() == 40 << 20);
    let answer =
        edge.raw("HEAD /?do=server HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let answer = edge.get_with("/?do=big&mb=2", "Authorization: x\r\nAccept-Encoding: gzip\r\n");
    assert_eq!(answer.header("content-encoding"), Some("gzip"), "{}", answer.head);
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).expect("gzip");
    assert_eq!(plain.len(), 2 << 20);
    let answer = edge.get("/some/permalink/?a=b");
    assert_eq!(answer.text(), "index /some/permalink/?a=b ");
    let answer = edge.get("/?do=headers");
    assert_eq!(answer.status, 502, "more than 64 KiB of headers");
}

/// The RSS of this process, of which the edge is a part.
fn rss() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).expect("there");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn a_big_upload_is_streamed_and_never_held() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    let piece = vec![b'u'; 1 << 20];
    let before = rss();
    let mut most = 0;
    let mut stream = edge.connect();
    let head = format!(
        "POST /?do=upload HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        200 << 20
    );
    stream.write_all(head.as_bytes()).expect("sent");
    for _ in 0..200 {
        stream.write_all(&piece).expect("sent");
        most = most.max(rss());
    }
    let answer = Answer::read(stream);
    assert!(answer.text().starts_with("209715200 "), "{} {}", answer.head, answer.text());
    assert!(most < before + (40 << 20), "{} MiB more", (most - before) >> 20);
}

#[test]
fn a_body_of_unknown_length_arrives_whole() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |s| s.sites[0].limits.upload = ByteSize::mib(4));
    for megabytes in [0, 3] {
        let mut stream = edge.connect();
        stream
            .write_all(b"POST /?do=upload HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            .expect("sent");
        stream.write_all(b"3\r\nabc\r\n").expect("sent");
        for _ in 0..megabytes {
            stream.write_all(b"100000\r\n").expect("sent");
            stream.write_all(&vec![b'u'; 1 << 20]).expect("sent");
            stream.write_all(b"\r\n").expect("sent");
        }
        stream.write_all(b"0\r\n\r\n").expect("sent");
        let answer = Answer::read(stream);
        let wanted = format!("{} ", 3 + (megabytes << 20));
        assert!(answer.text().starts_with(&wanted), "{} {}", answer.head, answer.text());
    }
}

#[test]
fn a_body_over_the_limit_is_refused_early() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |s| s.sites[0].limits.upload = ByteSize::mib(1));
    let mut stream = edge.connect();
    stream
        .write_all(
            b"POST /?do=upload HTTP/1.1\r\nHost: blog.test\r\nContent-Length: 2000000\r\n\r\n",
        )
        .expect("sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("an answer before any body was sent");
    assert_eq!(&first, b"HTTP/1.1 413");
    let mut stream = edge.connect();
    stream
        .write_all(
            b"POST /?do=upload HTTP/1.1\r\nHost: blog.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .expect("sent");
    stream.write_all(b"100001\r\n").expect("sent");
    stream.write_all(&vec![b'u'; (1 << 20) + 1]).expect("sent");
    stream.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 413");
}

#[test]
fn a_script_that_ignores_its_body_is_heard() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    let body = "u".repeat(2 << 20);
    let answer = edge.raw(&format!(
        "POST /?do=deaf HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nContent-Type: x/y\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.text(), "not interested", "{}", answer.head);
}

#[test]
fn a_client_that_leaves_stops_php() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    let edge = Edge::start(&place, &[(&fpm, 1)], |_| {});
    let mut stream = edge.connect();
    stream
        .write_all(b"GET /?do=endless HTTP/1.1\r\nHost: blog.test\r\nAuthorization: x\r\n\r\n")
        .expect("sent");
    let mut piece = [0; 65536];
    stream.read_exact(&mut piece).expect("a piece");
    drop(stream);
    until("PHP stopped", || place.path("scratch/stopped").exists());
    until("the slot is free", || edge.status()["busy"]["blog-1"] == 0);
    assert_eq!(edge.get("/?do=sleep&ms=0").status, 200);
}

#[test]
fn limits_of_time_and_size_cut_an_answer() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |s| {
        s.sites[0].limits.time = Span::millis(300);
        s.sites[0].limits.answer = ByteSize::mib(2);
    });
    assert_eq!(edge.get("/?do=sleep&ms=3000").status, 504);
    assert_eq!(edge.get("/?do=big&mb=64").status, 502, "nothing was sent yet");
    assert_eq!(edge.get("/?do=die-late").status, 502);
    let personal = "Authorization: x\r\n";
    let answer = edge.get_with("/?do=big&mb=64", personal);
    assert!(!answer.whole, "{} bytes", answer.body.len());
    assert!(answer.body.len() <= 2 << 20);
    let answer = edge.get_with("/?do=die-late", personal);
    assert!(
        !answer.whole,
        "cut answers must not look whole: {} {} bytes",
        answer.head,
        answer.body.len()
    );
}

#[test]
fn readiness_is_php_s_word_and_busy_is_no_fault() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    let mut edge =
        Edge::start(&place, &[(&fpm, 1)], |s| s.sites[0].limits.queue_time = Span::millis(300));
    assert_eq!(
        (edge.get("/.pressroom/ready").status, edge.get("/.pressroom/ready").text().as_str()),
        (200, "ready\n")
    );
    let mut holding = edge.connect();
    holding
        .write_all(b"GET /?do=hold HTTP/1.1\r\nHost: blog.test\r\nAuthorization: x\r\n\r\n")
        .expect("sent");
    until("it holds the worker", || place.path("scratch/held").exists());
    let answer = edge.get("/.pressroom/ready");
    assert_eq!((answer.status, answer.text().as_str()), (200, "busy\n"));
    assert_eq!(edge.get("/?do=server").status, 503);
    place.write("scratch/go", "");
    until("the slot is free", || edge.status()["busy"]["blog-1"] == 0);
    place.write("scratch/broken", "");
    assert_eq!(edge.get("/.pressroom/ready").status, 503);
    edge.publish(|s| s.sites[0].pool.clear());
    assert_eq!(edge.get("/.pressroom/ready").status, 503);
    assert_eq!(edge.get("/heartbeat.html").status, 200);
    drop(holding);
}

#[test]
fn a_password_in_front_is_asked_for_once_and_never_passed_on() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let mut edge = Edge::start(&place, &[(&fpm, 2)], |s| {
        s.sites[0].guard = Some(Guard {
            realm: "staging of blog".into(),
            passwords: vec![blake3::hash(b"sesame").to_hex().to_string()],
        });
    });
    for headers in ["", "Authorization: Bearer sesame\r\n", "Authorization: Basic dTpw\r\n"] {
        let answer = edge.get_with("/?do=server", headers);
        assert_eq!(answer.status, 401, "{headers}{}", answer.head);
        let asked = answer.header("www-authenticate");
        assert_eq!(asked, Some("Basic realm=\"staging of blog\", charset=\"UTF-8\""));
    }
    // `u:sesame`
    let known = "Authorization: Basic dTpzZXNhbWU=\r\n";
    let answer = edge.get_with("/?do=server", known);
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("x-robots-tag"), Some("noindex, nofollow"));
    let seen = &answer.json()["server"];
    assert!(seen["PHP_AUTH_USER"].is_null() && seen["HTTP_AUTHORIZATION"].is_null(), "{seen}");
    // Without the password it is a request like any other: it may be answered from the cache.
    assert_eq!(seen["PRESSROOM_CANONICAL"], "1");
    assert_eq!(edge.get("/.pressroom/ready").status, 200, "our own questions are for everybody");
    edge.publish(|s| s.sites[0].guard = None);
    assert_eq!(edge.get("/?do=server").status, 200);
}
