//! How children live and end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pressroom_agent::keeper::{self, Client};
use pressroom_model::process::{ProcessSpec, Reply, Request, Restart, Stop, UserIds};
use rustix::process::Signal;

use super::house::{House, eventually, exists, role, runs, shell, signal, sleeper};

#[test]
fn a_child_has_what_its_spec_says_and_nothing_else() {
    let house = House::new();
    let script = "env; echo cwd=$(pwd); echo umask=$(umask); echo files=$(ulimit -n); echo hard=$(ulimit -Hn); \
        ls /proc/$$/fd; echo in=$(readlink /proc/$$/fd/0); grep -E '^(SigBlk|SigIgn|NSpgid|NSsid)' /proc/self/status; \
        echo oom=$(cat /proc/$$/oom_score_adj); echo self=$$; echo end";
    let spec = ProcessSpec {
        env: BTreeMap::from([
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("COLOUR".to_owned(), "a b=c".to_owned()),
        ]),
        cwd: Some("/usr".into()),
        umask: 0o027,
        open_files: Some(123),
        ..shell(house.data(), "one", script)
    };
    let pid = house.start(&spec);
    assert_eq!(house.ended("one").exit.and_then(|exit| exit.code), Some(0));
    let text = fs::read_to_string(&spec.output).expect("its output");
    let has =
        |line: &str| assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
    has("COLOUR=a b=c");
    has("cwd=/usr");
    has("umask=0027");
    has("files=123");
    has("hard=123");
    has("in=/dev/null");
    has("oom=0");
    has(&format!("self={pid}"));
    has(&format!("NSpgid:\t{pid}"));
    has(&format!("NSsid:\t{pid}"));
    has("SigBlk:\t0000000000000000");
    has("SigIgn:\t0000000000000000");
    let numbers: Vec<&str> =
        text.lines().filter(|line| line.bytes().all(|byte| byte.is_ascii_digit())).collect();
    assert_eq!(numbers, ["0", "1", "2"], "its descriptors");
    for leaked in ["PRESSROOM_TEST", "CARGO", "HOME=", "LISTEN_FDS"] {
        assert!(!text.contains(leaked), "{leaked} in:\n{text}");
    }
}

#[test]
fn a_child_with_a_user_is_that_user_and_can_never_gain_privileges() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can become somebody else
    }
    let house = House::new();
    let user = Some(UserIds { uid: 65_534, gid: 65_533, groups: vec![65_532, 65_531] });
    let spec = ProcessSpec {
        user,
        ..shell(
            house.data(),
            "one",
            "grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff)' /proc/$$/status",
        )
    };
    house.start(&spec);
    house.ended("one");
    let text = fs::read_to_string(&spec.output).expect("its output");
    let words: Vec<&str> = text.split_whitespace().collect();
    let expected = "Uid: 65534 65534 65534 65534 Gid: 65533 65533 65533 65533 Groups: 65531 65532 CapEff: 0000000000000000 NoNewPrivs: 1";
    assert_eq!(words.join(" "), expected);
}

#[test]
fn an_exit_is_remembered_and_told_to_who_watches() {
    let house = House::new();
    let started = Instant::now();
    let (seen, ..) = house.list();
    house.start(&shell(house.data(), "one", "exit 3"));
    let watched = house.ask(&Request::Watch { seen, wait_ms: 10_000 });
    assert!(
        matches!(watched, Reply::Listed { generation, .. } if generation > seen),
        "{watched:?}"
    );
    let state = house.ended("one");
    let exit = state.exit.expect("an exit");
    assert_eq!((exit.code, exit.signal, exit.was_asked, state.starts), (Some(3), None, false, 1));
    assert!(started.elapsed() < Duration::from_secs(9), "a change ends a watch at once");
    let pid = house.start(&sleeper(house.data(), "one"));
    signal(pid, Signal::KILL);
    let exit = house.ended("one").exit.expect("an exit");
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert_eq!(house.find("one").map(|state| state.starts), Some(2));
    house.tell(&Request::Forget { name: "one".into() });
    // Whoever saw it just before asks again, which is no failure.
    house.tell(&Request::Forget { name: "one".into() });
    assert_eq!(house.find("one"), None);
}

