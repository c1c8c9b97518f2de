//! One host: a network namespace with a cable to the bridge, and a first process that everything else of the host is below.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pressroom_runtime::clock;
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, Node};
use crate::{LabError, io, ip, run};

/// Longest time until a host's first process runs.
const BEGIN: Duration = Duration::from_secs(10);
/// Longest time until killed processes are gone: the kernel takes its time with those that wait for a disk.
const END: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// Makes the bridge that all hosts are on; one that is there stays.
pub fn lay_bridge(lab: &Lab) -> Result<(), LabError> {
    let bridge = lab.bridge();
    if !exists(&bridge) {
        ip(&format!("link add {bridge} type bridge"))?;
    }
    ip(&format!("link set {bridge} up")).map(drop)
}

/// Makes a network namespace with a cable to the bridge; one that is there stays.
pub fn lay_cable(lab: &Lab, netns: &str, number: usize, address: Ipv4Addr) -> Result<(), LabError> {
    if !place(netns).exists() {
        ip(&format!("netns add {netns}"))?;
    }
    let (cable, bridge) = (lab.cable(number), lab.bridge());
    if !exists(&cable) {
        ip(&format!("link add {cable} type veth peer name eth0 netns {netns}"))?;
        ip(&format!("-n {netns} addr add {address}/24 dev eth0"))?;
    }
    ip(&format!("link set {cable} master {bridge} up"))?;
    ip(&format!("-n {netns} link set lo up"))?;
    ip(&format!("-n {netns} link set eth0 up"))?;
    // So that a healed host is found at once.
    let settle = "sysctl -qw net.ipv4.neigh.eth0.retrans_time_ms=100 net.ipv4.neigh.eth0.base_reachable_time_ms=2000";
    let settled = run(inside(netns).args(settle.split(' ')));
    // Some kernels do not have it.
    let _ = settled;
    Ok(())
}

/// Whether the machine has an interface of this name.
fn exists(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).exists()
}

/// A command in a network namespace alone; `ip netns exec` would hide control groups.
pub(crate) fn inside(netns: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}"));
    command
}

/// Takes all cables, namespaces and the bridge of a lab away, and who is in them.
pub(crate) fn take_away(lab: &Lab) -> Result<(), LabError> {
    sweep(&lab.client.netns)?;
    for netns in lab.nodes.iter().map(|node| &node.netns).chain([&lab.client.netns]) {
        if place(netns).exists() {
            // Its end of the cable, and with it ours, goes with it.
            ip(&format!("netns del {netns}"))?;
        }
    }
    // The cables of namespaces that were never finished.
    for cable in (0..=lab.nodes.len()).map(|number| lab.cable(number)).filter(|it| exists(it)) {
        // It may have gone meanwhile: the kernel takes its time with namespaces.
        let _ = ip(&format!("link del {cable}"));
    }
    match exists(&lab.bridge()) {
        true => ip(&format!("link del {}", lab.bridge())).map(drop),
        false => Ok(()),
    }
}

