//! Sites in containers of Docker's: how they get there, and what they outlive. That their walls hold is in `walls`.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::docker;
use crate::house::{House, signal, wait_until};

fn configure(house: &House, runtime: &str, workers: u16) {
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\n[site.php]\nruntime = \"{runtime}\"\nworkers = {workers}\ninstances = {{ min = 1, max = 1 }}\n"
    ));
}

/// The instance that is a container, if there is one: the former version's is parked beside it.
fn instance(house: &House) -> Option<i32> {
    let pids = house.pids().into_iter().filter(|(name, _)| name.starts_with("blog-"));
    pids.filter_map(|(_, pid)| i32::try_from(pid).ok()).find(|pid| is_client(*pid))
}

fn is_client(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains("docker"))
}

/// What the agent wrote of instances that it started, and when they stood their check.
fn starts(house: &House) -> String {
    let log = fs::read_to_string(house.data.join("logs/agent.log")).unwrap_or_default();
    let told = ["start instance", "check the new", "build the image", "install WordPress"];
    let lines = log.lines().filter(|line| told.iter().any(|words| line.contains(words)));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_site_moves_into_a_container_which_outlives_who_looks_after_it() {
    if !docker::can_be_judged() {
        return;
    }
    let mut house = House::with_docker();
    configure(&house, "process", 2);
    house.up();
    let mut visitor = house.visitor("blog");
    let mut number = 0;
    let mut is_served = || {
        number += 1;
        // Never a stored page.
        visitor.try_get(&format!("/?number={number}")).is_ok_and(|answer| answer.status == 200)
    };
    assert_eq!(instance(&house), None);
    // As packages of last week left one.
    let former = "pressroom/php:8.2-former";
    let nothing = house.folder().join("nothing.tar");
    fs::write(&nothing, [0; 1024]).expect("an empty archive");
    let docker = house.docker.as_ref().expect("a daemon");
    let label = "--change=LABEL pressroom.image=true";
    let made = docker.client(&["import", label, &nothing.to_string_lossy(), former]);
    assert!(made.status.success(), "{made:?}");

    configure(&house, "docker", 2);
    house.must(&["apply", "--yes"]);
    println!("{}", starts(&house));
    let own = instance(&house).expect("a container");
    assert!(is_served());
    let containers = |house: &House| house.docker.as_ref().expect("a daemon").containers();
    let holds = |house: &House, name: &str| containers(house).iter().any(|it| it.ends_with(name));
    wait_until("one container", Duration::from_secs(20), || containers(&house).len() == 1);
    wait_until("one image", Duration::from_secs(20), || {
        let docker = house.docker.as_ref().expect("a daemon");
        let tags = docker.client(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
        let tags = String::from_utf8_lossy(&tags.stdout);
        tags.lines().count() == 1 && !tags.contains(former)
    });

    for role in ["/agent/pid", "/keeper/pid"] {
        signal(house.pid(role), Signal::KILL);
        assert!(is_served(), "without {role}");
        wait_until("all to be well", Duration::from_secs(30), || house.is_healthy());
        assert_eq!(instance(&house), Some(own), "{role}");
    }

    // Its client: the container is no longer anybody's, and another one takes its place.
    signal(own, Signal::KILL);
    wait_until("another client", Duration::from_secs(30), || {
        house.is_healthy() && instance(&house).is_some_and(|other| other != own)
    });
    wait_until("its page", Duration::from_secs(10), &mut is_served);
    wait_until("one container", Duration::from_secs(10), || containers(&house).len() == 1);

    // Docker itself: what it started serves on.
    house.docker.as_mut().expect("a daemon").kill();
    assert!(is_served(), "without a daemon");
    configure(&house, "docker", 3);
    let refused = house.run(&["apply", "--yes"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("docker"), "{words}");
    assert!(is_served(), "the former version: {words}");
    println!("{words}");
    house.docker.as_mut().expect("a daemon").start_again();
    house.must(&["apply", "--yes"]);
    wait_until("all to be well", Duration::from_secs(60), || house.is_healthy());
    assert!(is_served());
    assert!(holds(&house, "-php-blog-1") || holds(&house, "-php-blog-2"));

    house.must(&["down"]);
    wait_until("no container", Duration::from_secs(10), || containers(&house).is_empty());
}

/// The process id of the daemon that the house runs.
fn daemon(house: &House) -> Option<i32> {
    let status = house.status();
    let engines = status["engines"].as_array().expect("engines");
    let own = engines.iter().find(|engine| engine["name"] == "docker")?;
    i32::try_from(own["pid"].as_i64()?).ok()
}

#[test]
fn where_no_daemon_runs_ours_is_started_with_the_rest_and_ends_with_it() {
    if !docker::can_be_judged() {
        return;
    }
    if fs::exists("/run/docker.sock").is_ok_and(|is| is) {
        println!("not judged: this machine runs a daemon");
        return;
    }
    let house = House::empty();
    configure(&house, "docker", 2);
    house.up();
    assert!(instance(&house).is_some());
    assert_eq!(house.visitor("blog").get("/").status, 200);
    let pid = daemon(&house).expect("a daemon of ours");

    // Killed, it comes back, and its containers went on meanwhile.
    let before = instance(&house);
    signal(pid, Signal::KILL);
    assert_eq!(house.visitor("blog").get("/?number=1").status, 200);
    wait_until("another daemon", Duration::from_secs(60), || {
        house.is_healthy() && daemon(&house).is_some_and(|other| other != pid)
    });
    wait_until("its page", Duration::from_secs(60), || {
        house.visitor("blog").try_get("/?number=2").is_ok_and(|answer| answer.status == 200)
    });
    println!("instance {before:?}, then {:?}", instance(&house));
    let pid = daemon(&house).expect("the other one");
    house.must(&["down"]);
    assert!(!fs::exists(format!("/proc/{pid}")).expect("/proc"), "it ended");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    assert!(!mounts.contains(&*house.data.to_string_lossy()), "nothing is left: {mounts}");
}
