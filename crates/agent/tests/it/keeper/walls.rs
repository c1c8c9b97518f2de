//! Confined children: what they see, what they may ask of the kernel, what they may take, and that a keeper stays their master.
//!
//! Only root can confine; as somebody else nothing here is judged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pressroom_model::confinement::{Access, Confinement, Limits, Place, View};
use pressroom_model::process::{ProcessSpec, Request, Stop, UserIds};
use rustix::process::Signal;

use super::house::{House, eventually, runs, shell, signal};

/// A user that has nothing.
const NOBODY: u32 = 65_534;

fn bind(from: impl AsRef<Path>, to: impl AsRef<Path>, access: Access) -> Place {
    Place::Bind { from: from.as_ref().into(), to: to.as_ref().into(), access, if_there: true }
}

/// The system, the house's `code` at `/srv/code` and its `tmp` where it is.
fn view(data: &Path) -> View {
    for (name, mode) in [("code", 0o755), ("tmp", 0o777), ("secret", 0o777), ("run/stage", 0o700)] {
        let folder = data.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    fs::write(data.join("code/index"), "code").expect("a file");
    fs::write(data.join("secret/key"), "secret").expect("a file");
    let system = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];
    let mut places: Vec<Place> = system.map(|path| bind(path, path, Access::Run)).to_vec();
    let memory = Place::Memory { to: "/dev/shm".into(), bytes: 1 << 20 };
    places.extend([Place::Devices, memory, Place::Processes]);
    places.push(bind(data.join("code"), "/srv/code", Access::Run));
    places.push(bind(data.join("tmp"), data.join("tmp"), Access::Write));
    View { stage: data.join("run/stage"), places }
}

fn confined(house: &House, name: &str, script: &str, limits: Limits) -> ProcessSpec {
    ProcessSpec {
        user: Some(UserIds { uid: NOBODY, gid: NOBODY, groups: vec![] }),
        confinement: Some(Confinement {
            view: Some(view(house.data())),
            own_processes: true,
            own_ipc: true,
            filters_calls: true,
            limits,
        }),
        ..shell(house.data(), name, script)
    }
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("not judged: only root can confine");
    }
    is_root
}

/// Lines `WHAT yes` or `WHAT no` that a script wrote.
fn answers(house: &House, script: &str) -> String {
    let spec = confined(house, "one", script, Limits::default());
    house.start(&spec);
    house.ended("one");
    fs::read_to_string(&spec.output).expect("its output")
}

#[test]
fn a_confined_child_sees_its_places_and_nothing_else() {
    if !is_root() {
        return;
    }
    let house = House::new();
    let data = house.data().display().to_string();
    let text = answers(
        &house,
        &format!(
            "t() {{ what=$1; shift; if \"$@\" >/dev/null 2>&1; then echo $what yes; else echo $what no; fi; }}
            echo root: $(ls /); echo data: $(ls {data}); echo dev: $(ls /dev); echo pids: $(ls /proc | grep -c '^[0-9]'); echo self=$$
            t read-code cat /srv/code/index; t write-code touch /srv/code/planted; t change-code sh -c 'echo x > /srv/code/index'
            t write-tmp touch {data}/tmp/mine; cp /bin/true {data}/tmp/true; t run-from-tmp {data}/tmp/true
            t write-memory touch /dev/shm/mine; t read-secret cat {data}/secret/key; t write-root touch /planted; t write-system touch /usr/bin/planted
            t passwd cat /etc/passwd; t kcore cat /proc/kcore; t sysctl ls /proc/sys; t null sh -c 'echo x > /dev/null'
            grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapPrm|Uid):' /proc/self/status | tr '\\t' ' '"
        ),
    );
    let expected = [
        "root: bin dev lib lib64 proc sbin srv tmp usr",
        "data: tmp",
        "dev: fd full null random shm stderr stdin stdout urandom zero",
        "self=1",
        "read-code yes",
        "write-code no",
        "change-code no",
        "write-tmp yes",
        "run-from-tmp no",
        "write-memory yes",
        "read-secret no",
        "write-root no",
        "write-system no",
        "passwd no",
        "kcore no",
        "sysctl no",
        "null yes",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "CapBnd: 0000000000000000",
        "CapPrm: 0000000000000000",
        "Uid: 65534 65534 65534 65534",
    ];
    for line in expected {
        assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
    }
    assert_eq!(fs::read(house.data().join("code/index")).expect("a file"), b"code");
    let stage = fs::read_dir(house.data().join("run/stage")).expect("the stage");
    assert_eq!(stage.count(), 0, "nothing of the view is to be seen from outside");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&data), "nothing is left mounted:\n{mounts}");
}