#[test]
fn a_watch_blocks_nobody_and_ends_in_time() {
    let house = House::new();
    let socket = house.socket();
    let (seen, ..) = house.list();
    let watches: Vec<_> = (0..3)
        .map(|_| {
            let socket = socket.clone();
            std::thread::spawn(move || {
                keeper::call(&socket, &Request::Watch { seen, wait_ms: 700 }).expect("an answer")
            })
        })
        .collect();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(300) {
        let asked = Instant::now();
        assert_eq!(house.list().0, seen);
        assert!(asked.elapsed() < Duration::from_millis(300), "others are answered meanwhile");
    }
    for watch in watches {
        let reply = watch.join().expect("no panic");
        assert!(
            matches!(reply, Reply::Listed { generation, .. } if generation == seen),
            "{reply:?}"
        );
    }
    assert!(
        started.elapsed() >= Duration::from_millis(650),
        "nothing happened, so it took its time"
    );
}

#[test]
fn starting_what_runs_changes_nothing() {
    let house = House::new();
    let spec = sleeper(house.data(), "one");
    assert_eq!(house.start(&spec), house.start(&spec));
    assert_eq!(house.find("one").map(|state| state.starts), Some(1));
    assert!(house.refusal(&Request::Forget { name: "one".into() }).contains("still runs"));
}

#[test]
fn output_is_rotated_while_its_writer_goes_on() {
    let house = House::new();
    let script = "i=0; while :; do i=$((i+1)); echo line $i of some length to fill the file quickly; [ $((i % 200)) = 0 ] && sleep 0.05; done";
    let spec = ProcessSpec { output_limit: 8_000, ..shell(house.data(), "chatty", script) };
    house.start(&spec);
    let former = house.data().join("logs/chatty.log.1");
    eventually("the tail is in FILE.1", || {
        fs::metadata(&former).ok().filter(|metadata| metadata.len() >= 8_000)
    });
    let at_rotation =
        fs::metadata(&former).and_then(|metadata| metadata.modified()).expect("a time");
    eventually("it is rotated again", || {
        fs::metadata(&former)
            .and_then(|metadata| metadata.modified())
            .ok()
            .filter(|time| *time > at_rotation)
    });
    eventually("the current file is cut and grows again", || {
        fs::metadata(&spec.output).ok().filter(|now| now.len() > 0)
    });
    let text = fs::read(&spec.output).expect("its output");
    assert!(!text.contains(&0), "an appending writer leaves no hole");
}

#[test]
fn what_a_dead_leader_leaves_in_its_group_is_killed() {
    let house = House::new();
    let log = house.data().join("logs/worker");
    let script = format!(
        "sh -c 'trap \"\" TERM HUP; echo $$ > {}; while :; do sleep 1; done' & wait",
        log.display()
    );
    let leader = house.start(&shell(house.data(), "master", &script));
    let worker = house.pid_in("worker");
    assert!(exists(worker));
    signal(leader, Signal::KILL);
    house.ended("master");
    eventually("the worker is killed and buried", || (!exists(worker)).then_some(()));
}

#[test]
fn orphaned_grandchildren_leave_no_zombies() {
    let house = House::new();
    let log = house.data().join("logs/orphan");
    let script =
        format!("(setsid sh -c 'echo $$ > {}; sleep 0.2' &) ; exec sleep 1000", log.display());
    let leader = house.start(&shell(house.data(), "parent", &script));
    let orphan = house.pid_in("orphan");
    eventually("the orphan ends and is buried", || (!exists(orphan)).then_some(()));
    let agent = house.find("agent").and_then(|agent| agent.pid).expect("an agent");
    let mut children = house.children_of_keeper();
    children.sort_unstable();
    let mut expected = vec![leader, agent];
    expected.sort_unstable();
    assert_eq!(children, expected, "nobody else is left, dead or alive");
}

