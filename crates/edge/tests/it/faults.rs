//! What goes wrong, and who notices.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Answer, Edge, Fpm, Place, until};
use pressroom_model::unit::Span;

#[test]
fn a_worker_that_dies_unanswered_costs_a_get_nothing_and_a_post_itself() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    assert_eq!(edge.get("/?do=die-once").text(), "alive");
    let post = "POST /?do=die HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let answer = edge.raw(post);
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains(answer.header("x-request-id").expect("an id")));
    assert_eq!(
        std::fs::read_to_string(place.path("scratch/deaths")).expect("there"),
        "x",
        "sent once"
    );
    assert_eq!(edge.get("/?do=die").status, 502);
    assert_eq!(
        std::fs::read_to_string(place.path("scratch/deaths")).expect("there"),
        "xxx",
        "a GET is sent twice, not more"
    );
}

#[test]
fn a_full_queue_answers_503_at_once_and_a_late_one_in_time() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    let edge = Edge::start(&place, &[(&fpm, 1)], |s| {
        s.sites[0].limits.queue = 1;
        s.sites[0].limits.queue_time = Span::millis(400);
    });
    let hold = |path: &str| {
        let mut stream = edge.connect();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nAuthorization: x\r\n\r\n").as_bytes())
            .expect("sent");
        stream
    };
    let holding = hold("/?do=hold");
    until("it holds the worker", || place.path("scratch/held").exists());
    let waiting = hold("/?do=server");
    until("one waits", || edge.status()["queued"] == 1);
    let begun = Instant::now();
    let answer = edge.get("/?do=server");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert!(begun.elapsed() < Duration::from_millis(300), "at once");
    assert_eq!(Answer::read(waiting).status, 503, "late");
    place.write("scratch/go", "");
    assert_eq!(Answer::read(holding).text(), "held");
}

#[test]
fn a_restart_of_php_fpm_fails_no_get() {
    let place = Place::new();
    let mut fpm = Fpm::start(&place, 1, 2);
    let edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    let (stop, bad, good) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let answer = edge.get_with("/?do=sleep&ms=2", "Authorization: x\r\n");
                    let count = if answer.status == 200 && answer.whole { &good } else { &bad };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for signal in ["-TERM", "-QUIT", "-TERM"] {
            let before = good.load(Ordering::Relaxed);
            until("answers come", || good.load(Ordering::Relaxed) > before + 20);
            fpm.stop(signal);
            fpm.boot();
        }
        let before = good.load(Ordering::Relaxed);
        until("answers come again", || good.load(Ordering::Relaxed) > before + 20);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(bad.load(Ordering::Relaxed), 0, "of {}", good.load(Ordering::Relaxed));
}

#[test]
fn an_instance_has_as_many_requests_as_workers_over_all_cores() {
    let place = Place::new();
    let (one, two) = (Fpm::start(&place, 1, 1), Fpm::start(&place, 2, 2));
    let edge = Edge::start(&place, &[(&one, 1), (&two, 2)], |_| {});
    let most = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| edge.get_with("/?do=sleep&ms=60", "Authorization: x\r\n").status)
            })
            .collect();
        while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let status = edge.status();
            assert!(
                status["busy"]["blog-1"].as_u64() <= Some(1)
                    && status["busy"]["blog-2"].as_u64() <= Some(2)
            );
            most.fetch_max(
                status["busy"]["blog-2"].as_u64().unwrap_or(0) as u32,
                Ordering::Relaxed,
            );
        }
        for client in clients {
            assert_eq!(client.join().expect("no panic"), 200);
        }
    });
    assert_eq!(most.load(Ordering::Relaxed), 2);
}

