//! Names for what runs, on a single machine: as `dig` hears them.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::house::{House, free_port, signal, wait_until};

fn dig(port: u16, words: &str) -> Vec<String> {
    let output = Command::new("dig")
        .args(["@127.0.0.1", "-p", &port.to_string(), "+tries=1", "+time=10", "+noall", "+answer"])
        .args(words.split(' '))
        .output()
        .expect("dig is installed (dnsutils)");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn instances(port: u16) -> usize {
    dig(port, "SRV php.blog.pressroom.local").len()
}

#[test]
fn what_runs_has_a_name_for_as_long_as_it_runs() {
    let house = House::empty();
    let port = free_port();
    let configure = |instances: u16| {
        house.configure(&format!(
            "[dns]\nlisten = [\"127.0.0.1:{port}\"]\n\n[[site]]\nname = \"blog\"\n[site.php]\nworkers = 1\ninstances = {{ min = {instances}, max = {instances} }}"
        ));
    };
    configure(1);
    house.up();
    let soon = Duration::from_secs(20);
    wait_until("an instance to have a name", soon, || instances(port) == 1);
    let edges = dig(port, "SRV edge.blog.pressroom.local");
    let is_of = |of: u16| edges.iter().any(|line| line.contains(&format!(" {of} ")));
    assert!(is_of(house.http) && is_of(house.https), "{edges:?}");
    let server = dig(port, "NS pressroom.local");
    assert!(server.len() == 1 && server[0].contains(" IN NS 1."), "{server:?}");
    let ttl: u32 = edges[0].split(' ').nth(1).expect("a time to live").parse().expect("a number");
    assert!(ttl <= 10, "nobody vouches for longer: {edges:?}");
    // Neither the agent nor the process itself is needed for what was known.
    let names = house.engine("dns");
    signal(house.pid("/agent/pid"), Signal::KILL);
    assert_eq!(instances(port), 1);
    signal(names, Signal::KILL);
    assert_eq!(instances(port), 1, "the question waits for the next process");
    // What begins and what stops is told at once.
    configure(2);
    house.must(&["apply", "--yes"]);
    wait_until("the second instance to have a name", soon, || instances(port) == 2);
    configure(1);
    house.must(&["apply", "--yes"]);
    wait_until("its name to be gone", Duration::from_secs(5), || instances(port) == 1);
    house.must(&["down"]);
}