#[test]
fn what_cannot_be_started_is_refused_with_the_reason() {
    let house = House::new();
    let data = house.data();
    let check = |spec: ProcessSpec, words: &[&str]| {
        let because = house.refused_start(&spec);
        for word in words {
            assert!(because.contains(word), "no {word:?} in {because:?}");
        }
        assert_eq!(house.find(&spec.name), None, "{because}");
    };
    let file = data.join("no-program");
    fs::write(&file, "text").expect("write");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
    check(
        ProcessSpec { program: "/no/such/program".into(), ..sleeper(data, "x") },
        &["/no/such/program", "No such file"],
    );
    check(
        ProcessSpec { program: file, ..sleeper(data, "x") },
        &["no-program", "Permission denied"],
    );
    check(
        ProcessSpec { cwd: Some("/no/such/folder".into()), ..sleeper(data, "x") },
        &["enter /no/such/folder", "No such file"],
    );
    check(
        ProcessSpec { output: "/no/such/folder/x".into(), ..sleeper(data, "x") },
        &["output file", "/no/such/folder/x"],
    );
    check(ProcessSpec { program: "sh".into(), ..sleeper(data, "x") }, &["not an absolute path"]);
    check(
        ProcessSpec { listeners: vec!["none".into()], ..sleeper(data, "x") },
        &["no listener `none`"],
    );
    check(ProcessSpec { args: vec!["a\0b".into()], ..sleeper(data, "x") }, &["NUL"]);
    check(ProcessSpec { stop: Stop { signal: 77, grace_ms: 1 }, ..sleeper(data, "x") }, &["77"]);
    check(sleeper(data, "x/y"), &["x/y"]);
    assert!(
        house.refusal(&Request::Signal { name: "nobody".into(), signal: 1 }).contains("nobody")
    );
    house.start(&sleeper(data, "x"));
}

