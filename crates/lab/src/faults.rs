//! What can be done to hosts.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{self, inside};
use crate::lab::Lab;
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

/// Does it.
pub fn strike(folder: &Path, whom: &str, fault: &Fault) -> Result<(), LabError> {
    let mut lab = Lab::read(folder)?;
    let meant = lab.meant(whom)?;
    let peers: BTreeSet<String> = match whom.starts_with("zone:") {
        true => meant.iter().map(|at| lab.nodes[*at].address.to_string()).collect(),
        false => BTreeSet::new(),
    };
    for at in &meant {
        let node = &mut lab.nodes[*at];
        match fault {
            Fault::Cut => cut(&node.netns, &peers)?,
            Fault::Heal => heal(&node.netns),
            Fault::Slow(kilobits) => {
                let _ = run(inside(&node.netns).args("tc qdisc del dev eth0 root".split(' ')));
                let words = format!(
                    "tc qdisc add dev eth0 root tbf rate {kilobits}kbit burst 32k latency 400ms"
                );
                run(inside(&node.netns).args(words.split(' ')))?;
            }
            Fault::Kill => host::kill(node),
            Fault::Start => host::begin(node)?,
            Fault::Freeze(None) => signal(&host::processes(node), Signal::STOP),
            Fault::Freeze(Some(process)) => signal(&[named(node, process)?], Signal::STOP),
            Fault::Thaw => signal(&host::processes(node), Signal::CONT),
        }
    }
    lab.write(folder)?;
    if *fault == Fault::Start {
        let nodes: Vec<_> = meant.iter().map(|at| &lab.nodes[*at]).collect();
        up::start_all(&nodes)?;
    }
    Ok(())
}

fn cut(netns: &str, peers: &BTreeSet<String>) -> Result<(), LabError> {
    heal(netns);
    let but = |side: &str| match peers.is_empty() {
        true => String::new(),
        false => {
            let list = peers.iter().cloned().collect::<Vec<_>>().join(", ");
            format!("ip {side} {{ {list} }} accept; ether type arp accept; ")
        }
    };
    let (from, to) = (
        but("saddr").replace("ether type arp accept; ", ""),
        but("daddr").replace("ether type arp accept; ", ""),
    );
    let rules = format!(
        "table inet cut {{\n chain in {{ type filter hook input priority -300; iif lo accept; {from}drop; }}\n chain out {{ type filter hook output priority -300; oif lo accept; {to}drop; }}\n}}\n"
    );
    let mut nft = inside(netns)
        .args(["nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io("nft"))?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(rules.as_bytes()).map_err(io("nft"))?;
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
    let _ = run(inside(netns).args("tc qdisc del dev eth0 root".split(' ')));
}

fn signal(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // One that has ended meanwhile needs none.
        let _ = kill_process(pid, signal);
    }
}

/// The process that a host's keeper has under this name, by the machine's number.
fn named(node: &crate::lab::Node, process: &str) -> Result<i32, LabError> {
    let unknown = || LabError::Wish(format!("host `{}` runs no `{process}`", node.name));
    for pid in host::processes(node) {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let program = words.next().unwrap_or_default().into_owned();
        let is_ours =
            words.next().is_some_and(|word| word == process) && program.ends_with("pressroom");
        if is_ours || program.rsplit('/').next() == Some(process) {
            return Ok(pid);
        }
    }
    Err(unknown())
}

/// Ends a lab: nothing of it is left but its hosts' data directories, unless `keep` says otherwise.
pub fn down(folder: &Path, keep: bool) -> Result<(), LabError> {
    let mut lab = match Lab::read(folder) {
        // It may have ended before.
        Err(LabError::None(_)) => return Ok(()),
        read => read?,
    };
    for node in &mut lab.nodes {
        signal(&host::processes(node), Signal::CONT);
        host::kill(node);
    }
    let netns = lab.nodes.iter().map(|node| &node.netns).chain([&lab.client.netns]);
    for netns in netns {
        // Its end of the cable, and with it ours, goes with it.
        let _ = run(Command::new("ip").args(["netns", "del", netns]));
    }
    let _ = run(Command::new("ip").args(["link", "del", &lab.bridge()]));
    if !keep {
        for node in &lab.nodes {
            match pressroom_runtime::tree::remove(&node.data) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io(node.data.display().to_string())(error));
                }
                _ => {}
            }
        }
    }
    let path = folder.join("lab.json");
    std::fs::remove_file(&path).map_err(io(path.display().to_string()))
}
