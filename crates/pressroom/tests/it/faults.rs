//! Every process is killed and frozen in turn under load: who notices, for how long, and what must never be lost.
//!
//! The table that the test prints is for people; the assertions are the promises of the failure table in the guide.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::house::{House, PASSWORD, signal, tree_with, wait_until};
use crate::load::{Load, Sample, Who};
use crate::visitor::Visitor;

/// A PHP session with a cart in it, as shops have them.
const CART: &str = "<?php session_start(); if (isset($_GET['add'])) { $_SESSION['cart'][] = $_GET['add']; } \
                    header('Content-Type: text/plain'); echo implode(',', $_SESSION['cart'] ?? []);";

/// Longest wait for health after a fault.
const DEADLINE: Duration = Duration::from_secs(60);

struct Fault {
    name: &'static str,
    find: fn(&House) -> i32,
}

const FAULTS: [Fault; 8] = [
    Fault { name: "php worker", find: worker },
    Fault { name: "php-fpm master", find: |house| house.pid("/sites/0/instances/0/pid") },
    Fault { name: "edge", find: |house| house.pid("/edge/pid") },
    Fault { name: "agent", find: |house| house.pid("/agent/pid") },
    Fault { name: "keeper", find: |house| house.pid("/keeper/pid") },
    Fault { name: "mariadb", find: |house| house.engine("mariadb") },
    Fault { name: "redis-cache", find: |house| house.engine("redis-cache") },
    Fault { name: "redis-sessions", find: |house| house.engine("redis-sessions") },
];

/// One of the workers: a child of the php-fpm master.
fn worker(house: &House) -> i32 {
    let master = house.pid("/sites/0/instances/0/pid");
    let children =
        fs::read_to_string(format!("/proc/{master}/task/{master}/children")).expect("its children");
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a worker")
}

/// A house with the cart, somebody who is logged in, and a front page in the cache.
fn furnished() -> (House, Visitor, Visitor) {
    let house = House::empty();
    let tree = tree_with(house.folder(), &[("cart.php", CART)]);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\nworkers = 4",
        tree.display()
    ));
    house.up();
    let mut editor = house.visitor("blog");
    editor.log_in("admin", PASSWORD);
    let mut reader = house.visitor("blog");
    wait_until("a hit", Duration::from_secs(10), || reader.get("/").cache() == "hit");
    (house, reader, editor)
}

