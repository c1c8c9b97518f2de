//! What can be done to hosts.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{self, inside};
use crate::lab::{Lab, Node};
use crate::{LabError, io, run, up};

/// Something that is done to a host or a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing reaches it, and it reaches nothing; hosts of a zone that is cut off still reach each other.
    Cut,
    /// It is reached again, as fast as before.
    Heal,
    /// It sends so many kilobits a second at most.
    Slow(u64),
    /// Everything in it is killed at once.
    Kill,
    /// It starts again, as after a loss of power.
    Start,
    /// Its processes are stopped, all or those of this name at the keeper.
    Freeze(Option<String>),
    /// They go on.
    Thaw,
}

/// Does it. What was done before something failed stays done.
pub fn strike(folder: &Path, whom: &str, fault: &Fault) -> Result<(), LabError> {
    let struck = Lab::change(folder, |lab| {
        let meant = lab.meant(whom)?;
        let peers = match whom.starts_with("zone:") {
            true => meant.iter().map(|at| lab.nodes[*at].address).collect(),
            false => BTreeSet::new(),
        };
        for at in &meant {
            one(&mut lab.nodes[*at], &peers, fault)?;
        }
        Ok(meant.iter().map(|at| lab.nodes[*at].clone()).collect::<Vec<_>>())
    })?;
    match fault {
        Fault::Start => up::start_all(&struck.iter().collect::<Vec<_>>()),
        _ => Ok(()),
    }
}

fn one(node: &mut Node, peers: &BTreeSet<Ipv4Addr>, fault: &Fault) -> Result<(), LabError> {
    match fault {
        Fault::Cut => cut(&node.netns, peers)?,
        Fault::Heal => {
            heal(&node.netns);
            hasten(&node.netns);
        }
        Fault::Slow(kilobits) => slow(&node.netns, *kilobits)?,
        Fault::Kill => host::kill(node)?,
        Fault::Start => host::begin(node)?,
        Fault::Freeze(None) => freeze(node),
        Fault::Freeze(Some(process)) => signal(&named(node, process)?, Signal::STOP),
        Fault::Thaw => signal(&host::processes(node), Signal::CONT),
    }
    Ok(())
}

fn slow(netns: &str, kilobits: u64) -> Result<(), LabError> {
    hasten(netns);
    let words =
        format!("tc qdisc add dev eth0 root tbf rate {kilobits}kbit burst 32k latency 400ms");
    run(inside(netns).args(words.split(' '))).map(drop)
}

/// What was not slow need not be hastened.
fn hasten(netns: &str) {
    let _ = run(inside(netns).args("tc qdisc del dev eth0 root".split(' ')));
}

/// The rules of a host that is cut off from all but these, and itself.
fn rules(peers: &BTreeSet<Ipv4Addr>) -> String {
    let list = peers.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
    let but = |side: &str| match peers.is_empty() {
        true => String::new(),
        false => format!("ip {side} {{ {list} }} accept; "),
    };
    format!(
        "table inet cut {{\n chain in {{ type filter hook input priority -300; iif lo accept; {}drop; }}\n chain out {{ type filter hook output priority -300; oif lo accept; {}drop; }}\n}}\n",
        but("saddr"),
        but("daddr")
    )
}

