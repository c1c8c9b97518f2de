//! Keepers that come and go: killed, succeeded, refused, shut down.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use pressroom_agent::keeper;
use pressroom_model::process::{ProcessSpec, Request, Stop};
use rustix::process::Signal;

use super::house::{
    House, ask_server, eventually, exists, free_address, hear, role, runs, shell, signal, sleeper,
    tcp,
};
use super::{DATA, ROLE, role_arguments};

#[test]
fn a_killed_keepers_children_and_sockets_are_taken_over() {
    let mut house = House::new();
    let address = free_address();
    house.tell(&Request::Listen { listener: tcp("http", address, 1) });
    let spec =
        ProcessSpec { listeners: vec!["http".into()], ..role(house.data(), "edge", "server") };
    let edge = house.start(&spec);
    let short = house.start(&sleeper(house.data(), "short"));
    let (generation, before, listeners) = house.list();
    house.kill_keeper();
    assert_eq!(ask_server(address), edge, "served without a keeper");
    let between = TcpStream::connect(address).expect("connects without a keeper");
    signal(short, Signal::KILL);
    eventually("a child ends while there is no keeper", || (!runs(short)).then_some(()));
    house.open();

    let (later, after, same_listeners) = house.list();
    assert!(later > generation, "who watches is told");
    assert_eq!(same_listeners, listeners);
    let pids = |states: &[pressroom_model::process::ProcessState]| -> Vec<(String, Option<i32>)> {
        states
            .iter()
            .filter(|state| state.spec.name != "short")
            .map(|state| (state.spec.name.clone(), state.pid))
            .collect()
    };
    assert_eq!(pids(&after), pids(&before), "the same processes, the agent among them");
    let exit = house.ended("short").exit.expect("an exit");
    assert_eq!((exit.code, exit.signal), (None, None), "nobody could read its status");
    assert_eq!(hear(between), edge, "the connection from between is served by the same child");

    // The new keeper really holds the socket: it outlives the child.
    signal(edge, Signal::KILL);
    house.ended("edge");
    let waiting = TcpStream::connect(address).expect("nobody is refused");
    let next = house.start(&spec);
    assert_eq!(hear(waiting), next);
    assert_eq!(house.find("edge").map(|edge| edge.starts), Some(2), "its history went on");

    // And an adopted one can be asked to stop.
    let agent = house.find("agent").and_then(|agent| agent.pid).expect("an agent");
    house.tell(&Request::Shutdown);
    assert!(house.wait_for_keeper().success());
    assert!(!runs(agent) && !runs(next));
}

#[test]
fn sockets_that_cannot_be_taken_back_are_left_to_their_server_until_it_ends() {
    let mut house = House::new();
    let address = free_address();
    house.tell(&Request::Listen { listener: tcp("http", address, 1) });
    let spec =
        ProcessSpec { listeners: vec!["http".into()], ..role(house.data(), "edge", "server") };
    let edge = house.start(&spec);
    house.kill_keeper();
    // As if the system had forbidden it: no process has a socket of that number.
    let mut state: serde_json::Value =
        serde_json::from_slice(&fs::read(house.state_file()).expect("a state")).expect("JSON");
    state["listeners"][0]["inodes"] = serde_json::json!([1]);
    fs::write(house.state_file(), state.to_string()).expect("write");
    house.open();
    for _ in 0..50 {
        assert_eq!(
            ask_server(address),
            edge,
            "no connection goes to a socket on which nobody accepts"
        );
    }
    signal(edge, Signal::KILL);
    house.ended("edge");
    let waiting: Vec<TcpStream> =
        (0..5).map(|_| TcpStream::connect(address).expect("the keeper listens now")).collect();
    let next = house.start(&spec);
    for stream in waiting {
        assert_eq!(hear(stream), next);
    }
}