#[test]
fn a_bad_snapshot_changes_nothing_even_over_a_restart() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    let mut edge = Edge::start(&place, &[(&fpm, 1)], |_| {});
    edge.publish(|s| s.sites[0].domains.push("new.test".into()));
    let new = "GET /heartbeat.html HTTP/1.1\r\nHost: new.test\r\nConnection: close\r\n\r\n";
    std::fs::write(edge.snapshot_file(), "{ broken").expect("written");
    assert_eq!(edge.raw(new).status, 200);
    assert_eq!(edge.get("/?do=server").status, 200);
    edge.stop();
    let _ = std::fs::remove_file(place.path("run/affirm.sock"));
    let kept = std::fs::read(place.path("state/snapshot.json")).expect("kept");
    let kept: serde_json::Value = serde_json::from_slice(&kept).expect("JSON");
    assert_eq!(kept["generation"], 2);
}

#[test]
fn a_slow_loris_is_closed_and_disturbs_nobody() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    let edge = Edge::start(&place, &[(&fpm, 1)], |_| {});
    let mut slow: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = edge.connect();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: blog.test\r\n").expect("sent");
            stream
        })
        .collect();
    assert_eq!(edge.get("/?do=server").status, 200);
    let begun = Instant::now();
    let mut trickle = slow.pop().expect("one");
    trickle.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    loop {
        assert!(begun.elapsed() < Duration::from_secs(25), "not closed");
        let _ = trickle.write_all(b"X-A: b\r\n");
        match trickle.read(&mut [0; 100]) {
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            _ => break,
        }
    }
    assert!(begun.elapsed() > Duration::from_secs(10));
    let metrics = edge.control("GET", "/metrics", "").text();
    assert!(metrics.contains("pressroom_slow_connections_closed_total"), "{metrics}");
}

#[test]
fn a_slow_upload_holds_no_worker() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    let edge = Edge::start(&place, &[(&fpm, 1)], |_| {});
    let head = "POST /?do=upload HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n";
    let mut slow = edge.connect();
    slow.write_all(head.as_bytes()).expect("sent");
    slow.write_all(&[b'u'; 1000]).expect("sent");
    std::thread::sleep(Duration::from_millis(400));
    slow.write_all(&[b'u'; 299_000]).expect("sent");
    assert_eq!(edge.get_with("/?do=server", "Authorization: x\r\n").status, 200);
    slow.write_all(&[b'u'; 700_000]).expect("sent");
    let answer = Answer::read(slow);
    assert!(answer.text().starts_with("1000000 "), "{} {}", answer.head, answer.text());
}

#[test]
fn draining_finishes_requests_in_progress() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 1);
    let mut edge = Edge::start(&place, &[(&fpm, 1)], |_| {});
    let accepted = |edge: &Edge| {
        let metrics = edge.control("GET", "/metrics", "").text();
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("pressroom_connections_total "));
        line.and_then(|count| count.parse::<u32>().ok()).expect("it is counted")
    };
    let before = accepted(&edge);
    let mut holding = edge.connect();
    holding
        .write_all(b"GET /?do=hold HTTP/1.1\r\nHost: blog.test\r\nAuthorization: x\r\n\r\n")
        .expect("sent");
    until("it holds the worker", || place.path("scratch/held").exists());
    let go = place.path("scratch/go");
    // Its request is on its way when the edge is told to stop; another one has had its answer, and is closed then.
    let (mut fresh, mut idle) = (edge.connect(), edge.connect());
    let ask = b"GET /heartbeat.html HTTP/1.1\r\nHost: blog.test\r\n\r\n";
    idle.write_all(ask).expect("sent");
    assert!(idle.read(&mut [0; 4096]).expect("an answer") > 0);
    // One that still waits in the socket is the next edge's.
    until("all are accepted", || accepted(&edge) == before + 3);
    let release = std::thread::spawn(move || {
        while idle.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
        fresh.write_all(ask).expect("sent");
        let answer = Answer::read(fresh);
        std::fs::write(go, "").expect("written");
        answer
    });
    edge.stop();
    assert_eq!(Answer::read(holding).text(), "held");
    let answer = release.join().expect("no panic");
    assert_eq!(answer.status, 200, "{}", answer.head);
}
