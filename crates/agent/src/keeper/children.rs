//! The table of processes: what runs, what was asked of it, and what is due when.
//!
//! Times come in; signals go out here and nowhere else. A process of our own cannot be mistaken (it stays a zombie until reaped); an
//! adopted one is signalled and watched through its pidfd.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use pressroom_model::confinement::{Access, Place, View};
use pressroom_model::process::{Exit, ProcessSpec, ProcessState, Restart};
use pressroom_runtime::clock;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::restart::{self, Backoff};
use super::stop_order::{Running, next_to_stop};
use super::{listeners, state};

/// Why something cannot be done to a process.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    /// A spec that makes no sense.
    #[error("process `{name}`: {what} `{value}` {because}")]
    Spec {
        /// The process.
        name: String,
        /// Which part of the spec.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        because: &'static str,
    },
    /// No such process.
    #[error("there is no process `{name}`")]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// It must have ended first.
    #[error("`{name}` (pid {pid}) still {doing}; {advice}")]
    Busy {
        /// The process.
        name: String,
        /// Its process id.
        pid: i32,
        /// What it does.
        doing: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// It must run.
    #[error("`{name}` does not run")]
    Ended {
        /// The process.
        name: String,
    },
    /// The system would not deliver a signal.
    #[error("cannot send signal {signal} to `{name}`: {source}")]
    Signal {
        /// The process.
        name: String,
        /// The signal's number.
        signal: i32,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// One process of the table.
pub(super) struct Child {
    pub(super) order: u64,
    pub(super) state: ProcessState,
    pub(super) ticks: u64,
    /// Of an adopted process: readable once it has ended.
    pub(super) adopted: Option<OwnedFd>,
    /// What the next start uses instead of `state.spec`.
    pub(super) next: Option<ProcessSpec>,
    began: Instant,
    heard: Instant,
    backoff: Backoff,
    kill_at: Option<Instant>,
    restart_at: Option<Instant>,
}

impl Child {
    /// A process that a former keeper started.
    pub(super) fn adopted(stored: state::Process, pidfd: OwnedFd, now: Instant) -> Self {
        let grace = grace(&stored.state.spec);
        let kill_at = stored.state.is_stopping.then(|| now + grace);
        Self { adopted: Some(pidfd), kill_at, ..Self::ended(stored, now) }
    }

    /// One that is only remembered.
    pub(super) fn ended(stored: state::Process, now: Instant) -> Self {
        let state::Process { order, ticks, state } = stored;
        let (backoff, next) = (Backoff::default(), None);
        Self {
            order,
            state,
            ticks,
            adopted: None,
            next,
            began: now,
            heard: now,
            backoff,
            kill_at: None,
            restart_at: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.state.spec.name
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.state.pid.and_then(Pid::from_raw)
    }

    fn send(&self, signal: Signal) -> Result<(), Errno> {
        match (&self.adopted, self.pid()) {
            (Some(pidfd), _) => rustix::process::pidfd_send_signal(pidfd.as_fd(), signal),
            (None, Some(pid)) => rustix::process::kill_process(pid, signal),
            (None, None) => Err(Errno::SRCH),
        }
    }

    fn kill(&self) {
        let _ = self.send(Signal::KILL);
        if let Some(pid) = self.pid() {
            kill_group(pid);
        }
    }
}

/// How long a process may take to stop; a day is for ever, and more could not be added to a clock.
fn grace(spec: &ProcessSpec) -> Duration {
    Duration::from_millis(spec.stop.grace_ms).min(Duration::from_hours(24))
}

/// Ends a process group; a group that is gone is no error.
pub(super) fn kill_group(leader: Pid) {
    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
}

/// All processes, running and remembered.
#[derive(Default)]
pub(super) struct Children {
    list: Vec<Child>,
}

impl Children {
    pub(super) fn new(list: Vec<Child>) -> Self {
        Self { list }
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Child> {
        self.list.iter().filter(|child| child.state.pid.is_some())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Child> {
        self.list.iter().find(|child| child.name() == name)
    }

    fn get_mut(&mut self, name: &str) -> Result<&mut Child, ProcessError> {
        self.list
            .iter_mut()
            .find(|child| child.name() == name)
            .ok_or_else(|| ProcessError::Unknown { name: name.to_owned() })
    }

    pub(super) fn by_pid(&self, pid: i32) -> Option<&Child> {
        self.list.iter().find(|child| child.state.pid == Some(pid))
    }

    /// The process id if one of that name runs; an error if it is on its way out.
    pub(super) fn runs(&self, name: &str) -> Result<Option<i32>, ProcessError> {
        let Some((child, pid)) = self.get(name).and_then(|child| Some((child, child.state.pid?)))
        else {
            return Ok(None);
        };
        match child.state.is_stopping {
            false => Ok(Some(pid)),
            true => Err(ProcessError::Busy {
                name: name.to_owned(),
                pid,
                doing: "is stopping",
                advice: "start it again when it has ended",
            }),
        }
    }

    /// Notes a process that was forked; returns what was known of it before.
    pub(super) fn begin(
        &mut self,
        spec: ProcessSpec,
        pid: i32,
        ticks: u64,
        lacks: Vec<String>,
        now: Instant,
    ) -> Option<ProcessState> {
        let former = self.get(&spec.name).map(|child| child.state.clone());
        let (starts, exit) =
            former.as_ref().map_or((0, None), |state| (state.starts, state.exit.clone()));
        let started_ms = clock::wall_ms();
        let state = ProcessState {
            spec,
            pid: Some(pid),
            started_ms,
            starts: starts.saturating_add(1),
            exit,
            is_stopping: false,
            lacks,
        };
        let next_order =
            self.list.iter().map(|child| child.order).max().unwrap_or(0).saturating_add(1);
        match self.list.iter_mut().find(|child| child.name() == state.spec.name) {
            Some(child) => {
                (child.state, child.ticks, child.adopted, child.next) = (state, ticks, None, None);
                (child.began, child.heard, child.kill_at, child.restart_at) =
                    (now, now, None, None);
            }
            None => self
                .list
                .push(Child::ended(state::Process { order: next_order, ticks, state }, now)),
        }
        former
    }

    /// Takes back `begin`: the process never ran its program.
    pub(super) fn never_began(&mut self, name: &str, former: Option<ProcessState>) {
        match (former, self.list.iter().position(|child| child.name() == name)) {
            (Some(former), Some(index)) => self.list[index].state = former,
            (None, Some(index)) => drop(self.list.remove(index)),
            (_, None) => {}
        }
    }

    /// Plans the next start after a failed one.
    pub(super) fn retry_later(&mut self, name: &str, now: Instant) {
        if let Ok(child) = self.get_mut(name) {
            child.restart_at = Some(now + child.backoff.pause(Duration::ZERO));
        }
    }

    /// Remembers that a process has ended. One that the keeper restarts is due again after a pause, unless it was asked to stop.
    pub(super) fn ended(
        &mut self,
        name: &str,
        code: Option<i32>,
        signal: Option<i32>,
        now: Instant,
    ) -> Option<Exit> {
        let child = self.get_mut(name).ok()?;
        let exit =
            Exit { code, signal, at_ms: clock::wall_ms(), was_asked: child.state.is_stopping };
        let lived = now.saturating_duration_since(child.began);
        if child.state.spec.restart == Restart::Always && !exit.was_asked {
            child.restart_at = Some(now + child.backoff.pause(lived));
        }
        (child.adopted, child.kill_at) = (None, None);
        (child.state.pid, child.state.is_stopping, child.state.exit) =
            (None, false, Some(exit.clone()));
        Some(exit)
    }

    /// Asks a process to stop, or kills its group. One that does not run stays as it is, without a planned restart.
    pub(super) fn stop(
        &mut self,
        name: &str,
        kill: bool,
        now: Instant,
    ) -> Result<(), ProcessError> {
        let child = self.get_mut(name)?;
        child.restart_at = None;
        if child.state.pid.is_none() {
            return Ok(());
        }
        let was_asked = std::mem::replace(&mut child.state.is_stopping, true);
        if kill || is_deaf(&child.state) {
            child.kill();
            child.kill_at = None;
        } else if !was_asked {
            child.kill_at = Some(now + grace(&child.state.spec));
            let number = child.state.spec.stop.signal;
            send(child, number)?;
        }
        Ok(())
    }

    pub(super) fn signal(&mut self, name: &str, number: i32) -> Result<(), ProcessError> {
        let child = self.get_mut(name)?;
        if child.state.pid.is_none() {
            return Err(ProcessError::Ended { name: name.to_owned() });
        }
        send(child, number)
    }

    /// Forgets one that has ended. One that is not there is no failure: who asks may have seen it just before it was forgotten.
    pub(super) fn forget(&mut self, name: &str) -> Result<(), ProcessError> {
        let Ok(child) = self.get_mut(name) else { return Ok(()) };
        if let Some(pid) = child.state.pid {
            return Err(ProcessError::Busy {
                name: name.to_owned(),
                pid,
                doing: "runs",
                advice: "stop it first",
            });
        }
        self.list.retain(|child| child.name() != name);
        Ok(())
    }

    /// The process gave a sign of life.
    pub(super) fn heard(&mut self, pid: i32, now: Instant) {
        if let Some(child) = self.list.iter_mut().find(|child| child.state.pid == Some(pid)) {
            child.heard = now;
        }
    }

    /// Silence during a pause of the keeper itself is nobody's fault.
    pub(super) fn forgive(&mut self, now: Instant, gap: Duration) {
        for child in &mut self.list {
            child.heard = restart::heard_after_gap(child.heard, now, gap);
        }
    }

    /// Kills a running process of that name that has been silent for too long; true if it did.
    pub(super) fn kill_if_silent(&mut self, name: &str, now: Instant, allowed: Duration) -> bool {
        let Ok(child) = self.get_mut(name) else { return false };
        let is_dead = child.state.pid.is_some()
            && !child.state.is_stopping
            && restart::is_silent(child.heard, now, allowed);
        if is_dead {
            child.kill();
            child.heard = now; // once; its exit follows
        }
        is_dead
    }

    /// Kills what was asked to stop and had its time; returns the names.
    pub(super) fn kill_late(&mut self, now: Instant) -> Vec<String> {
        let late = self.list.iter_mut().filter(|child| child.kill_at.is_some_and(|at| at <= now));
        let kill = |child: &mut Child| {
            child.kill_at = None;
            child.kill();
            child.name().to_owned()
        };
        late.map(kill).collect()
    }

    /// The specs whose restart is due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ProcessSpec> {
        let due = self.list.iter_mut().filter(|child| child.restart_at.is_some_and(|at| at <= now));
        let spec = |child: &mut Child| {
            child.restart_at = None;
            child.next.clone().unwrap_or_else(|| child.state.spec.clone())
        };
        due.map(spec).collect()
    }

    /// Knows a process that could not be started yet, so that its start can be tried again.
    pub(super) fn remember(&mut self, spec: &ProcessSpec, now: Instant) {
        if self.get(&spec.name).is_none() {
            let state = ProcessState {
                spec: spec.clone(),
                pid: None,
                started_ms: 0,
                starts: 0,
                exit: None,
                is_stopping: false,
                lacks: Vec::new(),
            };
            self.list.push(Child::ended(state::Process { order: 0, ticks: 0, state }, now));
        }
        self.renew(spec);
    }

    /// The next start takes this spec instead of the one it runs with.
    pub(super) fn renew(&mut self, spec: &ProcessSpec) {
        if let Ok(child) = self.get_mut(&spec.name) {
            child.next = Some(spec.clone());
        }
    }

    /// No more restarts.
    pub(super) fn settle(&mut self) {
        self.list.iter_mut().for_each(|child| child.restart_at = None);
    }

    /// The earliest moment at which something here is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.list.iter().flat_map(|child| [child.kill_at, child.restart_at]).flatten().min()
    }

    /// Who is to be asked next while everything stops; see [`next_to_stop`].
    pub(super) fn next_to_stop(&self, agent: &str) -> Vec<String> {
        let running: Vec<Running<'_>> =
            self.running().map(|child| Running::of(child, agent)).collect();
        next_to_stop(running).into_iter().map(str::to_owned).collect()
    }

    pub(super) fn states(&self) -> Vec<ProcessState> {
        self.list.iter().map(|child| child.state.clone()).collect()
    }

    pub(super) fn stored(&self) -> Vec<state::Process> {
        let one = |child: &Child| state::Process {
            order: child.order,
            ticks: child.ticks,
            state: child.state.clone(),
        };
        self.list.iter().map(one).collect()
    }
}

fn send(child: &Child, number: i32) -> Result<(), ProcessError> {
    let name = child.name().to_owned();
    let signal = Signal::from_named_raw(number).ok_or_else(|| ProcessError::Spec {
        name: name.clone(),
        what: "the signal",
        value: number.to_string(),
        because: "does not exist",
    })?;
    match child.send(signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()), // gone: its exit is about to be seen
        Err(errno) => Err(ProcessError::Signal { name, signal: number, source: errno.into() }),
    }
}

/// Everything wrong with a spec that can be said without trying.
pub(super) fn check(spec: &ProcessSpec) -> Result<(), ProcessError> {
    let bad = |what, value: String, because| {
        Err(ProcessError::Spec { name: spec.name.clone(), what, value, because })
    };
    if !listeners::is_name(&spec.name) {
        return bad(
            "the name",
            spec.name.clone(),
            "may have letters, digits, `-`, `_` and `.` only, at most 64",
        );
    }
    for (what, path) in [("the program", &spec.program), ("the output file", &spec.output)] {
        if !path.is_absolute() {
            return bad(what, path.display().to_string(), "is not an absolute path");
        }
    }
    if let Some((place, because)) =
        spec.confinement.as_ref().and_then(|of| fault(of.view.as_ref()?))
    {
        return bad("the place", place.display().to_string(), because);
    }
    if Signal::from_named_raw(spec.stop.signal).is_none() {
        return bad("the stop signal", spec.stop.signal.to_string(), "does not exist");
    }
    if let Some(name) = spec.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return bad("the variable", name.clone(), "is no name for a variable");
    }
    Ok(())
}

/// The kernel drops a signal that would end the first of all processes: one that is asked before it has a handler would never
/// hear of it.
fn is_deaf(state: &ProcessState) -> bool {
    let is_first =
        state.spec.confinement.as_ref().is_some_and(|confinement| confinement.own_processes);
    is_first
        && state.pid.is_some_and(|pid| super::proc_stat::is_default(pid, state.spec.stop.signal))
}

/// A view is built by root: a path that leaves it, or a place in a folder where somebody could put a link, would be a way out.
fn fault(view: &View) -> Option<(&Path, &'static str)> {
    let is_plain = |path: &Path| {
        let mut parts = path.components();
        parts.next() == Some(Component::RootDir)
            && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    // Memory is empty and nobody's until the view is whole.
    let writable = |place: &&Place| matches!(place, Place::Bind { access: Access::Write, .. });
    for (index, place) in view.places.iter().enumerate() {
        if !is_plain(place.to()) || place.to().parent().is_none() {
            return Some((place.to(), "is no absolute path below the root"));
        }
        let before = view.places[..index].iter().filter(writable);
        if before.into_iter().any(|holder| place.to().starts_with(holder.to())) {
            return Some((place.to(), "is in a place that the process can write"));
        }
    }
    (!is_plain(&view.stage)).then_some((view.stage.as_path(), "is no absolute path"))
}