#[test]
fn workers_of_a_master_that_died_without_a_keeper_are_killed_by_the_next() {
    let mut house = House::new();
    let log = house.data().join("logs/worker");
    let script = format!("sh -c 'echo $$ > {}; exec sleep 1000' & wait", log.display());
    let master = house.start(&shell(house.data(), "master", &script));
    let worker = house.pid_in("worker");
    house.kill_keeper();
    signal(master, Signal::KILL);
    eventually("the master is gone", || (!runs(master)).then_some(()));
    assert!(runs(worker));
    house.open();
    eventually("the worker is gone", || (!runs(worker)).then_some(()));
}

#[test]
fn a_state_file_that_lies_about_start_times_or_makes_no_sense_adopts_nobody() {
    let mut house = House::new();
    let child = house.start(&sleeper(house.data(), "child"));
    let agent = house.find("agent").and_then(|agent| agent.pid).expect("an agent");
    house.kill_keeper();
    let mut state: serde_json::Value =
        serde_json::from_slice(&fs::read(house.state_file()).expect("a state")).expect("JSON");
    state["generation"] = serde_json::json!(u64::MAX);
    let mut odd = state["processes"][1].clone();
    odd["spec"]["name"] = "odd".into();
    for pid in [-1, 0, 1] {
        odd["pid"] = pid.into(); // nobody whom a keeper may ever signal
        odd["order"] = serde_json::json!(u64::MAX);
        state["processes"].as_array_mut().expect("processes").push(odd.clone());
    }
    for process in state["processes"].as_array_mut().expect("processes") {
        process["ticks"] = serde_json::json!(1);
    }
    fs::write(house.state_file(), state.to_string()).expect("write");
    house.open();
    assert_eq!(house.find("child").and_then(|child| child.pid), None);
    assert!(runs(child), "a stranger with a known number is left alone");
    let second = house.find("agent").and_then(|agent| agent.pid).expect("an agent");
    house.kill_keeper();
    fs::write(house.state_file(), "not JSON").expect("write");
    house.open();
    let third = house.find("agent").and_then(|agent| agent.pid).expect("an agent");
    assert_eq!(house.list().1.len(), 1, "it starts from nothing");
    for pid in [child, agent, second] {
        assert_ne!(pid, third);
        signal(pid, Signal::KILL);
    }
}

#[test]
fn a_state_file_that_cannot_be_written_stops_nothing_and_is_written_once_it_can_be() {
    let mut house = House::new();
    let fresh = house.data().join("run/keeper.json.new");
    fs::create_dir(&fresh).expect("a folder in the way");
    let child = house.start(&sleeper(house.data(), "child"));
    eventually("the log says so", || {
        house.keeper_log().contains("cannot write the state file").then_some(())
    });
    fs::remove_dir(&fresh).expect("out of the way");
    eventually("it is written", || {
        let text = fs::read_to_string(house.state_file()).ok()?;
        text.contains("\"child\"").then_some(())
    });
    house.kill_keeper();
    house.open();
    assert_eq!(house.find("child").and_then(|child| child.pid), Some(child));
}

#[test]
fn two_keepers_of_one_data_directory_are_refused() {
    let mut house = House::new();
    assert_eq!(keeper::running(house.data()), Some(house.keeper_pid()));
    let mut second = house.spawn_keeper(true);
    let status = eventually("the second keeper gives up", || second.try_wait().expect("a child"));
    assert!(!status.success());
    let pid = format!("another keeper (pid {})", house.keeper_pid());
    assert!(house.keeper_log().contains(&pid), "{}", house.keeper_log());
    assert_eq!(house.find("agent").map(|agent| agent.starts), Some(1));
    house.tell(&Request::Shutdown);
    house.wait_for_keeper();
    assert_eq!(keeper::running(house.data()), None);
}

#[test]
fn a_keeper_that_may_not_adopt_names_what_still_runs() {
    let mut house = House::new();
    let child = house.start(&sleeper(house.data(), "child"));
    house.kill_keeper();
    let mut second = house.spawn_keeper(false);
    let status = eventually("the second keeper gives up", || second.try_wait().expect("a child"));
    assert!(!status.success());
    assert!(house.keeper_log().contains(&format!("child (pid {child})")), "{}", house.keeper_log());
    assert!(runs(child));
}