fn cut(netns: &str, peers: &BTreeSet<Ipv4Addr>) -> Result<(), LabError> {
    heal(netns);
    let mut nft = inside(netns)
        .args(["nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io("nft"))?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(rules(peers).as_bytes()).map_err(io("nft"))?;
    }
    let output = nft.wait_with_output().map_err(io("nft"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(LabError::Failed {
            command: "nft -f -".into(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
    }
}

/// What was not cut need not be healed.
fn heal(netns: &str) {
    let _ = run(inside(netns).args(["nft", "delete", "table", "inet", "cut"]));
}

fn signal(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // One that has ended meanwhile needs none.
        let _ = kill_process(pid, signal);
    }
}

/// Stops everything, also what was started while others were being stopped.
fn freeze(node: &Node) {
    let mut stopped = BTreeSet::new();
    loop {
        let pids = host::processes(node);
        let further: Vec<i32> = pids.into_iter().filter(|pid| stopped.insert(*pid)).collect();
        if further.is_empty() {
            return;
        }
        signal(&further, Signal::STOP);
    }
}

/// The processes of a host with this name, by the machine's numbers: of ours `edge`, `agent` …, of others the program's.
fn named(node: &Node, process: &str) -> Result<Vec<i32>, LabError> {
    let is_it = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_called(&arguments, process)
    };
    let pids: Vec<i32> = host::processes(node).into_iter().filter(is_it).collect();
    match pids.is_empty() {
        true => Err(LabError::Wish(format!("host `{}` runs no `{process}`", node.name))),
        false => Ok(pids),
    }
}

/// Whether a command line, as the kernel shows it, is that of a program of ours or others with this name.
fn is_called(arguments: &[u8], process: &str) -> bool {
    let mut words = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    // Some write what they are at behind their name: `php-fpm: pool blog-1`.
    let program = program.split(' ').next().unwrap_or_default().trim_end_matches(':');
    match program.rsplit('/').next() {
        Some("pressroom") => words.next().is_some_and(|word| word == process),
        name => name == Some(process),
    }
}

/// Ends a lab, or what is left of one: nothing of it is there afterwards, nor of the hosts' data. `forget` is told each data
/// directory before it is deleted, for what the machine has of it elsewhere.
pub fn down(folder: &Path, forget: impl Fn(&Path)) -> Result<(), LabError> {
    let turn = match Lab::turn(folder) {
        // It may have ended before.
        Err(LabError::None(_)) => return Ok(()),
        turn => turn?,
    };
    let mut lab = match Lab::read(folder) {
        Err(LabError::None(_)) => return Ok(()),
        read => read?,
    };
    for node in &mut lab.nodes {
        host::kill(node)?;
    }
    host::take_away(&lab)?;
    for node in &lab.nodes {
        forget(&node.data);
    }
    up::each(&lab.nodes.iter().collect::<Vec<_>>(), |node| {
        pressroom_runtime::tree::remove(&node.data).map_err(io(node.data.display().to_string()))
    })?;
    // What says that there is a lab goes last.
    for path in ["admin-password", ".admin-password.new", "lab.json"].map(|name| folder.join(name))
    {
        pressroom_runtime::tree::remove(&path).map_err(io(path.display().to_string()))?;
    }
    drop(turn);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_zone_keeps_its_own_connections_and_a_cut_host_none() {
        let peers = BTreeSet::from([Ipv4Addr::new(10, 64, 0, 1), Ipv4Addr::new(10, 64, 0, 4)]);
        let zone = rules(&peers);
        assert!(zone.contains("ip saddr { 10.64.0.1, 10.64.0.4 } accept; drop;"), "{zone}");
        assert!(zone.contains("ip daddr { 10.64.0.1, 10.64.0.4 } accept; drop;"), "{zone}");
        let host = rules(&BTreeSet::new());
        assert!(host.contains("iif lo accept; drop;"), "{host}");
        assert!(host.contains("oif lo accept; drop;"), "{host}");
    }

    #[test]
    fn processes_are_known_by_what_they_are_and_not_by_what_they_were_given() {
        let check = |line: &str, name: &str, expected: bool| {
            let arguments = line.replace('|', "\0");
            assert_eq!(is_called(arguments.as_bytes(), name), expected, "{line} as {name}");
        };
        check("/usr/bin/pressroom|edge|--data|/d", "edge", true);
        check("/usr/bin/pressroom|agent|--data|/edge", "edge", false);
        check("/usr/sbin/mariadbd|--defaults-file=x", "mariadbd", true);
        check("/usr/bin/etcd|--name|edge", "etcd", true);
        check("php-fpm: pool blog-1", "php-fpm", true);
        check("/usr/bin/redis-server unixsocket:/r.sock", "redis-server", true);
        check("php-fpm: master process (/d/fpm.conf)", "php-fpm", true);
        check("cat|/usr/bin/etcd", "etcd", false);
        check("", "edge", false);
    }
}