#[test]
fn every_process_may_die_or_freeze_and_nothing_acknowledged_is_lost() {
    let (house, reader, editor) = furnished();
    let mut shopper = reader.clone();
    shopper.get("/cart.php?add=apples");
    let mut table = String::from(
        "| fault | requests | failed anonymous | logged in | comments | refused | slowest s | last failure s | healthy again s |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut promises = Vec::new();
    let mut acknowledged = Vec::new();
    for kind in [Signal::KILL, Signal::STOP] {
        for fault in &FAULTS {
            let name = format!(
                "{} of {}",
                if kind == Signal::KILL { "kill -9" } else { "SIGSTOP" },
                fault.name
            );
            let before = house.pids();
            let load = Load::start(&reader, &editor, 1);
            std::thread::sleep(Duration::from_secs(1)); // the load before the fault
            let pid = (fault.find)(&house);
            let struck = Instant::now();
            signal(pid, kind);
            let healthy = recovery(&house, fault.name, pid, kind, struck);
            std::thread::sleep(Duration::from_secs(2)); // the load after it
            let (samples, words) = load.end();
            table.push_str(&line(&name, &samples, struck, healthy));
            println!("{}", table.lines().last().unwrap_or(""));
            for (words, count) in failures(&samples) {
                println!("    {count} × {words}");
            }
            acknowledged.extend(words);
            if healthy.is_none() {
                signal(pid, Signal::CONT);
                promises.push(format!("{name}: not healthy again within {DEADLINE:?}"));
                wait_until("health after SIGCONT", DEADLINE, || house.is_healthy());
            }
            promises.extend(broken_promises(fault.name, &name, &samples, struck));
            if ["agent", "keeper"].contains(&fault.name) {
                let changed = restarted(&before, &house.pids(), fault.name);
                if !changed.is_empty() {
                    promises.push(format!("{name}: healthy children were restarted: {changed:?}"));
                }
            }
        }
    }
    println!("{table}");
    let kept = house
        .php("blog", "foreach ( get_comments() as $c ) { echo $c->comment_content, \"\\n\"; }");
    let lost: Vec<_> =
        acknowledged.iter().filter(|words| !kept.lines().any(|line| line == *words)).collect();
    println!("{} comments acknowledged, {} lost", acknowledged.len(), lost.len());
    assert!(lost.is_empty(), "acknowledged comments are gone: {lost:?}");
    assert_eq!(shopper.get("/cart.php").body, "apples", "the cart after every fault");
    assert!(promises.is_empty(), "{}", promises.join("\n"));
}

/// How long it takes until everything is healthy with the struck process replaced, or running again.
fn recovery(
    house: &House,
    name: &str,
    pid: i32,
    kind: Signal,
    struck: Instant,
) -> Option<Duration> {
    let recovered = || match name {
        "php worker" => !is_stopped(pid) && house.is_healthy(),
        _ => house.is_healthy_without(pid),
    };
    while struck.elapsed() < DEADLINE {
        if recovered() && (kind == Signal::KILL || !is_stopped(pid)) {
            return Some(struck.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn line(name: &str, samples: &[Sample], struck: Instant, healthy: Option<Duration>) -> String {
    let failed =
        |who| samples.iter().filter(|sample| sample.who == who && sample.failure.is_some()).count();
    let refused = samples.iter().filter(|sample| sample.was_refused).count();
    let slowest = samples.iter().map(|sample| sample.took).max().unwrap_or_default();
    let last = samples
        .iter()
        .filter(|sample| sample.failure.is_some())
        .map(|sample| sample.began + sample.took)
        .max();
    let last = last.map_or("–".into(), |at| {
        format!("{:.1}", at.saturating_duration_since(struck).as_secs_f32())
    });
    let healthy = healthy.map_or("never".into(), |after| format!("{:.1}", after.as_secs_f32()));
    let mut line = String::new();
    writeln!(
        line,
        "| {name} | {} | {} | {} | {} | {refused} | {:.2} | {last} | {healthy} |",
        samples.len(),
        failed(Who::Anonymous),
        failed(Who::LoggedIn),
        failed(Who::Commenter),
        slowest.as_secs_f32(),
    )
    .expect("a string takes text");
    line
}

fn failures(samples: &[Sample]) -> std::collections::BTreeMap<String, usize> {
    let mut counts = std::collections::BTreeMap::new();
    for sample in samples {
        if let Some(words) = &sample.failure {
            *counts.entry(format!("{:?}: {words}", sample.who)).or_default() += 1;
        }
    }
    counts
}

/// What the failure table promises of one fault, where it did not hold.
fn broken_promises(fault: &str, name: &str, samples: &[Sample], struck: Instant) -> Vec<String> {
    let mut broken = Vec::new();
    let anonymous = || samples.iter().filter(|sample| sample.who == Who::Anonymous);
    let failed = anonymous().filter(|sample| sample.failure.is_some()).count();
    if samples.iter().any(|sample| sample.was_refused) {
        broken.push(format!("{name}: connections were refused"));
    }
    match fault {
        // A connection that was open when it died may break: one for each visitor.
        "edge" => {
            if failed > 2 {
                broken.push(format!("{name}: {failed} anonymous requests failed"));
            }
            let after =
                anonymous().find(|sample| sample.began > struck && sample.failure.is_none());
            if let Some(first) =
                after.filter(|first| !["hit", "stale"].contains(&first.cache.as_str()))
            {
                broken.push(format!(
                    "{name}: the hot page was `{}` for the first visitor afterwards",
                    first.cache
                ));
            }
        }
        _ if failed > 0 => broken.push(format!("{name}: {failed} anonymous requests failed")),
        _ => {}
    }
    let is_silent = ["agent", "keeper", "redis-cache", "redis-sessions"].contains(&fault);
    if is_silent && let Some(sample) = samples.iter().find(|sample| sample.failure.is_some()) {
        broken.push(format!(
            "{name}: {:?} noticed: {}",
            sample.who,
            sample.failure.as_deref().unwrap_or("")
        ));
    }
    broken
}

fn restarted(before: &[(String, i64)], after: &[(String, i64)], struck: &str) -> Vec<String> {
    let changed = before.iter().filter(|(name, pid)| {
        name != struck && !after.iter().any(|(known, now)| known == name && now == pid)
    });
    changed.map(|(name, _)| name.clone()).collect()
}

/// A process that stands still while this lives.
struct Frozen(i32);

impl Frozen {
    fn new(pid: i32) -> Self {
        signal(pid, Signal::STOP);
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

#[test]
fn changes_reach_visitors_while_the_agent_is_away() {
    let (house, mut reader, mut editor) = furnished();
    let before = house.pids();
    let agent = house.pid("/agent/pid");
    let keeper = house.pid("/keeper/pid");
    let frozen = [Frozen::new(agent), Frozen::new(keeper)];
    let title = "Written without an agent";
    let answer = editor.rest("/wp/v2/posts/1", &serde_json::json!({ "title": title }));
    let seen = wait_until("the new title", Duration::from_secs(5), || {
        reader.get("/").body.contains(title)
    });
    drop(frozen);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(seen <= Duration::from_secs(1), "seen after {seen:?}");
    wait_until("health", DEADLINE, || house.is_healthy());
    let changed = restarted(&before, &house.pids(), "agent");
    assert!(changed.iter().all(|name| name == "keeper"), "restarted: {changed:?}");
}

#[test]
fn a_cart_outlives_the_cache_redis() {
    let (house, mut reader, _) = furnished();
    assert_eq!(reader.get("/cart.php?add=pears").body, "pears");
    let killed = house.engine("redis-cache");
    signal(killed, Signal::KILL);
    assert_eq!(
        reader.get("/cart.php?add=plums").body,
        "pears,plums",
        "while the cache Redis is away"
    );
    wait_until("another one", DEADLINE, || house.is_healthy_without(killed));
    let killed = house.engine("redis-sessions");
    signal(killed, Signal::KILL);
    wait_until("another one", DEADLINE, || house.is_healthy_without(killed));
    assert_eq!(reader.get("/cart.php").body, "pears,plums", "after the sessions Redis was killed");
}