#[test]
fn who_ignores_being_asked_is_killed_after_its_grace() {
    let house = House::new();
    let stop = Stop { signal: 15, grace_ms: 300 };
    let spec = ProcessSpec {
        stop,
        ..shell(house.data(), "deaf", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    };
    house.start(&spec);
    house.line("deaf.log");
    house.tell(&Request::Stop { name: "deaf".into(), kill: false });
    assert!(house.refused_start(&spec).contains("stopping"));
    let exit = house.ended("deaf").exit.expect("an exit");
    assert_eq!((exit.signal, exit.was_asked), (Some(9), true));
    let polite = ProcessSpec {
        stop: Stop { signal: 3, grace_ms: 60_000 },
        ..shell(
            house.data(),
            "polite",
            "trap 'exit 7' QUIT; echo ready; while :; do sleep 0.1; done",
        )
    };
    house.start(&polite);
    house.line("polite.log");
    house.tell(&Request::Stop { name: "polite".into(), kill: false });
    let exit = house.ended("polite").exit.expect("an exit");
    assert_eq!((exit.code, exit.was_asked), (Some(7), true));
    house.start(&polite);
    house.tell(&Request::Stop { name: "polite".into(), kill: true });
    assert_eq!(house.ended("polite").exit.and_then(|exit| exit.signal), Some(9));
    house.tell(&Request::Stop { name: "polite".into(), kill: false });
}

#[test]
fn a_signal_reaches_the_process() {
    let house = House::new();
    house.start(&shell(
        house.data(),
        "one",
        "trap 'exit 5' USR2; echo ready; while :; do sleep 0.1; done",
    ));
    house.line("one.log");
    house.tell(&Request::Signal { name: "one".into(), signal: 12 });
    assert_eq!(house.ended("one").exit.and_then(|exit| exit.code), Some(5));
}

#[test]
fn an_agent_that_ends_is_started_again() {
    let house = House::with_agent(Duration::from_secs(60), |data| ProcessSpec {
        restart: Restart::Always,
        ..shell(data, "agent", "exec sleep 1000")
    });
    let first = house.find("agent").and_then(|agent| agent.pid).expect("an agent");
    signal(first, Signal::KILL);
    let second =
        eventually("another agent runs", || house.find("agent")?.pid.filter(|pid| *pid != first));
    assert!(runs(second));
    assert_eq!(house.find("agent").map(|agent| agent.starts), Some(2));
    house.tell(&Request::Stop { name: "agent".into(), kill: false });
    house.ended("agent");
    assert_eq!(
        house.find("agent").map(|agent| agent.starts),
        Some(2),
        "one that was asked to stop stays so"
    );
}

#[test]
fn a_frozen_agent_is_replaced_and_a_talking_one_is_not() {
    let silence = Duration::from_millis(1500);
    let house = House::with_agent(silence, |data| role(data, "agent", "agent"));
    let child = house.start(&sleeper(house.data(), "child"));
    let first = house.find("agent").and_then(|agent| agent.pid).expect("an agent");
    let until = Instant::now() + 2 * silence;
    eventually("twice the allowed silence passes", || (Instant::now() > until).then_some(()));
    assert_eq!(
        house.find("agent").and_then(|agent| agent.pid),
        Some(first),
        "it talks, so it lives"
    );
    signal(first, Signal::STOP);
    eventually("another agent runs", || house.find("agent")?.pid.filter(|pid| *pid != first));
    eventually("the frozen one is buried", || (!exists(first)).then_some(()));
    assert_eq!(house.find("child").and_then(|state| state.pid), Some(child), "nobody else noticed");
}

#[test]
fn nonsense_on_the_socket_harms_nobody() {
    let house = House::new();
    let connect = || UnixStream::connect(house.socket()).expect("connects");
    let answer = |stream: &UnixStream| {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        line
    };
    for nonsense in [
        "\n",
        "{}\n",
        "{\"do\":\"dance\"}\n",
        "\u{0}\u{1}\n",
        "{\"do\":\"start\",\"spec\":{}}\n",
        "[[[[[[\n",
    ] {
        let mut stream = connect();
        stream.write_all(nonsense.as_bytes()).expect("write");
        assert!(answer(&stream).contains("refused"), "{nonsense:?}");
        stream.write_all(b"{\"do\":\"alive\"}\n").expect("write");
        assert!(answer(&stream).contains("done"), "the connection lives on");
    }
    let stop = Stop { signal: 15, grace_ms: u64::MAX };
    house.start(&ProcessSpec { stop, ..sleeper(house.data(), "patient") });
    house.tell(&Request::Stop { name: "patient".into(), kill: false });
    house.ended("patient");
    drop(keeper::call(&house.socket(), &Request::Watch { seen: 0, wait_ms: u64::MAX }));
    let mut endless = connect();
    let _ = endless.write_all(&vec![b'x'; 3 << 20]);
    let mut silent: Vec<UnixStream> = (0..200).map(|_| connect()).collect();
    silent.iter_mut().for_each(|stream| drop(stream.write_all(b"{\"do\":")));
    let mut hasty = connect();
    hasty.write_all(b"{\"do\":\"stop\",\"name\":\"agent\"}\n").expect("write");
    drop(hasty);
    house.ended("agent");
    let mut half = connect();
    half.write_all(b"{\"do\":\"list\"}\n{\"do\":\"alive\"}\n").expect("write");
    half.shutdown(std::net::Shutdown::Write).expect("shutdown");
    let lines: Vec<String> =
        BufReader::new(half).lines().map(|line| line.expect("a line")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn the_async_client_asks_watches_and_says_when_nobody_is_there() {
    let mut house = House::new();
    let client = Client::new(&house.socket());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let spec = Box::new(sleeper(house.data(), "one"));
    runtime.block_on(async {
        let (seen, started) = match client.call(&Request::List).await.expect("an answer") {
            Reply::Listed { generation, .. } => {
                (generation, client.call(&Request::Start { spec }).await.expect("an answer"))
            }
            other => panic!("{other:?}"),
        };
        assert!(matches!(started, Reply::Started { .. }), "{started:?}");
        let watch =
            client.call(&Request::Watch { seen, wait_ms: 10_000 }).await.expect("an answer");
        assert!(
            matches!(watch, Reply::Listed { generation, .. } if generation > seen),
            "{watch:?}"
        );
    });
    house.tell(&Request::Shutdown);
    house.wait_for_keeper();
    let error = runtime.block_on(client.call(&Request::List)).expect_err("nobody is there");
    assert!(matches!(error, keeper::CallError::Absent { .. }), "{error}");
}
