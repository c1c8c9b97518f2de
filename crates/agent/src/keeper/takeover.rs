//! What a former keeper of this boot left: its processes, if they still are the same ones, and the sockets they inherited.
//!
//! A process is the same when process id and start time agree, checked while a pidfd holds on to it. A socket is found by its inode among
//! the descriptors of the processes that inherited it (or of their group) and copied out with pidfd_getfd.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use pressroom_model::process::Exit;
use pressroom_runtime::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::json;

use super::children::{Child, Children, kill_group};
use super::listeners::{self, Listeners, TakenBack};
use super::{log, port_holder, proc_stat, state};

/// Adopts the processes that live and remembers the others as ended.
pub(super) fn processes(stored: Vec<state::Process>, now: Instant) -> Children {
    Children::new(stored.into_iter().map(|process| adopt(process, now)).collect())
}

fn adopt(mut process: state::Process, now: Instant) -> Child {
    let Some(pid) = process.state.pid else { return Child::ended(process, now) };
    let name = process.state.spec.name.clone();
    if let Some(pidfd) = open_same(pid, process.ticks) {
        log::info("adopted", json!({"name": name, "pid": pid}));
        return Child::adopted(process, pidfd, now);
    }
    log::warn("ended while there was no keeper", json!({"name": name, "pid": pid}));
    kill_rest(pid);
    let was_asked = std::mem::replace(&mut process.state.is_stopping, false);
    process.state.pid = None;
    process.state.exit =
        Some(Exit { code: None, signal: None, at_ms: clock::wall_ms(), was_asked });
    Child::ended(process, now)
}

/// A hold on the process of this id, if it is the one that started then and has not ended.
pub(super) fn open_same(pid: i32, ticks: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(a_pid(pid)?, PidfdFlags::empty()).ok()?;
    let stat = proc_stat::read(pid)?;
    // In this order: had the id been given away between the two, the pidfd's process would have ended.
    (stat.ticks == ticks && !stat.is_zombie && !has_ended(&pidfd)).then_some(pidfd)
}

/// The group of a leader that is gone. Its id cannot belong to another group as long as the old one has members; but if another process
/// has the id by now, the group had none.
pub(super) fn kill_rest(leader: i32) {
    if let (None, Some(pid)) =
        (proc_stat::read(leader).filter(|stat| !stat.is_zombie), a_pid(leader))
    {
        kill_group(pid);
    }
}

/// A file may say anything; neither `init` nor what the system takes for "everybody" is a child of a keeper.
fn a_pid(pid: i32) -> Option<Pid> {
    if pid > 1 { Pid::from_raw(pid) } else { None }
}

/// Whether the process behind a pidfd has ended.
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    !matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// Takes the listening sockets back.
pub(super) fn listeners(stored: Vec<listeners::Stored>, children: &Children) -> Listeners {
    let mut listeners = Listeners::default();
    for one in stored {
        let name = one.spec.name.clone();
        let inheritors: Vec<&Child> =
            children.running().filter(|child| child.state.spec.listeners.contains(&name)).collect();
        let found = inheritors.iter().find_map(|child| sockets_of(child, &one.inodes));
        match listeners.take_back(one, found, !inheritors.is_empty()) {
            Ok(TakenBack::Whole) => log::info("took a listener back", json!({"listener": name})),
            Ok(TakenBack::Anew) => log::info(
                "opened a listener anew: nobody had inherited it",
                json!({"listener": name}),
            ),
            Ok(TakenBack::Deferred) => {
                log::warn(
                    "could not take a listener back; its next inheritor gets new sockets",
                    json!({"listener": name}),
                );
            }
            Err(error) => log::error(
                "lost a listener",
                json!({"listener": name, "because": error.to_string()}),
            ),
        }
    }
    listeners
}

/// Copies of all these sockets, from a process or others of its group; none unless all are there.
fn sockets_of(child: &Child, inodes: &[u64]) -> Option<Vec<OwnedFd>> {
    let leader = child.state.pid?;
    let members = proc_stat::all()
        .filter(|(pid, stat)| stat.group == leader && *pid != leader)
        .map(|(pid, _)| pid);
    std::iter::once(leader).chain(members).find_map(|pid| copy_sockets(pid, inodes))
}

fn copy_sockets(pid: i32, inodes: &[u64]) -> Option<Vec<OwnedFd>> {
    let pidfd = pidfd_open(a_pid(pid)?, PidfdFlags::empty()).ok()?;
    let open = port_holder::descriptors(pid);
    let copy = |wanted: &u64| {
        let (descriptor, _) = open.iter().find(|(_, inode)| inode == wanted)?;
        let copied = pidfd_getfd(pidfd.as_fd(), *descriptor, PidfdGetfdFlags::empty());
        let socket = copied
            .inspect_err(|errno| {
                log::warn(
                    "cannot copy a socket",
                    json!({"pid": pid, "because": errno.to_string()}),
                );
            })
            .ok()?;
        (listeners::inode(&socket) == Some(*wanted)).then_some(socket)
    };
    if inodes.is_empty() { None } else { inodes.iter().map(copy).collect() }
}