#[test]
fn the_kernel_refuses_a_confined_child_what_only_administrators_need() {
    if !is_root() {
        return;
    }
    let house = House::new();
    // By number, so that no tool decides in the kernel's place; prints the errno.
    let calls: &[(&str, i64, &str)] = &[
        ("mount", libc::SYS_mount, "0, 0, 0, 0, 0"),
        ("umount", libc::SYS_umount2, "0, 0"),
        ("pivot_root", libc::SYS_pivot_root, "0, 0"),
        ("chroot", libc::SYS_chroot, "0"),
        ("unshare-users", libc::SYS_unshare, "0x10000000"),
        ("clone-users", libc::SYS_clone, "0x10000011, 0, 0, 0, 0"),
        ("setns", libc::SYS_setns, "0, 0"),
        ("traceme", libc::SYS_ptrace, "0, 0, 0, 0"),
        ("seize", libc::SYS_ptrace, "0x4206, 1, 0, 0"),
        ("bpf", libc::SYS_bpf, "0, 0, 0"),
        ("keyctl", libc::SYS_keyctl, "0, 0"),
        ("init_module", libc::SYS_init_module, "0, 0, 0"),
        ("userfaultfd", libc::SYS_userfaultfd, "0"),
    ];
    let mut script = String::new();
    for (name, number, arguments) in calls {
        script += &format!(
            "perl -e 'syscall({number}, {arguments}); print \"{name} \", $! + 0, \"\\n\"'\n"
        );
    }
    let (packet, io_uring) = (libc::SYS_socket, libc::SYS_io_uring_setup);
    script += &format!(
        "perl -e 'syscall({packet}, 17, 3, 0); print \"packet \", $! + 0, \"\\n\"; syscall({io_uring}, 1, 0); print \"io_uring \", $! + 0, \"\\n\"'\n\
         perl -e 'socket(my $s, 1, 1, 0) and print \"unix 0\\n\"; my $p = fork; exit 0 unless $p; waitpid($p, 0) == $p and print \"fork \", $?, \"\\n\"'\n"
    );
    let text = answers(&house, &script);
    let refused = calls.iter().map(|(name, ..)| (*name, libc::EPERM));
    let others =
        [("packet", libc::EAFNOSUPPORT), ("io_uring", libc::ENOSYS), ("unix", 0), ("fork", 0)];
    for (name, errno) in refused.chain(others) {
        let line = format!("{name} {errno}");
        assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
    }
}

#[test]
fn a_keeper_stops_and_adopts_who_has_process_ids_of_its_own_and_nothing_outlives_it() {
    if !is_root() {
        return;
    }
    let mut house = House::new();
    // A grandchild that has left the session, and so the group that a keeper kills.
    let script = "trap 'echo asked; exit 3' TERM; setsid sleep 4711 & echo ready; while :; do sleep 0.05; done";
    let spec = ProcessSpec {
        stop: Stop { signal: 15, grace_ms: 10_000 },
        ..confined(&house, "one", script, Limits::default())
    };
    let sleeper_of = |leader: i32| {
        eventually("it has a grandchild", || {
            let children =
                fs::read_to_string(format!("/proc/{leader}/task/{leader}/children")).ok()?;
            let pids = children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
            pids.into_iter().find(|pid| {
                fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"4711\0"))
            })
        })
    };
    let leader = house.start(&spec);
    assert_eq!(house.line("one.log"), "ready");
    let grandchild = sleeper_of(leader);
    house.tell(&Request::Stop { name: "one".into(), kill: false });
    assert_eq!(house.ended("one").exit.and_then(|exit| exit.code), Some(3));
    eventually("the grandchild ends with it", || (!runs(grandchild)).then_some(()));

    let leader = house.start(&spec);
    let grandchild = sleeper_of(leader);
    house.kill_keeper();
    house.open();
    assert_eq!(house.find("one").and_then(|one| one.pid), Some(leader), "adopted");
    signal(leader, Signal::KILL);
    house.ended("one");
    eventually("the grandchild ends with it", || (!runs(grandchild)).then_some(()));
}

#[test]
fn the_first_of_its_processes_ends_when_asked_before_it_has_a_handler() {
    if !is_root() {
        return;
    }
    let house = House::new();
    let stop = Stop { signal: 3, grace_ms: 60_000 };
    let deaf = confined(&house, "one", "echo ready; exec sleep 1000", Limits::default());
    house.start(&ProcessSpec { stop, ..deaf });
    assert_eq!(house.line("one.log"), "ready");
    house.tell(&Request::Stop { name: "one".into(), kill: false });
    let exit = house.ended("one").exit.expect("an exit");
    assert_eq!((exit.signal, exit.was_asked), (Some(9), true));
}

