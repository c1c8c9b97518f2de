//! Edges of several nodes, as visitors of any of them meet them.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::harness::{Answer, until};

const ALL: &str = r#"{"all":true}"#;
const FRONT: &str = r#"{"tags":["front"]}"#;

fn renders(cluster: &Cluster) -> u32 {
    cluster.nodes.iter().map(super::cluster::Node::renders).sum()
}

#[test]
fn a_purge_is_confirmed_by_every_node_and_holds_there() {
    let cluster = Cluster::start(&[("a", 1), ("b", 1), ("c", 1)]);
    for node in &cluster.nodes {
        node.cache("/?do=page");
        assert_eq!(node.cache("/?do=page"), "hit");
    }
    let confirmed = |receipt: &serde_json::Value| {
        let nodes = receipt["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().map(|it| (it["node"].clone(), it["ok"].clone())).collect::<Vec<_>>()
    };
    let receipt = cluster.nodes[0].purge(FRONT).json();
    assert_eq!((&receipt["ok"], &receipt["pages"]), (&true.into(), &1.into()), "{receipt}");
    assert_eq!(confirmed(&receipt).len(), 2, "who confirms late is named as well: {receipt}");
    let all = [("n2".into(), true.into()), ("n3".into(), true.into())];
    until("all confirm in time", || confirmed(&cluster.nodes[0].purge(FRONT).json()) == all);
    let before = renders(&cluster);
    for node in &cluster.nodes {
        let said = node.cache("/?do=page");
        // The page's owner may have made it anew, for those that were asked before.
        let is_new = said == "hit" && renders(&cluster) > before;
        assert!(said == "stale" || is_new, "{}: {said}", node.name);
    }
}

#[test]
fn balancers_leave_a_drained_node_which_serves_on_and_a_removed_one_which_does_not() {
    let mut cluster = Cluster::start(&[("a", 1), ("b", 1)]);
    let edge = cluster.nodes[0].edge.as_mut().expect("it was started");
    let set = |is_drained, is_removed| {
        move |snapshot: &mut pressroom_model::snapshot::Snapshot| {
            let cluster = snapshot.cluster.as_mut().expect("in a cluster");
            (cluster.is_drained, cluster.is_removed) = (is_drained, is_removed);
        }
    };
    for (is_drained, is_removed, heartbeat, page) in [
        (false, false, (200, "alive\n"), 200),
        (true, false, (503, "drained\n"), 200),
        (false, true, (503, "removed\n"), 503),
        (false, false, (200, "alive\n"), 200),
    ] {
        edge.publish(set(is_drained, is_removed));
        let answer = edge.get("/heartbeat.html");
        assert_eq!((answer.status, answer.text().as_str()), heartbeat);
        let answer = edge.get("/?do=page");
        assert_eq!(answer.status, page, "{heartbeat:?}");
        assert_eq!(answer.header("retry-after").is_some(), page == 503);
        let is_told = edge.get("/.pressroom/ready").text().contains("was removed from its cluster");
        assert_eq!(is_told, is_removed, "in plain text: `status` shows it");
    }
}

#[test]
fn a_page_is_made_once_for_all_nodes_and_each_node_makes_its_share() {
    let cluster = Cluster::start(&[("a", 2), ("b", 2), ("c", 2)]);
    let paths: Vec<_> = (0..18).map(|n| format!("/?do=page&ms=20&n={n}")).collect();
    std::thread::scope(|scope| {
        for node in &cluster.nodes {
            let paths = &paths;
            scope.spawn(move || {
                for path in paths {
                    let answer = node.edge().get(path);
                    assert_eq!(answer.status, 200, "{}", answer.head);
                    assert!(answer.text().contains("words of a page"));
                }
            });
        }
    });
    // A loaded machine may find an owner slow, and make a page itself.
    assert!((18..30).contains(&renders(&cluster)), "{} for 54 askers", renders(&cluster));
    let shares: Vec<_> = cluster.nodes.iter().map(super::cluster::Node::renders).collect();
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    for (node, path) in cluster.nodes.iter().flat_map(|node| paths.iter().map(move |p| (node, p))) {
        assert_eq!(node.cache(path), "hit", "{} {path}", node.name);
    }
    // What a page was stored with came along: its tags, so that a purge meets it, and its age.
    assert_eq!(cluster.nodes[1].purge(FRONT).json()["pages"], 18);
}

#[test]
fn a_node_that_was_cut_off_says_so_and_serves_nothing_old_once_it_is_back() {
    let cluster = Cluster::start(&[("a", 1), ("b", 1)]);
    let (one, two) = (&cluster.nodes[0], &cluster.nodes[1]);
    two.cache("/?do=page");
    // Some of them are this node's own to make.
    let paths: Vec<_> = (0..8).map(|n| format!("/?do=page&n={n}")).collect();
    paths.iter().for_each(|path| drop(two.cache(path)));
    cluster.cut(1);
    until("it says that it is cut off", || {
        let answer = two.edge().get("/?do=page");
        let status = answer.header("cache-status").unwrap_or_default().to_owned();
        assert_eq!(answer.header("x-cache"), Some("hit"), "it serves on: {}", answer.head);
        status.contains("; detail=partitioned")
    });
    assert_eq!(two.edge().status()["partitioned"], true);
    for _ in 0..50 {
        let receipt = one.purge(FRONT).json();
        assert_eq!((&receipt["ok"], &receipt["nodes"][0]["ok"]), (&true.into(), &false.into()));
    }
    // Its PHP has no database yet.
    two.place.write("scratch/broken", "");
    cluster.heal(1);
    until("it is heard", || two.knows("n1").0);
    assert_eq!(two.cache("/?do=page"), "miss", "not even while it is made anew");
    for path in &paths {
        assert_eq!(two.cache(path), "miss", "another node makes it: {path}");
    }
    until("it is not cut off", || !two.edge().get("/?do=page").head.contains("partitioned"));
}

#[test]
fn a_zone_that_was_cut_off_serves_nothing_old_to_the_first_visitor_after_it() {
    let cluster = Cluster::start(&[("a", 1), ("a", 0), ("b", 0), ("a", 0), ("b", 0)]);
    let (most, few): (Vec<_>, Vec<_>) = (0..5).partition(|n| ![2, 4].contains(n));
    let is_partitioned = |n: usize| cluster.nodes[n].edge().status()["partitioned"] == true;
    let paths: Vec<_> = (0..8).map(|n| format!("/?do=page&n={n}")).collect();
    for round in 0..2 {
        for (node, path) in cluster.nodes.iter().flat_map(|it| paths.iter().map(move |p| (it, p))) {
            until("it is stored", || node.cache(path) == "hit");
        }
        // One node alone makes pages, each with a number of its own.
        let old: Vec<_> =
            paths.iter().map(|path| cluster.nodes[0].edge().get(path).text()).collect();
        cluster.part();
        // Its two nodes hear each other, and it is no use.
        for n in &few {
            until("the smaller part says so", || {
                let answer = cluster.nodes[*n].edge().get(&paths[0]);
                assert_eq!(answer.header("x-cache"), Some("hit"), "it serves on: {}", answer.head);
                let status = answer.header("cache-status").unwrap_or_default();
                status.contains("; detail=partitioned") && is_partitioned(*n)
            });
        }
        assert!(!most.iter().any(|n| is_partitioned(*n)), "{round}");
        let receipt = cluster.nodes[0].purge(FRONT).json();
        assert_eq!(receipt["nodes"].as_array().map(Vec::len), Some(4), "{receipt}");
        cluster.unite();
        for (n, path, old) in
            few.iter().flat_map(|n| paths.iter().zip(&old).map(move |(p, o)| (n, p, o)))
        {
            let answer = cluster.nodes[*n].edge().get(path);
            assert_eq!(answer.status, 200, "{}", answer.head);
            assert_ne!(answer.text(), *old, "{round}: n{} {path}: {}", n + 1, answer.head);
        }
        until("all are together", || (0..5).all(|n| !is_partitioned(n)));
    }
}

#[test]
fn an_edge_that_others_do_not_reach_asks_them_before_it_serves() {
    let cluster = Cluster::start(&[("a", 1), ("b", 0), ("c", 0)]);
    let (one, two) = (&cluster.nodes[0], &cluster.nodes[1]);
    let peer = |which: &str| two.edge().status()["peers"]["n1"][which] == true;
    cluster.bar(1);
    until("they hear it no more", || two.edge().status()["partitioned"] == true);
    assert!(peer("heard") && !peer("hears_us"), "it hears them");
    for round in 0..5 {
        until("it is stored", || two.cache("/?do=page") == "hit");
        let receipt = one.purge(FRONT).json();
        let is_owed =
            |receipt: &serde_json::Value| receipt["node"] == "n2" && receipt["ok"] == false;
        assert!(
            receipt["nodes"].as_array().is_some_and(|all| all.iter().any(is_owed)),
            "{receipt}"
        );
        assert_ne!(two.cache("/?do=page"), "hit", "{round}");
    }
}

#[test]
fn an_edge_that_starts_hears_what_it_missed_before_it_serves() {
    let mut cluster = Cluster::start(&[("a", 1), ("b", 1)]);
    for path in ["/?do=page", "/?do=page&other=1"] {
        cluster.nodes[1].cache(path);
    }
    cluster.stop(1);
    cluster.boot(1);
    assert_eq!(cluster.nodes[1].cache("/?do=page"), "hit", "nothing was purged meanwhile");
    cluster.stop(1);
    cluster.nodes[0].purge(r#"{"urls":["/?do=page"]}"#);
    cluster.boot(1);
    assert_eq!(cluster.nodes[1].cache("/?do=page&other=1"), "hit");
    assert_ne!(cluster.nodes[1].cache("/?do=page"), "hit");
    // Whoever cannot be asked may have purged anything.
    cluster.stop(1);
    cluster.cut(1);
    let begun = Instant::now();
    cluster.boot(1);
    assert!(begun.elapsed() < Duration::from_secs(8), "bounded");
    assert_ne!(cluster.nodes[1].cache("/?do=page&other=1"), "hit");
}

#[test]
fn a_node_without_php_is_served_by_others_as_if_it_had_some() {
    let cluster = Cluster::start(&[("a", 0), ("a", 2), ("b", 2)]);
    let one = cluster.nodes[0].edge();
    let told = one.get_with("/?do=server", "Authorization: x\r\nX-Pressroom-Mesh-Address: 9.9.9.9\r\nX-Pressroom-Mesh-Kind: change\r\n").json();
    let server = &told["server"];
    assert_eq!(server["REMOTE_ADDR"], "127.0.0.1");
    assert_eq!(server["HTTP_HOST"], "blog.test");
    assert_eq!(server["REQUEST_SCHEME"], "http");
    assert!(!told.to_string().contains("9.9.9.9") && !told.to_string().contains("MESH"), "{told}");
    let answer = one.get_with("/?do=server", "Authorization: x\r\n");
    let id = answer.header("x-request-id").expect("an id").to_owned();
    assert_eq!(answer.json()["server"]["PRESSROOM_REQUEST_ID"], *id);

    for length in [0, 10, 3_000_000] {
        let head = format!(
            "POST /?do=upload HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut stream = one.connect();
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(&vec![b'u'; length]).expect("sent");
        let answer = Answer::read(stream);
        assert!(
            answer.text().starts_with(&format!("{length} ")),
            "{} {}",
            answer.head,
            answer.text()
        );
    }
    let big = one.get_with("/?do=big&mb=20", "Authorization: x\r\n");
    assert_eq!((big.status, big.whole, big.body.len()), (200, true, 20 << 20));
    assert_eq!(one.get("/?do=page").header("x-cache"), Some("miss"));
    assert_eq!(one.get("/?do=page").header("x-cache"), Some("hit"));
    let unaffirmed = one.get("/?do=server");
    assert_eq!(
        (unaffirmed.status, unaffirmed.header("x-cache")),
        (200, Some("miss")),
        "{}",
        unaffirmed.head
    );
    assert_eq!(one.get("/?do=server").header("x-cache"), Some("miss"));
}

#[test]
fn a_cookie_that_a_site_set_at_one_node_bypasses_at_all() {
    let cluster = Cluster::start(&[("a", 1), ("b", 1), ("c", 0)]);
    for node in &cluster.nodes {
        node.cache("/?do=page");
        let answer = node.edge().get_with("/?do=page", "Cookie: second=2\r\n");
        assert_eq!(answer.header("x-cache"), Some("hit"), "nobody knows that cookie yet");
    }
    cluster.nodes[0].cache("/?do=cookie");
    for node in &cluster.nodes {
        until("it is known", || {
            let answer = node.edge().get_with("/?do=page", "Cookie: second=2\r\n");
            answer.header("x-cache") == Some("bypass")
        });
    }
}

#[test]
fn no_visitor_reaches_what_edges_ask_each_other() {
    let cluster = Cluster::start(&[("a", 0), ("b", 1)]);
    let (one, two) = (cluster.nodes[0].edge(), cluster.nodes[1].edge());
    cluster.nodes[1].cache("/?do=page");
    let batch = r#"{"epoch":9,"run":9,"first":9,"items":[{"site":"blog","purge":{"all":true}}]}"#;
    for edge in [one, two] {
        for path in ["purges", "missed", "alive"] {
            let answer = edge.raw(&format!(
                "POST /.pressroom/mesh/{path} HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{batch}",
                batch.len()
            ));
            assert!(
                !answer.text().contains("epoch") && !answer.text().contains("alive"),
                "{}",
                answer.text()
            );
        }
    }
    // An unsafe request ends in silence here: only that makes pages stale, and it says so.
    assert_eq!(two.status()["peers"]["n1"]["heard"], true);
}

#[test]
fn a_dead_node_is_not_asked_until_it_answers_probes() {
    let cluster = Cluster::start(&[("a", 0), ("a", 1), ("b", 1)]);
    let one = &cluster.nodes[0];
    cluster.kill(1);
    for n in 0..30 {
        let path = format!("/?do=page&n={n}");
        let answer = one.edge().get(&path);
        assert_eq!(answer.status, 200, "{n}: {}", answer.head);
        let answer = one.edge().get_with("/?do=server", "Authorization: x\r\n");
        assert_eq!(answer.status, 200, "{n}: {}", answer.head);
    }
    until("it is not asked", || !one.knows("n2").1);
    assert!(one.edge().status()["peers"]["n2"]["because"].is_string());
    cluster.heal(1);
    until("it is asked again", || one.knows("n2").1);
    // Nobody is left: a page that is there is served, everything else says when to come again.
    one.cache("/?do=page&n=1");
    cluster.kill(1);
    cluster.kill(2);
    one.purge(ALL);
    assert_eq!(one.cache("/?do=page&n=1"), "stale");
    let answer = one.edge().get("/?do=page&n=99");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.head);
    let answer = one.edge().get_with("/?do=server", "Authorization: x\r\n");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.head);
}

#[test]
fn a_silent_owner_delays_a_page_by_a_moment() {
    let cluster = Cluster::start(&[("a", 1), ("b", 1)]);
    cluster.cut(1);
    let mut longest = Duration::ZERO;
    for n in 0..10 {
        let begun = Instant::now();
        assert_eq!(cluster.nodes[0].edge().get(&format!("/?do=page&n={n}")).status, 200);
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    until("it is not asked", || !cluster.nodes[0].knows("n2").1);
    assert_eq!(cluster.nodes[0].renders(), 10);
}

#[test]
fn a_busy_node_gives_requests_to_one_that_has_time() {
    let cluster = Cluster::start(&[("a", 1), ("a", 4)]);
    let (one, two) = (&cluster.nodes[0], &cluster.nodes[1]);
    let hold = || {
        let mut stream = one.edge().connect();
        stream
            .write_all(b"GET /?do=hold HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nAuthorization: x\r\n\r\n")
            .expect("sent");
        stream
    };
    let holding = hold();
    until("it holds the worker", || one.place.path("scratch/held").exists());
    // One may wait here; the next ones are answered there.
    let waiting = hold();
    until("one waits", || one.edge().status()["queued"] == 1);
    for _ in 0..5 {
        assert_eq!(one.edge().get_with("/?do=server", "Authorization: x\r\n").status, 200);
        assert_eq!(one.edge().raw("POST /?do=upload HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab").status, 200);
    }
    one.place.write("scratch/go", "");
    two.place.write("scratch/go", "");
    assert_eq!(Answer::read(holding).text(), "held");
    assert_eq!(Answer::read(waiting).text(), "held");
}

#[test]
fn media_comes_from_whoever_has_it() {
    let cluster = Cluster::start(&[("a", 1), ("b", 1), ("c", 1)]);
    cluster.nodes[2].place.write("uploads/2026/cat.jpg", vec![7u8; 100_000]);
    let one = cluster.nodes[0].edge();
    let path = "/wp-content/uploads/2026/cat.jpg";
    let answer = one.get(path);
    assert_eq!(
        (answer.status, answer.body.len(), answer.whole),
        (200, 100_000, true),
        "{}",
        answer.head
    );
    let part = one.get_with(path, "Range: bytes=10-19\r\n");
    assert_eq!((part.status, part.body.len()), (206, 10), "{}", part.head);
    let tag = answer.header("etag").expect("a tag").to_owned();
    let same = one.get_with(path, &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((same.status, same.body.len()), (304, 0), "{}", same.head);
    let head =
        one.raw(&format!("HEAD {path} HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n\r\n"));
    assert_eq!((head.status, head.header("content-length")), (200, Some("100000")));
    let begun = Instant::now();
    let absent = one.get("/wp-content/uploads/2026/dog.jpg");
    assert!(
        absent.text().starts_with("index "),
        "nobody has it, so WordPress says what it says: {}",
        absent.head
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}