/// Starts a host's first process; one that runs stays.
pub fn begin(node: &mut Node) -> Result<(), LabError> {
    if is_running(node) {
        return Ok(());
    }
    // A first process that nobody wrote down, of an `up` that was ended.
    sweep(&node.netns)?;
    std::fs::create_dir_all(&node.data).map_err(io(node.data.display().to_string()))?;
    let program = std::env::current_exe().map_err(io("our own program"))?;
    let said = node.data.join("host.log");
    let words = std::fs::File::create(&said).map_err(io(said.display().to_string()))?;
    let mut command = inside(&node.netns);
    command
        .args(["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(program)
        .args(["lab", "host", &node.name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(words)
        // Whoever ends the command line must not end the host.
        .process_group(0);
    let mut child = command.spawn().map_err(io("unshare"))?;
    let outer = child.id();
    let late = clock::now() + BEGIN;
    while clock::now() < late {
        let children = format!("/proc/{outer}/task/{outer}/children");
        let first = std::fs::read_to_string(children).unwrap_or_default();
        let first = first.split_whitespace().next().and_then(|pid| pid.parse::<i32>().ok());
        if let Some(pid) = first
            && is_furnished(pid, &node.name)
            && let Some(started) = started(pid)
        {
            node.init = Some((pid, started));
            return Ok(());
        }
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let last = std::fs::read_to_string(&said).unwrap_or_default().trim().to_owned();
    sweep(&node.netns)?;
    Err(LabError::Late {
        what: format!("host `{}` has not begun", node.name),
        seconds: BEGIN.as_secs(),
        last: if last.is_empty() { "its first process did not run".into() } else { last },
    })
}

/// Whether the first process has done what it does before everything else: naming the host comes last.
fn is_furnished(pid: i32, name: &str) -> bool {
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--uts", "hostname"]);
    run(&mut command).is_ok_and(|said| said.trim() == name)
}

/// When a process started, in the kernel's ticks: with its number, its identity.
/// One that has ended, and waits for its parent, is none.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let is_gone = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !is_gone)
}

/// Whether the host's first process runs.
pub fn is_running(node: &Node) -> bool {
    node.init.is_some_and(|(pid, since)| started(pid) == Some(since))
}

/// A command in a host, in all of its namespaces.
pub fn command(node: &Node) -> Result<Command, LabError> {
    let Some((pid, _)) = node.init.filter(|_| is_running(node)) else {
        return Err(LabError::Wish(format!(
            "host `{0}` does not run; `pressroom lab start {0} --data DIR` starts it",
            node.name
        )));
    };
    let mut command = Command::new("nsenter");
    command.args([
        "--target",
        &pid.to_string(),
        "--mount",
        "--uts",
        "--net",
        "--pid",
        "--wd=/",
        "--",
    ]);
    Ok(command)
}

/// `pressroom` in a host.
pub fn pressroom(node: &Node) -> Result<Command, LabError> {
    let mut command = command(node)?;
    command.arg(std::env::current_exe().map_err(io("our own program"))?);
    command.arg("--data").arg(&node.data);
    Ok(command)
}

/// Kills everything in a host at once: the kernel does when the first process ends. Then whoever else was in its network.
pub fn kill(node: &mut Node) -> Result<(), LabError> {
    if let Some((pid, _)) = node.init.filter(|_| is_running(node)) {
        end(pid);
    }
    sweep(&node.netns)?;
    node.init = None;
    Ok(())
}

fn end(pid: i32) {
    // Gone already is as good.
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}

/// Kills all processes in a network namespace, until there is none.
fn sweep(netns: &str) -> Result<(), LabError> {
    let late = clock::now() + END;
    loop {
        let left = all_in("net", &place(netns));
        if left.is_empty() {
            return Ok(());
        }
        if clock::now() > late {
            return Err(LabError::Late {
                what: format!("processes in `{netns}` did not end"),
                seconds: END.as_secs(),
                last: format!("{left:?}"),
            });
        }
        left.into_iter().for_each(end);
        std::thread::sleep(LOOK);
    }
}

/// All processes in a host's process namespace but the first, by the machine's numbers.
pub fn processes(node: &Node) -> Vec<i32> {
    let Some((init, _)) = node.init.filter(|_| is_running(node)) else { return Vec::new() };
    let mut pids = all_in("pid", Path::new(&format!("/proc/{init}/ns/pid")));
    pids.retain(|pid| *pid != init);
    pids
}

/// The file of a named network namespace.
fn place(netns: &str) -> PathBuf {
    Path::new("/run/netns").join(netns)
}

/// The processes in the namespace of this kind that the file is of. Those that have ended, and wait for a parent, are in none.
fn all_in(kind: &str, namespace: &Path) -> Vec<i32> {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let Some(wanted) = identity(namespace) else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_in = |pid: &i32| identity(Path::new(&format!("/proc/{pid}/ns/{kind}"))) == Some(wanted);
    pids.filter(is_in).collect()
}

/// What the first process of a host does: gives the host a `/run` and a name, then waits for children that nobody else has.
pub fn be_first(name: &str) -> Result<(), LabError> {
    use rustix::mount::{MountFlags, mount};
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)
        .map_err(|error| io("a /run of its own")(error.into()))?;
    rustix::system::sethostname(name.as_bytes())
        .map_err(|error| io("the host's name")(error.into()))?;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