/// Groups of control of this house, in all hierarchies.
fn groups(house: &House) -> Vec<PathBuf> {
    let digest = blake3::hash(house.data().as_os_str().as_encoded_bytes()).to_hex();
    let name = format!("pressroom-{}", &digest[..8]);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let places = mounts.lines().filter(|line| line.contains(" cgroup"));
    let homes = places.filter_map(|line| Some(Path::new(line.split(' ').nth(1)?).join(&name)));
    homes.filter(|home| home.is_dir()).collect()
}

#[test]
fn limits_hold_for_everything_that_a_child_starts_and_for_nobody_else() {
    if !is_root() {
        return;
    }
    let mut house = House::new();
    let limits = Limits { memory: Some(64 << 20), tasks: Some(20), cpu_percent: Some(50) };
    // By a signal that the first of all processes cannot be deaf to.
    let stop = Stop { signal: 9, grace_ms: 1000 };
    let waits = "while :; do sleep 1; done";
    let neighbour = ProcessSpec { stop, ..confined(&house, "neighbour", waits, limits) };
    let neighbour = house.start(&neighbour);
    let lacks = house.find("neighbour").expect("it runs").lacks;
    if !lacks.is_empty() {
        println!("not judged: {lacks:?}");
        assert!(lacks.iter().all(|lack| lack.starts_with("no limit")), "{lacks:?}");
        return;
    }
    // The shell survives its greedy children: memory ends one of them, the number of tasks refuses one.
    let script = "perl -e '$x = \"x\" x (200 << 20); print \"had it all\\n\"'; echo greedy $?
        perl -e '$n = 0; for (1 .. 100) { my $p = fork; last unless defined $p; if (!$p) { sleep 30; exit } $n++ } print \"forks $n\\n\"'
        echo ready; sleep 1000";
    let spec = confined(&house, "one", script, limits);
    house.start(&spec);
    let text = eventually("it tried everything", || {
        fs::read_to_string(&spec.output).ok().filter(|text| text.contains("ready"))
    });
    assert!(!text.contains("had it all") && text.contains("greedy 137"), "{text}");
    let forks: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("forks ")?.parse().ok())
        .unwrap_or_else(|| panic!("{text}"));
    assert!((5..20).contains(&forks), "{text}");
    assert!(runs(neighbour));
    let homes = groups(&house);
    let read = |file: &str| {
        homes.iter().find_map(|home| fs::read_to_string(home.join("one").join(file)).ok())
    };
    let quota = read("cpu.cfs_quota_us").or_else(|| read("cpu.max")).expect("a quota");
    assert_eq!(quota.split_whitespace().next(), Some("50000"));
    let left: Vec<i32> = read("cgroup.procs")
        .expect("its processes")
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    assert!(left.len() > forks, "{left:?}");
    house.tell(&Request::Stop { name: "one".into(), kill: true });
    house.ended("one");
    eventually("all that it started ends", || left.iter().all(|pid| !runs(*pid)).then_some(()));
    assert!(runs(neighbour));
    house.tell(&Request::Shutdown);
    assert!(house.wait_for_keeper().success());
    assert_eq!(groups(&house), Vec::<PathBuf>::new(), "no group is left");
}

#[test]
fn a_view_that_could_be_left_is_refused() {
    if !is_root() {
        return;
    }
    let house = House::new();
    let check = |place: Place, words: &str| {
        let mut spec = confined(&house, "one", "true", Limits::default());
        if let Some(view) = spec.confinement.as_mut().and_then(|all| all.view.as_mut()) {
            view.places.push(place);
        }
        let because = house.refused_start(&spec);
        assert!(because.contains(words), "no {words:?} in {because:?}");
    };
    let inside = house.data().join("tmp/code");
    check(bind("/usr", &inside, Access::Read), "is in a place that the process can write");
    check(bind("/usr", "/srv/../usr", Access::Read), "is no absolute path below the root");
    check(bind("/usr", "srv", Access::Read), "is no absolute path below the root");
    check(bind("/usr", "/", Access::Read), "is no absolute path below the root");
    check(
        Place::Bind {
            from: "/no/such".into(),
            to: "/srv/x".into(),
            access: Access::Read,
            if_there: false,
        },
        "bind /no/such to",
    );
}
