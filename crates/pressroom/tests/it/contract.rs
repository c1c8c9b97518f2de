//! The contract that people's scripts call: `up`, `status --json`, `down`, and what every page answer carries.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::house::{House, free_port};

#[test]
fn up_serves_changes_nothing_twice_follows_its_ports_and_down_leaves_nothing() {
    let mut house = House::empty();
    let password = house.folder().join("password").to_string_lossy().into_owned();
    let up = |house: &House| {
        let [http, https, console] =
            [house.http, house.https, house.console].map(|port| format!("127.0.0.1:{port}"));
        let start = Instant::now();
        house.must(&[
            "up",
            "--yes",
            "--detach",
            "--http",
            &http,
            "--https",
            &https,
            "--console",
            &console,
            "--site",
            "blog",
            "--admin-password-file",
            &password,
        ]);
        start.elapsed()
    };

    println!("first up: {:?}", up(&house));
    serves(&house);
    check_status(&house.status());
    let mut admin = house.visitor("blog");
    admin.log_in("admin", crate::house::PASSWORD);
    assert_eq!(admin.get("/wp-admin/").status, 200);

    let before = house.pids();
    let second = up(&house);
    println!("second up: {second:?}");
    // The author instance may have come since: an administrator looked at wp-admin.
    let now = house.pids();
    let lost: Vec<_> = before.iter().filter(|process| !now.contains(process)).collect();
    assert!(lost.is_empty(), "a second `up` restarts nothing: {lost:?}");
    assert!(second < Duration::from_secs(4), "a second `up` took {second:?}");

    let kept: BTreeMap<_, _> = before.into_iter().filter(|(name, _)| name != "edge").collect();
    (house.http, house.https, house.console) = (free_port(), free_port(), free_port());
    up(&house);
    serves(&house);
    assert_eq!(house.home("blog"), format!("https://localhost:{}", house.https));
    let after: BTreeMap<_, _> = house.pids().into_iter().collect();
    for engine in ["keeper", "mariadb", "redis-cache", "redis-sessions"] {
        assert_eq!(
            after.get(engine),
            kept.get(engine),
            "new ports are no reason to restart {engine}"
        );
    }

    house.must(&["down"]);
    assert_eq!(house.processes(), [], "processes of the data directory after `down`");
}

/// The front page over HTTPS, first rendered, then from the cache, with links to where it really is.
fn serves(house: &House) {
    let mut visitor = house.visitor("blog");
    let page = visitor.get("/");
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains(&house.home("blog")), "links follow the ports: {}", page.body);
    assert!(page.header("cache-status").starts_with("pressroom"), "{page:?}");
    crate::house::wait_until("the front page is stored", Duration::from_secs(5), || {
        visitor.get("/").cache() == "hit"
    });
    assert_eq!(visitor.get("/wp-admin/").cache(), "bypass");
}

fn check_status(status: &Value) {
    assert_eq!(status["version"], 1);
    for pointer in [
        "/keeper/pid",
        "/agent/pid",
        "/edge/pid",
        "/sites/0/instances/0/pid",
        "/sites/0/instances/0/workers",
    ] {
        assert!(status.pointer(pointer).is_some_and(Value::is_i64), "{pointer} in {status}");
    }
    for pointer in
        ["/edge/verdict", "/sites/0/verdict", "/sites/0/instances/0/verdict", "/engines/0/verdict"]
    {
        assert!(
            matches!(status.pointer(pointer).and_then(Value::as_str), Some("healthy" | "busy")),
            "{pointer} in {status}"
        );
    }
    for pointer in [
        "/sites/0/name",
        "/sites/0/url",
        "/sites/0/release",
        "/sites/0/instances/0/id",
        "/engines/0/name",
    ] {
        assert!(status.pointer(pointer).is_some_and(Value::is_string), "{pointer} in {status}");
    }
    assert!(status.pointer("/sites/0/instances/0/busy").is_some_and(Value::is_i64), "{status}");
    let names: Vec<_> =
        status["engines"].as_array().expect("engines").iter().map(|e| e["name"].clone()).collect();
    for engine in ["mariadb", "redis-cache", "redis-sessions"] {
        assert!(names.contains(&engine.into()), "{engine} in {names:?}");
    }
}
