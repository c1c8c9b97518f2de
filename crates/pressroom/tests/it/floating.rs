//! A floating address: visitors reach the cluster there, whichever node is lost.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::house::wait_until;
use crate::lab::{Lab, text};

/// A file of WordPress's, which every edge serves by itself.
const FILE: &str = "/wp-includes/css/dist/block-library/style.min.css";
/// Longer than that visitors are without an answer only if something slower than VRRP moves the address. A second is usual.
const GAP: Duration = Duration::from_secs(10);

/// Whether the interfaces of a node have an address.
fn has(lab: &Lab, number: usize, address: &str) -> bool {
    let name = text(&lab.node(number)["name"]);
    let found = lab.run(&["exec", name, "--", "ip", "-o", "address", "show", "to", address]);
    !found.stdout.is_empty()
}

fn holders(lab: &Lab, address: &str) -> Vec<usize> {
    [1, 2].into_iter().filter(|number| has(lab, *number, address)).collect()
}

/// The one node that has it, once there is one.
fn holder(lab: &Lab, address: &str) -> usize {
    let mut found = Vec::new();
    wait_until("one node that has it", Duration::from_secs(15), || {
        found = holders(lab, address);
        found.len() == 1
    });
    found[0]
}

/// The longest time between two answers at an address, from before something happens until `is_over` holds and some more answers came.
fn longest_gap(
    lab: &Lab,
    address: &str,
    happens: impl FnOnce(),
    is_over: impl Fn() -> bool,
) -> Duration {
    let (is_ended, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let visit = || {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while !is_ended.load(Ordering::Relaxed) {
            let quick = ["-m", "0.4", "-o", "/dev/null", "-w", "%{http_code}"];
            if lab.fetch_at("client", address, &quick, FILE) == "200" {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        longest.max(last.elapsed())
    };
    std::thread::scope(|scope| {
        let visitor = scope.spawn(visit);
        happens();
        wait_until("the other node has it", Duration::from_secs(15), is_over);
        let before = answers.load(Ordering::Relaxed);
        wait_until("more answers", Duration::from_secs(15), || {
            answers.load(Ordering::Relaxed) >= before + 20
        });
        is_ended.store(true, Ordering::Relaxed);
        visitor.join().expect("no panic")
    })
}

/// Has the cluster take other addresses, at the first node.
fn apply(lab: &Lab, addresses: &[String]) {
    let file = lab.folder().join("n1/pressroom.toml");
    let before = fs::read_to_string(&file).expect("the configuration");
    let line = format!("addresses = {addresses:?}");
    let is_it = |line: &&str| line.starts_with("addresses = ");
    let old = before.lines().find(is_it).expect("the key").to_owned();
    fs::write(&file, before.replace(&old, &line)).expect("written");
    // A node that was lost may have led.
    wait_until("a leader takes it", Duration::from_secs(30), || {
        lab.on(1, &["apply", "--yes"]).status.success()
    });
}

fn shown(lab: &Lab, number: usize, address: &str) -> Value {
    let status = lab.on(number, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    let all = status["addresses"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|it| it["address"] == address).unwrap_or_default()
}

#[test]
fn visitors_reach_a_floating_address_whichever_node_is_lost() {
    let Some(lab) = Lab::up(2, &["--zones", "a,b", "--addresses", "1"]) else { return };
    let address = text(&lab.made["addresses"][0]).to_owned();
    let name = |number: usize| text(&lab.node(number)["name"]).to_owned();
    let serves = |number: usize| lab.visit("client", number, FILE) == 200;
    let moves = |what: &str, from: usize, happens: &dyn Fn()| {
        let gap = longest_gap(&lab, &address, happens, || has(&lab, 3 - from, &address));
        println!("{what}: {} ms without an answer", gap.as_millis());
        assert!(gap < GAP, "{what}: {gap:?}");
    };
    let first = holder(&lab, &address);
    wait_until("it is said who has it", Duration::from_secs(10), || {
        shown(&lab, 2, &address)["nodes"] == serde_json::json!([name(first)])
    });

    // An edge that stands still, and comes back: nothing moves for that.
    moves("the edge is frozen", first, &|| {
        lab.must(&["freeze", &name(first), "--process", "edge"]);
    });
    wait_until("it serves again", Duration::from_secs(20), || serves(first));
    assert_eq!(holder(&lab, &address), 3 - first);

    // After a cut two have it, until they hear each other.
    let cut = 3 - first;
    moves("the node is cut off", cut, &|| {
        lab.must(&["cut", &name(cut)]);
    });
    lab.must(&["heal", &name(cut)]);
    let last = holder(&lab, &address);
    let gap = longest_gap(&lab, &address, || (), || holders(&lab, &address) == [last]);
    assert!(gap < GAP, "after a cut: {gap:?}");

    // keepalived dies at once, with its child: what it leaves is taken off, and it runs again.
    let struck = name(last);
    let pids = lab.must(&["exec", &struck, "--", "pidof", "keepalived", "keepalived_vrrp"]);
    let pids: Vec<&str> = pids.split_whitespace().collect();
    lab.must(&[&["exec", &struck, "--", "kill", "-9"][..], &pids].concat());
    let runs = || lab.run(&["exec", &name(last), "--", "pidof", "keepalived"]).status.success();
    wait_until("keepalived runs again", Duration::from_secs(10), runs);

    // Whoever rests gives it away, and nobody notices.
    let drained = holder(&lab, &address);
    moves("the node is drained", drained, &|| {
        lab.must_on(1, &["node", "drain", &name(drained)]);
    });
    lab.must_on(1, &["node", "undrain", &name(drained)]);
    wait_until("keepalived runs there again", Duration::from_secs(10), || {
        lab.run(&["exec", &name(drained), "--", "pidof", "keepalived"]).status.success()
    });

    let lost = holder(&lab, &address);
    moves("the node is lost", lost, &|| {
        lab.must(&["kill", &name(lost)]);
    });
    lab.must(&["start", &name(lost)]);
    wait_until("it serves again", Duration::from_secs(30), || serves(lost));
    assert_eq!(holder(&lab, &address), 3 - lost, "what was left on its interface is taken off");

    // An address that somebody else has is not taken until it is free; what is not wanted any more goes.
    let taken = address.replace(".201", ".210");
    let stranger = |verb: &str| {
        let address = format!("{taken}/24");
        lab.must(&["exec", "client", "--", "ip", "address", verb, &address, "dev", "eth0"]);
    };
    stranger("add");
    apply(&lab, &[format!("{address}/24"), format!("{taken}/24")]);
    wait_until("it is refused", Duration::from_secs(20), || {
        text(&shown(&lab, 1, &taken)["because"]).contains("answers for it")
    });
    assert_eq!(holders(&lab, &taken), Vec::<usize>::new());
    stranger("del");
    holder(&lab, &taken);
    apply(&lab, &[]);
    wait_until("none is left", Duration::from_secs(10), || {
        [&address, &taken].iter().all(|address| holders(&lab, address).is_empty())
    });
}