#[test]
fn shutdown_stops_the_last_started_first_and_leaves_nothing() {
    let mut house = House::new();
    let order = house.data().join("logs/order");
    let script = |name: &str| {
        let log = order.display();
        format!("trap 'echo {name} >> {log}; exit' TERM; echo ready; while :; do sleep 0.05; done")
    };
    let mut pids: Vec<i32> = Vec::new();
    for name in ["mariadb", "php", "edge"] {
        // Programs of their own, so that each is a step of its own.
        let program: PathBuf = house.data().join(name);
        std::os::unix::fs::symlink("/bin/sh", &program).expect("a link");
        pids.push(
            house.start(&ProcessSpec { program, ..shell(house.data(), name, &script(name)) }),
        );
        house.line(&format!("{name}.log"));
    }
    let stray = house.data().join("logs/stray");
    let runaway = format!(
        "(setsid sh -c 'trap \"\" TERM; echo $$ > {0}; while :; do sleep 1; done' &); until [ -s {0} ]; do sleep 0.01; done",
        stray.display()
    );
    house.start(&shell(house.data(), "runaway", &runaway));
    pids.push(house.pid_in("stray"));
    let stubborn = ProcessSpec {
        stop: Stop { signal: 15, grace_ms: 200 },
        ..shell(house.data(), "stubborn", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    };
    pids.push(house.start(&stubborn));
    house.line("stubborn.log");
    pids.push(house.find("agent").and_then(|agent| agent.pid).expect("an agent"));
    house.tell(&Request::Shutdown);
    assert!(house.wait_for_keeper().success());
    assert_eq!(fs::read_to_string(&order).expect("the order"), "edge\nphp\nmariadb\n");
    assert_eq!(pids.into_iter().filter(|pid| exists(*pid)).collect::<Vec<_>>(), Vec::<i32>::new());
    assert!(!house.socket().exists() && !house.state_file().exists());
}

#[test]
fn a_keeper_that_is_shutting_down_starts_nothing() {
    let mut house = House::new();
    let stop = Stop { signal: 15, grace_ms: 700 };
    house.start(&ProcessSpec {
        stop,
        ..shell(house.data(), "slow", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    });
    house.line("slow.log");
    signal(house.keeper_pid(), Signal::HUP);
    signal(house.keeper_pid(), Signal::TERM);
    eventually("it begins to stop", || house.find("slow").filter(|slow| slow.is_stopping));
    assert!(house.refused_start(&sleeper(house.data(), "late")).contains("shutting down"));
    assert!(
        house.wait_for_keeper().success(),
        "SIGTERM is a request to shut down, SIGHUP is nothing"
    );
}

#[test]
fn a_detached_keeper_belongs_to_nobody_and_inherits_nothing() {
    let house = House::empty();
    let log = house.data().join("logs/keeper.log");
    // Through a shell of our own: the role travels in the environment, which a detached keeper does not get.
    let script = format!(
        "{ROLE}=keeper {DATA}={} exec {} {}",
        house.data().display(),
        std::env::current_exe().expect("this program").display(),
        role_arguments().join(" ")
    );
    let pid =
        keeper::spawn_detached("/bin/sh".as_ref(), &["-c".into(), script], &log).expect("starts");
    eventually("it answers", || keeper::call(&house.socket(), &Request::List).ok());
    assert_eq!(keeper::running(house.data()), Some(pid));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(
        !status.contains(&format!("PPid:\t{}\n", std::process::id())),
        "not our child:\n{status}"
    );
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    assert_ne!(fields[3], std::process::id().to_string(), "a session of its own");
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/fd/0")).expect("a descriptor"),
        PathBuf::from("/dev/null")
    );
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/2")).expect("a descriptor"), log);
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).expect("a folder"), PathBuf::from("/"));
    let error = keeper::spawn_detached("/no/such/program".as_ref(), &[], &log)
        .expect_err("nothing to start");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    keeper::call(&house.socket(), &Request::Shutdown).expect("an answer");
    eventually("it ends", || (!runs(pid)).then_some(()));
}
